"""The loop of a run: plan minus store, run it, look again, until nothing is left to try."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.exceptions import MlflowException

from study.choice import with_choices
from study.interrupts import uninterrupted
from study.listener import Listener
from study.local import run_local
from study.lock import StudyLock
from study.plan import Plan, PlannedTrial
from study.progress import Display
from study.shard import Shard
from study.site import Site
from study.tracking import Tracker
from study.untracked import Untracked
from trainables.errors import BrokenInvariant, DamagedEntry, StudyIsRunning
from trainables.store import Store
from trainables.trial import Report, failure_of, note_failure, record_of

ROUNDS = 3  # what lost its worker, or is damaged, is made anew in the next round
WAVES = 2  # cells that need another model are measured when all models are there

Executor = Callable[[Sequence[PlannedTrial], Site, Listener], None]


@dataclass
class Result:
    """How a run ended.

    Attributes:
        planned: trials that were to be run.
        failed: reasons by trial id.
        waiting: ids of those that need the models of trials that were not to be run.
    """

    planned: int
    failed: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)


def run_study(
    plan: Plan,
    *,
    store: Store,
    data: str,
    tracking_uri: str,
    artifacts: Path,
    command: str,
    local: bool,
    display: Display,
    only: Collection[str] | None = None,
    shard: Shard | None = None,
) -> Result:
    """Trains and attacks everything of a plan that the store lacks, and tracks it.

    Args:
        plan: what is wanted.
        store: where results are kept.
        data: folder of the downloaded data sets.
        tracking_uri: MLflow's.
        artifacts: folder for artifacts where that is a database.
        command: how the study was started, for the report.
        local: whether in this process, without Ray.
        display: shows how it goes.
        only: ids of the trials to run; all where it is not given.
        shard: a slice of them to run in this process while others run theirs; it tracks nothing.

    Raises:
        StudyIsRunning: another driver holds the study.
        MissingData, DamagedData: a data set cannot be had; nothing is started.
    """
    site = Site(store, data, plan.resources, plan.plugins)

    def complete(plan: Plan, failed: Mapping[str, str]) -> Result:
        tracker = (
            Untracked(plan, store)
            if shard
            else Tracker(tracking_uri, plan, store, artifacts, command)
        )
        here = site
        with _watching(plan, store, tracker, display, lock, ours) as watcher:
            watcher.result.failed |= failed
            left = watcher.left()
            for _ in range(ROUNDS + WAVES - 1):
                if not left:
                    break
                display.start(left)
                _executor(local or shard is not None)(left, here, watcher)
                here = here.roomier if watcher.starved else here
                left = watcher.left()
                if all(map(watcher.waits, left)):
                    break
            watcher.end(left)
        return watcher.result

    ours = frozenset(plan.by_id if only is None else only)
    ours = shard.of(ours) if shard else ours
    with StudyLock(store, plan.name, shard) as lock:
        plan = with_choices(plan, store)
        missing = [t for t in plan.trials if t.id in ours and not is_complete(t, store)]
        _fetch(missing, Path(data).expanduser())
        result = complete(plan, failed={})
        chosen = with_choices(plan, store, result.failed)
        if all(chosen.by_id[id] == plan.by_id[id] for id in ours):
            return result
        display.say("validation has chosen: what it chose is audited whole")
        return complete(chosen, result.failed)


def sync_study(
    plan: Plan,
    *,
    store: Store,
    tracking_uri: str,
    artifacts: Path,
    command: str,
    display: Display,
) -> int:
    """Tracks anew what the store holds of a plan and MLflow does not show; trains nothing.

    Returns:
        How many of its trials lack results.

    Raises:
        StudyIsRunning: a driver holds the study, and tracks it as it goes.
    """
    with StudyLock(store, plan.name) as lock:
        plan = with_choices(plan, store)
        tracker = Tracker(tracking_uri, plan, store, artifacts, command)
        everything = frozenset(plan.by_id)
        with _watching(plan, store, tracker, display, lock, everything) as watcher:
            left = watcher.left()
            for trial in left:
                watcher.recall(trial)
            return len(left)


def _fetch(trials: Sequence[PlannedTrial], folder: Path) -> None:
    """Brings the data that trials need to this machine, or says why not, before any starts."""
    datasets = [trial.model.dataset for trial in trials]
    for dataset in {type(dataset): dataset for dataset in datasets}.values():
        dataset.fetch(folder)


def _executor(local: bool) -> Executor:
    if local:
        return run_local
    from study.launch import run_on_ray  # Ray takes a second to import: only when it runs

    return run_on_ray


def is_complete(trial: PlannedTrial, store: Store) -> bool:
    """Whether every cell of a trial has a result."""
    return trial.result_ids <= store.entries(f"outcomes/{trial.id}")


class _Watcher:
    """Tracks and shows what the workers report."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        tracker: Tracker | Untracked,
        display: Display,
        lock: StudyLock,
        ours: Collection[str],
    ) -> None:
        self.plan = plan
        self.trials = [trial for trial in plan.trials if trial.id in ours]
        self.ours = ours
        self.store = store
        self.tracker = tracker
        self.display = display
        self.lock = lock
        self.result = Result(planned=len(self.trials))
        self.losses: dict[str, tuple[str, str]] = {}  # why a trial is tried again, and details
        self.tries = Counter[str]()  # how often each was taken up
        self.waiting = set[str]()  # that have done all but what needs another model
        self.starved = False  # whether any had too little memory

    def left(self) -> list[PlannedTrial]:
        """Trials still to run; those that are whole but not tracked are tracked now."""
        left: dict[str, PlannedTrial] = {}
        for trial in self.trials:
            if trial.id in self.result.failed:
                continue
            if not is_complete(trial, self.store) or not self._track(trial):
                left[trial.id] = trial
        left |= {trial.id: trial for trial in self._lost_sources(left.values())}
        return list(left.values())

    def _lost_sources(self, left: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
        """Whole trials whose model others need and the store has lost: to be trained again."""
        for source in {source for trial in left for source in trial.sources} & set(self.ours):
            trial = self.plan.by_id[source]
            if trial.id not in self.result.failed and not self.store.has(f"models/{source}"):
                yield trial

    def waits(self, trial: PlannedTrial) -> bool:
        """Whether nothing can be done for a trial before somebody else has trained a model."""
        others = trial.sources.difference(self.ours)
        absent = any(not self.store.has(f"models/{source}") for source in others)
        return trial.id in self.waiting and absent

    def end(self, left: Sequence[PlannedTrial]) -> None:
        """Counts what is still without a result, or without a run, as failed."""
        self.result.waiting = [trial.id for trial in left if self.waits(trial)]
        for trial in left:
            if trial.id in self.result.waiting:
                continue
            why, details = self.losses.get(trial.id, ("its results were damaged", ""))
            reason = f"no result after {self.tries[trial.id]} tries: {why}"
            note_failure(self.store, trial.id, reason, details)
            self._fail(trial, reason)
        for trial in self.trials:
            done = trial.id not in (*self.result.failed, *self.result.waiting)
            if done and self.tracker.stale(trial):
                self._fail(trial, "its results are there, but MLflow did not take them")

    def started(self, trial_id: str) -> None:
        trial = self.plan.by_id[trial_id]
        self.tries[trial_id] += 1
        self.waiting.discard(trial_id)
        self.lock.doing = trial_id
        self.display.started(trial)
        with self._tracking():
            self.tracker.started(trial)

    def reported(self, report: Report) -> None:
        if self.lock.lost:
            raise StudyIsRunning(f"study {self.plan.name!r} was taken over by another driver")
        trial = self.plan.by_id[report.trial_id]
        if report.warning:
            self.display.say(report.warning)
        with self._tracking():
            self.tracker.epochs(trial, report.epochs)
        if not report.done:
            self.display.reported(report)
            return
        if report.failed:
            self._fail(trial, report.failed)
        elif report.starved:
            self.starved = True
            self.lost(trial.id, report.starved)
        elif report.waits:
            self.losses[trial.id] = "it needs another model, which could not be trained", ""
            self.waiting.add(trial.id)
            self.display.waits(trial)
        elif not is_complete(trial, self.store):
            self.lost(trial.id, "its worker's results bear other ids: is its code another version?")
        else:
            self._track(trial)

    def lost(self, trial_id: str, reason: str, details: str = "") -> None:
        trial = self.plan.by_id[trial_id]
        if not is_complete(trial, self.store):  # a worker that died after its last cell lost none
            self.losses[trial_id] = reason, details
            self.display.lost(trial, reason)

    def recall(self, trial: PlannedTrial) -> None:
        """Tracks again that a trial has failed, where the store says so."""
        record = record_of(self.store, trial.id)
        failure = failure_of(record)
        if failure is not None and not self.tracker.shows_failure(trial, failure["reason"]):
            with self._tracking():
                self.tracker.epochs(trial, record["history"])
                self.tracker.failed(trial, failure["reason"])

    def _fail(self, trial: PlannedTrial, reason: str) -> None:
        self.result.failed[trial.id] = reason
        self.display.failed(trial, reason)
        with self._tracking():
            self.tracker.failed(trial, reason)

    def _track(self, trial: PlannedTrial) -> bool:
        """Projects a finished trial; False where a result turned out to be damaged."""
        if not self.tracker.stale(trial):
            return True
        try:
            with self._tracking():
                self.display.finished(trial, self.tracker.finished(trial))
        except DamagedEntry as error:
            self.display.say(str(error))
            return False
        except BrokenInvariant as error:
            self._fail(trial, f"its outcomes contradict each other, a bug of ours: {error}")
        return True

    @contextlib.contextmanager
    def _tracking(self) -> Iterator[None]:
        """MLflow is a projection: where it fails for a while, the study goes on."""
        try:
            with uninterrupted():
                yield
        except MlflowException as error:
            self.display.say(f"MLflow did not take it, tried again at the end: {error.message}")


@contextlib.contextmanager
def _watching(
    plan: Plan,
    store: Store,
    tracker: Tracker | Untracked,
    display: Display,
    lock: StudyLock,
    ours: Collection[str],
) -> Iterator[_Watcher]:
    """A watcher, at whose end nothing is left that looks as if it went on."""
    try:
        yield _Watcher(plan, store, tracker, display, lock, ours)
    finally:
        display.stop()
        if not lock.lost:  # else the runs are somebody else's now
            tracker.stopped()
