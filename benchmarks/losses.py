"""Clean accuracy of every loss: LeNet-5 on all of MNIST, five epochs, tested on 10,000 images.

python benchmarks/losses.py --data FOLDER [--dataset mnist] [--backbone lenet5] [--epochs 5]

Writes benchmarks/results/losses-<dataset>-<backbone>.json and prints a table; exit status 1
where a loss stays below 97 % on MNIST.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from trainables import registry
from trainables.config import ModelConfig, Training
from trainables.datasets.base import load_splits
from trainables.evaluation import accuracy
from trainables.execution import Execution, default_data, prepare
from trainables.training import Trainer

ENOUGH = 0.97  # of MNIST, with any loss: below it the implementation is in doubt
RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(default_data()))
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--backbone", default="lenet5")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    return parser.parse_args()


def trained(loss: str, seed: int, options: argparse.Namespace, execution: Execution) -> dict:
    """One model's accuracies and time."""
    config = ModelConfig(
        dataset=registry.build("dataset", options.dataset),
        backbone=registry.build("backbone", options.backbone),
        loss=registry.build("loss", loss),
        regime=registry.build("regime", "standard"),
        transform=registry.build("transform", "none"),
        training=Training(epochs=options.epochs),
        seed=seed,
    )
    splits = load_splits(config.dataset, execution)
    trainer, started = Trainer(config, splits, execution), time.perf_counter()
    while not trainer.done:
        trainer.epoch()
    seconds = time.perf_counter() - started
    return {
        "loss": loss,
        "seed": seed,
        "model_id": config.id,
        "test": accuracy(trainer.classifier, splits.test),
        "validation": [epoch.validation_accuracy for epoch in trainer.history],
        "seconds_per_epoch": seconds / options.epochs,
    }


def main() -> int:
    options = arguments()
    execution = prepare(threads=1, gpu=1, channels_last=True, data=options.data)
    rows = []
    print(f"{execution.record()}\n")
    print("| loss | seed | test % | validation % by epoch | s / epoch |")
    print("| --- | --- | --- | --- | --- |")
    for loss in registry.names("loss"):
        for seed in range(options.seeds):
            row = trained(loss, seed, options, execution)
            curve = " ".join(f"{100 * value:.2f}" for value in row["validation"])
            print(
                f"| {loss} | {seed} | {100 * row['test']:.2f} | {curve} "
                f"| {row['seconds_per_epoch']:.1f} |",
                flush=True,
            )
            rows.append(row)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"losses-{options.dataset}-{options.backbone}.json"
    file.write_text(json.dumps({"execution": execution.record(), "rows": rows}, indent=1))
    below = [row for row in rows if options.dataset == "mnist" and row["test"] < ENOUGH]
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
