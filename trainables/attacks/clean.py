"""No attack at all: the clean accuracy, as a cell like any other."""

from __future__ import annotations

import torch

from trainables.attacks.base import Attack, Batch, Crafted
from trainables.classifier import Classifier
from trainables.registry import component


@component("clean", revision=1)
class Clean(Attack):
    """The images as they are."""

    def columns(self) -> None:
        """It has none."""

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """The images, at no query."""
        return Crafted(images=batch.images, queries=torch.zeros_like(batch.labels))
