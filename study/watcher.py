"""What the driver does with what it hears of trials: it tracks and shows them, and counts tries."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial

from mlflow.exceptions import MlflowException
from requests import RequestException

from study.interrupts import uninterrupted
from study.ledger import Meter
from study.lock import StudyLock
from study.planned import Plan, PlannedTrial
from study.progress import Display
from study.results import is_complete
from study.search import Search
from study.tracking import Tracker
from study.untracked import Untracked
from trainables import names
from trainables.errors import BrokenInvariant, DamagedEntry
from trainables.store import Store
from trainables.trial import Report, failure_of, note_failure, record_of

TRIES = 4  # of a trial that is lost, damaged or short of memory, by no fault of its machine
QUIET_SECONDS = 30.0  # for which an MLflow that was away is told nothing
MLFLOW_SECONDS, MLFLOW_PAUSE = 300.0, 5.0  # for which it is waited for at the end, and between
EXCUSES = 50  # machines that may die under a trial: after so many it is what kills them


class Watcher:
    """Tracks and shows what the workers report; a `Listener`.

    Args:
        plan: what is wanted.
        ours: ids of the trials that this run is for.
        store: where results are.
        tracker: writes MLflow.
        display: shows how it goes.
        lock: that the study is held by.
        failed: reasons by trial id, of all of the run's parts; added to.
        meter: adds up what trials take; None where nothing is computed.

    Attributes:
        trials: what may be heard of, by id.
        starved: whether any trial had too little memory.
    """

    def __init__(
        self,
        plan: Plan,
        ours: Collection[str],
        store: Store,
        tracker: Tracker | Untracked,
        display: Display,
        lock: StudyLock,
        failed: dict[str, str],
        meter: Meter | None = None,
    ) -> None:
        self.plan = plan
        self.ours = ours
        self.meter = meter
        self.store = store
        self.tracker = tracker
        self.display = display
        self.lock = lock
        self.failed = failed
        self.trials = dict(plan.by_id)
        self.losses: dict[str, tuple[str, str]] = {}  # why a trial is tried again, and details
        self.tries = Counter[str]()  # how often each was to be run, but for those excused
        self.excuses = Counter[str]()  # how often its machine has died
        self._quiet_until = 0.0  # by the monotonic clock: MLflow was away
        self.waiting = set[str]()  # that have done all but what needs another model
        self.starved = False

    def left(self) -> list[PlannedTrial]:
        """Trials still to run; those that are whole but not tracked are tracked now."""
        left: dict[str, PlannedTrial] = {}
        for trial in self._ours():
            if trial.id in self.failed:
                continue
            if not is_complete(trial, self.store) or not self._track(trial):
                left[trial.id] = trial
        left |= {trial.id: trial for trial in self._lost_sources(left.values())}
        return list(left.values())

    def _lost_sources(self, left: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
        """Whole trials whose model others need and the store has lost: to be trained again."""
        for source in {source for trial in left for source in trial.sources} & set(self.ours):
            trial = self.plan.by_id[source]
            if trial.id not in self.failed and not self.store.has(f"models/{source}"):
                yield trial

    def _ours(self) -> list[PlannedTrial]:
        return [trial for trial in self.plan.trials if trial.id in self.ours]

    def may_try(self, trial_id: str) -> bool:
        """Whether a trial without results is worth another try."""
        return trial_id not in self.failed and self.tries[trial_id] < TRIES

    def try_again(self, trials: Iterable[PlannedTrial]) -> None:
        """Trials are to be run now."""
        self.tries.update(trial.id for trial in trials)

    def waits(self, trial: PlannedTrial) -> bool:
        """Whether nothing can be done for a trial before somebody else has trained a model."""
        others = trial.sources.difference(self.ours)
        absent = any(not self.store.has(f"models/{source}") for source in others)
        return trial.id in self.waiting and absent

    def end(self, left: Sequence[PlannedTrial]) -> list[str]:
        """Counts what is still without a result, or without a run, as failed.

        Returns:
            Ids of those that wait for a model that somebody else is to train.
        """
        waiting = [trial.id for trial in left if self.waits(trial)]
        for trial in left:
            if trial.id in waiting:
                continue
            why, details = self.losses.get(trial.id, ("its results were damaged", ""))
            reason = f"no result after {self.tries[trial.id]} tries: {why}"
            note_failure(self.store, trial.id, reason, details)
            self._fail(trial, reason)
        whole = [one for one in self._ours() if one.id not in (*self.failed, *waiting)]
        self._catch_up(whole)
        for trial in whole:
            if trial.id not in self.failed and self.tracker.stale(trial):
                self._fail(trial, "its results are there, but MLflow did not take them")
        return waiting

    def say(self, line: str) -> None:
        """Something that is of no single trial."""
        self.display.say(line)

    def started(self, trial_id: str) -> None:
        """A worker has taken a trial up."""
        trial = self.trials[trial_id]
        self.waiting.discard(trial_id)
        self.lock.doing = trial_id
        self.display.started(trial)
        self._tell(lambda: self.tracker.started(trial))

    def reported(self, report: Report) -> None:
        """A step of a trial has ended.

        Raises:
            StudyIsRunning: another driver has taken us for dead.
        """
        self.lock.check()
        trial = self.trials[report.trial_id]
        if report.warning:
            self.display.say(report.warning)
        self._tell(lambda: self.tracker.epochs(trial, report.epochs))
        if not report.done:
            self.display.reported(report)
            return
        if report.failed:
            self._fail(trial, report.failed)
        elif report.starved:
            self.starved = True
            self.lost(trial.id, report.starved)
        elif report.away:
            self.lost(trial.id, report.away)
        elif report.waits:
            self.losses[trial.id] = "it needs a model that is not there, and could not be made", ""
            self.waiting.add(trial.id)
            if any(source in self.ours and self.may_try(source) for source in trial.sources):
                self.tries[trial.id] -= 1  # however often those have to be tried
            self.display.waits(trial)
        elif not is_complete(trial, self.store):
            self.lost(trial.id, "its worker's results bear other ids: is its code another version?")
        else:
            self._track(trial)

    def lost(self, trial_id: str, reason: str, details: str = "") -> None:
        """A trial has lost its worker, or could not be ended for another reason that may pass."""
        trial = self.trials[trial_id]
        if trial_id in self.failed:
            return  # before another of its pack took the worker with it
        if not is_complete(trial, self.store):  # a worker that died after its last cell lost none
            self.losses[trial_id] = reason, details
            self.display.lost(trial, reason)

    def excused(self, trial_id: str) -> None:
        """A trial was lost because its machine was."""
        self.excuses[trial_id] += 1
        if self.excuses[trial_id] <= EXCUSES:
            self.tries[trial_id] -= 1

    def will_try(self, trial: PlannedTrial) -> None:
        """A search will try it."""
        self.trials[trial.id] = trial
        self.try_again([trial])

    def tried_before(self, trial: PlannedTrial) -> None:
        """What a search tries has its results already, such as of a grid's point."""
        self.trials[trial.id] = trial
        if trial.id not in self.plan.by_id:  # whose run is another's
            self._track(trial)

    def stopped(self, trial_id: str, epoch: int) -> None:
        """A search has given a training up."""
        trial = self.trials[trial_id]
        self.display.given_up(trial, epoch)
        self._tell(lambda: self.tracker.given_up(trial, epoch))

    def diverged(self, trial: PlannedTrial, reason: str) -> None:
        """Of a search that says something of the point: no failure of the study."""
        self.display.given_up(trial, reason)
        self._tell(lambda: self.tracker.failed(trial, reason))

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
            if suggestion.state == names.STOPPED_EARLY and suggestion.epoch is not None:
                history = record_of(self.store, trial.id)["history"]
                self._tell(partial(self.tracker.epochs, trial, history))
                self._tell(partial(self.tracker.given_up, trial, suggestion.epoch))
            elif suggestion.state == names.FAILED:
                self.recall(trial)
            elif suggestion.state == names.COMPLETE:
                self._track(trial)

    def recall(self, trial: PlannedTrial) -> None:
        """Tracks again that a trial has failed, where the store says so."""
        record = record_of(self.store, trial.id)
        failure = failure_of(record)
        if failure is not None and not self.tracker.shows_failure(trial, failure["reason"]):
            self._tell(lambda: self.tracker.epochs(trial, record["history"]))
            self._tell(lambda: self.tracker.failed(trial, failure["reason"]))

    def _fail(self, trial: PlannedTrial, reason: str) -> None:
        self.failed[trial.id] = reason
        self.display.failed(trial, reason)
        self._tell(lambda: self.tracker.failed(trial, reason))

    def _track(self, trial: PlannedTrial) -> bool:
        """Projects a finished trial; False where a result turned out to be damaged."""
        if not self.tracker.stale(trial):
            return True
        try:
            self._tell(lambda: self.display.finished(trial, self.tracker.finished(trial)))
            if self.meter is not None:
                self.meter.finished(trial)
        except DamagedEntry as error:
            self.display.say(str(error))
            return False
        except BrokenInvariant as error:
            self._fail(trial, f"its outcomes contradict each other, a bug of ours: {error}")
        return True

    def _tell(self, told: Callable[[], object]) -> None:
        """Lets MLflow know something, unless it was away just now.

        It is a projection: the study goes on, and all that lasts is told again at the end.
        """
        if time.monotonic() < self._quiet_until:
            return
        try:
            with uninterrupted():
                told()
        except (MlflowException, RequestException) as error:
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            self.display.say(f"MLflow did not take it, tried again at the end: {error}")

    def _catch_up(self, trials: Sequence[PlannedTrial]) -> None:
        """Tracks those that are whole and not tracked, and waits for MLflow where it is away."""
        ends = time.monotonic() + MLFLOW_SECONDS
        while stale := [trial for trial in trials if self.tracker.stale(trial)]:
            self._quiet_until = 0.0
            for trial in stale:
                self._track(trial)
            if time.monotonic() > ends or not any(map(self.tracker.stale, stale)):
                return
            time.sleep(MLFLOW_PAUSE)

    def close(self) -> None:
        """Leaves no run behind that looks as if it went on."""
        self._quiet_until = 0.0
        self._tell(self.tracker.stopped)


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[Watcher]:
    """A watcher, at whose end nothing is left that looks as if it went on."""
    try:
        yield watcher
    finally:
        watcher.display.stop()
        if not watcher.lock.lost:  # else the runs are somebody else's now
            watcher.close()
