"""Clean accuracy of every method: LeNet-5 on all of MNIST, five epochs, tested on 10,000 images.

python benchmarks/clean.py --data FOLDER [--only NAME …] [--epochs 5] [--seeds 1]

Prints a table row by row; exit status 1 where a loss stays below 97 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from trainables import registry
from trainables.config import ModelConfig, Training
from trainables.datasets.base import load_splits
from trainables.evaluation import accuracy
from trainables.execution import Execution, default_data, prepare
from trainables.training import Trainer

ENOUGH = 0.97  # of MNIST, with any loss: below it the implementation is in doubt
METHODS: dict[str, dict[str, Any]] = {
    **{loss: {"loss": loss} for loss in registry.names("loss")},
    "random": {"transform": "random_resize_pad"},
    "random-both": {"transform": {"name": "random_resize_pad", "apply": "both"}},
    # Madry et al.'s sizes in fewer steps: 10 for their 40, 5 for 10.
    "at-linf": {"regime": {"name": "adversarial", "budget": "linf", "eps": 0.3, "steps": 10}},
    "at-l2": {"regime": {"name": "adversarial", "budget": "l2_abs", "eps": 1.5, "steps": 5}},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(default_data()))
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    return parser.parse_args()


def trained(method: str, seed: int, epochs: int, execution: Execution) -> tuple[float, str]:
    """One model's test accuracy, and its row of the table."""
    parts = {"dataset": "mnist", "backbone": "lenet5", "loss": "sce", "regime": "standard"}
    chosen = {**parts, "transform": "none", **METHODS[method]}
    built = {kind: registry.build(kind, spec) for kind, spec in chosen.items()}
    config = ModelConfig(**built, training=Training(epochs=epochs), seed=seed)
    splits = load_splits(config.dataset, execution)
    trainer, started = Trainer(config, splits, execution), time.perf_counter()
    while not trainer.done:
        trainer.epoch()
    seconds = (time.perf_counter() - started) / epochs
    test = accuracy(trainer.classifier, splits.test)
    curve = " ".join(f"{100 * epoch.validation_accuracy:.2f}" for epoch in trainer.history)
    return test, f"| {method} | {seed} | {100 * test:.2f} | {curve} | {seconds:.1f} |"


def main() -> int:
    options = arguments()
    execution = prepare(threads=1, gpu=1, channels_last=True, data=options.data)
    print(f"{execution.record()}\n")
    print("| method | seed | test % | validation % by epoch | s / epoch |")
    print("| --- | --- | --- | --- | --- |")
    enough = True
    for method in options.only:
        for seed in range(options.seeds):
            test, row = trained(method, seed, options.epochs, execution)
            enough &= test >= ENOUGH or method not in registry.names("loss")
            print(row, flush=True)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
