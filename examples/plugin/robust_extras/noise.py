"""Noise of a fixed size as an attack of one's own."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.attacks.base import Attack, Batch, Columns, Crafted, Eps
from trainables.attacks.budgets import Norm
from trainables.classifier import Classifier
from trainables.registry import component


@component("sign_noise", revision=1)
class SignNoise(Attack):
    """Every pixel moves by eps, up or down at random: what no attack may be weaker than.

    Attributes:
        eps: size of the move, in the unit of pixels.
    """

    eps: Eps

    @property
    def norm(self) -> Norm:
        """The largest move of a pixel is bounded."""
        return "linf"

    def radius(self, images: Tensor) -> Tensor:
        """The radius is eps."""
        return images.new_full((len(images), 1, 1, 1), self.eps)

    def columns(self) -> Columns:
        """Listed by eps; nothing is differentiated."""
        return Columns(
            budget="linf",
            norm="linf",
            targeted=False,
            surface="none",
            eps=self.eps,
            steps=1,
            extra={},
        )

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """One move, at no query; draws are keyed by the image."""
        uniform = batch.draws.uniform(batch.images[0].numel()).to(batch.images)
        moved = batch.images + self.eps * (2 * uniform.round() - 1).view_as(batch.images)
        return Crafted(images=moved, queries=torch.zeros_like(batch.labels))
