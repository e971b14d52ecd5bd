"""The fast minimum-norm attack in L2 and Linf (Pintor et al. 2021, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from trainables.attacks.base import Attack, Batch, Columns, Crafted, Eps, Steps, within
from trainables.attacks.budgets import (
    TINY,
    BallField,
    L2Absolute,
    L2RootMeanSquare,
    LInf,
    Norm,
    project,
    size,
    steepest,
)
from trainables.attacks.surfaces import EOT, Eot, Slope, slope
from trainables.classifier import Classifier
from trainables.registry import component
from trainables.seeding import Draws

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]

ALPHA: dict[Norm, float] = {"l2": 1.0, "linf": 10.0}
LAST_ALPHA = 0.01  # of the first one, as in the authors' code
LAST_GAMMA = 0.001


@component("fmn", revision=1)
class FMN(Attack):
    """Follows the margin within a ball that shrinks around the smallest perturbation found.

    delta <- clip(project(delta + alpha g / |g|_2, radius)), g the gradient of
    max_{j != y} z_j - z_y on raw logits. The ball's radius, from 0, becomes
        min(radius (1 - gamma), smallest norm that broke the image)   where delta breaks it,
        radius (1 + gamma)                                            where an earlier one did,
        max(radius (1 + gamma), |delta| + |margin| / |g|_q)           where none did yet,
    with q the dual norm and alpha, gamma falling along a cosine to 1 % and to 0.001.

    The paper has no maximum in the last line: then delta comes to rest on the boundary of an
    affine model, and before it wherever the box cuts steps short, which left half of MNIST's
    images unbroken in L2. foolbox's L2FMNAttack does not see that because its projection
    divides a norm by itself and never projects: norms 20 to 75 % larger. Hence not foolbox's.

    One run answers every ball of a norm. An image is broken only if its smallest perturbation
    is within the budget; else it is handed back clean.

    Attributes:
        budget: the ball that is judged by, which names the norm that is minimised; `l2_rms`
            by default.
        eps: size of the budget, in its unit, >= 0.
        steps: looks at the model N; 100 by default, as in foolbox.
        alpha: first step length, in L2 whatever the norm; by default 1 in L2, as in the
            authors' code, and 10 in Linf, where 1 gave 2 % larger norms (LeNet-5).
        gamma: first share by which the radius changes; 0.05 in the paper.
        eot: draws that margins and gradients are averaged over on a model that draws at random,
            where delta breaks an image when none of them is classified rightly.
    """

    unhashed: ClassVar[dict[str, Any]] = {"eot": 1}

    budget: BallField = L2RootMeanSquare()
    eps: Eps
    steps: Steps = 100
    alpha: Positive | None = None
    gamma: Share = 0.05
    eot: Eot = EOT

    @property
    def norm(self) -> Norm:
        """The budget's norm."""
        return self.budget.norm

    def radius(self, images: Tensor) -> Tensor:
        """The largest perturbation of each image, (B, 1, 1, 1)."""
        return self.budget.radius(images, self.eps, self.steps)

    def columns(self) -> Columns:
        """Listed by budget, eps and steps."""
        extra = self.extra("budget", "eps", "steps")
        if self.eot == 1:  # one name for a cell, whether the model draws at random or not
            del extra["eot"]
        return Columns(
            budget=self.budget.name,
            norm=self.norm,
            targeted=False,
            surface="margin_raw",
            eps=self.eps,
            steps=self.steps,
            extra={**self.budget.parameters(), **extra},
        )

    def alike(self) -> FMN:
        """All but the size of the ball, and how it is read."""
        return replace(self, eps=0.0, budget=L2Absolute() if self.norm == "l2" else LInf())

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """The smallest perturbation found, where it is within the budget."""
        return self.perturb_each([self], classifier, batch)[0]

    def perturb_each(
        self, peers: Sequence[Self], classifier: Classifier, batch: Batch
    ) -> list[Crafted]:
        """One run for all, each of what is within its own budget."""
        smallest = self._smallest(classifier, batch)
        return [within(peer, smallest, batch.images) for peer in peers]

    def _smallest(self, classifier: Classifier, batch: Batch) -> Crafted:
        """The smallest perturbations that break the images; clean ones where none did."""
        images, norm = batch.images, self.norm
        current, best = images, images
        radius = images.new_zeros(len(images), 1, 1, 1)
        least, found = (
            torch.full_like(radius, torch.inf),
            torch.zeros_like(radius, dtype=torch.bool),
        )
        steepness = torch.full_like(batch.labels, torch.inf, dtype=torch.float64)
        for step in range(self.steps):
            alpha, gamma = self._schedule(step)
            seen, broken = self._look(classifier, current, batch.labels, batch.draws.at(step))
            steepness = torch.minimum(steepness, seen.norm)
            length = size(current - images, norm)
            better, found = broken & (length < least), found | broken
            least, best = torch.where(better, length, least), torch.where(better, current, best)
            shrunk = torch.minimum(radius * (1 - gamma), least)
            reach = length + _distance(seen, norm)
            grown = radius * (1 + gamma)
            grown = torch.where(found, grown, torch.maximum(grown, reach))
            radius = torch.where(broken, shrunk, grown)
            moved = current - images + alpha * steepest(seen.gradient, "l2")
            current = (images + project(moved, radius, norm)).clamp(0, 1)
        looks = self.eot if classifier.stochastic else 1
        queries = torch.full_like(batch.labels, self.steps * looks)
        return Crafted(images=best, queries=queries, gradient=steepness)

    def _look(
        self, classifier: Classifier, images: Tensor, labels: Tensor, draws: Draws
    ) -> tuple[Slope, Tensor]:
        """The margin's slope, and whether no draw is classified rightly, (B, 1, 1, 1)."""
        looks = self.eot if classifier.stochastic else 1
        seen = [
            slope("margin_raw", classifier, images, labels, None, draws.at(look))
            for look in range(looks)
        ]
        broken = torch.stack([one.logits.argmax(dim=1) != labels for one in seen]).all(dim=0)
        gradient, _, value, logits = (
            torch.stack(part).mean(dim=0) for part in zip(*seen, strict=True)
        )
        norm = gradient.flatten(1).double().norm(dim=1)
        return Slope(gradient, norm, value, logits), broken.view(-1, 1, 1, 1)

    def _schedule(self, step: int) -> tuple[float, float]:
        """Alpha and gamma of a step."""
        share = (1 + math.cos(math.pi * step / self.steps)) / 2
        alpha = self.alpha or ALPHA[self.norm]
        alpha *= LAST_ALPHA + (1 - LAST_ALPHA) * share
        return alpha, LAST_GAMMA + (self.gamma - LAST_GAMMA) * share


def _distance(seen: Slope, norm: Norm) -> Tensor:
    """How far the linearised boundary is, (B, 1, 1, 1)."""
    gradient = seen.gradient.flatten(1)
    dual = gradient.norm(dim=1) if norm == "l2" else gradient.abs().sum(dim=1)
    return (seen.value.abs() / dual.clamp(min=TINY)).view(-1, 1, 1, 1)
