"""Seconds of a training step of K models, one after another against as one network.

python benchmarks/packing.py [--models 2 4 8] [--backbones lenet5 resnet32] [--repeats 5] [--gpu]

Batches of 128 images drawn at random (28 x 28 grey for LeNet-5, 32 x 32 colour else), one thread;
the two ways by turns, the fastest of `repeats` each. Seconds are the processor's on the CPU, so
that a busy neighbour counts for little, and the clock's on a GPU. Prints a table row by row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from trainables import registry
from trainables.config import ModelConfig, Training
from trainables.datasets.base import Split, Splits
from trainables.execution import Execution, prepare
from trainables.packing import Member, train_together

BATCH = 128
STEPS = {"lenet5": 8, "cnn8": 2, "resnet32": 1}  # between two looks at the clock
LOSSES = ("sce", "isce", "label_smoothing", "arcface")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--backbones", nargs="+", choices=STEPS, default=["lenet5", "resnet32"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gpu", action="store_true")
    return parser.parse_args()


def members(backbone: str, count: int, seeds: int, execution: Execution) -> list[Member]:
    """Models that differ in the loss, of `seeds` different seeds."""
    dataset = registry.build("dataset", "mnist" if backbone == "lenet5" else "cifar10")
    size = STEPS[backbone] * BATCH
    train = Split(torch.rand(size, *dataset.shape), torch.arange(size) % 10).to(execution.device)
    splits = Splits(train=train, validation=train.first(1), test=train.first(1))
    parts = {"backbone": backbone, "regime": "standard", "transform": "none"}
    built = {kind: registry.build(kind, name) for kind, name in parts.items()}
    return [
        Member(
            ModelConfig(
                dataset=dataset,
                loss=registry.build("loss", LOSSES[index % len(LOSSES)]),
                training=Training(epochs=1000, batch_size=BATCH),
                seed=index % seeds,
                **built,
            ),
            splits,
            execution,
        )
        for index in range(count)
    ]


def epoch(models: Sequence[Member], together: bool, execution: Execution) -> float:
    """Seconds of an epoch of all models."""
    now = time.perf_counter if execution.device.type == "cuda" else time.process_time
    started = now()
    error = train_together(models) if together else None
    assert error is None, error
    for model in models:
        model.epoch()
    if execution.device.type == "cuda":
        torch.cuda.synchronize()
    return now() - started


def main() -> None:
    options = arguments()
    execution = prepare(threads=1, gpu=float(options.gpu), channels_last=True, data=".")
    print(f"{execution.record()}\n")
    print("| backbone | models | seeds | alone, s a step | packed, s a step | alone / packed |")
    print("| --- | --- | --- | --- | --- | --- |")
    for backbone in options.backbones:
        for count in options.models:
            for seeds in (1, count):
                models = members(backbone, count, seeds, execution)
                took: dict[bool, list[float]] = {False: [], True: []}
                for repeat in range(options.repeats + 1):
                    for together, times in took.items():
                        times.append(epoch(models, together, execution))
                        if repeat == 0:
                            times.clear()  # warms up
                alone, packed = (min(times) / STEPS[backbone] for times in took.values())
                row = (backbone, count, seeds, f"{alone:.3f}", f"{packed:.3f}")
                print(f"| {' | '.join(map(str, row))} | {alone / packed:.2f} |", flush=True)


if __name__ == "__main__":
    main()
