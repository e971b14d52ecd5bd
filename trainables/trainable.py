"""The Ray adapter: a class trainable whose actor is reused from pack to pack.

Starting an actor imports torch (seconds); resetting one costs milliseconds.
"""

from __future__ import annotations

import math
import platform
from dataclasses import asdict
from typing import Any

from ray import tune

from trainables.config import TrialConfig
from trainables.errors import BadPlugin, NotShared
from trainables.execution import Execution, prepare
from trainables.memory import Memory, measured
from trainables.packing import Pack
from trainables.registry import load_plugin
from trainables.store import PATIENCE, Store
from trainables.training import watched


class StudyTrainable(tune.Trainable):
    """Advances one `Pack` a slice at a time; Tune's own checkpoints are not used.

    Its configuration is `{job: {trials: [{trial_id, ids: of the model and its cells, trial:
    TrialConfig as JSON}], packing: see `Pack`, storage: the store's address, witness: a file
    there, or nothing, execution: what `prepare` takes, plugins: packages to import first,
    seconds: of work between two reports}}`.

    Raises:
        NotShared: the store of this machine is not the driver's.
        BadPlugin: its code is not the driver's.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Cores and a share of a GPU, as the job has them."""
        asked = config["job"]["execution"]
        return tune.PlacementGroupFactory([{"CPU": asked["threads"], "GPU": asked["gpu"]}])

    def setup(self, config: dict[str, Any]) -> None:
        """Called once an actor."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called for each further pack of a reused actor."""
        job = new_config["job"]
        execution = _prepared(job)
        if job["witness"]:
            require_witness(job["storage"], job["witness"])
        trials = [_parsed(**trial) for trial in job["trials"]]
        self.seconds = job["seconds"]
        store = Store(job["storage"], patience=PATIENCE)
        self.life = Pack(trials, store, execution, job["packing"])
        return True

    def step(self) -> dict[str, Any]:
        """One slice of work; Tune stops the pack when `done` is true."""
        first = self.life.left[0]
        reports = self.life.advance(self.seconds)
        history = first.record["history"]
        # What a stop rule goes by; where there is one, packs are of one.
        told = {
            "epoch": len(history),
            "accuracy": watched(history[-1]) if history else math.nan,
        }
        return {
            "reports": [asdict(report) for report in reports],
            "done": self.life.done,
            **told,
        }


def require_witness(storage: str, witness: str) -> None:
    """Looks for the driver's own file in the store, as it is seen from here.

    Raises:
        NotShared: it is not there.
    """
    try:
        Store(storage, patience=PATIENCE).get(witness)
    except FileNotFoundError as error:
        raise NotShared.by(platform.node(), storage, f"no {witness} there") from error


def memory_of(job: dict[str, Any]) -> tuple[Memory, dict[str, str]]:
    """What kinds of work take of this worker's device, which it has for itself.

    Args:
        job: `{wanted: TrialConfig as JSON by kind, storage, execution, plugins}`, see
            `trainables.memory.measured`, whose result it is.
    """
    execution = _prepared(job)
    wanted = {kind: TrialConfig.parse(trial) for kind, trial in job["wanted"].items()}
    return measured(wanted, Store(job["storage"], patience=PATIENCE), execution)


def _prepared(job: dict[str, Any]) -> Execution:
    for plugin in job["plugins"]:
        load_plugin(plugin)
    return prepare(**job["execution"], storage=job["storage"])


def _parsed(trial_id: str, ids: list[str], trial: str) -> TrialConfig:
    config = TrialConfig.parse(trial)
    if ids != [config.model.id, *(cell.id(config.model.id) for cell in config.cells)]:
        raise BadPlugin(
            f"trial {trial_id} has other ids to this worker: its code, or a plugin's, "
            "is not the driver's"
        )
    return config
