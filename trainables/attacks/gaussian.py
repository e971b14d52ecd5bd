"""Random noise of the ball's own size: what an attack that follows gradients has to beat."""

from __future__ import annotations

import itertools
from dataclasses import replace

from torch import Tensor

from trainables.attacks.base import Attack, Batch, Columns, Crafted, Eps, Steps, in_turn
from trainables.attacks.budgets import BallField, L2RootMeanSquare, Norm, steepest
from trainables.classifier import Classifier
from trainables.registry import component


@component("gaussian", revision=1)
class Gaussian(Attack):
    """The first of some draws of Gaussian noise, scaled to the ball's surface, that misleads.

    L2: radius n / |n|_2, uniform on the sphere. Linf: radius sign(n), a corner of the ball and
    so the strongest noise of that size; n scaled until its largest entry is the radius would
    move the median pixel of 784 by a fifth of that. Where noise does better than gradients
    do, the gradients are masked (Athalye et al. 2018, section 3).

    Attributes:
        budget: how eps is read, a ball; `l2_rms` by default, as for `pgd`.
        eps: size of the budget, in its unit, >= 0.
        tries: most draws an image.
    """

    budget: BallField = L2RootMeanSquare()
    eps: Eps
    tries: Steps = 10

    @property
    def norm(self) -> Norm:
        """The budget's norm."""
        return self.budget.norm

    def radius(self, images: Tensor) -> Tensor:
        """The length of the noise before it is clipped to [0, 1], (B, 1, 1, 1)."""
        return self.budget.radius(images, self.eps, 1)

    def columns(self) -> Columns:
        """Listed with its tries as steps; nothing is differentiated."""
        return Columns(
            budget=self.budget.name,
            norm=self.norm,
            targeted=False,
            surface="none",
            eps=self.eps,
            steps=self.tries,
            extra=self.budget.parameters(),
        )

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """One try after another, on what is unbroken."""
        tries = itertools.repeat(self._noisy, self.tries)
        return replace(in_turn(classifier, batch, tries), stage=None)

    def _noisy(self, batch: Batch) -> Crafted:
        """The images with noise of the whole radius on them; judging it is the one query."""
        noise = batch.draws.normal(batch.images[0].numel()).to(batch.images)
        direction = steepest(noise.view_as(batch.images), self.norm)
        moved = batch.images + self.radius(batch.images) * direction
        return Crafted(images=moved, queries=batch.labels.new_zeros(len(moved)))
