"""The Ray adapter: a class trainable whose actor is reused from trial to trial.

Starting an actor imports torch (seconds); resetting one costs milliseconds.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ray import tune

from trainables.config import TrialConfig
from trainables.store import Store
from trainables.trial import Trial, prepare


class StudyTrainable(tune.Trainable):
    """Advances one `Trial` a slice at a time; Tune's own checkpoints are not used.

    Its configuration is `{job: {trial: TrialConfig as JSON, storage: the store's address,
    threads: CPU threads, gpu: share of a GPU}}`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Called once an actor."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called for each further trial of a reused actor."""
        job = new_config["job"]
        device = prepare(threads=job["threads"], gpu=job["gpu"])
        self.life = Trial(TrialConfig.parse(job["trial"]), Store(job["storage"]), device)
        return True

    def step(self) -> dict[str, Any]:
        """One slice of work; Tune stops the trial when `done` is true."""
        report = self.life.advance()
        return {"report": asdict(report), "done": report.done}
