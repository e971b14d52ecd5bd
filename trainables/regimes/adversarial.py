"""Adversarial training (Madry et al. 2018), the paper's method "AT"."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.attacks.base import Eps, Steps
from trainables.attacks.budgets import BudgetField, random_point, steepest
from trainables.classifier import Classifier, TrainingPass, frozen
from trainables.regimes.base import Regime
from trainables.registry import component
from trainables.seeding import Draws


@component("adversarial", revision=1)
class Adversarial(Regime):
    """min_theta E max_{delta in the ball} J: the training loss on PGD examples of the batch.

    What PGD raises is the inner objective that the loss names (`Head.inner`): its training
    loss may be blind (MMC's cross entropy has no gradient on confident images, I-SCE's has
    none at its optimum). The attack is untargeted, starts at a random point of the ball and
    keeps its last iterate. Batch normalisation uses its running statistics within the attack
    and the adversarial batch's own in the step that follows, so that half-made examples do
    not reach the statistics.

    Objective, norm and mode have one place each: the loss names the objective, `budget` the
    norm, and the mode is this for every loss.

    The paper gives neither norm nor size. Usual arms: `linf`, MNIST eps 0.3, alpha 0.01,
    steps 40, CIFAR-10 8/255, 2/255, 10; `l2_abs`, MNIST 1.5, 0.3, 10, CIFAR-10 0.5, 0.1, 7.

    Attributes:
        budget: how eps is read, which says the norm too.
        eps: size of the budget, in its unit, >= 0.
        steps: gradient steps.
        alpha: step length in the unit of the ball's radius; 2.5 radius / steps by default.
        random_start: begin at a uniform point of the ball, as in the original.
    """

    budget: BudgetField
    eps: Eps
    steps: Steps
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    random_start: bool = True

    def training_pass(
        self, classifier: Classifier, images: Tensor, labels: Tensor, draws: Draws
    ) -> TrainingPass:
        """The classifier's own pass over adversarial examples of the batch."""
        with frozen(classifier, classifier.backbone):  # a transform that trains goes on drawing
            adversarial = self._perturb(classifier, images, labels, draws.at("adversary"))
        return classifier.training_pass(adversarial, labels, draws)

    def _perturb(
        self, classifier: Classifier, images: Tensor, labels: Tensor, draws: Draws
    ) -> Tensor:
        radius = self.budget.radius(images, self.eps, self.steps)
        alpha = self.alpha or self.budget.step_length(images, self.eps, self.steps)
        norm, current = self.budget.norm, images
        if self.random_start:
            current = random_point(images, radius, norm, draws.at("start")).clamp(0, 1)
        for step in range(self.steps):
            current = current.detach().requires_grad_()
            features = classifier.features(current, draws.at(step))
            value = classifier.head.inner(features, labels).sum()
            (gradient,) = torch.autograd.grad(value, current)
            moved = current.detach() + alpha * steepest(gradient, norm)
            current = (images + self.budget.project(moved - images, radius)).clamp(0, 1)
        return current.detach()
