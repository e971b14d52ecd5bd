"""The Ray adapter's one duty of its own: it computes what the driver means, or refuses."""

from __future__ import annotations

import pytest
import torch

from trainables.attacks.clean import Clean
from trainables.config import Cell, TrialConfig
from trainables.errors import BadPlugin
from trainables.trainable import StudyTrainable


@pytest.fixture
def job(model_config, tmp_path):
    """Makes the job of one model and one cell."""
    model = model_config()
    cell = Cell(probe=Clean(), split="test", n=5)

    def make(**keys):
        return {
            "trial_id": model.id,
            "ids": [model.id, cell.id(model.id)],
            "trial": TrialConfig(model=model, cells=(cell,)).dump(),
            "storage": str(tmp_path),
            "execution": {
                "threads": torch.get_num_threads(),
                "gpu": 0.0,
                "channels_last": False,
                "data": str(tmp_path),
            },
            "plugins": (),
            "seconds": 5.0,
            **keys,
        }

    return make


def test_takes_up_the_trial_of_a_job(job):
    worker = StudyTrainable.__new__(StudyTrainable)
    assert worker.reset_config({"job": job()})
    assert worker.life.id == job()["trial_id"]
    assert not worker.life.execution.channels_last


@pytest.mark.parametrize("place", [0, 1], ids=["model", "cell"])
def test_other_ids_than_the_drivers_are_refused(job, place):
    # As where a plugin's source differs: its numbers must not bear the driver's ids.
    ids = job()["ids"]
    ids[place] = "0" * 16
    worker = StudyTrainable.__new__(StudyTrainable)
    with pytest.raises(BadPlugin, match="has other ids to this worker"):
        worker.reset_config({"job": job(ids=ids)})


def test_plugins_are_loaded_first(job):
    worker = StudyTrainable.__new__(StudyTrainable)
    with pytest.raises(BadPlugin, match="cannot import plugin 'no_such_package'"):
        worker.reset_config({"job": job(plugins=("no_such_package",), trial="not read")})
