"""MLflow -> one tidy frame, and the plan that says what should stand in it."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import safetensors.numpy
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from analysis.cache import Cache
from analysis.parallel import parallel
from analysis.plan import Group, Plan
from trainables import names
from trainables.errors import BadAddress, NothingTracked, unknown_name

STARTED, ENDED = "started", "ended"  # when, in milliseconds since 1970
# What became of a planned trial.
DONE, INCOMPLETE, FAILED, RUNNING, MISSING = "done", "incomplete", "failed", "running", "missing"
_STATES = {"FINISHED": DONE, "FAILED": FAILED, "KILLED": FAILED, "RUNNING": RUNNING}
_PAGE = 1000
_MANY = 2000  # trials: reading so many takes longer than starting processes
_STARTS = "0123456789abcdef"  # of trials' ids, which are digests
_SHORT_METRICS = (
    names.CLEAN,
    names.ROBUST,
    names.ROBUST_VAL,
    names.WORST_CASE,
    names.MASKING_GAP,
    names.AUDIT_FAILED,
    names.N,
    names.TRAIN_SECONDS,
    names.ATTACK_SECONDS,
)
_TAGS = (names.ATTACK_MARK, names.REASON, "git", "device", "gpu")


_FOLDER = "folder"  # where the files of a run are
_KEPT = "4"  # how tables of runs are kept in the cache; another way has another number


class Reader(MlflowClient):
    """A client that fetches a file of a run once for each state of the study.

    Args:
        tracking_uri: Address of the MLflow server or database.
        state: Names what is tracked, see `_state`; empty where nothing does, and all is fetched.
        cache: Where files are kept.
    """

    def __init__(self, tracking_uri: str, state: str, cache: Cache) -> None:
        super().__init__(tracking_uri=tracking_uri)
        self.state = state
        self.cache = cache
        self.folders: dict[str, str] = {}  # of the files of trials' runs, by run

    def kept(self, what: str) -> bytes | None:
        """What the cache has of this state."""
        return self.cache.get(f"{self.state} {what}") if self.state else None

    def keep(self, what: str, data: bytes) -> None:
        """Puts something of this state into the cache."""
        if self.state:
            self.cache.put(f"{self.state} {what}", data)

    def computed(self, what: str, compute: Callable[[], bytes]) -> bytes:
        """What this code has computed of this state, now or before."""
        return self.cache.computed(f"{self.state} {what}", compute) if self.state else compute()

    def table(self, what: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The same of a table."""
        return pd.read_parquet(io.BytesIO(self.computed(what, lambda: _parquet(compute()))))

    def artifact(self, run_id: str, path: str) -> bytes:
        """A file that a trial's run has.

        Raises:
            MlflowException, OSError: There is none, or it cannot be had.
        """
        what = f"{run_id} {path}"
        found = self.kept(what)
        if found is None:
            found = _fetched(self, f"{self.folders[run_id]}/{path}")
            self.keep(what, found)
        return found


@dataclass(frozen=True, eq=False)  # told apart by which one it is: frames have no equality
class Results:
    """A study's plan and everything tracked for it.

    Attributes:
        plan: What the study wants.
        frame: One row a planned (method, trial); see `load` for its columns.
        study_file: The text of the study file.
        report_run: The id of the run that the report belongs to.
        client: The tracking server, and what was fetched from it before.
    """

    plan: Plan
    frame: pd.DataFrame
    study_file: str
    report_run: str
    client: Reader

    def rows(self, group: Group, method: str) -> pd.DataFrame:
        """The rows of one data set, backbone and method."""
        return self._parts.get((group.dataset, group.backbone, method), self.frame.iloc[:0])

    def on_grid(self, group: Group, method: str) -> pd.DataFrame:
        """Those of them that lie on the method's grid, not beside it by a refinement."""
        rows = self.rows(group, method)
        for axis, values in self.plan.axes(method).items():
            rows = rows[rows[axis].isin(values)]
        return rows

    def trials(self, group: Group) -> pd.DataFrame:
        """One row a trial of a data set and backbone, whatever methods it answers for."""
        of = (self.frame["dataset"] == group.dataset) & (self.frame["backbone"] == group.backbone)
        return self.frame[of].drop_duplicates("trial_id")

    @cached_property
    def _parts(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.frame.groupby(["dataset", "backbone", "method"])))

    @property
    def unfinished(self) -> pd.DataFrame:
        """The planned trials without all of their results, one row each."""
        trials = self.frame.drop_duplicates("trial_id")
        return trials[trials["state"] != DONE]


def load(tracking_uri: str, study: str, *, fresh: bool = False) -> Results:
    """Reads a study from its tracking server.

    The frame has one row a planned (method, trial), in the plan's order; a trial that
    answers for several methods has a row for each. Columns: `method, trial_id, run_id, arm,
    label, name, seed, dataset, backbone, evidence, state, reason, attack_mark, git, device,
    gpu`,
    one for each swept number (`loss.s`), `started, ended`, the short metrics, one for each cell
    of the plan (fractions) and one for each number that a diagnostic left
    (`diagnostic/theory/holds`).
    Whatever is not there is NaN; so is every metric of a trial that has not finished, because
    half a trial is not a result. Runs that the plan does not know are left out.

    Args:
        tracking_uri: Address of the MLflow server or database.
        study: Name of the experiment.
        fresh: Whether to read all anew, whatever was read before.

    Raises:
        BadAddress: The server does not answer.
        NothingTracked: No such experiment, no plan in it, or one of an earlier version.
    """
    return read(find(tracking_uri, study, fresh=fresh))


@dataclass(frozen=True)
class Tracked:
    """A study that is there and of which no run has been read yet.

    Attributes:
        client: The tracking server, and what was fetched from it before.
        study: Name of the experiment.
        experiment: Its id.
        report_run: The id of the run that the report belongs to.
        plan: The text of its plan.
        study_file: The text of the study file.
    """

    client: Reader
    study: str
    experiment: str
    report_run: str
    plan: str
    study_file: str


def find(tracking_uri: str, study: str, *, fresh: bool = False) -> Tracked:
    """Looks a study up, and what state it is in; arguments and errors are those of `load`."""
    client = connect(tracking_uri)
    experiment = _experiment_id(client, study, tracking_uri)
    report = _report_run(client, experiment, study)
    # Before anything else is read: what a driver changes from now on has another state.
    reader = Reader(tracking_uri, _state(client, experiment, report), Cache(fresh=fresh))
    return Tracked(
        client=reader,
        study=study,
        experiment=experiment,
        report_run=str(report.info.run_id),
        plan=_artifact_text(client, report, names.PLAN_FILE, study),
        study_file=_artifact_text(client, report, names.STUDY_FILE, study),
    )


def read(tracked: Tracked) -> Results:
    """Reads what was found; see `load`."""
    reader, raw = tracked.client, json.loads(tracked.plan)
    if "protocols" not in raw or any("worst_raw" not in p for p in raw["protocols"].values()):
        raise NothingTracked(
            f"study {tracked.study!r} was tracked by an earlier version: `{raw['command']}` brings "
            "it up to date; what is trained and attacked is not done again"
        )
    plan = Plan(raw)
    runs = _trial_runs(reader, tracked.experiment, len(plan.trials))
    reader.folders = dict(zip(runs["run_id"], runs[_FOLDER], strict=True)) if len(runs) else {}
    return Results(
        plan=plan,
        frame=_frame(plan, runs),
        study_file=tracked.study_file,
        report_run=tracked.report_run,
        client=reader,
    )


def connect(tracking_uri: str) -> MlflowClient:
    """A client of a tracking server that answers.

    Raises:
        BadAddress: It does not.
    """
    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        client.search_experiments(max_results=1)
        return client
    except Exception as error:  # each backend has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadAddress(f"cannot track runs at {tracking_uri!r}: {reason}") from error


def outcomes(client: Reader, run_id: str) -> pd.DataFrame:
    """The per-image outcomes of a run, one row an image and cell.

    Columns: `cell, index` (of the image), `correct_after` (of `passes`).
    """
    file = io.BytesIO(client.artifact(run_id, names.OUTCOMES_FILE))
    return pd.read_parquet(file, columns=["cell", "index", "correct_after", "passes"])


def findings(client: Reader, run_id: str, label: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a diagnostic left in a run, by name."""
    path = f"{names.DIAGNOSTICS_FOLDER}/{label}.safetensors"
    found: dict[str, npt.NDArray[Any]] = safetensors.numpy.load(client.artifact(run_id, path))
    return found


def _experiment_id(client: MlflowClient, study: str, tracking_uri: str) -> str:
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        known = [found.name for found in client.search_experiments() if found.name != "Default"]
        raise NothingTracked(
            f"{unknown_name('study', study, known)} in {tracking_uri}: `study run` tracks it"
        )
    return str(experiment.experiment_id)


def _report_run(client: MlflowClient, experiment: str, study: str) -> Run:
    for run in _runs(client, experiment, names.REPORT):
        return run
    raise NothingTracked(f"study {study!r} has no plan yet: `study run {study}` makes one")


def _state(client: MlflowClient, experiment: str, report: Run) -> str:
    """Names what is tracked of a study; empty where nothing does.

    The driver is the one writer, and its stamp says that it has ended. Beside it users delete
    and restore runs in MLflow's UI: which are deleted is part of the name.
    """
    stamp = report.data.tags.get(names.STAMP, "")
    if not stamp:
        return ""
    deleted = _runs(client, experiment, names.TRIAL, ViewType.DELETED_ONLY)
    gone = " ".join(sorted(run.info.run_id for run in deleted))
    return f"{_KEPT} {stamp} {hashlib.sha256(gone.encode()).hexdigest()}"


def _fetched(client: MlflowClient, uri: str) -> bytes:
    """A file by its own address: by its run's, MLflow would read all metrics of that twice."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(
            download_artifacts(uri, dst_path=folder, tracking_uri=client.tracking_uri)
        ).read_bytes()


def _artifact_text(client: MlflowClient, run: Run, path: str, study: str) -> str:
    try:
        return _fetched(client, f"{run.info.artifact_uri}/{path}").decode()
    except (MlflowException, OSError) as error:
        raise NothingTracked(
            f"study {study!r} has no {path} yet: `study run {study}` writes it"
        ) from error


def _runs(
    client: MlflowClient, experiment: str, role: str, view: int = ViewType.ACTIVE_ONLY
) -> Iterator[Run]:
    """All runs of one role, newest first."""
    return search_runs(client, experiment, f"tags.{names.ROLE} = '{role}'", view)


def search_runs(
    client: MlflowClient, experiment: str, wanted: str = "", view: int = ViewType.ACTIVE_ONLY
) -> Iterator[Run]:
    """All runs that MLflow's filter string lets through, newest first, a page at a time."""
    token: str | None = None
    while True:
        with _uncollected():
            page = client.search_runs([experiment], wanted, view, _PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Puts garbage collection off.

    MLflow makes an object a metric, none of which is garbage yet, and the collector would look
    through all of them again and again: it takes most of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _trial_runs(client: Reader, experiment: str, planned: int) -> pd.DataFrame:
    """The run of each trial, by trial id: the newest finished one, else the newest.

    Columns: `run_id, folder, state`, the tags that are shown, and every metric.
    """
    kept = client.kept("runs")
    if kept is not None:
        return pd.read_parquet(io.BytesIO(kept))
    starts = _STARTS if planned > _MANY else [""]  # each process reads some of many
    found = pd.concat(parallel(partial(_runs_of, client.tracking_uri, experiment), starts))
    client.keep("runs", _parquet(found))
    return found


def _runs_of(tracking_uri: str, experiment: str, start: str) -> pd.DataFrame:
    """The same of the trials whose ids begin with `start`."""
    client, rows = MlflowClient(tracking_uri=tracking_uri), dict[str, dict[str, Any]]()
    wanted = f"tags.{names.ROLE} = '{names.TRIAL}'"
    if start:
        wanted += f" and tags.{names.TRIAL_ID} like '{start}%'"
    for run in search_runs(client, experiment, wanted):
        trial, state = run.data.tags[names.TRIAL_ID], _STATES.get(run.info.status, RUNNING)
        if trial not in rows or (rows[trial]["state"] != DONE and state == DONE):
            tags = {tag: run.data.tags.get(tag, "") for tag in _TAGS}
            when = {STARTED: run.info.start_time, ENDED: run.info.end_time}
            where = {"run_id": run.info.run_id, _FOLDER: run.info.artifact_uri}
            about = {**where, "state": state, **tags, **when}
            rows[trial] = {**about, **run.data.metrics}
    return pd.DataFrame(rows.values(), pd.Index(rows, name="trial_id", dtype=str))


def _parquet(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


def _frame(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    pairs = list(_method_trials(plan))
    if not pairs:  # a study that trains nothing
        return pd.DataFrame(columns=["trial_id", "method", "state", *_TAGS])
    swept = dict.fromkeys(axis for method in plan.methods for axis in plan.axes(method))
    described = pd.DataFrame(
        {
            "method": method,
            "label": trial["labels"][method],
            **_described(trial),
            **{axis: trial["axes"].get(axis, float("nan")) for axis in swept},
        }
        for method, trial in pairs
    )
    tracked = runs.reindex(described["trial_id"]).reset_index(drop=True)
    about = tracked.reindex(columns=["run_id", "state", *_TAGS]).astype("str")
    about = about.fillna({"state": MISSING}).fillna("")
    values = _values(plan, tracked.where(about["state"] == DONE))
    _tell_incomplete(plan, [trial for _, trial in pairs], about, values)
    return pd.concat([described, about, values], axis=1)


def _values(plan: Plan, tracked: pd.DataFrame) -> pd.DataFrame:
    """The planned metrics, and the numbers that diagnostics and passes have left."""
    everything = [metric for group in plan.groups for metric in plan.protocol(group).metrics]
    planned = dict.fromkeys([STARTED, ENDED, *_SHORT_METRICS, *everything])
    further = [
        name
        for name in tracked.columns
        if name.startswith(names.DIAGNOSTIC) or name.endswith(names.SPREAD)
    ]
    first = tracked[further].notna().to_numpy()
    found = [name for place, name in enumerate(further) if first[:, place].any()]
    found.sort(key=lambda name: int(first[:, further.index(name)].argmax()))
    return tracked.reindex(columns=[*planned, *found]).astype(float)


def _tell_incomplete(
    plan: Plan, trials: Sequence[Mapping[str, Any]], about: pd.DataFrame, values: pd.DataFrame
) -> None:
    """Marks finished trials that lack a planned metric."""
    metrics = {group: plan.protocol(group).metrics for group in plan.groups}
    absent = values.isna().to_numpy()
    place = {name: index for index, name in enumerate(values.columns)}
    planned = [place[metric] for wanted in metrics.values() for metric in wanted]
    suspect = absent[:, planned].any(axis=1) & (about["state"] == DONE).to_numpy()
    for row in map(int, np.flatnonzero(suspect)):
        trial = trials[row]
        lacks = set(trial.get("lacks", ()))
        wanted = metrics[Group(trial["dataset"], trial["backbone"])]
        lacking = [
            metric
            for metric, cells in wanted.items()
            if absent[row, place[metric]] and lacks.isdisjoint(cells)
        ]
        if lacking:
            about.at[row, "state"] = INCOMPLETE
            about.at[row, names.REASON] = f"no result for {', '.join(lacking)}"


def _method_trials(plan: Plan) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return (
        (method, trial)
        for method in plan.methods
        for trial in plan.trials
        if method in trial["methods"]
    )


def _described(trial: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("trial_id", "arm", "name", "seed", "dataset", "backbone", "evidence")
    return {key: trial[key] for key in keys}
