"""What `study plan` takes for 10,000 trials: with an empty store, and with one that has them all.

python benchmarks/planning.py [--trials 10000]

The store that has them all holds entries without content: planning reads none.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from study.files import read_study
from study.plan import make_plan
from trainables.store import MANIFEST

SEEDS = 5
STUDY = {
    "study": "planning",
    "data": "mnist5k",
    "backbone": "lenet5",
    "seeds": SEEDS,
    "methods": {"isce": {"loss": {"name": "isce", "s": {"linspace": [1, 5, 40]}}}},
    "attacks": {
        "pgd": {
            "budget": "l2_rms",
            "eps": [0.02, 0.04],
            "steps": [5, 20],
            "targeted": [False, True],
            "surface": ["ce_deployed", "margin_raw"],
        },
        "deepfool": {"steps": 50, "overshoot": 0.02, "overshoot_rule": "total"},
    },
    "headline": {"attack": "pgd", "eps": 0.04, "steps": 20, "targeted": False},
}


def write_study(folder: Path, trials: int) -> Path:
    STUDY["methods"]["isce"]["loss"]["m"] = {"linspace": [0, 0.5, trials // (40 * SEEDS)]}
    path = folder / "planning.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def fill(store: Path, file: Path) -> None:
    for trial in make_plan(read_study(str(file))).trials:
        outcomes = [f"outcomes/{trial.id}/{cell}" for cell in trial.result_ids]
        for entry in (f"models/{trial.id}", *outcomes):
            folder = store / entry
            folder.mkdir(parents=True)
            (folder / MANIFEST).touch()


def plan(store: Path, file: Path) -> tuple[float, str]:
    command = [Path(sys.executable).with_name("study"), "plan", file, "--storage", store]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=file.parent)
    return time.perf_counter() - started, done.stdout.splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    options = parser.parse_args()
    print("| store | s | it says |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        file, store = write_study(Path(folder), options.trials), Path(folder) / "store"
        for name in ("empty", "empty, again", "full", "full, again"):
            if name == "full":
                fill(store, file)
            seconds, told = plan(store, file)
            print(f"| {name} | {seconds:.1f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
