"""No-op trials through the whole engine: what a trial costs beside its own work.

python benchmarks/engine.py [--trials 200 2000] [--rival 30] [--nodes 20] [--json FILE]

A study of `--trials` trials whose model is a linear layer on 4 x 4 pixels, one epoch and four cells
of eight images each: planned, run on Ray with two workers, kept on disk and tracked in an SQLite
database by `study.driver.run_study`, as `study run` does. The rival is Tune as its documentation
shows it: a function that imports torch and reports once, with Ray's `MLflowLoggerCallback`. Then
the study on a cluster of `--nodes` simulated nodes of one core each, whose trials note on which node
they are. Each in a process of its own, one after the other.

Prints a table: seconds a trial from `run_study`'s start to its end (`wall`), and from the first
trial's end to the last one's (`paced`: without planning, Ray's start and torch's import); where the
driver spent them; and the driver's largest memory. Exit status 1 where anything misses its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, in which `analysis` is a benchmark and not our package
HERE = Path(__file__).resolve().parent
PLUGIN = HERE / "noop"
POINTS = 200  # of the grid: 20 x 10
CPUS = 2
LIMITS = {"wall": 0.15, "rival": 20.0, "growth": 1.3}


def study(trials: int) -> dict[str, Any]:
    """A grid of one seed or of many."""
    seeds, rest = divmod(trials, POINTS)
    if rest or not seeds:
        raise SystemExit(f"--trials: expected multiples of {POINTS}, found {trials}")
    return {
        "study": "noop",
        "plugins": ["noop"],
        "data": "specks",
        "backbone": "flat",
        "seeds": seeds,
        "evaluate": {"validation": 8, "test": 8},
        "training": {"epochs": 1},
        "methods": {
            "isce": {
                "loss": {
                    "name": "isce",
                    "s": {"linspace": [1, 2, 20]},
                    "m": {"linspace": [0, 0.18, 10]},
                }
            }
        },
        "attacks": {"pgd": {"budget": "l2_abs", "eps": 0.5, "steps": 1, "surface": "ce_raw"}},
        "headline": {"attack": "pgd"},
    }


class Clock:
    """Seconds of the driver by what it did."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.ends: list[float] = []  # when trials ended

    def time(self, owner: Any, name: str, part: str) -> None:
        """Counts what a function takes, less what it calls that is counted itself."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            before, started = sum(self.seconds.values()), time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                inner = sum(self.seconds.values()) - before
                own = time.perf_counter() - started - inner
                self.seconds[part] = self.seconds.get(part, 0.0) + own

        setattr(owner, name, call)


def engine(trials: int, folder: Path) -> dict[str, Any]:
    """Runs the study; what its trials cost."""
    import ray
    import yaml
    from rich.console import Console

    from study import driver
    from study.files import read_study
    from study.plan import make_plan
    from study.progress import Display
    from study.tracking import Tracker
    from trainables.store import Store

    clock = Clock()

    class Watch(Display):
        def finished(self, trial: Any, summary: Any) -> None:
            super().finished(trial, summary)
            clock.ends.append(time.perf_counter())

    file = folder / "noop.yaml"
    file.write_text(yaml.safe_dump(study(trials), sort_keys=False), encoding="utf-8")
    started = time.perf_counter()
    plan = make_plan(read_study(str(file)))
    clock.seconds["planning"] = time.perf_counter() - started
    for name in ("started", "epochs", "finished", "stopped"):
        clock.time(Tracker, name, "tracking")
    for name in ("read", "entries", "has"):
        clock.time(Store, name, "store")
    for name in ("started", "reported", "finished"):
        clock.time(Watch, name, "display")
    clock.time(ray, "init", "Ray's start")
    result = driver.run_study(
        plan,
        store=Store(str(folder / "store")),
        data=str(folder / "data"),
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        artifacts=folder / "artifacts",
        command="study run noop",
        local=False,
        display=Watch(Console(file=io.StringIO(), width=200), len(plan.trials)),
    )
    seconds = time.perf_counter() - started
    assert not result.failed, result.failed
    assert len(clock.ends) == trials, f"{len(clock.ends)} of {trials} trials have ended"
    parts = {part: found / trials for part, found in clock.seconds.items()}
    parts["Tune, and waiting for workers"] = (seconds - sum(clock.seconds.values())) / trials
    return {
        "wall": seconds / trials,
        "paced": (clock.ends[-1] - clock.ends[0]) / (trials - 1),
        "parts": parts,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def worker(trials: int, folder: Path) -> dict[str, Any]:
    """What a worker does of the same trials, in this process."""
    import torch
    import yaml

    from study.files import read_study
    from study.plan import make_plan
    from trainables.execution import prepare
    from trainables.store import Store
    from trainables.trial import Trial

    torch.set_num_threads(1)
    file, clock = folder / "noop.yaml", Clock()
    file.write_text(yaml.safe_dump(study(POINTS), sort_keys=False), encoding="utf-8")
    plan, store = make_plan(read_study(str(file))), Store(str(folder / "store"))
    execution = prepare(threads=1, gpu=0, channels_last=True, data=str(folder))
    for name in ("read", "write", "entries", "has", "remove"):
        clock.time(Store, name, "store")
    first, *others = plan.trials[: trials + 1]
    for trial in (first, *others):
        if trial is others[0]:  # the first one warms up
            started = time.perf_counter()
            clock.seconds.clear()
        life = Trial(trial.job(), store, execution)
        while not (report := life.advance()).done:
            pass
        assert not report.failed, report.failed
    seconds = time.perf_counter() - started
    return {"seconds": seconds / trials, "store": clock.seconds["store"] / trials}


def rival(trials: int, folder: Path) -> dict[str, Any]:
    """The same from Tune's documentation."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    def trainable(config: dict[str, Any]) -> None:
        import torch

        tune.report({"loss": float(torch.zeros(1))})

    started = time.perf_counter()
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    callback = MLflowLoggerCallback(
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="rival"
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"x": tune.grid_search(list(range(trials)))},
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"), verbose=0, callbacks=[callback]
        ),
    )
    begun = time.perf_counter()
    found = tuner.fit()
    ended = time.perf_counter()
    assert not found.errors and len(found) == trials
    ray.shutdown()
    return {"wall": (ended - started) / trials, "paced": (ended - begun) / trials}


def measured(kind: str, size: int) -> dict[str, Any]:
    """What one of the above found, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        command = [sys.executable, __file__, "--run", kind, str(size), folder]
        paths = [str(PLUGIN), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{kind} {size}: exit status {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


KINDS: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "engine": engine,
    "worker": worker,
    "rival": rival,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--rival", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        kind, size, folder = options.run
        print(json.dumps(KINDS[kind](int(size), Path(folder))))
        return 0
    for size in options.trials:
        print(size, json.dumps(measured("engine", size), indent=1))
    print(measured("worker", 50))
    if options.rival: print(measured("rival", options.rival))
    return 0


if __name__ == "__main__":
    sys.exit(main())
