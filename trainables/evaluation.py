"""What a trained model is worth: accuracies, and the outcome of a cell."""

from __future__ import annotations

import dataclasses
import json

import safetensors.torch
import torch
from torch import Tensor

from trainables.attacks.base import AttackOutcome
from trainables.classifier import Classifier
from trainables.config import Cell
from trainables.datasets.base import Split, Splits

# Images at a time. No result depends on it but for float32's rounding: DeepFool's `per_step`
# rule, which leaves images ON the boundary, is decided by that.
BATCH = 256


@torch.no_grad()
def accuracy(classifier: Classifier, split: Split, batch: int = BATCH) -> float:
    """Share of images whose deployed argmax is their label, in eval mode."""
    training = classifier.training
    classifier.eval()
    correct = 0
    for images, labels in zip(split.images.split(batch), split.labels.split(batch), strict=True):
        correct += int((classifier(images).argmax(dim=1) == labels).sum())
    classifier.train(training)
    return correct / len(split)


def measure(
    classifier: Classifier, cell: Cell, splits: Splits, batch: int = BATCH
) -> AttackOutcome:
    """The outcome of a cell's attack on its images.

    Args:
        classifier: the trained model.
        cell: attack, split and number of images.
        splits: the model's data set, on the model's device.
        batch: images at a time.

    Raises:
        ValueError: the split has fewer images than the cell asks for.
    """
    split = images_of(cell, splits)
    parts = [
        cell.attack(
            classifier, split.images[index], split.labels[index], indices=index, seed=cell.seed
        )
        for index in torch.arange(len(split)).split(batch)
    ]
    return _concatenate(parts)


def images_of(cell: Cell, splits: Splits) -> Split:
    """The images that a cell is measured on.

    Raises:
        ValueError: the split has fewer images than the cell asks for.
    """
    split = (splits.test if cell.split == "test" else splits.validation).first(cell.n)
    if len(split) < cell.n:
        raise ValueError(f"expected {cell.n} {cell.split} images, found {len(split)}")
    return split


def _concatenate(parts: list[AttackOutcome]) -> AttackOutcome:
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in COLUMNS}
    return AttackOutcome(**columns, passes=parts[0].passes)


COLUMNS = tuple(field.name for field in dataclasses.fields(AttackOutcome) if field.name != "passes")


def dump_outcome(outcome: AttackOutcome, labels: Tensor) -> dict[str, bytes]:
    """An outcome as objects of a store entry, with the images' labels."""
    columns = {name: getattr(outcome, name).contiguous() for name in COLUMNS}
    return {
        "outcome.safetensors": safetensors.torch.save({**columns, "labels": labels.cpu()}),
        "outcome.json": json.dumps({"passes": outcome.passes}).encode(),
    }
