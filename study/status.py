"""How far a study is, by the store, its locks, and by MLflow what runs; nothing is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from mlflow import MlflowClient

from analysis.runs import connect, search_runs
from study.lock import living_holders
from study.planned import Plan, PlannedTrial
from study.search import searches
from trainables import names
from trainables.store import Store
from trainables.trial import failure_of, record_of

# What has become of a trial. Begun: it has left something behind, and nobody works on it.
DONE, RUNNING, FAILED, BEGUN, MISSING = STATES = ("done", "running", "failed", "begun", "missing")


@dataclass(frozen=True)
class TrialStatus:
    """One trial.

    Attributes:
        id: its content id.
        name: what people call it.
        methods: the rows of tables that it stands in.
        state: one of `STATES`.
        reason: why it failed; empty otherwise.
        cells: how many of its cells have a result.
        planned_cells: how many it should have.
    """

    id: str
    name: str
    methods: tuple[str, ...]
    state: str
    reason: str
    cells: int
    planned_cells: int


@dataclass(frozen=True)
class Status:
    """A study.

    Attributes:
        study: its name.
        run_by: who run it now, one unless they are shards, and since when they were last heard.
        trials: all that are planned.
        searches: how each stands, in words.
    """

    study: str
    run_by: tuple[str, ...]
    trials: tuple[TrialStatus, ...]
    searches: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state, none left out."""
        found = Counter(trial.state for trial in self.trials)
        return {state: found[state] for state in STATES}

    def as_json(self) -> dict[str, Any]:
        """Plain data for other programs."""
        return {**asdict(self), "counts": self.counts}


def status_of(plan: Plan, store: Store, tracking_uri: str | None) -> Status:
    """How far a study is.

    Args:
        plan: what it wants.
        store: where its results are.
        tracking_uri: MLflow's, which knows what runs; None where nothing is tracked yet.

    Raises:
        BadAddress: the tracking server does not answer.
    """
    holders = living_holders(store, plan.name)
    running = {holder.doing for holder in holders}
    if tracking_uri and holders:
        running |= _running(connect(tracking_uri), plan.name)
    run_by = tuple(holder.who for holder in holders)
    trials = tuple(_status(trial, store, running=trial.id in running) for trial in plan.trials)
    return Status(plan.name, run_by, trials, tuple(search.told for search in searches(plan, store)))


def _status(trial: PlannedTrial, store: Store, *, running: bool) -> TrialStatus:
    wanted = trial.result_ids
    cells = len(wanted & store.entries(f"outcomes/{trial.id}"))
    state, reason = MISSING, ""
    if cells == len(wanted):
        state = DONE
    elif running:
        state = RUNNING
    elif failure := failure_of(record_of(store, trial.id)):
        state, reason = FAILED, failure["reason"]
    elif cells or any(store.has(f"{kind}/{trial.id}") for kind in ("models", "progress")):
        state = BEGUN
    return TrialStatus(
        trial.id, trial.name, trial.methods, state, reason, cells=cells, planned_cells=len(wanted)
    )


def _running(client: MlflowClient, study: str) -> set[str]:
    """Ids of the trials whose runs are said to be running."""
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return set()
    wanted = f"tags.{names.ROLE} = '{names.TRIAL}' and attributes.status = 'RUNNING'"
    runs = search_runs(client, experiment.experiment_id, wanted)
    return {run.data.tags[names.TRIAL_ID] for run in runs}
