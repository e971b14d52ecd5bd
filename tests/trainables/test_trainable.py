"""The Ray adapter's one duty of its own: it computes what the driver means, or refuses."""

from __future__ import annotations

import json

import pytest
import torch

from trainables.attacks.clean import Clean
from trainables.config import Cell, TrialConfig
from trainables.errors import BadPlugin, NotShared
from trainables.store import Store
from trainables.trainable import StudyTrainable


@pytest.fixture
def job(model_config, tmp_path):
    """Makes the job of a pack of two models, with one cell each."""
    cell = Cell(probe=Clean(), split="test", n=5)
    dataset = {"name": "mnist5k", "subset": {"train": 20, "validation": 10}}
    models = [
        model_config(loss, dataset=dataset, epochs=1, batch_size=20) for loss in ("sce", "isce")
    ]
    trials = [
        {
            "trial_id": model.id,
            "ids": [model.id, cell.id(model.id)],
            "trial": TrialConfig(model=model, cells=(cell,)).dump(),
        }
        for model in models
    ]

    def make(**keys):
        return {
            "trials": trials,
            "packing": 2,
            "storage": str(tmp_path),
            "witness": None,
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


def test_takes_up_the_trials_of_a_job_and_reports_each(job):
    worker = StudyTrainable.__new__(StudyTrainable)
    assert worker.reset_config({"job": job()})
    ids = [trial["trial_id"] for trial in job()["trials"]]
    assert [life.id for life in worker.life.left] == ids
    assert not worker.life.left[0].execution.channels_last
    results = []
    while not results or not results[-1]["done"]:
        results.append(worker.step())
    told = [[report["trial_id"] for report in result["reports"]] for result in results]
    assert told == [ids, ids[:1], ids[1:]]
    assert [result["reports"][-1]["done"] for result in results] == [False, True, True]
    assert json.loads(json.dumps(results)) == results  # plain data


@pytest.mark.parametrize("place", [0, 1], ids=["model", "cell"])
def test_other_ids_than_the_drivers_are_refused(job, place):
    # As where a plugin's source differs: its numbers must not bear the driver's ids.
    trials = job()["trials"]
    trials[-1]["ids"][place] = "0" * 16
    worker = StudyTrainable.__new__(StudyTrainable)
    with pytest.raises(BadPlugin, match=f"{trials[-1]['trial_id']} has other ids to this worker"):
        worker.reset_config({"job": job(trials=trials)})


def test_looks_for_the_drivers_witness_in_its_store(job, tmp_path):
    # A folder of the same name on a machine that shares no storage with the driver's.
    worker = StudyTrainable.__new__(StudyTrainable)
    with pytest.raises(NotShared, match="no witness/of-the-driver there"):
        worker.reset_config({"job": job(witness="witness/of-the-driver")})
    Store(str(tmp_path)).put("witness/of-the-driver", b"")
    assert worker.reset_config({"job": job(witness="witness/of-the-driver")})


def test_plugins_are_loaded_first(job):
    worker = StudyTrainable.__new__(StudyTrainable)
    with pytest.raises(BadPlugin, match="cannot import plugin 'no_such_package'"):
        worker.reset_config({"job": job(plugins=("no_such_package",), trials="not read")})
