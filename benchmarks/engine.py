"""No-op trials through the whole engine: what a trial costs beside its own work.

python benchmarks/engine.py [--trials 200 2000] [--rival 30] [--nodes 20] [--json FILE]

A study of `--trials` trials, each a linear layer on 4 x 4 pixels, one epoch and four cells of eight
images: planned, run on Ray with two workers, kept on disk, tracked in an SQLite database by
`study.driver.run_study`, as `study run` does. The rival is Tune as its documentation shows it: a
function that imports torch and reports once, with Ray's `MLflowLoggerCallback`. Then 200 trials of
`SECONDS` each on a cluster of `--nodes` simulated nodes of one core, which share this machine.
Each in a process of its own, one after the other.

Prints seconds a trial, from the plan to the end of `run_study` (`wall`) and from the first trial's
end to the last one's (`paced`: without planning, Ray's start and torch's import), where the driver
spent them, and its largest memory. Exit status 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, in which `analysis` is a benchmark and not our package
PLUGIN = Path(__file__).resolve().parent / "noop"
POINTS = 200  # of the grid: 20 x 10
CPUS = 2
# Of a trial on a simulated node: shorter ones measure how fast two cores serve twenty workers.
SECONDS = 40.0
WALL, RIVAL, GROWTH, BUSY = 0.15, 20.0, 1.3, 0.9  # what is wanted


def study(trials: int, seconds: float = 0.0) -> dict[str, Any]:
    """A grid of one seed or of many."""
    seeds, rest = divmod(trials, POINTS)
    if rest or not seeds:
        raise SystemExit(f"--trials: expected multiples of {POINTS}, found {trials}")
    grid = {"s": {"linspace": [1, 2, 20]}, "m": {"linspace": [0, 0.18, 10]}}
    return {
        "study": "noop",
        "plugins": ["noop"],
        "data": "specks",
        "backbone": {"name": "flat", "seconds": seconds},
        "seeds": seeds,
        "evaluate": {"validation": 8, "test": 8},
        "training": {"epochs": 1},
        "methods": {"isce": {"loss": {"name": "isce", **grid}}},
        "attacks": {"pgd": {"budget": "l2_abs", "eps": 0.5, "steps": 1, "surface": "ce_raw"}},
        "headline": {"attack": "pgd"},
    }


class Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

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


def planned(trials: int, folder: Path, seconds: float = 0.0) -> Any:
    """The study's plan."""
    import yaml

    from study.files import read_study
    from study.plan import make_plan

    file = folder / "noop.yaml"
    file.write_text(yaml.safe_dump(study(trials, seconds), sort_keys=False), encoding="utf-8")
    return make_plan(read_study(str(file)))


def run(plan: Any, folder: Path, clock: Clock) -> list[float]:
    """Runs a plan as `study run` does; when each trial has ended."""
    import ray
    from rich.console import Console

    from study import driver
    from study.progress import Display
    from study.tracking import Tracker
    from trainables.store import Store

    ends: list[float] = []

    class Watch(Display):
        def finished(self, trial: Any, summary: Any) -> None:
            super().finished(trial, summary)
            ends.append(time.perf_counter())

    for name in ("__init__", "started", "epochs", "finished", "stopped"):
        clock.time(Tracker, name, "tracking")
    for name in ("read", "entries", "has"):
        clock.time(Store, name, "store, read")
    for name in ("started", "reported", "finished"):
        clock.time(Watch, name, "display")
    clock.time(ray, "init", "Ray's start")
    clock.time(ray, "shutdown", "Ray's start")
    result = driver.run_study(
        plan,
        store=Store(str(folder / "store")),
        data=str(folder / "data"),
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        artifacts=folder / "artifacts",
        command="study run noop",
        local=False,
        display=Watch(Console(file=io.StringIO(), width=200)),
    )
    assert not result.failed, result.failed
    assert len(ends) == len(plan.trials), f"{len(ends)} of {len(plan.trials)} trials have ended"
    return ends


def engine(trials: int, folder: Path) -> dict[str, Any]:
    """What a trial costs."""
    clock, started, processor = Clock(), time.perf_counter(), time.process_time()
    plan = planned(trials, folder)
    clock.seconds["planning"] = time.perf_counter() - started
    ends = run(plan, folder, clock)
    seconds = time.perf_counter() - started
    parts = {part: found / trials for part, found in clock.seconds.items()}
    parts["Tune, waiting for workers"] = (seconds - sum(clock.seconds.values())) / trials
    return {
        "wall": seconds / trials,
        "paced": (ends[-1] - ends[0]) / (trials - 1),
        "processor": (time.process_time() - processor) / trials,
        "before the first": ends[0] - started,
        "parts": parts,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def worker(trials: int, folder: Path) -> dict[str, Any]:
    """What a worker does of the same trials, in this process."""
    from trainables.execution import prepare
    from trainables.store import Store
    from trainables.trial import Trial

    clock, plan, store = Clock(), planned(POINTS, folder), Store(str(folder / "store"))
    execution = prepare(threads=1, gpu=0, channels_last=True, data=str(folder))
    for name in ("read", "write", "entries", "has", "remove"):
        clock.time(Store, name, "store")
    for number, trial in enumerate(plan.trials[: trials + 1]):
        if number == 1:  # the first one warms up
            started = time.perf_counter()
            clock.seconds.clear()
        life = Trial(trial.job(), store, execution)
        while not (report := life.advance()).done:
            pass
        assert not report.failed, report.failed
    seconds = time.perf_counter() - started
    return {"paced": seconds / trials, "store": clock.seconds["store"] / trials}


def rival(trials: int, folder: Path) -> dict[str, Any]:
    """The same from Tune's documentation."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    def trainable(config: dict[str, Any]) -> None:
        import torch

        tune.report({"loss": float(torch.zeros(1))})

    started = time.perf_counter()
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=CPUS, **quiet)
    callback = MLflowLoggerCallback(
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="rival"
    )
    where = {"storage_path": str(folder / "tune"), "verbose": 0, "callbacks": [callback]}
    tuner = tune.Tuner(
        trainable,
        param_space={"x": tune.grid_search(list(range(trials)))},
        run_config=tune.RunConfig(**where),
    )
    begun = time.perf_counter()
    found = tuner.fit()
    ended = time.perf_counter()
    assert not found.errors and len(found) == trials
    ray.shutdown()
    return {"wall": (ended - started) / trials, "paced": (ended - begun) / trials}


def nodes(count: int, folder: Path) -> dict[str, Any]:
    """How busy trials keep that many nodes, all of them on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    notes = folder / "notes"
    notes.mkdir()
    os.environ["NOOP_NOTES"] = str(notes)  # the workers' too
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = cluster.address
        started = time.time()
        run(planned(POINTS, folder, SECONDS), folder, Clock())
    finally:
        ray.shutdown()  # the cluster goes only when nobody is on it
        cluster.shutdown()
    found = sorted(json.loads(note.read_text())[::-1] for note in notes.iterdir())
    work = [(node, began, ended) for ended, began, node in found]
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    gaps = []
    for node, began, ended in sorted(work, key=lambda item: item[1]):
        first.setdefault(node, began)
        if node in last:
            gaps.append(began - last[node])
        last[node] = ended
    # From when each has begun to when none is left that has not.
    since, until = max(first.values()), max(began for _, began, _ in work)
    inside = sum(max(0.0, min(ended, until) - max(began, since)) for _, began, ended in work)
    at_once = max(sum(b <= moment < e for _, b, e in work) for _, moment, _ in work)
    return {
        "nodes": len(first),
        "at once": at_once,
        "busy": inside / (until - since) / count,
        "seconds between two trials of a node": statistics.median(gaps),
        "seconds until each has begun": since - started,
        "seconds of work": until - since,
    }


KINDS: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "engine": engine,
    "worker": worker,
    "rival": rival,
    "nodes": nodes,
}


def measured(kind: str, size: int) -> dict[str, Any]:
    """What one of the above finds, in a process of its own."""
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
        print(f"{kind} {size}: {json.dumps(found)}", file=sys.stderr, flush=True)
        return found


def show(found: Mapping[str, Any]) -> None:
    """Prints the tables."""
    runs, single = found["engine"], found["worker"]
    print(f"| | {' | '.join(f'{size} trials' for size in runs)} |")
    print(f"| --- |{' --- |' * len(runs)}")
    rows = {"s a trial, all in": [f"{each['wall']:.3f}" for each in runs.values()]}
    rows["s a trial, paced"] = [f"{each['paced']:.3f}" for each in runs.values()]
    rows["driver's processor s a trial"] = [f"{each['processor']:.3f}" for each in runs.values()]
    rows["s before the first ends"] = [f"{each['before the first']:.1f}" for each in runs.values()]
    for part in next(iter(runs.values()))["parts"]:
        shares = [1000 * each["parts"][part] for each in runs.values()]
        rows[f"ms a trial: {part}"] = [f"{share:.1f}" for share in shares]
    rows["driver's largest memory, MB"] = [f"{each['megabytes']:.0f}" for each in runs.values()]
    for title, cells in rows.items():
        print(f"| {title} | {' | '.join(cells)} |")
    print(f"\na worker alone: {1000 * single['paced']:.1f} ms a trial, ", end="")
    print(f"of which the store {1000 * single['store']:.1f}")
    if "rival" in found:
        print(f"the rival: {found['rival']['wall']:.2f} s a trial")
    if "nodes" in found:
        told = {key: round(value, 2) for key, value in found["nodes"].items()}
        print(f"simulated nodes: {told}")


def verdicts(found: Mapping[str, Any]) -> dict[str, bool]:
    """What is wanted, and whether it holds."""
    runs = list(found["engine"].values())
    small, large = runs[0], runs[-1]
    ratio = {name: large[name] / small[name] for name in ("wall", "paced")}
    told = {f"at most {WALL} s a trial, all in: {large['wall']:.3f}": large["wall"] <= WALL}
    growth = f"at most {GROWTH} times as much of many: {ratio['paced']:.2f} paced"
    told[f"{growth}, {ratio['wall']:.2f} all in"] = max(ratio.values()) <= GROWTH
    if "rival" in found:
        times = found["rival"]["wall"] / large["wall"]
        told[f"at least {RIVAL:.0f} times less than the rival: {times:.1f}"] = times >= RIVAL
    if "nodes" in found:
        busy = found["nodes"]["busy"]
        told[f"all nodes busy, {BUSY:.0%} of the time: {busy:.1%}"] = busy >= BUSY
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--rival", type=int, default=30, help="trials; 0 for none")
    parser.add_argument("--nodes", type=int, default=20, help="0 for none")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        kind, size, folder = options.run
        print(json.dumps(KINDS[kind](int(size), Path(folder))))
        return 0
    found: dict[str, Any] = {"worker": measured("worker", 50)}
    found["engine"] = {str(size): measured("engine", size) for size in sorted(options.trials)}
    for kind in ("rival", "nodes"):
        if getattr(options, kind):
            found[kind] = measured(kind, getattr(options, kind))
    versions = {name: version(name) for name in ("ray", "mlflow", "torch", "sqlalchemy")}
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], **versions}
    found["machine"] = {**machine, "python": platform.python_version()}
    print(f"\n{found['machine']}\n")
    show(found)
    told = verdicts(found)
    print("\n".join(f"{'holds ' if holds else 'MISSED'}  {what}" for what, holds in told.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0 if all(told.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
