"""The loop of a run: plan minus store, run it, look again, until nothing is left to try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.listener import Listener
from study.local import run_local
from study.lock import StudyLock
from study.plan import Plan, PlannedTrial
from study.progress import Display
from study.spec import Resources
from study.tracking import Tracker
from trainables.errors import DamagedEntry, StudyIsRunning
from trainables.store import Store
from trainables.trial import Report

ROUNDS = 3  # a damaged result is made anew in the next round

Executor = Callable[[Sequence[PlannedTrial], Store, Resources, Listener], None]


@dataclass
class Result:
    """How a run ended.

    Attributes:
        planned: trials of the study.
        failed: reasons by trial id.
    """

    planned: int
    failed: dict[str, str] = field(default_factory=dict)


def run_study(
    plan: Plan,
    *,
    store: Store,
    tracking_uri: str,
    artifacts: Path,
    command: str,
    local: bool,
    display: Display,
) -> Result:
    """Trains and attacks everything of a plan that the store lacks, and tracks it.

    Raises:
        StudyIsRunning: another driver holds the study.
    """
    with StudyLock(store, plan.name) as lock:
        tracker = Tracker(tracking_uri, plan, store, artifacts, command)
        watcher = _Watcher(plan, store, tracker, display, lock)
        try:
            left = watcher.left()
            for _ in range(ROUNDS):
                if not left:
                    break
                display.start(left)
                _executor(local)(left, store, plan.study.resources, watcher)
                left = watcher.left()
            for trial in left:
                watcher.lost(trial.id, f"no result after {ROUNDS} rounds")
        finally:
            tracker.stopped()
            display.stop()
        return watcher.result


def _executor(local: bool) -> Executor:
    if local:
        return run_local
    from study.launch import run_on_ray  # Ray takes a second to import: only when it runs

    return run_on_ray


def is_complete(trial: PlannedTrial, store: Store) -> bool:
    """Whether every cell of a trial has a result."""
    return set(trial.cell_ids.values()) <= store.entries(f"outcomes/{trial.id}")


class _Watcher:
    """Tracks and shows what the workers report."""

    def __init__(
        self, plan: Plan, store: Store, tracker: Tracker, display: Display, lock: StudyLock
    ) -> None:
        self.plan = plan
        self.store = store
        self.tracker = tracker
        self.display = display
        self.lock = lock
        self.result = Result(planned=len(plan.trials))

    def left(self) -> list[PlannedTrial]:
        """Trials still to run; those that are whole but not tracked are tracked now."""
        left = []
        for trial in self.plan.trials:
            if trial.id in self.result.failed:
                continue
            if not is_complete(trial, self.store) or not self._track(trial):
                left.append(trial)
        return left

    def started(self, trial_id: str) -> None:
        trial = self.plan.by_id[trial_id]
        self.tracker.started(trial)
        self.display.started(trial)

    def reported(self, report: Report) -> None:
        if self.lock.lost:
            raise StudyIsRunning(f"study {self.plan.name!r} was taken over by another driver")
        trial = self.plan.by_id[report.trial_id]
        self.tracker.epochs(trial, report.epochs)
        if report.warning:
            self.display.say(report.warning)
        if not report.done:
            self.tracker.flush()
            self.display.reported(report)
            return
        if report.failed:
            self._fail(trial, report.failed)
        else:
            self._track(trial)

    def lost(self, trial_id: str, reason: str) -> None:
        trial = self.plan.by_id[trial_id]
        if not is_complete(trial, self.store):  # a worker that died after its last cell lost none
            self._fail(trial, reason)

    def _fail(self, trial: PlannedTrial, reason: str) -> None:
        self.result.failed[trial.id] = reason
        self.tracker.failed(trial, reason)
        self.display.failed(trial, reason)

    def _track(self, trial: PlannedTrial) -> bool:
        """Projects a finished trial; False where a result turned out to be damaged."""
        if not self.tracker.stale(trial):
            return True
        try:
            summary = self.tracker.finished(trial)
        except DamagedEntry as error:
            self.display.say(str(error))
            return False
        self.display.finished(trial, summary)
        return True
