"""The loop of a run: plan minus store, run it, look again, until nothing is left to try."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.exceptions import MlflowException

from study.choice import with_choices
from study.found import with_found
from study.interrupts import uninterrupted
from study.listener import Listener
from study.local import run_local, search_local
from study.lock import StudyLock
from study.plan import Plan, PlannedTrial
from study.progress import Display
from study.references import note
from study.search import COMPLETE, FAILED, STOPPED, Search, searches
from study.site import Site
from study.tracking import Tracker
from trainables.checkpoint import bring
from trainables.config import ModelConfig
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
        planned: trials of the study.
        failed: reasons by trial id.
    """

    planned: int
    failed: dict[str, str] = field(default_factory=dict)


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
) -> Result:
    """Trains and attacks everything of a plan that the store lacks, and tracks it.

    Raises:
        StudyIsRunning: another driver holds the study.
        MissingData, DamagedData: a data set cannot be had; nothing is started.
    """
    site = Site(store, data, plan.resources, plan.plugins)
    failed: dict[str, str] = {}

    def complete(plan: Plan) -> None:
        """All trials of a plan."""
        note(plan, store)
        display.expect(len(plan.trials) + len(plan.candidates))
        tracker = Tracker(tracking_uri, plan, store, artifacts, command)
        here = site
        with _watching(plan, store, tracker, display, lock, failed) as watcher:
            left = watcher.left()
            for _ in range(ROUNDS + WAVES - 1):
                if not left:
                    break
                display.start(left)
                _bring(left, store)
                _executor(local)(left, here, watcher)
                here = (here.roomier if watcher.starved else here).unpacked
                left = watcher.left()
            watcher.end(left)

    def search(plan: Plan, found: Search) -> None:
        """All suggestions of a search."""
        tracker = Tracker(tracking_uri, plan, store, artifacts, command)
        here = site
        with _watching(plan, store, tracker, display, lock, failed) as watcher:
            display.search(found)
            for _ in range(ROUNDS):
                if found.done:
                    break
                _search(found, plan, here, watcher, artifacts.parent, local=local)
                here = here.roomier if watcher.starved else here
            watcher.end(watcher.unended(found))

    with StudyLock(store, plan.name) as lock:
        plan = with_choices(with_found(plan, store), store)
        _fetch(plan, store, Path(data).expanduser())
        complete(plan)
        unfinished = [found for found in searches(plan, store) if not found.done]
        for found in unfinished:
            search(plan, found)
        if unfinished:
            plan = with_found(plan, store)
            complete(plan)
        chosen = with_choices(plan, store, failed)
        if chosen.trials != plan.trials:
            display.say("validation has chosen: what it chose is audited whole")
            complete(chosen)
        return Result(planned=len(plan.trials) + len(plan.candidates), failed=failed)


def _search(
    found: Search, plan: Plan, site: Site, watcher: _Watcher, folder: Path, *, local: bool
) -> None:
    """One go at all that a search has left."""
    from study.sampler import Sampler  # Optuna too takes a second to import
    from study.searching import Searching

    searching = Searching(found, Sampler(found, folder / "optuna.db"), plan, watcher)
    if local:
        search_local(searching, site)
    else:
        from study.launch import search_on_ray

        search_on_ray(searching, site)


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
        plan = with_choices(with_found(plan, store), store)
        note(plan, store)
        display.expect(len(plan.trials) + len(plan.candidates))
        tracker = Tracker(tracking_uri, plan, store, artifacts, command)
        with _watching(plan, store, tracker, display, lock, {}) as watcher:
            left = watcher.left()
            for trial in left:
                watcher.recall(trial)
            for found in searches(plan, store):
                watcher.track_again(found)
            return len(left)


def _fetch(plan: Plan, store: Store, folder: Path) -> None:
    """Brings the data that trials need to this machine, or says why not, before any starts."""
    missing = [trial.model for trial in plan.trials if not is_complete(trial, store)]
    sought = [end for found in searches(plan, store) if not found.done for end in found.ends]
    fetch([*missing, *sought], folder)


def fetch(models: Iterable[ModelConfig], folder: Path) -> None:
    """Brings the data of models to this machine.

    Raises:
        MissingData, DamagedData: a data set cannot be had.
    """
    for dataset in {type(model.dataset): model.dataset for model in models}.values():
        dataset.fetch(folder)


def _bring(trials: Sequence[PlannedTrial], store: Store) -> None:
    """Puts the checkpoints of trials into the store: workers may not see this machine's files."""
    for trial in trials:
        if trial.checkpoint is not None and not store.has(f"models/{trial.id}"):
            bring(trial.model, trial.checkpoint, store)


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
        tracker: Tracker,
        display: Display,
        lock: StudyLock,
        failed: dict[str, str],
    ) -> None:
        self.plan = plan
        self.store = store
        self.tracker = tracker
        self.display = display
        self.lock = lock
        self.failed = failed  # reasons by trial id, of the whole run
        self.trials = dict(plan.by_id)
        self.losses: dict[str, tuple[str, str]] = {}  # why a trial is tried again, and details
        self.tries = Counter[str]()  # how often each was taken up
        self.starved = False  # whether any had too little memory

    def left(self) -> list[PlannedTrial]:
        """Trials still to run; those that are whole but not tracked are tracked now."""
        left: dict[str, PlannedTrial] = {}
        for trial in self.plan.trials:
            if trial.id in self.failed:
                continue
            if not is_complete(trial, self.store) or not self._track(trial):
                left[trial.id] = trial
        left |= {trial.id: trial for trial in self._lost_sources(left.values())}
        return list(left.values())

    def _lost_sources(self, left: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
        """Whole trials whose model others need and the store has lost: to be trained again."""
        for source in {source for trial in left for source in trial.sources}:
            trial = self.plan.by_id[source]
            if trial.id not in self.failed and not self.store.has(f"models/{source}"):
                yield trial

    def end(self, left: Sequence[PlannedTrial]) -> None:
        """Counts what is still without a result, or without a run, as failed."""
        for trial in left:
            why, details = self.losses.get(trial.id, ("its results were damaged", ""))
            reason = f"no result after {self.tries[trial.id]} tries: {why}"
            note_failure(self.store, trial.id, reason, details)
            self._fail(trial, reason)
        for trial in self.plan.trials:
            if trial.id not in self.failed and self.tracker.stale(trial):
                self._fail(trial, "its results are there, but MLflow did not take them")

    def started(self, trial_id: str) -> None:
        trial = self.trials[trial_id]
        self.tries[trial_id] += 1
        self.display.started(trial)
        with self._tracking():
            self.tracker.started(trial)

    def reported(self, report: Report) -> None:
        if self.lock.lost:
            raise StudyIsRunning(f"study {self.plan.name!r} was taken over by another driver")
        trial = self.trials[report.trial_id]
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
            self.losses[trial.id] = "it needs a model that is not there, and could not be made", ""
            self.display.waits(trial)
        elif not is_complete(trial, self.store):
            self.lost(trial.id, "its worker's results bear other ids: is its code another version?")
        else:
            self._track(trial)

    def lost(self, trial_id: str, reason: str, details: str = "") -> None:
        trial = self.trials[trial_id]
        if trial_id in self.failed:
            return  # before another of its pack took the worker with it
        if not is_complete(trial, self.store):  # a worker that died after its last cell lost none
            self.losses[trial_id] = reason, details
            self.display.lost(trial, reason)

    def will_try(self, trial: PlannedTrial) -> None:
        """A search will try it."""
        self.trials[trial.id] = trial

    def tried_before(self, trial: PlannedTrial) -> None:
        """What a search tries has its results already, such as of a grid's point."""
        self.will_try(trial)
        if trial.id not in self.plan.by_id:  # whose run is another's
            self._track(trial)

    def stopped(self, trial_id: str, epoch: int) -> None:
        """A search has given a training up."""
        trial = self.trials[trial_id]
        self.display.given_up(trial, epoch)
        with self._tracking():
            self.tracker.given_up(trial, epoch)

    def diverged(self, trial: PlannedTrial, reason: str) -> None:
        """Of a search that says something of the point: no failure of the study."""
        self.display.given_up(trial, reason)
        with self._tracking():
            self.tracker.failed(trial, reason)

    def unended(self, search: Search) -> list[PlannedTrial]:
        """What a search has tried and could not bring to an end."""
        ids = {suggestion.model_id for suggestion in search.open} - self.failed.keys()
        return [self.trials[trial_id] for trial_id in ids if trial_id in self.trials]

    def track_again(self, search: Search) -> None:
        """Tracks what became of a search's suggestions, where MLflow does not show it."""
        candidates = {trial.id: trial for trial in self.plan.candidates}
        for suggestion in search.suggestions:
            trial = candidates.get(suggestion.model_id)
            if trial is None or not self.tracker.stale(trial):
                continue
            if suggestion.state == STOPPED and suggestion.epoch is not None:
                with self._tracking():
                    self.tracker.epochs(trial, record_of(self.store, trial.id)["history"])
                    self.tracker.given_up(trial, suggestion.epoch)
            elif suggestion.state == FAILED:
                self.recall(trial)
            elif suggestion.state == COMPLETE:
                self._track(trial)

    def recall(self, trial: PlannedTrial) -> None:
        """Tracks again that a trial has failed, where the store says so."""
        record = record_of(self.store, trial.id)
        failure = failure_of(record)
        if failure is not None and not self.tracker.shows_failure(trial, failure["reason"]):
            with self._tracking():
                self.tracker.epochs(trial, record["history"])
                self.tracker.failed(trial, failure["reason"])

    def _fail(self, trial: PlannedTrial, reason: str) -> None:
        self.failed[trial.id] = reason
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
    tracker: Tracker,
    display: Display,
    lock: StudyLock,
    failed: dict[str, str],
) -> Iterator[_Watcher]:
    """A watcher, at whose end nothing is left that looks as if it went on."""
    try:
        yield _Watcher(plan, store, tracker, display, lock, failed)
    finally:
        display.stop()
        if not lock.lost:  # else the runs are somebody else's now
            tracker.stopped()
