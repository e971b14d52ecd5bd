"""The loop of a run: plan minus store, run it, look again, until nothing is left to try."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.choice import with_choices
from study.cost import Account, together
from study.found import with_found
from study.ledger import Meter, keep_account
from study.listener import Listener
from study.local import run_local, search_local
from study.lock import StudyLock
from study.plan import Plan, PlannedTrial
from study.progress import Display
from study.references import note
from study.search import Search, searches
from study.site import Site
from study.tracking import Tracker
from study.watcher import Watcher, is_complete, watching
from trainables.checkpoint import bring
from trainables.config import ModelConfig
from trainables.store import Store

ROUNDS = 3  # what lost its worker, or is damaged, is made anew in the next round
WAVES = 2  # cells that need another model are measured when all models are there

Executor = Callable[[Sequence[PlannedTrial], Site, Listener], None]


@dataclass
class Result:
    """How a run ended.

    Attributes:
        planned: trials of the study.
        failed: reasons by trial id.
        account: what the run took; None where it finished no trial.
    """

    planned: int
    failed: dict[str, str] = field(default_factory=dict)
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

    Raises:
        StudyIsRunning: another driver holds the study.
        MissingData, DamagedData: a data set cannot be had; nothing is started.
    """
    with StudyLock(store, plan.name) as lock:
        run = _Run(
            site=Site(store, data, plan.resources, plan.plugins),
            tracked=lambda plan: Tracker(tracking_uri, plan, store, artifacts, command),
            folder=artifacts.parent,
            local=local,
            display=display,
            lock=lock,
        )
        plan = with_choices(with_found(plan, store), store)
        _fetch(plan, store, Path(data).expanduser())
        plan = run.through(plan)
        account = run.account
        if account is not None:
            keep_account(store, plan.name, account)
    return Result(len(plan.trials) + len(plan.candidates), run.failed, account)


@dataclass
class _Run:
    """A run of a study: its grids, its searches, what they found, what validation chose.

    Attributes:
        site: where it runs.
        tracked: opens the tracker of a plan.
        folder: where Optuna's database is.
        local: whether in this process.
        display, lock: see `Watcher`.
        failed: reasons by trial id.
        account: what it took so far.
    """

    site: Site
    tracked: Callable[[Plan], Tracker]
    folder: Path
    local: bool
    display: Display
    lock: StudyLock
    failed: dict[str, str] = field(default_factory=dict)
    account: Account | None = None

    def through(self, plan: Plan) -> Plan:
        """Everything, step by step; returns the plan with all that was found on the way."""
        store = self.site.store
        self._complete(plan)
        unfinished = [found for found in searches(plan, store) if not found.done]
        for found in unfinished:
            self._search(plan, found)
        if unfinished:
            plan = with_found(plan, store)
            self._complete(plan)
        chosen = with_choices(plan, store, self.failed)
        if chosen.trials != plan.trials:
            self.display.say("validation has chosen: what it chose is audited whole")
            self._complete(chosen)
        return chosen

    def _complete(self, plan: Plan) -> None:
        """All trials of a plan."""
        with self._watched(plan) as watcher:
            here, left = self.site, watcher.left()
            for _ in range(ROUNDS + WAVES - 1):
                if not left:
                    break
                self.display.start(left)
                _bring(left, self.site.store)
                _executor(self.local)(left, here, watcher)
                here = (here.roomier if watcher.starved else here).unpacked
                left = watcher.left()
            watcher.end(left)

    def _search(self, plan: Plan, found: Search) -> None:
        """All suggestions of a search."""
        with self._watched(plan) as watcher:
            self.display.search(found)
            here = self.site
            for _ in range(ROUNDS):
                if found.done:
                    break
                self._try(plan, found, here, watcher)
                here = here.roomier if watcher.starved else here
            watcher.end(watcher.unended(found))

    def _try(self, plan: Plan, found: Search, site: Site, watcher: Watcher) -> None:
        """One go at all that a search has left."""
        from study.sampler import Sampler  # Optuna takes a second to import: only for a search
        from study.searching import Searching

        sampler = Sampler(found, self.folder / "optuna.db")
        searching = Searching(found, sampler, plan, watcher)
        if self.local:
            search_local(searching, site)
        else:
            from study.launch import search_on_ray

            search_on_ray(searching, site)

    @contextlib.contextmanager
    def _watched(self, plan: Plan) -> Iterator[Watcher]:
        note(plan, self.site.store)
        self.display.expect(len(plan.trials) + len(plan.candidates))
        store, tracker = self.site.store, self.tracked(plan)
        with Meter(plan, store) as meter:
            watcher = Watcher(plan, store, tracker, self.display, self.lock, self.failed, meter)
            with watching(watcher):
                yield watcher
        self.account = together(self.account, meter.account)


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
        with watching(Watcher(plan, store, tracker, display, lock, {})) as watcher:
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
