"""The Ray adapter: a class trainable whose actor is reused from trial to trial.

Starting an actor imports torch (seconds); resetting one costs milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from ray import tune

from trainables.config import TrialConfig
from trainables.errors import BadPlugin
from trainables.execution import prepare
from trainables.registry import load_plugin
from trainables.store import Store
from trainables.training import watched
from trainables.trial import Trial


class StudyTrainable(tune.Trainable):
    """Advances one `Trial` a slice at a time; Tune's own checkpoints are not used.

    Its configuration is `{job: {trial_id, ids: of the model and its cells, trial: TrialConfig
    as JSON, storage: the store's address, execution: what `prepare` takes, plugins: packages
    to import first, seconds: of work between two reports}}`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Called once an actor."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called for each further trial of a reused actor."""
        job = new_config["job"]
        for plugin in job["plugins"]:
            load_plugin(plugin)
        execution = prepare(**job["execution"])
        trial = TrialConfig.parse(job["trial"])
        ids = [trial.model.id, *(cell.id(trial.model.id) for cell in trial.cells)]
        if ids != job["ids"]:
            raise BadPlugin(
                f"trial {job['trial_id']} has other ids to this worker: its code, or a plugin's, "
                "is not the driver's"
            )
        self.seconds = job["seconds"]
        self.life = Trial(trial, Store(job["storage"]), execution)
        return True

    def step(self) -> dict[str, Any]:
        """One slice of work; Tune stops the trial when `done` is true."""
        report = self.life.advance(self.seconds)
        history = self.life.record["history"]
        accuracy = watched(history[-1]) if history else math.nan
        told = {"epoch": report.epoch, "accuracy": accuracy}  # what a stop rule goes by
        return {"report": asdict(report), "done": report.done, **told}
