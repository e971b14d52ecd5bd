"""The report of 10,000 tracked runs: seconds and memory, cold and with the cache.

python benchmarks/analysis.py [--runs 10000] [--folder FOLDER] [--json FILE]

Makes a study of so many runs: a grid of (s, m) with five seeds, nine methods and two control arms
with ten, nine attacked cells, the audit, validation's choice. Nothing is trained: outcomes are
drawn at random, the more accurate the larger s and m, those of neighbours on the grid alike. All
that is written of them is what our own tracker writes; its client alone is one that adds rows in
bulk, and a run that it wrote is held against one that MLflow's wrote. A second call with the same
FOLDER makes nothing anew.

Then `study report` runs in a process of its own, first without a cache. Prints a table: seconds
from the start of the process to its end and in what, seconds of processor time, and the most memory
that it and what it started had. Nothing is held to the limits here; they are printed beside.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.pop(0)  # this folder, in which `analysis` is this file and not our package
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import numpy as np
import psutil
import sqlalchemy
import yaml

NAME = "thousands"
SEEDS, OTHER_SEEDS = 5, 10  # of a point of the grid, and of every other method
AT = {"name": "adversarial", "budget": "l2_abs", "eps": 1.5, "alpha": 0.3, "steps": 10}
METHODS: dict[str, dict[str, Any]] = {
    "sce": {"loss": "sce"},
    "ls": {"loss": {"name": "label_smoothing", "e": 0.1}},
    "center": {"loss": {"name": "center", "weight": 0.01}},
    "lgm": {"loss": {"name": "lgm", "alpha": 0.1, "weight": 0.1}},
    "arcface": {"loss": {"name": "arcface", "s": 30, "m": 0.5}},
    "mmc": {"loss": {"name": "mmc", "radius": 10}},
    "norm-sce": {"loss": {"name": "isce", "s": 1, "m": 0}},
    "isce-raw": {"loss": {"name": "isce", "s": 1, "m": 0.1, "normalize": "none"}},
    "random": {"loss": "sce", "transform": {"name": "random_resize_pad", "apply": "test"}},
    "at-l2": {"loss": "sce", "regime": AT},
}
ATTACKS = {
    "pgd": {
        "budget": "l2_abs",
        "eps": [0.5, 1.0],
        "steps": 20,
        "surface": ["ce_deployed", "ce_raw", "margin_raw"],
    },
    "pgd-t": {
        "attack": "pgd",
        "budget": "l2_abs",
        "eps": 1.0,
        "steps": 20,
        "targeted": True,
        "surface": ["ce_raw", "margin_raw"],
    },
    "deepfool": {"steps": 50},
}
LIMITS = {"cold": 60, "cached": 10}  # seconds
PHASES = (
    "find",
    "read",
    "read_audits",
    "accuracy_table",
    "audit_table",
    "paper_tables",
    "_write_tables",
    "_write_audits",
    "_write_beside",
    "_write_claims",
    "_write_surfaces",
    "_write_overviews",
    "_write_effects",
    "look_closer",
    "_page",
)


def study(runs: int) -> dict[str, Any]:
    """A study file of about so many runs."""
    points = max((runs - OTHER_SEEDS * len(METHODS)) // SEEDS, 4)
    along_s = math.isqrt(points)
    grid = {
        "name": "isce",
        "s": {"linspace": [1, 2, along_s]},
        "m": {"linspace": [0.01, 0.1, points // along_s]},
    }
    return {
        "study": NAME,
        "question": "How fast is the report of so many runs?",
        "data": "mnist5k",
        "backbone": "lenet5",
        "seeds": OTHER_SEEDS,
        "evaluate": {"validation": 100, "test": 150},
        "training": {"epochs": 12},
        "methods": {**METHODS, "isce": {"loss": grid, "seeds": SEEDS}},
        "attacks": ATTACKS,
        "headline": {"attack": "pgd", "eps": 1.0},
        "audit": {"n": 150, "queries": 300},
        "compare": {"baseline": "sce", "controls": {"isce": ["norm-sce", "isce-raw"]}},
        "choose": {"method": "isce"},
    }


class Bulk:
    """What the tracker needs of a client, kept as rows; artifacts it writes itself."""

    tracking_uri = None

    def __init__(self, location: Path, pattern: Mapping[str, Any]) -> None:
        self.location = location
        self.pattern = pattern  # of the columns that no run of ours differs in
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.run: Any = None

    def _add(self, table: str, **row: Any) -> None:
        self.rows.setdefault(table, []).append(row)

    def create_run(
        self, experiment: str, start_time: int | None, tags: Mapping[str, str], run_name: str
    ) -> Any:
        run_id = uuid.uuid4().hex
        self.run = SimpleNamespace(
            info=SimpleNamespace(
                run_id=run_id,
                status="RUNNING",
                artifact_uri=f"{self.location.as_uri()}/{run_id}/artifacts",
            ),
            data=SimpleNamespace(params={}, tags={**tags, "mlflow.runName": run_name}),
            row={
                **self.pattern,
                "run_uuid": run_id,
                "name": run_name,
                "start_time": start_time or int(time.time() * 1000),
            },
            latest={},
        )
        self.run.row["artifact_uri"] = self.run.info.artifact_uri
        return self.run

    def log_batch(
        self, run_id: str, metrics: Iterable[Any] = (), params: Iterable[Any] = (), tags: Any = ()
    ) -> None:
        for metric in metrics:
            row = {
                "key": metric.key,
                "value": metric.value,
                "timestamp": metric.timestamp,
                "step": metric.step,
                "is_nan": False,
                "run_uuid": run_id,
            }
            self._add("metrics", **row)
            held = self.run.latest.get(metric.key)
            newer = ("step", "timestamp", "value")
            if held is None or [row[key] for key in newer] > [held[key] for key in newer]:
                self.run.latest[metric.key] = row
        self.run.data.params |= {param.key: param.value for param in params}
        self.run.data.tags |= {tag.key: tag.value for tag in tags}

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """The report run's stamp: no concern of ours, it is set when all is there."""

    def log_inputs(self, run_id: str, datasets: Sequence[Any]) -> None:
        for _ in datasets:
            self._add("inputs", destination_id=run_id)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self.run.info.status = status
        self._add("runs", **{**self.run.row, "status": status, "end_time": end_time})
        for table in ("params", "tags"):
            for key, value in getattr(self.run.data, table).items():
                self._add(table, key=key, value=value, run_uuid=run_id)
        self.rows.setdefault("latest_metrics", []).extend(self.run.latest.values())


def drawn(trial: Any, name: str) -> Any:
    """Some outcome of a cell: weaker attacks leave more, and more is left at larger s and m."""
    from study.results import Outcome

    cell = trial.cells[name]
    columns, n = cell.probe.columns(), cell.n
    surface = columns.surface if columns else ""  # an attack goes on where a shorter one ends
    draws = np.random.default_rng(list(f"{trial.id}{surface}".encode()))
    before = np.random.default_rng(list(trial.id.encode())).random(n) < 0.97
    s, m = (trial.point.get(axis, 1.0) for axis in ("loss.s", "loss.m"))
    kept = 1.0
    if columns is not None:
        kept = (0.45 + 0.2 * (s - 1) + m) / (1 + max(columns.eps - 1, 0))
        kept -= columns.steps / 5000
        kept += {"ce_deployed": 0.2, "ce_raw": 0.1}.get(surface, 0) + 0.1 * columns.targeted
    passes = 10 if trial.model.transform.stochastic else 1
    right = before[:, None] & (draws.random((n, passes)) < kept)
    after = right.sum(axis=1)
    norm = draws.uniform(0.2, 1, n).astype(np.float32)
    arrays = {
        "labels": np.arange(n) % 10,
        "correct_before": before * passes,
        "correct_after": after,
        "passes": np.full(n, passes),
        "l2": norm,
        "linf": norm / 10,
        "queries": np.full(n, 20),
        "gradient": np.ones(n),
        "targets": np.full(n, -1),
        "hit": np.minimum(passes - after, passes),
        "broken_by": np.where((after == 0) & before, 0, -1),
    }
    return Outcome(arrays, right.astype(np.uint8), ("pgd",))


RECORD = {
    "time": 1.8e9,
    "execution": {"device": "cpu x86_64"},
    "history": [
        {
            "epoch": epoch,
            "time": 1.8e9 - 60 + epoch,
            "seconds": 1.0,
            "train_loss": 2.0 / epoch,
            "train_accuracy": 1 - 0.5 / epoch,
            "validation_accuracy": 1 - 0.6 / epoch,
        }
        for epoch in range(1, 13)
    ],
}


class Drawn:
    """A store in which every outcome is there, that of `trial` at hand."""

    def __init__(self) -> None:
        self.trial: Any = None

    def read_json(self, entry: str, name: str) -> Any:
        return RECORD

    @property
    def block(self) -> Any:
        """Trials of one block of the grid and one seed are drawn alike, for the sake of time."""
        s, m = (self.trial.point.get(axis, 0.0) for axis in ("loss.s", "loss.m"))
        place = int(5 * s), int(50 * m), self.trial.model.seed, len(self.trial.cells)
        return place if "isce" in self.trial.methods else self.trial.id


class File:
    """What is written of a frame, once for all runs that have it."""

    def __init__(self, frame: Any) -> None:
        self.data = frame.to_parquet(index=False)

    def to_parquet(self, index: bool) -> bytes:
        return self.data


def tracker_of(folder: Path, plan: Any) -> Any:
    """A tracker whose outcomes are drawn as they are read, and computed with once a block."""
    from study import tracking

    store, known = Drawn(), dict[Any, Any]()

    def once(name: str, function: Callable[..., Any]) -> None:
        def call(*arguments: Any) -> Any:
            key = name, store.block
            if key not in known:
                known[key] = function(*arguments)
            return known[key]

        setattr(tracking, name, call)

    def outcome(store: Drawn, trial_id: str, cell_id: str) -> Any:
        name = next(name for name, found in store.trial.cell_ids.items() if found == cell_id)
        if (name, store.block) not in known:
            known[name, store.block] = drawn(store.trial, name)
        return known[name, store.block]

    frame = tracking.frame
    tracking.read_outcome = outcome
    once("judge", tracking.judge)
    once("note", tracking.note)
    once("frame", lambda *arguments: File(frame(*arguments)))
    once("metrics", tracking.metrics)
    shared = tracking.metrics
    tracking.metrics = lambda *arguments: list(shared(*arguments))  # the tracker adds to them
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return tracking.Tracker(uri, plan, store, folder / "artifacts", f"study run {NAME}")


def make(runs: int, folder: Path) -> None:
    """Writes the study: the first trial through MLflow's client, the rest in bulk."""
    from study.files import read_study
    from study.plan import make_plan

    file = folder / f"{NAME}.yaml"
    file.write_text(yaml.safe_dump(study(runs), sort_keys=False), encoding="utf-8")
    plan = make_plan(read_study(str(file)))
    first, *others = plan.trials
    print(f"{len(plan.trials)} runs planned", flush=True)
    tracker, rows = tracker_of(folder, plan), Rows(folder)
    tracker.store.trial = first
    tracker.finished(first)
    client, slow = tracker.client, tracker._runs[first.id].info.run_id
    bulk = functools.partial(in_bulk, tracker, folder / "artifacts" / NAME, rows.pattern(slow))
    rows.add(bulk([first], again=True))
    check(client, slow, tracker.experiment, rows)
    chunks = [others[start : start + 50] for start in range(0, len(others), 50)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for done, found in enumerate(pool.imap_unordered(bulk, chunks), 1):
            rows.add(found)
            if done % 20 == 0:
                print(f"{50 * done} runs written", flush=True)
    tracker.stopped()


def in_bulk(
    tracker: Any,
    location: Path,
    pattern: Mapping[str, Any],
    trials: Sequence[Any],
    again: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Has the tracker write trials, and returns the rows by table."""
    runs, real = dict(tracker._runs), tracker.client
    tracker.client = client = Bulk(location, pattern)
    for trial in trials:
        if again:
            del tracker._runs[trial.id]
        tracker.store.trial = trial
        tracker.finished(trial)
    tracker.client, tracker._runs = real, runs
    return client.rows


class Rows:
    """The database behind MLflow's client."""

    def __init__(self, folder: Path) -> None:
        self.engine = sqlalchemy.create_engine(f"sqlite:///{folder / 'mlflow.db'}")
        self.tables = sqlalchemy.MetaData()
        self.tables.reflect(self.engine)
        self.usual: dict[str, dict[str, Any]] = {}

    def pattern(self, run_id: str) -> dict[str, Any]:
        """The row of a run; that of its input is kept for the others."""
        runs, inputs = self.tables.tables["runs"], self.tables.tables["inputs"]
        with self.engine.connect() as connection:
            of_inputs = sqlalchemy.select(inputs).where(inputs.c.destination_id == run_id)
            self.usual["inputs"] = dict(connection.execute(of_inputs).mappings().one())
            of_runs = sqlalchemy.select(runs).where(runs.c.run_uuid == run_id)
            return dict(connection.execute(of_runs).mappings().one())

    def add(self, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        """Adds rows to their tables, in one go."""
        with self.engine.begin() as connection:
            for table, found in rows.items():
                if table == "inputs":
                    usual = self.usual[table]
                    found = [{**usual, **row, "input_uuid": uuid.uuid4().hex} for row in found]
                connection.execute(sqlalchemy.insert(self.tables.tables[table]), found)

    def remove(self, run_id: str) -> None:
        """Deletes a run as if it had never been."""
        with self.engine.begin() as connection:
            for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
                found = self.tables.tables[table]
                connection.execute(sqlalchemy.delete(found).where(found.c.run_uuid == run_id))
            found = self.tables.tables["inputs"]
            connection.execute(sqlalchemy.delete(found).where(found.c.destination_id == run_id))


def check(client: Any, slow: str, experiment: str, rows: Rows) -> None:
    """Holds a run that was added in bulk against the same one that MLflow's client wrote."""
    trials = client.search_runs([experiment], "tags.role = 'trial'")
    (quick,) = (run.info.run_id for run in trials if run.info.run_id != slow)
    one, other = (client.get_run(run_id) for run_id in (slow, quick))
    assert one.data.to_dictionary() == other.data.to_dictionary()
    assert one.inputs.to_dictionary() == other.inputs.to_dictionary()
    for key, value in dict(one.info).items():
        own = key in ("run_id", "run_uuid", "artifact_uri")
        assert own or value == dict(other.info)[key], key
    for metric in one.data.metrics:
        histories = [client.get_metric_history(run_id, metric) for run_id in (slow, quick)]
        points = [{(p.step, p.timestamp, p.value) for p in history} for history in histories]
        assert points[0] == points[1], metric
    files = [
        sorted(file.path for file in client.list_artifacts(run_id)) for run_id in (slow, quick)
    ]
    assert files[0] == files[1]
    rows.remove(quick)
    print(
        f"a run added in bulk is as one that MLflow's client wrote: {len(one.data.metrics)} metrics"
    )


def report(folder: Path) -> dict[str, float]:
    """What `study report` does, in a process of its own; returns the seconds of its parts."""
    started = time.perf_counter()
    from analysis import report as reporting

    seconds = {"imports": time.perf_counter() - started}
    for phase in PHASES:
        setattr(reporting, phase, timed(seconds, phase, getattr(reporting, phase)))
    reporting.Album.draw = timed(seconds, "draw", reporting.Album.draw)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    reporting.write_report(uri, NAME, folder / "report", f"study report {NAME}")
    return seconds


def timed(seconds: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what a function takes to `seconds`."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[name] = seconds.get(name, 0) + time.perf_counter() - started

    return call


def measured(folder: Path) -> dict[str, Any]:
    """Runs `report` in a new process; what it starts itself is counted in."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    started, before = time.perf_counter(), processor()
    command = [sys.executable, __file__, "--folder", str(folder), "--report"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    most = 0
    while process.poll() is None:
        most = max(most, resident(psutil.Process(process.pid)))
        time.sleep(0.1)
    seconds, cpu = time.perf_counter() - started, processor() - before
    parts = json.loads(process.stdout.read().splitlines()[-1])
    return {"seconds": seconds, "cpu": cpu, "megabytes": most / 2**20, "parts": parts}


def resident(process: psutil.Process) -> int:
    """Bytes of memory of a process and all below it; what they share is counted again."""
    found = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += each.memory_info().rss
    return found


def processor() -> float:
    """Seconds of processor time of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the study is kept, or was")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--report", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        print(json.dumps(report(options.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "made").exists():
            make(options.runs, folder)
            (folder / "made").touch()
        shutil.rmtree(folder / "cache", ignore_errors=True)
        found = {kind: measured(folder) for kind in LIMITS}
        entries = [entry.stat().st_size for entry in (folder / "cache").rglob("*")]
    versions = {name: version(name) for name in ("mlflow", "pandas", "matplotlib", "plotly")}
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    machine |= {"load": os.getloadavg()[0], "python": platform.python_version(), **versions}
    print(f"\n{machine}; cache: {sum(entries) / 2**20:.1f} MB\n")
    show(found)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, **found}, indent=1))


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the table."""
    print(f"| | {' | '.join(found)} |\n| --- |{' --- |' * len(found)}")
    rows = {"seconds": [f"{run['seconds']:.1f}" for run in found.values()]}
    rows["processor s"] = [f"{run['cpu']:.1f}" for run in found.values()]
    rows["limit"] = [str(LIMITS[kind]) for kind in found]
    rows["memory MB"] = [f"{run['megabytes']:.0f}" for run in found.values()]
    for part in ("imports", *PHASES, "draw"):
        rows[f"{part} s"] = [f"{run['parts'].get(part, 0):.2f}" for run in found.values()]
    for title, cells in rows.items():
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
