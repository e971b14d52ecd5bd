"""What a trained model is worth: accuracies, and the outcome of a cell."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from trainables.attacks.base import Attack, AttackOutcome, craft
from trainables.classifier import Classifier, frozen
from trainables.config import Cell
from trainables.datasets.base import BATCH, Split, Splits
from trainables.diagnostics.base import Diagnostic, Findings
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
    classifier: Classifier,
    cells: Sequence[Cell],
    splits: Splits,
    models: Mapping[str, Classifier] | None = None,
    batch: int = BATCH,
) -> list[dict[str, bytes]]:
    """What attacks or a diagnostic find, as objects of a store entry for each cell.

    Args:
        classifier: the trained model.
        cells: what to measure, and on which images; several must have an equal `group`.
        splits: the model's data set, on the model's device.
        models: the other trained models that the cells need, by id.
        batch: images at a time.

    Raises:
        ValueError: the split has fewer images than the cells ask for.
    """
    first = cells[0]
    split = images_of(first, splits)
    if isinstance(first.probe, Diagnostic):
        with frozen(classifier, classifier):
            return [dump_findings(first.probe.examine(classifier, split, first.seed))]
    attacks = [cell.probe for cell in cells if isinstance(cell.probe, Attack)]
    outcomes = attacked(classifier, attacks, split, first.seed, models, batch)
    return [dump_outcome(outcome, split.labels) for outcome in outcomes]


def attacked(
    classifier: Classifier,
    attacks: Sequence[Attack],
    split: Split,
    seed: int,
    models: Mapping[str, Classifier] | None = None,
    batch: int = BATCH,
) -> list[AttackOutcome]:
    """The outcomes of attacks that one run answers on all images of a split."""
    parts = [
        craft(attacks, classifier, images, labels, indices=index, seed=seed, models=models)
        for images, labels, index in split.batches(batch)
    ]
    return [_joined([outcome for _, outcome in part]) for part in zip(*parts, strict=True)]


def watched_accuracy(
    classifier: Classifier, cell: Cell, splits: Splits, batch: int = BATCH
) -> float:
    """Accuracy under a cell's attack: what a training is looked at by while it goes on."""
    assert isinstance(cell.probe, Attack)
    (outcome,) = attacked(classifier, [cell.probe], images_of(cell, splits), cell.seed, batch=batch)
    return float((outcome.correct_after / outcome.passes).mean())


def _joined(parts: Sequence[AttackOutcome]) -> AttackOutcome:
    columns: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in COLUMNS
    }
    return replace(parts[0], **columns)


def images_of(cell: Cell, splits: Splits) -> Split:
    """The images that a cell is measured on.

    Raises:
        ValueError: the split has fewer images than the cell asks for.
    """
    split = (splits.test if cell.split == "test" else splits.validation).first(cell.n)
    if len(split) < cell.n:
        raise ValueError(f"expected {cell.n} {cell.split} images, found {len(split)}")
    return split


_WHOLE = ("passes", "stages")  # one value an outcome, not one an image
COLUMNS = tuple(
    field.name for field in dataclasses.fields(AttackOutcome) if field.name not in _WHOLE
)


def dump_outcome(outcome: AttackOutcome, labels: Tensor) -> dict[str, bytes]:
    """An outcome as objects of a store entry, with the images' labels."""
    columns = {name: getattr(outcome, name).contiguous() for name in COLUMNS}
    return {
        "outcome.safetensors": safetensors.torch.save({**columns, "labels": labels.cpu()}),
        "outcome.json": json.dumps({name: getattr(outcome, name) for name in _WHOLE}).encode(),
    }


def dump_findings(findings: Findings) -> dict[str, bytes]:
    """A diagnostic's findings as objects of a store entry."""
    arrays = {name: value.contiguous() for name, value in findings.arrays.items()}
    return {
        "arrays.safetensors": safetensors.torch.save(arrays),
        "numbers.json": json.dumps(findings.numbers, allow_nan=False).encode(),
    }
