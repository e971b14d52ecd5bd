"""The one writer of MLflow: a projection of the store that people look at.

A run is keyed by the tag `trial_id`, so that a crash, a restart or a second driver never
makes a second one; its status, metrics and artifacts are written from what the store holds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag, ViewType

from analysis.runs import connect
from study.plan import Plan, PlannedTrial, describe, git_revision, numeric
from trainables import names
from trainables.attacks.base import Columns
from trainables.errors import BadAddress
from trainables.store import Store

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
logging.getLogger("alembic").setLevel(logging.WARNING)

REVISION = 2  # bumped by whatever alters what a run shows: old runs are then written anew

_NOTE = "mlflow.note.content"
_SHOWS = "shows"  # digest of what a run shows, to see whether it is of this plan
_BATCH = 900  # MLflow takes 1,000 metrics a call

Outcome = dict[str, np.ndarray]


@dataclass(frozen=True)
class Finding:
    """What a diagnostic left in the store: its arrays as a safetensors file, and its numbers."""

    arrays: bytes
    numbers: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """What the live display says of a finished trial, as fractions."""

    clean: float
    robust: float


class Tracker:
    """Writes a study's runs.

    Args:
        uri: MLflow's tracking URI.
        plan: the study's plan.
        store: where results are.
        artifacts: folder for artifacts where `uri` is a database; a server has its own.
        command: how the study was started, for the report.
    """

    def __init__(self, uri: str, plan: Plan, store: Store, artifacts: Path, command: str) -> None:
        if uri.startswith("sqlite:///"):
            _make_folder(Path(uri.removeprefix("sqlite:///")).parent)
        self.client = connect(uri)
        self.plan = plan
        self.store = store
        self.git = git_revision()
        self.experiment = self._experiment(uri, artifacts)
        self._runs = self._known_runs()
        self._publish_plan(command)

    def started(self, trial: PlannedTrial) -> None:
        """Shows a trial as running."""
        run = self._run(trial)
        if run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")

    def epochs(self, trial: PlannedTrial, epochs: Iterable[Mapping[str, float]]) -> None:
        """Adds points of the training curves, in one call."""
        metrics = [metric for epoch in epochs for metric in _curve(epoch)]
        if metrics:
            self._log(self._run(trial).info.run_id, metrics)

    def finished(self, trial: PlannedTrial) -> Summary:
        """Writes a trial's results from the store and ends its run.

        Raises:
            DamagedEntry: an outcome is damaged; it is set aside, to be measured again.
        """
        record = self.store.read_json(f"trials/{trial.id}", "record.json") or {}
        outcomes = {
            name: read_outcome(self.store, trial.id, cell_id)
            for name, cell_id in trial.cell_ids.items()
        }
        findings = {
            label: read_finding(self.store, trial.id, cell_id)
            for label, cell_id in trial.diagnostic_ids.items()
        }
        results = _results(self.plan, trial, outcomes, record)
        results += [
            (f"{names.DIAGNOSTIC}{label}/{key}", value, 0)
            for label, finding in findings.items()
            for key, value in finding.numbers.items()
        ]
        now = int(record.get("time", time.time()) * 1000)
        metrics = [metric for epoch in record.get("history", []) for metric in _curve(epoch)]
        metrics += [Metric(key, value, now, step) for key, value, step in results]
        run_id = self._run(trial, _start(record)).info.run_id
        self._log(run_id, metrics, self._tags(trial, outcomes, record))
        self._artifacts(run_id, trial, outcomes, findings)
        dataset = Dataset(trial.model.dataset.name, trial.model.dataset.checksum[:16], "code", "{}")
        self.client.log_inputs(run_id, [DatasetInput(dataset)])
        self.client.set_terminated(run_id, "FINISHED", now)
        self._runs[trial.id] = self.client.get_run(run_id)
        values = {key: value for key, value, _ in results}
        return Summary(clean=values[names.CLEAN], robust=values[names.ROBUST])

    def failed(self, trial: PlannedTrial, reason: str) -> None:
        """Ends a trial's run as failed, with the reason."""
        run_id = self._run(trial).info.run_id
        self.client.set_tag(run_id, names.REASON, reason)
        self.client.set_terminated(run_id, "FAILED")

    def stopped(self) -> None:
        """Leaves no run behind that says it is running when nobody works on it."""
        for run in self._known_runs().values():
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")

    def stale(self, trial: PlannedTrial) -> bool:
        """Whether the run of a trial that is whole in the store has still to be written."""
        run = self._runs.get(trial.id)
        return (
            run is None
            or run.info.status != "FINISHED"
            or run.data.tags.get(_SHOWS) != _digest(trial)
        )

    def _experiment(self, uri: str, artifacts: Path) -> str:
        found = self.client.get_experiment_by_name(self.plan.name)
        if found is not None and found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        if found is not None:
            return str(found.experiment_id)
        local = not uri.startswith(("http://", "https://"))
        location = (artifacts.absolute() / self.plan.name).as_uri() if local else None
        return str(self.client.create_experiment(self.plan.name, artifact_location=location))

    def _publish_plan(self, command: str) -> None:
        """The plan and the file, where the analysis and the UI find them."""
        described = describe(self.plan, command)
        question = self.plan.study.question or ""
        note = f"{question}\n\n```yaml\n{self.plan.file.text}\n```"
        self.client.set_experiment_tag(self.experiment, _NOTE, note)
        run = self._runs.get(names.REPORT) or self._create(
            "report", {names.ROLE: names.REPORT}, names.REPORT
        )
        run_id = run.info.run_id
        self.client.log_text(run_id, json.dumps(described, indent=1), names.PLAN_FILE)
        self.client.log_text(run_id, self.plan.file.text, names.STUDY_FILE)
        self.client.set_terminated(run_id, "FINISHED")

    def _known_runs(self) -> dict[str, Run]:
        """This experiment's runs by trial id, and the report's."""
        runs: dict[str, Run] = {}
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment], "", ViewType.ACTIVE_ONLY, 1000, page_token=token
            )
            for run in page:
                tags = run.data.tags
                key = tags.get(names.TRIAL_ID) or tags.get(names.ROLE)
                if key is not None:
                    runs[key] = run
            token = page.token
            if not token:
                return runs

    def _run(self, trial: PlannedTrial, started: int | None = None) -> Run:
        """The trial's run, made if there is none.

        One of an earlier plan is made anew, never mended: params cannot change, and of several
        values of a metric MLflow shows the largest.
        """
        run = self._runs.get(trial.id)
        if run is not None and run.data.tags.get(_SHOWS) != _digest(trial):
            self.client.delete_run(run.info.run_id)
            run = None
        if run is None:
            tags = {names.ROLE: names.TRIAL, names.TRIAL_ID: trial.id, _SHOWS: _digest(trial)}
            tags |= _static_tags(trial)
            run = self._create(trial.name, tags, trial.id, started)
        if not run.data.params:
            params = trial.params()
            hyper = [
                Metric(f"{names.HYPER}{key}", float(value), 0, 0)
                for key, value in numeric(trial.axes).items()
            ]
            self.client.log_batch(
                run.info.run_id, hyper, [Param(key, value) for key, value in params.items()]
            )
            run = self._runs[trial.id] = self.client.get_run(run.info.run_id)
        return run

    def _create(self, name: str, tags: dict[str, str], key: str, started: int | None = None) -> Run:
        self._runs[key] = self.client.create_run(
            self.experiment, started, {**tags, "git": self.git}, run_name=name
        )
        return self._runs[key]

    def _log(self, run_id: str, metrics: list[Metric], tags: Iterable[RunTag] = ()) -> None:
        self.client.log_batch(run_id, metrics[:_BATCH], tags=list(tags))
        for start in range(_BATCH, len(metrics), _BATCH):
            self.client.log_batch(run_id, metrics[start : start + _BATCH])

    def _tags(
        self, trial: PlannedTrial, outcomes: Mapping[str, Outcome], record: Mapping[str, Any]
    ) -> list[RunTag]:
        tags = {
            **_static_tags(trial),
            _NOTE: _note(outcomes),
            names.REASON: "",
            "device": record.get("execution", {}).get("device", "unknown"),
        }
        return [RunTag(key, value) for key, value in tags.items()]

    def _artifacts(
        self,
        run_id: str,
        trial: PlannedTrial,
        outcomes: Mapping[str, Outcome],
        findings: Mapping[str, Finding],
    ) -> None:
        cells = {
            name: {"cell_id": trial.cell_ids[name], "config": cell.spec()}
            for name, cell in trial.cells.items()
        }
        self.client.log_text(run_id, json.dumps(cells, indent=1), names.CELLS_FILE)
        with tempfile.TemporaryDirectory() as folder:
            outcome_frame(outcomes).to_parquet(Path(folder, names.OUTCOMES_FILE), index=False)
            shown = Path(folder, names.DIAGNOSTICS_FOLDER)
            shown.mkdir()
            for label, finding in findings.items():
                (shown / f"{label}.safetensors").write_bytes(finding.arrays)
            self.client.log_artifacts(run_id, folder)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadAddress(f"cannot track runs in {str(folder)!r}: {error}") from None


def read_outcome(store: Store, trial_id: str, cell_id: str) -> Outcome:
    """One cell's arrays, one value an image, and `passes`."""
    objects = store.read(f"outcomes/{trial_id}/{cell_id}")
    outcome: Outcome = safetensors.numpy.load(objects["outcome.safetensors"])
    passes = json.loads(objects["outcome.json"])["passes"]
    return {**outcome, "passes": np.full(len(outcome["labels"]), passes)}


def read_finding(store: Store, trial_id: str, cell_id: str) -> Finding:
    """What a diagnostic found on a model."""
    objects = store.read(f"outcomes/{trial_id}/{cell_id}")
    return Finding(objects["arrays.safetensors"], json.loads(objects["numbers.json"]))


def outcome_frame(outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """All cells of a run as one long frame, a row an image."""
    columns = {"labels": "label", "targets": "target"}
    frames = [
        pd.DataFrame(outcome)
        .rename(columns=columns)
        .assign(cell=name, index=np.arange(len(outcome["labels"])))
        for name, outcome in outcomes.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _results(
    plan: Plan,
    trial: PlannedTrial,
    outcomes: Mapping[str, Outcome],
    record: Mapping[str, Any],
) -> list[tuple[str, float, int]]:
    """Every number of a finished trial as (metric, value, step)."""
    test = {
        name: outcome for name, outcome in outcomes.items() if trial.cells[name].split == names.TEST
    }
    headline = plan.headline[names.TEST]
    values: dict[str, float] = {
        names.CLEAN: _accuracy([test[names.clean_name(names.TEST)]]),
        names.ROBUST: _accuracy([test[name] for name in headline]),
        names.ROBUST_VAL: _accuracy([outcomes[name] for name in plan.headline[names.VALIDATION]]),
        names.MASKING_GAP: _masking_gap(plan, test),
        names.N: float(plan.study.evaluate.test),
        names.TRAIN_SECONDS: sum(epoch["seconds"] for epoch in record.get("history", [])),
    }
    bounded = [outcome for name, outcome in test.items() if _has_budget(plan, name)]
    if bounded:
        values[names.WORST_CASE] = _accuracy(bounded)
    for name, outcome in outcomes.items():
        values[name] = _accuracy([outcome])
        values |= _further(plan, name, outcome)
    results = [(key, value, 0) for key, value in values.items()]
    return results + list(_series(plan, test))


def _has_budget(plan: Plan, name: str) -> bool:
    columns = plan.columns[name]
    return columns is not None and columns.norm is not None


def _accuracy(outcomes: list[Outcome]) -> float:
    """Accuracy under the worst of several attacks on each image, averaged over images."""
    worst = np.min([outcome["correct_after"] / outcome["passes"] for outcome in outcomes], axis=0)
    return float(worst.mean())


def _masking_gap(plan: Plan, test: Mapping[str, Outcome]) -> float:
    """The headline setting's weakest surface less the headline itself."""
    headline = plan.headline[names.TEST]
    setting = _setting(plan, headline[0])
    surfaces = [name for name in test if plan.columns[name] and _setting(plan, name) == setting]
    weakest = max(_accuracy([test[name]]) for name in surfaces)
    return weakest - _accuracy([test[name] for name in headline])


def _setting(plan: Plan, name: str) -> tuple[str, Columns]:
    """What a cell is, less the surface."""
    columns = plan.columns[name]
    assert columns is not None
    return plan.labels[name], replace(columns, surface="")


def _further(plan: Plan, name: str, outcome: Outcome) -> dict[str, float]:
    """A cell's norms over the attacked images, and its target hits."""
    columns = plan.columns[name]
    attacked = outcome["correct_before"] > 0
    if columns is None or not attacked.any():
        return {}
    further = {
        name + names.L2_MEDIAN: float(np.median(outcome["l2"][attacked])),
        name + names.LINF_MEDIAN: float(np.median(outcome["linf"][attacked])),
    }
    if columns.targeted:
        further[name + names.HIT] = float((outcome["hit"] / outcome["passes"]).mean())
    return further


def _series(plan: Plan, test: Mapping[str, Outcome]) -> Iterable[tuple[str, float, int]]:
    """Accuracy against steps (at the largest eps) and eps (at most steps), for the UI's charts."""
    for name, outcome in test.items():
        columns = plan.columns[name]
        if columns is None:
            continue
        family = _family(plan, name)
        peers = [
            other
            for key in test
            if (other := plan.columns[key]) is not None and _family(plan, key) == family
        ]
        if columns.eps == max(peer.eps for peer in peers):
            yield f"{names.BY_STEPS}{family}", _accuracy([outcome]), columns.steps
        if columns.steps == max(peer.steps for peer in peers):
            yield f"{names.BY_EPS}{family}", _accuracy([outcome]), round(1000 * columns.eps)


def _family(plan: Plan, name: str) -> str:
    """What the cell is charted under: all but its eps and steps."""
    columns = plan.columns[name]
    assert columns is not None
    return names.series_name(
        attack=plan.labels[name],
        budget=columns.budget,
        targeted=columns.targeted,
        surface=columns.surface,
        extra=columns.extra,
    )


def _start(record: Mapping[str, Any]) -> int | None:
    """When training began, in milliseconds; None while nothing is known of it."""
    history = record.get("history")
    return int(1000 * (history[0]["time"] - history[0]["seconds"])) if history else None


def _curve(epoch: Mapping[str, float]) -> list[Metric]:
    step, now = int(epoch["epoch"]), int(epoch["time"] * 1000)
    keys = (names.TRAIN_LOSS, names.TRAIN_ACCURACY, names.VALIDATION_ACCURACY)
    return [Metric(key, epoch[key], now, step) for key in keys]


def _static_tags(trial: PlannedTrial) -> dict[str, str]:
    return {
        names.ARM: trial.arm,
        names.METHODS: json.dumps(trial.methods),
        names.EVIDENCE: trial.evidence,
        names.ATTACK_MARK: names.UNAUDITED,
    }


def _note(outcomes: Mapping[str, Outcome]) -> str:
    rows = [f"| {name} | {100 * _accuracy([outcome]):.1f} |" for name, outcome in outcomes.items()]
    return "\n".join(["| cell | accuracy % |", "| --- | --- |", *rows])


def _digest(trial: PlannedTrial) -> str:
    cells = [trial.cell_ids, trial.diagnostic_ids]
    shown = [REVISION, cells, trial.name, trial.methods, trial.evidence, trial.params()]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]
