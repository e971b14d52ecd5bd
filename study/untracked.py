"""In the place of a `Tracker` where MLflow is somebody else's to write: it only reads results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from study.planned import Plan, PlannedTrial
from study.results import read_outcome, worst
from study.tracking import Summary
from trainables import names
from trainables.store import Store


class Untracked:
    """What a shard has for a tracker: MLflow has one writer, and shards are several.

    Args:
        plan: the study's plan.
        store: where results are.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan = plan
        self.store = store
        self._taken_up = set[str]()

    def started(self, trial: PlannedTrial) -> None:
        """A trial whose results are to be told when it ends."""
        self._taken_up.add(trial.id)

    def epochs(self, trial: PlannedTrial, epochs: Iterable[Mapping[str, float]]) -> None:
        """They are in the store."""

    def finished(self, trial: PlannedTrial) -> Summary:
        """What is told of a trial.

        Raises:
            DamagedEntry: an outcome is damaged; it is set aside, to be measured again.
        """
        outcomes = {
            name: read_outcome(self.store, trial.id, cell_id)
            for name, cell_id in trial.cell_ids.items()
        }
        self._taken_up.discard(trial.id)
        headline = self.plan.protocol(trial).headline[names.TEST]
        return Summary(
            clean=outcomes[names.clean_name(names.TEST)].accuracy,
            robust=worst([outcomes[name] for name in headline]),
        )

    def given_up(self, trial: PlannedTrial, epoch: int) -> None:
        """A shard searches nothing."""

    def failed(self, trial: PlannedTrial, reason: str) -> None:
        """It is in the store."""

    def shows_failure(self, trial: PlannedTrial, reason: str) -> bool:
        """Nothing is shown."""
        return False

    def stale(self, trial: PlannedTrial) -> bool:
        """Whether its end has still to be told."""
        return trial.id in self._taken_up

    def stopped(self) -> None:
        """Nothing is left behind."""
