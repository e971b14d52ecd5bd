"""What training and attacks cost on this machine: measured in seconds, on images of noise.

Nothing is learned and no data are needed: how long a step takes depends on shapes alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from trainables.attacks.base import Attack
from trainables.classifier import Classifier
from trainables.config import Cell, ModelConfig
from trainables.datasets.base import Split, Splits
from trainables.evaluation import measure
from trainables.execution import Execution
from trainables.registry import Component
from trainables.seeding import Draws, generator
from trainables.training import Trainer, new_classifier

STEPS = 20  # of an attack, at most: more of them are counted, not run
FEWEST, MOST = 8, 64  # images an attack is timed on
LOOK_SECONDS = 0.05  # a forward pass of so long is enough to go by
ENOUGH_SECONDS = 0.5  # of training steps, the same
FORWARD = 1 / 3  # what looking at an image costs of training on it, which goes back twice as long

C = TypeVar("C", bound=Component)


def epoch_images(train: int, validation: int) -> float:
    """The images of an epoch, those that are only looked at counted as what they cost."""
    return train + FORWARD * validation


def training_rate(config: ModelConfig, execution: Execution) -> float:
    """Seconds an image of an epoch (`epoch_images`), by some steps after a small one to warm up."""
    regime, factor = shortened(config.regime)
    size = config.training.batch_size
    short = replace(config, regime=regime)
    trainer = Trainer(short, noise(config, FEWEST, 1, execution), execution)
    trainer.epoch()
    trainer.splits = noise(config, size, 1, execution)
    steps = min(max(int(ENOUGH_SECONDS / trainer.epoch().seconds), 1), STEPS)
    trainer.splits = noise(config, steps * size, 1, execution)
    return factor * trainer.epoch().seconds / epoch_images(steps * size, 1)


def attack_rate(config: ModelConfig, cell: Cell, execution: Execution) -> float:
    """Seconds an image of a cell, at most: as if the attack broke none before its last step.

    Images count as right whatever the untrained model says of them, and the budget is nothing,
    so that each survives to the end. A trained model loses most of them early, and an attack
    without a budget breaks them all: of those what finished trials took is the better measure.
    """
    classifier = new_classifier(config, execution).eval()
    drawn = noise(config, 1, min(cell.n, MOST), execution).test
    splits = as_seen(_worth_timing(drawn, classifier), classifier)
    rate = 0.0
    for short, factor in parts_of(cell, len(splits.test)):
        started = time.perf_counter()
        measure(classifier, [short], splits, dict.fromkeys(short.sources, classifier))
        rate += factor * (time.perf_counter() - started) / short.n
    return rate


def parts_of(cell: Cell, n: int) -> Iterator[tuple[Cell, float]]:
    """What is run of a cell to measure it, on n images, and how many times as long it all takes."""
    for part in cell.probe.parts if isinstance(cell.probe, Attack) else (cell.probe,):
        probe, factor = shortened(part)
        yield replace(cell, probe=probe, n=n), factor


def _worth_timing(images: Split, classifier: Classifier) -> Split:
    """As many of the images as are worth timing."""
    few = images.first(FEWEST)
    for _ in range(2):  # the first to warm up
        started = time.perf_counter()
        as_seen(few, classifier)
    fits = int(len(few) * LOOK_SECONDS / (time.perf_counter() - started))
    return images.first(max(fits, FEWEST))


@torch.no_grad()
def as_seen(images: Split, classifier: Classifier) -> Splits:
    """Images labelled as the classifier sees them: an attack without a budget breaks none."""
    draws = Draws((0, "probe"), torch.arange(len(images)))
    logits: Tensor = classifier(images.images, draws)
    split = Split(images.pixels, logits.argmax(dim=1))
    return Splits(train=split, validation=split, test=split)


def shortened(component: C) -> tuple[C, float]:
    """The same with no budget and few steps, and how many times as long the whole of it takes."""
    changes: dict[str, Any] = {}
    factor = 1.0
    for name, value in _fields(component):
        if isinstance(value, Attack):
            changes[name], times = shortened(value)
            factor *= times
        elif name == "steps" and value > STEPS:
            changes[name] = STEPS
            factor *= value / STEPS
        elif name == "eps" and value is not None:
            changes[name] = 0.0
    return (cast(C, replace(cast(Any, component), **changes)) if changes else component), factor


def _fields(component: Component) -> Iterator[tuple[str, Any]]:
    fields = dataclasses.fields(cast(Any, component))
    return ((field.name, getattr(component, field.name)) for field in fields)


def noise(config: ModelConfig, train: int, other: int, execution: Execution) -> Splits:
    """Images of noise in the data set's shape, with labels drawn at random."""
    draws, dataset = generator(0, "probe"), config.dataset

    def split(n: int) -> Split:
        labels = torch.randint(dataset.classes, (n,), generator=draws)
        return Split(torch.rand(n, *dataset.shape, generator=draws), labels)

    splits = Splits(train=split(train), validation=split(other), test=split(other))
    return splits.to(execution.device)
