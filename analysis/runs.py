"""MLflow -> one tidy frame, and the plan that says what should stand in it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd
import safetensors.numpy
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.plan import Group, Plan
from trainables import names
from trainables.errors import BadAddress, NothingTracked, unknown_name

# What became of a planned trial.
DONE, INCOMPLETE, FAILED, RUNNING, MISSING = "done", "incomplete", "failed", "running", "missing"
_STATES = {"FINISHED": DONE, "FAILED": FAILED, "KILLED": FAILED, "RUNNING": RUNNING}
_PAGE = 1000
_SHORT_METRICS = (
    names.CLEAN,
    names.ROBUST,
    names.ROBUST_VAL,
    names.WORST_CASE,
    names.MASKING_GAP,
    names.AUDIT_FAILED,
    names.N,
    names.TRAIN_SECONDS,
)
_TAGS = (names.ATTACK_MARK, names.REASON, "git", "device")


@dataclass(frozen=True)
class Results:
    """A study's plan and everything tracked for it.

    Attributes:
        plan: What the study wants.
        frame: One row a planned (method, trial); see `load` for its columns.
        study_file: The text of the study file.
        report_run: The id of the run that the report belongs to.
        client: The tracking server.
    """

    plan: Plan
    frame: pd.DataFrame
    study_file: str
    report_run: str
    client: MlflowClient

    def rows(self, group: Group, method: str) -> pd.DataFrame:
        """The rows of one data set, backbone and method."""
        wanted = {"dataset": group.dataset, "backbone": group.backbone, "method": method}
        return self.frame[(self.frame[list(wanted)] == pd.Series(wanted)).all(axis=1)]

    @property
    def unfinished(self) -> pd.DataFrame:
        """The planned trials without all of their results, one row each."""
        trials = self.frame.drop_duplicates("trial_id")
        return trials[trials["state"] != DONE]


def load(tracking_uri: str, study: str) -> Results:
    """Reads a study from its tracking server.

    The frame has one row a planned (method, trial), in the plan's order; a trial that
    answers for several methods has a row for each. Columns: `method, trial_id, run_id, arm,
    label, name, seed, dataset, backbone, evidence, state, reason, attack_mark, git, device`,
    one for each swept number (`loss.s`), the short metrics, one for each cell of the plan
    (fractions) and one for each number that a diagnostic left (`diagnostic/theory/holds`).
    Whatever is not there is NaN; so is every metric of a trial that has not finished, because
    half a trial is not a result. Runs that the plan does not know are left out.

    Args:
        tracking_uri: Address of the MLflow server or database.
        study: Name of the experiment.

    Raises:
        BadAddress: The server does not answer.
        NothingTracked: No such experiment, no plan in it, or one of an earlier version.
    """
    client = connect(tracking_uri)
    experiment = _experiment_id(client, study, tracking_uri)
    report_run = _report_run(client, experiment, study)
    raw = json.loads(_artifact_text(client, report_run, names.PLAN_FILE, study))
    if "protocols" not in raw:
        raise NothingTracked(
            f"study {study!r} was tracked by an earlier version: `{raw['command']}` brings it up "
            "to date; what is trained and attacked is not done again"
        )
    plan = Plan(raw)
    return Results(
        plan=plan,
        frame=_frame(plan, _runs_by_trial(client, experiment)),
        study_file=_artifact_text(client, report_run, names.STUDY_FILE, study),
        report_run=report_run,
        client=client,
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


def outcomes(client: MlflowClient, run_id: str) -> pd.DataFrame:
    """The per-image outcomes of a run, one row an image and cell."""
    with tempfile.TemporaryDirectory() as folder:
        return pd.read_parquet(client.download_artifacts(run_id, names.OUTCOMES_FILE, folder))


def findings(client: MlflowClient, run_id: str, label: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a diagnostic left in a run, by name."""
    path = f"{names.DIAGNOSTICS_FOLDER}/{label}.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(client.download_artifacts(run_id, path, folder))
        found: dict[str, npt.NDArray[Any]] = safetensors.numpy.load(file.read_bytes())
    return found


def image_shares(outcomes: pd.DataFrame, cells: Sequence[str]) -> pd.Series:
    """How far each image stands against its own worst of several attacks.

    Args:
        outcomes: Per-image outcomes of one model, as `outcomes` returns them.
        cells: Metric names of the cells; all must be over the same images.

    Returns:
        The smallest share of correct passes by image; nothing unless every cell is there for
        every image, since a worst case over fewer attacks is another number.
    """
    kept = outcomes[outcomes["cell"].isin(cells)]
    shares = (kept["correct_after"] / kept["passes"]).groupby(kept["index"])
    least: pd.Series = shares.min()
    return least if (shares.size() == len(cells)).all() else least.iloc[:0]


def image_worst(outcomes: pd.DataFrame, cells: Sequence[str]) -> float:
    """Accuracy under the worst of several attacks, see `image_shares`; NaN where it has nothing."""
    return float(image_shares(outcomes, cells).mean())


def with_image_worst(
    results: Results, rows: pd.DataFrame, columns: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Adds per-image worst cases that no metric holds; reads each run's outcomes once.

    Args:
        results: Where the runs are.
        rows: Rows of the frame.
        columns: Name of each new column -> the metric names of its cells.
    """
    if not columns:
        return rows
    values = {
        run_id: _image_worsts(results.client, run_id, columns)
        for run_id in rows.loc[rows["state"] == DONE, "run_id"].unique()
    }
    added = {
        column: [values.get(run_id, {}).get(column, float("nan")) for run_id in rows["run_id"]]
        for column in columns
    }
    return rows.assign(**added)


def _image_worsts(
    client: MlflowClient, run_id: str, columns: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    frame = outcomes(client, run_id)
    return {column: image_worst(frame, cells) for column, cells in columns.items()}


def _experiment_id(client: MlflowClient, study: str, tracking_uri: str) -> str:
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        known = [found.name for found in client.search_experiments() if found.name != "Default"]
        raise NothingTracked(
            f"{unknown_name('study', study, known)} in {tracking_uri}: `study run` tracks it"
        )
    return str(experiment.experiment_id)


def _report_run(client: MlflowClient, experiment: str, study: str) -> str:
    for run in _runs(client, experiment, names.REPORT):
        return str(run.info.run_id)
    raise NothingTracked(f"study {study!r} has no plan yet: `study run {study}` makes one")


def _artifact_text(client: MlflowClient, run_id: str, path: str, study: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client.download_artifacts(run_id, path, folder)).read_text("utf-8")
        except (MlflowException, OSError) as error:
            raise NothingTracked(
                f"study {study!r} has no {path} yet: `study run {study}` writes it"
            ) from error


def _runs(client: MlflowClient, experiment: str, role: str) -> Iterator[Run]:
    """All runs of one role, newest first, a page at a time."""
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.{names.ROLE} = '{role}'", max_results=_PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _runs_by_trial(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """The run of each trial: the newest finished one, else the newest."""
    runs: dict[str, Run] = {}
    for run in _runs(client, experiment, names.TRIAL):
        trial = run.data.tags[names.TRIAL_ID]
        if trial not in runs or (_state(runs[trial]) != DONE and _state(run) == DONE):
            runs[trial] = run
    return runs


def _state(run: Run) -> str:
    return _STATES.get(run.info.status, RUNNING)


def _frame(plan: Plan, runs: Mapping[str, Run]) -> pd.DataFrame:
    wanted = {group: [cell.metric for cell in plan.protocol(group).cells] for group in plan.groups}
    everything = (metric for metrics in wanted.values() for metric in metrics)
    metrics = tuple(dict.fromkeys([*_SHORT_METRICS, *everything]))
    swept = dict.fromkeys(axis for method in plan.methods for axis in plan.axes(method))
    rows = []
    for method, trial in _method_trials(plan):
        run = runs.get(trial["trial_id"])
        axes = {axis: trial["axes"].get(axis, float("nan")) for axis in swept}
        lacks = trial.get("lacks", ())
        here = wanted[Group(trial["dataset"], trial["backbone"])]
        tracked = _tracked(run, metrics, [metric for metric in here if metric not in lacks])
        label = trial["labels"][method]
        rows.append({"method": method, "label": label, **_described(trial), **axes, **tracked})
    if not rows:  # a study that trains nothing
        return pd.DataFrame(columns=["trial_id", "method", "state", *_TAGS])
    return pd.DataFrame(rows)


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


def _tracked(run: Run | None, metrics: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    """What the server knows of one trial: its state, tags and, once it is done, metrics."""
    if run is None:
        values = dict.fromkeys(metrics, float("nan"))
        return {"run_id": "", "state": MISSING, **dict.fromkeys(_TAGS, ""), **values}
    finished = _state(run) == DONE
    values = {
        metric: run.data.metrics.get(metric, float("nan")) if finished else float("nan")
        for metric in metrics
    }
    if finished:
        found = run.data.metrics.items()
        kept = (names.DIAGNOSTIC, names.SPREAD)
        values |= {
            name: value
            for name, value in found
            if name.startswith(kept[0]) or name.endswith(kept[1])
        }
    tags = {tag: run.data.tags.get(tag, "") for tag in _TAGS}
    lacking = [metric for metric in wanted if metric not in run.data.metrics]
    state = _state(run)
    if finished and lacking:
        state = INCOMPLETE
        tags[names.REASON] = f"no result for {', '.join(lacking)}"
    return {"run_id": run.info.run_id, "state": state, **tags, **values}
