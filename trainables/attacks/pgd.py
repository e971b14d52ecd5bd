"""Projected gradient descent (Madry et al. 2018), targeted and untargeted, in any budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trainables.attacks.base import Batch, Columns, Crafted, Eps, Steps, Stepwise, in_turn
from trainables.attacks.budgets import (
    BudgetField,
    L2RootMeanSquare,
    Norm,
    Path,
    random_point,
    steepest,
)
from trainables.attacks.surfaces import EOT, Eot, Rescale, Surface, slope
from trainables.classifier import Classifier
from trainables.registry import component
from trainables.seeding import wrong_classes

Stop = Literal["first_success", "last"]


@component("pgd", revision=2)
class PGD(Stepwise):
    """x <- clip(project(x + alpha * steepest(grad J(x)))), J being the surface.

    The gradient is that of the SUM over samples and is normalised per sample, so that a
    result does not depend on who else is in the batch. One run answers several numbers of
    steps where the step length does not depend on it: a path, `alpha` or `alpha_for`.

    Attributes:
        budget: how eps is read; `l2_rms` by default, a ball that bites at the paper's eps.
        eps: size of the budget, in its unit, >= 0.
        steps: gradient steps N.
        alpha: step length in the unit of the ball's radius; 2.5 radius / N by default
            (Madry et al.'s rule).
        alpha_for: the N that this rule takes instead of `steps`: more steps of equal length.
        targeted: towards a wrong class drawn once an image. Accuracy still counts images
            classified as their TRUE class.
        target: that class: `random`, uniform over the wrong ones, or `least_likely`.
        rivals: run towards each of so many likeliest wrong classes in turn, where any wrong
            class is a success; 0 runs away from the true class instead.
        surface: what is differentiated.
        stop: `first_success` keeps the first iterate that is misclassified (targeted: that
            reaches its target); `last` keeps the last one. On a model that draws at random
            every step is taken, each with fresh draws, and the last iterate kept.
        random_start: begin at a uniform point of the ball instead of at the image.
        restarts: runs an image, each from a start of its own, until one breaks it.
        eot: draws that each gradient is averaged over on a model that draws at random.
        rescale: `unit` divides the logits by their standard deviation over classes, as if the
            network had been scaled; CE alone notices.
    """

    unhashed: ClassVar[dict[str, Any]] = {
        "alpha_for": None,
        "target": "random",
        "rivals": 0,
        "restarts": 1,
        "eot": 1,
        "rescale": "none",
    }

    budget: BudgetField = L2RootMeanSquare()
    eps: Eps
    steps: Steps
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    alpha_for: Steps | None = None
    targeted: bool = False
    target: Literal["random", "least_likely"] = "random"
    rivals: Annotated[int, Field(ge=0)] = 0
    surface: Surface = "margin_raw"
    stop: Stop = "first_success"
    random_start: bool = False
    restarts: Steps = 1
    eot: Eot = EOT
    rescale: Rescale = "none"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        length = [isinstance(self.budget, Path), self.alpha is not None, self.alpha_for is not None]
        if sum(length) > 1:
            raise ValueError("expected one of alpha, alpha_for and a path: each sets the step")
        if isinstance(self.budget, Path) and self.random_start:
            raise ValueError("expected a ball with random_start: a path has none to start in")
        if self.targeted and self.rivals:
            raise ValueError("expected targeted or rivals: each says where to go")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("expected random_start: true, without it all restarts are equal")
        return self

    @property
    def norm(self) -> Norm:
        """The budget's norm."""
        return self.budget.norm

    def radius(self, images: Tensor) -> Tensor:
        """The largest perturbation of each image, (B, 1, 1, 1)."""
        return self.budget.radius(images, self.eps, self.steps)

    def columns(self) -> Columns:
        """Listed by budget, direction, surface, eps and steps."""
        listed = self.extra("budget", "eps", "steps", "targeted", "surface")
        return Columns(
            budget=self.budget.name,
            norm=self.norm if self.budget.threat else None,
            targeted=self.targeted,
            surface=self.surface,
            eps=self.eps,
            steps=self.steps,
            extra={**self.budget.parameters(), **_less_eot(listed)},
        )

    def alike(self) -> PGD:
        """All but the steps, where neither their length nor what follows depends on them."""
        path = isinstance(self.budget, Path)
        free = path or self.alpha is not None or self.alpha_for is not None
        return replace(self, steps=1) if free and not self._repeated else self

    @property
    def _repeated(self) -> bool:
        return self.restarts > 1 or self.rivals > 0

    def aims(self, logits: Tensor, labels: Tensor, indices: Tensor, seed: int) -> Tensor:
        """The drawn class, or the least likely one."""
        if self.target == "random":
            return wrong_classes(labels, indices, logits.shape[1], seed)
        return logits.scatter(1, labels.unsqueeze(1), torch.inf).argmin(dim=1)

    def perturb_each(
        self, peers: Sequence[Self], classifier: Classifier, batch: Batch
    ) -> list[Crafted]:
        """All peers in one run; an attack of several runs on its own."""
        if not self._repeated:
            return super().perturb_each(peers, classifier, batch)
        return [peer._several(classifier, batch) for peer in peers]

    def _several(self, classifier: Classifier, batch: Batch) -> Crafted:
        """One run after another, on what is unbroken."""
        once = replace(self, restarts=1, rivals=0)
        ways = min(self.rivals, batch.logits.shape[1] - 1)

        def attempt(number: int) -> Callable[[Batch], Crafted]:
            def run(part: Batch) -> Crafted:
                if ways:
                    part = replace(part, targets=part.rivals()[:, number // self.restarts])
                return once.perturb(classifier, part)

            return run

        runs = range(self.restarts * max(ways, 1))
        return replace(in_turn(classifier, batch, map(attempt, runs)), stage=None)

    def iterates(self, classifier: Classifier, batch: Batch) -> Iterator[Crafted]:
        """Steps every image until it succeeds."""
        result = self._start(batch)
        queries = torch.zeros_like(batch.labels)
        steepness = torch.full_like(queries, torch.inf, dtype=torch.float64)
        active = torch.arange(len(result), device=result.device)
        looks = self.eot if classifier.stochastic else 1
        for step in itertools.count():
            yield Crafted(images=result, queries=queries, gradient=steepness)
            part = batch[active]
            found = slope(
                self.surface,
                classifier,
                result[active],
                part.labels,
                part.targets,
                part.draws.at(step),
                eot=self.eot,
                rescale=self.rescale,
            )
            queries[active] += looks
            steepness[active] = torch.minimum(steepness[active], found.norm)
            # One pass of a model that draws at random says nothing of the next: never stop there.
            goes_on = self.stop == "last" or classifier.stochastic
            going = self._unsolved(found.logits, part) | goes_on
            active = active[going]
            if not len(active):
                return
            result[active] = self._step(batch.images[active], result[active], found.gradient[going])

    def _start(self, batch: Batch) -> Tensor:
        if not self.random_start:
            return batch.images.clone()
        radius, draws = self.radius(batch.images), batch.draws.at("start")
        return random_point(batch.images, radius, self.norm, draws).clamp(0, 1)

    def _step(self, images: Tensor, current: Tensor, gradient: Tensor) -> Tensor:
        steps = self.alpha_for or self.steps
        alpha = self.alpha or self.budget.step_length(images, self.eps, steps)
        moved = current + alpha * steepest(gradient, self.norm)
        delta = self.budget.project(moved - images, self.radius(images))
        return (images + delta).clamp(0, 1)

    def _unsolved(self, logits: Tensor, batch: Batch) -> Tensor:
        """Which images are still to be stepped, (B,) of bool."""
        predicted = logits.argmax(dim=1)
        if self.targeted:
            assert batch.targets is not None
            return predicted != batch.targets
        return predicted == batch.labels


def _less_eot(listed: dict[str, object]) -> dict[str, object]:
    """A model that draws at random and one that does not have one name for a cell."""
    return {key: value for key, value in listed.items() if (key, value) != ("eot", 1)}
