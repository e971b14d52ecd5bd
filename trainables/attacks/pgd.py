"""Projected gradient descent (Madry et al. 2018), targeted and untargeted, in any ball."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.attacks.base import Attack, Batch, Columns, Eps, Steps
from trainables.attacks.budgets import (
    BudgetField,
    L2RootMeanSquare,
    Norm,
    project,
    random_point,
    steepest,
)
from trainables.attacks.surfaces import Surface, objective, on_raw
from trainables.classifier import Classifier
from trainables.losses.base import Loss
from trainables.registry import component

Stop = Literal["first_success", "last"]


@component("pgd", revision=2)
class PGD(Attack):
    """x <- clip(project(x + alpha * steepest(grad J(x)))), J being the surface.

    The gradient is that of the SUM over samples and is normalised per sample, so that a
    result does not depend on who else is in the batch.

    Attributes:
        budget: how eps is read; `l2_rms` by default, a ball that bites at the paper's eps.
        eps: size of the budget, in its unit, >= 0.
        steps: gradient steps N.
        alpha: step length in the unit of the ball's radius; 2.5 radius / N by default
            (Madry et al.'s rule).
        targeted: towards a wrong class drawn once an image. Accuracy still counts images
            classified as their TRUE class.
        surface: what is differentiated.
        stop: `first_success` keeps the first iterate that is misclassified (targeted: that
            reaches its target); `last` keeps the last one. On a model that draws at random
            every step is taken, each with fresh draws, and the last iterate kept.
        random_start: begin at a uniform point of the ball instead of at the image.
    """

    budget: BudgetField = L2RootMeanSquare()
    eps: Eps
    steps: Steps
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    targeted: bool = False
    surface: Surface = "margin_raw"
    stop: Stop = "first_success"
    random_start: bool = False

    @property
    def norm(self) -> Norm:
        """The ball's norm."""
        return self.budget.norm

    def radius(self, images: Tensor) -> Tensor:
        """The ball's radius around each image, (B, 1, 1, 1)."""
        return self.budget.radius(images, self.eps)

    def columns(self) -> Columns:
        """Listed by budget, direction, surface, eps and steps."""
        return Columns(
            budget=self.budget.name,
            norm=self.norm,
            targeted=self.targeted,
            surface=self.surface,
            eps=self.eps,
            steps=self.steps,
            extra=self.extra("budget", "eps", "steps", "targeted", "surface"),
        )

    def for_loss(self, loss: Loss) -> PGD:
        """Raw in place of deployed surfaces where the two are one."""
        return replace(self, surface=on_raw(self.surface)) if loss.deploys_raw else self

    def perturb(self, classifier: Classifier, batch: Batch) -> tuple[Tensor, Tensor]:
        """Steps every image until it succeeds or the steps run out."""
        result = self._start(batch)
        queries = torch.zeros(len(result), dtype=torch.long, device=result.device)
        active = torch.arange(len(result), device=result.device)
        for step in range(self.steps):
            current = result[active].requires_grad_()
            targets = None if batch.targets is None else batch.targets[active]
            labels, draws = batch.labels[active], batch.draws.at(step)[active]
            value, logits = objective(self.surface, classifier, current, labels, targets, draws)
            (gradient,) = torch.autograd.grad(value.sum(), current)
            queries[active] += 1
            # One pass of a model that draws at random says nothing of the next: never stop there.
            goes_on = self.stop == "last" or classifier.stochastic
            going = _unsolved(logits, labels, targets) | goes_on
            active = active[going]
            if not len(active):
                break
            result[active] = self._step(
                batch.images[active], current.detach()[going], gradient[going]
            )
        return result, queries

    def _start(self, batch: Batch) -> Tensor:
        if not self.random_start:
            return batch.images.clone()
        radius, draws = self.radius(batch.images), batch.draws.at("start")
        return random_point(batch.images, radius, self.norm, draws).clamp(0, 1)

    def _step(self, images: Tensor, current: Tensor, gradient: Tensor) -> Tensor:
        radius = self.radius(images)
        alpha = 2.5 * radius / self.steps if self.alpha is None else self.alpha
        moved = current + alpha * steepest(gradient, self.norm)
        return (images + project(moved - images, radius, self.norm)).clamp(0, 1)


def _unsolved(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Which images are still to be stepped, (B,) of bool."""
    predicted = logits.detach().argmax(dim=1)
    return predicted == labels if targets is None else predicted != targets
