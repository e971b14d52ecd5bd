"""The one writer of MLflow: a projection of the store that people look at.

A run is keyed by the tag `trial_id`, so that a crash, a restart or a second driver never
makes a second one; its status, metrics and artifacts are written from what the store holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from analysis.audit import Audit, judge
from analysis.plan import Group
from analysis.plan import Plan as Described
from analysis.runs import connect, search_runs
from study.database import database_of
from study.describe import describe
from study.planned import Plan, PlannedTrial, numeric
from study.results import Finding, Outcome, frame, metrics, note, read_finding, read_outcome
from study.source import git_revision
from trainables import names
from trainables.errors import BadAddress, BrokenInvariant
from trainables.store import Store
from trainables.trial import failure_of, record_of

# Of a call to a server that is away: seconds, not minutes, for which a whole study would stand.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run
logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
logging.getLogger("alembic").setLevel(logging.WARNING)

REVISION = 7  # bumped by whatever alters what a run shows: old runs are then written anew

_NOTE = "mlflow.note.content"
_KIND = ("mlflow.experimentKind", "custom_model_development")  # else the UI opens on GenAI's pages
_LONGEST_RUN_NOTE, _LONGEST_NOTE = 8_000, 20_000  # characters that MLflow keeps
_SHOWS = "shows"  # digest of what a run shows, to see whether it is of this plan
_BATCH = 900  # MLflow takes 1,000 metrics a call


@dataclass(frozen=True)
class Summary:
    """What the live display says of a finished trial, as fractions."""

    clean: float
    robust: float


@dataclass(frozen=True)
class Tracked:
    """What has to be known of a run; MLflow's own object holds its metrics, and is slow to fetch.

    Attributes:
        folder: address of its artifacts.
        shows: digest of what it shows.
        reason: why it failed.
        described: whether it has its params.
        stamp: of the report's run, see `names.STAMP`.
    """

    id: str
    folder: str
    status: str
    shows: str = ""
    reason: str = ""
    described: bool = False
    stamp: str = ""

    @staticmethod
    def of(run: Run) -> Tracked:
        """What MLflow says of it."""
        tags = run.data.tags
        return Tracked(
            id=run.info.run_id,
            folder=run.info.artifact_uri,
            status=run.info.status,
            shows=tags.get(_SHOWS, ""),
            reason=tags.get(names.REASON, ""),
            described=bool(run.data.params),
            stamp=tags.get(names.STAMP, ""),
        )


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
        self.database = database_of(uri)
        if self.database is not None:
            _make_folder(self.database.parent)
        self.client = connect(uri)
        self.plan = plan
        self.store = store
        self.git = git_revision()
        self.described = Described(describe(plan, command))
        self.experiment = self._experiment(uri, artifacts)
        self._runs = self._known_runs()
        self._drawn: dict[str, set[tuple[float, float]]] = {}  # points of curves, by trial
        self._publish_plan()
        self._is_stamped = bool(self._report.stamp)

    def started(self, trial: PlannedTrial) -> None:
        """Shows a trial as running."""
        self._unstamp()
        run = self._run(trial)
        if run.status != "RUNNING":
            self.client.update_run(run.id, status="RUNNING")
            self._runs[trial.id] = replace(run, status="RUNNING")

    def epochs(self, trial: PlannedTrial, epochs: Iterable[Mapping[str, float]]) -> None:
        """Adds points of the training curves, in one call."""
        added = list(epochs)
        if added:
            self._log(self._run(trial).id, [metric for epoch in added for metric in _curve(epoch)])
            self._drawn.setdefault(trial.id, set()).update(map(_place, added))

    def finished(self, trial: PlannedTrial) -> Summary:
        """Writes a trial's results from the store and ends its run.

        Raises:
            DamagedEntry: an outcome is damaged; it is set aside, to be measured again.
        BrokenInvariant: outcomes contradict each other: a bug of ours.
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
        protocol = self.described.protocol(
            Group(trial.model.dataset.name, trial.model.backbone.name)
        )
        verdict = judge(
            protocol.cells,
            protocol.headline_metrics,
            {name: outcome.arrays for name, outcome in outcomes.items()},
        )
        if verdict.broken_invariants:
            raise BrokenInvariant("; ".join(verdict.broken_invariants))
        results = metrics(self.plan.protocol(trial), trial, outcomes, record)
        results.append((names.AUDIT_FAILED, float(verdict.failed), 0))
        results += [
            (f"{names.DIAGNOSTIC}{label}/{key}", value, 0)
            for label, finding in findings.items()
            for key, value in finding.numbers.items()
        ]
        self._unstamp()
        now = int(record.get("time", time.time()) * 1000)
        drawn = self._drawn.pop(trial.id, ())  # MLflow is slow to see that it has a point already
        new = [epoch for epoch in record.get("history", []) if _place(epoch) not in drawn]
        logged = [metric for epoch in new for metric in _curve(epoch)]
        logged += [Metric(key, value, now, step) for key, value, step in results]
        run = self._run(trial, _start(record))
        self._log(run.id, logged, self._tags(trial, outcomes, record, verdict.mark))
        self._write_files(run, self._files(trial, outcomes, findings, verdict))
        dataset = Dataset(trial.model.dataset.name, trial.model.dataset.checksum[:16], "code", "{}")
        self.client.log_inputs(run.id, [DatasetInput(dataset)])
        self.client.set_terminated(run.id, "FINISHED", now)
        self._runs[trial.id] = replace(run, status="FINISHED", reason="")
        return _summary(trial, {key: value for key, value, _ in results})

    def given_up(self, trial: PlannedTrial, epoch: int) -> None:
        """Ends the run of a training that a search has given up."""
        self._unstamp()
        run = self._run(trial)
        self.client.set_tag(run.id, names.STOPPED, f"epoch {epoch}")
        self.client.set_terminated(run.id, "FINISHED")
        self._runs[trial.id] = replace(run, status="FINISHED")

    def failed(self, trial: PlannedTrial, reason: str) -> None:
        """Ends a trial's run as failed, with the reason and what the store knows of it."""
        self._unstamp()
        run = self._run(trial)
        self.client.set_tag(run.id, names.REASON, reason)
        told = _failure_text(reason, record_of(self.store, trial.id))
        self._write_files(run, {names.FAILURE_FILE: told.encode()})
        self.client.set_terminated(run.id, "FAILED")
        self._runs[trial.id] = replace(run, status="FAILED", reason=reason)

    def shows_failure(self, trial: PlannedTrial, reason: str) -> bool:
        """Whether a trial's run has ended as failed for this reason."""
        run = self._runs.get(trial.id)
        wanted = ("FAILED", reason, _digest(trial))
        return run is not None and (run.status, run.reason, run.shows) == wanted

    def stopped(self) -> None:
        """Leaves no run behind that says it is running when nobody works on it.

        Nothing more is written then: readers may keep what they read, under a new stamp.
        """
        running = list(search_runs(self.client, self.experiment, "attributes.status = 'RUNNING'"))
        if running:
            self._unstamp()
        for run in running:
            self.client.set_terminated(run.info.run_id, "KILLED")
        if not self._is_stamped:
            if self.database is not None:
                _optimize(self.database)
            self.client.set_tag(self._report.id, names.STAMP, uuid.uuid4().hex)

    def stale(self, trial: PlannedTrial) -> bool:
        """Whether the run of a trial that is whole in the store has still to be written."""
        run = self._runs.get(trial.id)
        return run is None or run.status != "FINISHED" or run.shows != _digest(trial)

    @property
    def _report(self) -> Tracked:
        return self._runs[names.REPORT]

    def _unstamp(self) -> None:
        """Says, before anything is written, that what readers keep is out of date.

        At every trial: a driver with another store may have tracked here, and ended, meanwhile.
        """
        self.client.set_tag(self._report.id, names.STAMP, "")
        self._is_stamped = False

    def _experiment(self, uri: str, artifacts: Path) -> str:
        found = self.client.get_experiment_by_name(self.plan.name)
        if found is not None and found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        if found is not None:
            return str(found.experiment_id)
        local = not uri.startswith(("http://", "https://"))
        location = (artifacts.absolute() / self.plan.name).as_uri() if local else None
        return str(self.client.create_experiment(self.plan.name, artifact_location=location))

    def _publish_plan(self) -> None:
        """The plan and the file, where the analysis and the UI find them."""
        note = f"{self.plan.file.question}\n\n```yaml\n{self.plan.file.text}\n```"
        self.client.set_experiment_tag(self.experiment, _NOTE, clipped(note, _LONGEST_NOTE))
        self.client.set_experiment_tag(self.experiment, *_KIND)
        if names.REPORT not in self._runs:
            self._create("report", {names.ROLE: names.REPORT}, names.REPORT)
        files = {
            names.PLAN_FILE: json.dumps(self.described.raw, indent=1).encode(),
            names.STUDY_FILE: self.plan.file.text.encode(),
        }
        self._write_files(self._report, files)
        self.client.set_terminated(self._report.id, "FINISHED")

    def _known_runs(self) -> dict[str, Tracked]:
        """This experiment's runs by trial id, and the report's."""
        runs: dict[str, Tracked] = {}
        for run in search_runs(self.client, self.experiment):
            tags = run.data.tags
            role = tags.get(names.ROLE)
            if role in (names.TRIAL, names.CANDIDATE, names.REPORT):
                key, found = tags.get(names.TRIAL_ID) or role, Tracked.of(run)
                if key in runs:  # a server that died before it answered was asked again
                    second = min(runs[key], found, key=lambda one: one.status == "FINISHED")
                    self._set_aside(second)
                    found = runs[key] if second is found else found
                runs[key] = found
        return runs

    def _set_aside(self, run: Tracked) -> None:
        """Readers ask which trials' runs users have deleted: this one is none of them."""
        self.client.set_tag(run.id, names.ROLE, names.REPLACED)
        self.client.delete_run(run.id)

    def _run(self, trial: PlannedTrial, started: int | None = None) -> Tracked:
        """The trial's run, made if there is none.

        One of an earlier plan is made anew, never mended: params cannot change, and of several
        values of a metric MLflow shows the largest.
        """
        run = self._runs.get(trial.id)
        if run is not None and run.shows != _digest(trial):
            self._set_aside(run)
            run = None
        if run is None:
            role = names.CANDIDATE if trial.candidate else names.TRIAL
            tags = {names.ROLE: role, names.TRIAL_ID: trial.id, _SHOWS: _digest(trial)}
            tags |= _static_tags(trial)
            run = self._create(trial.name, tags, trial.id, started)
        if not run.described:
            hyper = [
                Metric(f"{names.HYPER}{key}", float(value), 0, 0)
                for key, value in numeric(trial.point).items()
            ]
            params = [Param(key, value) for key, value in trial.params().items()]
            self.client.log_batch(run.id, hyper, params)
            run = self._runs[trial.id] = replace(run, described=True)
        return run

    def _create(
        self, name: str, tags: dict[str, str], key: str, started: int | None = None
    ) -> Tracked:
        tags = {**tags, "git": self.git}
        run = self.client.create_run(self.experiment, started, tags, run_name=name)
        self._runs[key] = Tracked.of(run)
        return self._runs[key]

    def _log(self, run_id: str, metrics: list[Metric], tags: Iterable[RunTag] = ()) -> None:
        self.client.log_batch(run_id, metrics[:_BATCH], tags=list(tags))
        for start in range(_BATCH, len(metrics), _BATCH):
            self.client.log_batch(run_id, metrics[start : start + _BATCH])

    def _tags(
        self,
        trial: PlannedTrial,
        outcomes: Mapping[str, Outcome],
        record: Mapping[str, Any],
        mark: str,
    ) -> list[RunTag]:
        execution = record.get("execution", {})
        tags = {
            **_static_tags(trial),
            names.ATTACK_MARK: mark,
            _NOTE: clipped(note(outcomes), _LONGEST_RUN_NOTE),
            names.REASON: "",
            "device": execution.get("device", "unknown"),
            "gpu": names.number(execution.get("gpu", 0.0)),
        }
        return [RunTag(key, value) for key, value in tags.items()]

    def _files(
        self,
        trial: PlannedTrial,
        outcomes: Mapping[str, Outcome],
        findings: Mapping[str, Finding],
        verdict: Audit,
    ) -> dict[str, bytes]:
        """The artifacts of a finished trial's run, by path."""
        cells = {
            name: {"cell_id": trial.cell_ids[name], "config": cell.spec()}
            for name, cell in trial.cells.items()
        }
        arrays = {
            f"{names.DIAGNOSTICS_FOLDER}/{label}.safetensors": finding.arrays
            for label, finding in findings.items()
        }
        return {
            names.CELLS_FILE: json.dumps(cells, indent=1).encode(),
            names.AUDIT_FILE: verdict.to_json().encode(),
            names.OUTCOMES_FILE: frame(self.plan.protocol(trial), outcomes).to_parquet(index=False),
            **arrays,
        }

    def _write_files(self, run: Tracked, files: Mapping[str, bytes]) -> None:
        """Artifacts, at their own address: by its run's id, MLflow would first fetch that run."""
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            place = get_artifact_repository(run.folder, tracking_uri=self.client.tracking_uri)
            place.log_artifacts(folder)  # type: ignore[no-untyped-call]


def _optimize(path: Path) -> None:
    """Lets SQLite count what its indices hold, as it asks of whoever has written a lot.

    Else it looks for a run's curve among the curves of all runs: 30 ms of 10,000 runs, not 1.
    """
    database = sqlite3.connect(path)
    with contextlib.closing(database), contextlib.suppress(sqlite3.OperationalError):  # locked
        database.execute("PRAGMA analysis_limit = 400")  # rows of an index
        database.execute("ANALYZE")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadAddress(f"cannot track runs in {str(folder)!r}: {error}") from None


def _summary(trial: PlannedTrial, values: Mapping[str, float]) -> Summary:
    """On test images; of what a search tries on validation images."""
    if trial.candidate:
        clean = values[names.clean_name(names.VALIDATION)]
        return Summary(clean=clean, robust=values[names.ROBUST_VAL])
    return Summary(clean=values[names.CLEAN], robust=values[names.ROBUST])


def _start(record: Mapping[str, Any]) -> int | None:
    """When training began, in milliseconds; None while nothing is known of it."""
    history = record.get("history")
    return int(1000 * (history[0]["time"] - history[0]["seconds"])) if history else None


def _place(epoch: Mapping[str, float]) -> tuple[float, float]:
    """Names a point of the curves: a model that was trained again has others."""
    return epoch["epoch"], epoch["time"]


def _curve(epoch: Mapping[str, float]) -> list[Metric]:
    step, now = int(epoch["epoch"]), int(epoch["time"] * 1000)
    keys = (names.TRAIN_LOSS, names.TRAIN_ACCURACY, names.VALIDATION_ACCURACY, names.WATCHED)
    return [Metric(key, epoch[key], now, step) for key in keys if epoch.get(key) is not None]


def clipped(text: str, longest: int) -> str:
    """What fits of a text: whole lines, the last of which says that it goes on."""
    if len(text) <= longest:
        return text
    kept = text[: longest - 1].rpartition("\n")[0]
    return f"{kept}\n…"


def _static_tags(trial: PlannedTrial) -> dict[str, str]:
    return {
        names.ARM: trial.arm,
        names.METHODS: json.dumps(trial.methods),
        names.EVIDENCE: trial.evidence,
        names.ATTACK_MARK: names.UNAUDITED,
    }


def _digest(trial: PlannedTrial) -> str:
    cells = [trial.cell_ids, trial.diagnostic_ids]
    shown = [REVISION, cells, trial.name, trial.methods, trial.evidence, trial.params()]
    shown += [names.CANDIDATE] * trial.candidate
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def _failure_text(reason: str, record: Mapping[str, Any]) -> str:
    """What is known of a failure: where it happened, how far the trial was, the traceback."""
    failure = failure_of(record) or {}
    where = ", ".join(f"{key} {value}" for key, value in record.get("execution", {}).items())
    done = f"{len(record.get('history', ()))} epochs, {len(record.get('cell_seconds', ()))} cells"
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(failure.get("time", time.time())))
    lines = [reason, when, f"done: {done}", f"on: {where or 'unknown'}"]
    return "\n".join([*lines, "", failure.get("traceback", ""), ""])
