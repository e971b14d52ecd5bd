"""What a trained model is worth: accuracies, and the outcome of a cell."""

from __future__ import annotations

import dataclasses
import json

import safetensors.torch
import torch
from torch import Tensor

from trainables.attacks.base import Attack, AttackOutcome
from trainables.classifier import Classifier, frozen
from trainables.config import Cell
from trainables.datasets.base import BATCH, Split, Splits
from trainables.diagnostics.base import Findings
from trainables.seeding import Draws


@torch.no_grad()
def accuracy(classifier: Classifier, split: Split, batch: int = BATCH) -> float:
    """Share of images whose deployed argmax is their label, in eval mode, in one pass."""
    training = classifier.training
    classifier.eval()
    correct = 0
    for images, labels, index in split.batches(batch):
        logits = classifier(images, Draws((0, "accuracy"), index))
        correct += int((logits.argmax(dim=1) == labels).sum())
    classifier.train(training)
    return correct / len(split)


def measure(
    classifier: Classifier, cell: Cell, splits: Splits, batch: int = BATCH
) -> dict[str, bytes]:
    """What a cell's attack or diagnostic finds, as objects of a store entry.

    Args:
        classifier: the trained model.
        cell: what to measure, and on which images.
        splits: the model's data set, on the model's device.
        batch: images at a time.

    Raises:
        ValueError: the split has fewer images than the cell asks for.
    """
    split = images_of(cell, splits)
    if isinstance(cell.probe, Attack):
        outcome = attacked(classifier, cell.probe, split, cell.seed, batch)
        return dump_outcome(outcome, split.labels)
    with frozen(classifier, classifier):
        return dump_findings(cell.probe.examine(classifier, split, cell.seed))


def attacked(
    classifier: Classifier, attack: Attack, split: Split, seed: int, batch: int = BATCH
) -> AttackOutcome:
    """The outcome of an attack on all images of a split, `batch` at a time."""
    parts = [
        attack(classifier, images, labels, indices=index, seed=seed)
        for images, labels, index in split.batches(batch)
    ]
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in COLUMNS}
    return AttackOutcome(**columns, passes=parts[0].passes)


def images_of(cell: Cell, splits: Splits) -> Split:
    """The images that a cell is measured on.

    Raises:
        ValueError: the split has fewer images than the cell asks for.
    """
    split = (splits.test if cell.split == "test" else splits.validation).first(cell.n)
    if len(split) < cell.n:
        raise ValueError(f"expected {cell.n} {cell.split} images, found {len(split)}")
    return split


COLUMNS = tuple(field.name for field in dataclasses.fields(AttackOutcome) if field.name != "passes")


def dump_outcome(outcome: AttackOutcome, labels: Tensor) -> dict[str, bytes]:
    """An outcome as objects of a store entry, with the images' labels."""
    columns = {name: getattr(outcome, name).contiguous() for name in COLUMNS}
    return {
        "outcome.safetensors": safetensors.torch.save({**columns, "labels": labels.cpu()}),
        "outcome.json": json.dumps({"passes": outcome.passes}).encode(),
    }


def dump_findings(findings: Findings) -> dict[str, bytes]:
    """A diagnostic's findings as objects of a store entry."""
    arrays = {name: value.contiguous() for name, value in findings.arrays.items()}
    return {
        "arrays.safetensors": safetensors.torch.save(arrays),
        "numbers.json": json.dumps(findings.numbers, allow_nan=False).encode(),
    }
