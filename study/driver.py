"""The loop of a run: plan minus store, run it, look again, until nothing is left to try."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlflow.exceptions import MlflowException
from requests import RequestException

from study.choice import with_choices
from study.cost import Account, together
from study.found import with_found
from study.ledger import Meter, keep_account
from study.listener import Listener
from study.local import Local
from study.lock import StudyLock
from study.planned import Plan, PlannedTrial
from study.progress import Display
from study.references import note
from study.results import is_complete
from study.search import Search, searches
from study.shard import Shard
from study.site import Site
from study.tracking import Tracker
from study.untracked import Untracked
from study.watcher import Watcher, watching
from trainables.checkpoint import bring
from trainables.config import ModelConfig
from trainables.datasets.load import take
from trainables.errors import BadAddress
from trainables.store import PATIENCE, Store

if TYPE_CHECKING:
    from study.searching import Searching


class Executor(Protocol):
    """Where trials run."""

    def run(self, trials: Sequence[PlannedTrial], site: Site, listener: Listener) -> None:
        """Runs them until each has reported its end or lost its worker."""

    def search(self, searching: Searching, site: Site) -> None:
        """Runs what a search suggests, until it has no more."""


@dataclass
class Result:
    """How a run ended.

    Attributes:
        planned: trials that were to be run.
        failed: reasons by trial id.
        waiting: ids of those that need the models of trials that were not to be run.
        account: what the run took; None where it finished no trial.
    """

    planned: int
    failed: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    account: Account | None = None


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
        artifacts: folder for artifacts where that is a database; Optuna's database is beside it.
        command: how the study was started, for the report.
        local: whether in this process, without Ray.
        display: shows how it goes.
        only: ids of the trials to run; all, and what searches suggest, where it is not given.
        shard: a slice of them to run in this process while others run theirs; it tracks nothing,
            and searches nothing.

    Raises:
        StudyIsRunning: another driver holds the study.
        MissingData, DamagedData: a data set cannot be had; nothing is started.
    """
    store = store.patient(PATIENCE, display.say)

    def tracked(plan: Plan) -> Tracker | Untracked:
        if shard is not None:
            return Untracked(plan, store)
        return _tracker(tracking_uri, plan, store, artifacts, command)

    with StudyLock(store, plan.name, shard) as lock, contextlib.ExitStack() as ends:
        run = _Run(
            site=Site(store, data, plan.resources, plan.plugins, witness=lock.path),
            tracked=tracked,
            folder=artifacts.parent,
            executor=_executor(ends, plan, local=local or shard is not None),
            display=display,
            lock=lock,
            only=only,
            shard=shard,
        )
        plan = with_choices(with_found(plan, store), store)
        run.fetch(plan, Path(data).expanduser())
        return run.through(plan)


@dataclass
class _Run:
    """A run of a study: its grids, its searches, what they found, what validation chose.

    Attributes:
        site: where it runs.
        tracked: opens the tracker of a plan.
        folder: where Optuna's database is.
        executor: opens what runs the trials, at the first call.
        display, lock: see `Watcher`.
        only, shard: see `run_study`.
        result: how it stands.
    """

    site: Site
    tracked: Callable[[Plan], Tracker | Untracked]
    folder: Path
    executor: Callable[[], Executor]
    display: Display
    lock: StudyLock
    only: Collection[str] | None
    shard: Shard | None
    result: Result = field(default_factory=lambda: Result(0))

    def ours(self, plan: Plan) -> frozenset[str]:
        """Ids of the plan's trials that this run is for."""
        ids = frozenset(plan.by_id if self.only is None else self.only)
        return self.shard.of(ids) if self.shard else ids

    @property
    def whole(self) -> bool:
        """Whether it is for all of the study, what its searches suggest among it."""
        return self.only is None and self.shard is None

    def unfinished(self, plan: Plan) -> list[Search]:
        """The searches that are to be done."""
        return [found for found in searches(plan, self.site.store) if self.whole and not found.done]

    def expected(self, plan: Plan) -> int:
        """How many trials of a plan it is for."""
        return len(self.ours(plan)) + (len(plan.candidates) if self.whole else 0)

    def fetch(self, plan: Plan, folder: Path) -> None:
        """Brings the data that it needs to this machine, or says why not, before any starts."""
        ours, store = self.ours(plan), self.site.store
        here = (trial for trial in plan.trials if trial.id in ours)
        missing = [trial.model for trial in here if not is_complete(trial, store)]
        sought = [end for found in self.unfinished(plan) for end in found.ends]
        fetch([*missing, *sought], folder, store)

    def through(self, plan: Plan) -> Result:
        """Everything, step by step."""
        store = self.site.store
        self._complete(plan)
        unfinished = self.unfinished(plan)
        for found in unfinished:
            self._search(plan, found)
        if unfinished:
            plan = with_found(plan, store)
            self._complete(plan)
        chosen = with_choices(plan, store, self.result.failed)
        if any(chosen.by_id[id] != plan.by_id[id] for id in self.ours(plan)):
            self.display.say("validation has chosen: what it chose is audited whole")
            self._complete(chosen)
        self.result.planned = self.expected(plan)
        if self.result.account is not None:
            keep_account(store, plan.name, self.result.account)
        return self.result

    def _complete(self, plan: Plan) -> None:
        """All trials of a plan."""
        with self._watched(plan) as watcher:
            here, left = self.site, watcher.left()
            while now := [trial for trial in left if watcher.may_try(trial.id)]:
                self.display.start(now)
                _bring(now, self.site.store)
                watcher.try_again(now)
                self.executor().run(now, here, watcher)
                here = (here.roomier if watcher.starved else here).unpacked
                left = watcher.left()
                if all(map(watcher.waits, left)):
                    break
            self.result.waiting = watcher.end(left)

    def _search(self, plan: Plan, found: Search) -> None:
        """All suggestions of a search."""
        with self._watched(plan) as watcher:
            self.display.search(found)
            here = self.site
            while found.left or any(watcher.may_try(one.model_id) for one in found.open):
                self._try(plan, found, here, watcher)
                here = here.roomier if watcher.starved else here
            watcher.end(watcher.unended(found))

    def _try(self, plan: Plan, found: Search, site: Site, watcher: Watcher) -> None:
        """One go at all that a search has left."""
        from study.sampler import Sampler  # Optuna takes a second to import: only for a search
        from study.searching import Searching

        sampler = Sampler(found, self.folder / "optuna.db")
        self.executor().search(Searching(found, sampler, plan, watcher), site)

    @contextlib.contextmanager
    def _watched(self, plan: Plan) -> Iterator[Watcher]:
        note(plan, self.site.store)
        ours, store, failed = self.ours(plan), self.site.store, self.result.failed
        self.display.expect(self.expected(plan))
        tracker = self.tracked(plan)
        with Meter(plan, store) as meter:
            watcher = Watcher(plan, ours, store, tracker, self.display, self.lock, failed, meter)
            with watching(watcher):
                yield watcher
        self.result.account = together(self.result.account, meter.account)


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
    store = store.patient(PATIENCE, display.say)
    with StudyLock(store, plan.name) as lock:
        plan = with_choices(with_found(plan, store), store)
        note(plan, store)
        display.expect(len(plan.trials) + len(plan.candidates))
        tracker = _tracker(tracking_uri, plan, store, artifacts, command)
        ours = frozenset(plan.by_id)
        with watching(Watcher(plan, ours, store, tracker, display, lock, {})) as watcher:
            left = watcher.left()
            for trial in left:
                watcher.recall(trial)
            for found in searches(plan, store):
                watcher.track_again(found)
            return len(left)


def _tracker(uri: str, plan: Plan, store: Store, artifacts: Path, command: str) -> Tracker:
    """What tracks a plan.

    Raises:
        BadAddress: MLflow cannot be had there.
    """
    try:
        return Tracker(uri, plan, store, artifacts, command)
    except (MlflowException, RequestException) as error:
        raise BadAddress(f"cannot track runs at {uri}: {error}") from error


def fetch(models: Iterable[ModelConfig], folder: Path, store: Store) -> None:
    """Brings the data of models to this machine, from the store if it has them.

    Raises:
        MissingData, DamagedData: a data set cannot be had.
    """
    for dataset in {type(model.dataset): model.dataset for model in models}.values():
        take(dataset, folder, store)
        dataset.fetch(folder)


def _bring(trials: Sequence[PlannedTrial], store: Store) -> None:
    """Puts the checkpoints of trials into the store: workers may not see this machine's files."""
    for trial in trials:
        if trial.checkpoint is not None and not store.has(f"models/{trial.id}"):
            bring(trial.model, trial.checkpoint, store)


def _executor(ends: contextlib.ExitStack, plan: Plan, *, local: bool) -> Callable[[], Executor]:
    """Opens what runs trials, once and when it is first needed: not all runs have any to run."""

    @functools.cache
    def opened() -> Executor:
        if local:
            return Local()
        from study.launch import on_ray  # Ray takes a second to import

        return ends.enter_context(on_ray(plan.resources))

    return opened
