"""Auto-PGD: momentum, and a step length that finds itself.

Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (arXiv 2003.01690), algorithm 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.attacks.base import Attack, Batch, Columns, Crafted, Eps, Steps, in_turn
from trainables.attacks.budgets import BallField, Budget, L2RootMeanSquare, Norm, size, steepest
from trainables.attacks.surfaces import EOT, Eot, Slope, Surface, slope
from trainables.classifier import Classifier
from trainables.registry import component

MOMENTUM = 0.75  # the share of the projected step; the rest is the step before
RHO = 0.75  # the share of steps that must raise the surface, or the step length is halved


@component("apgd", revision=1)
class APGD(Attack):
    """PGD with momentum that halves its own step length and goes back to its best point.

    Steps begin at two radii, at a random point of the ball's surface. At each checkpoint they
    are halved, and the best point so far taken up again, where too few of them raised the
    surface (at most `RHO`), or where the best value is that of the checkpoint before and they
    were not halved there. Where the paper differs from the authors' code this follows the
    code: "at most" for "less than", and the first step after a return counts as a rise above
    the iterate before it, not above the best one. But the very first step rises above the
    start, which the code takes to be worth 0. Everything is per image.

    Attributes:
        budget: how eps is read, a ball; `l2_rms` by default, as for `pgd`.
        eps: size of the budget, in its unit, >= 0.
        steps: gradient steps N; 100 in the original.
        surface: what is differentiated.
        rivals: run towards each of so many likeliest wrong classes in turn, where any wrong
            class is a success (APGD-T, 9 in the original); 0 runs away from the true class.
        restarts: runs an image (and rival), each from a start of its own, until one breaks it.
        eot: draws that values and gradients are averaged over on a model that draws at random.
    """

    budget: BallField = L2RootMeanSquare()
    eps: Eps
    steps: Steps = 100
    surface: Surface = "dlr_raw"
    rivals: Annotated[int, Field(ge=0)] = 0
    restarts: Steps = 1
    eot: Eot = EOT

    @property
    def norm(self) -> Norm:
        """The budget's norm."""
        return self.budget.norm

    def radius(self, images: Tensor) -> Tensor:
        """The largest perturbation of each image, (B, 1, 1, 1)."""
        return self.budget.radius(images, self.eps, self.steps)

    def columns(self) -> Columns:
        """Listed by budget, surface, eps and steps."""
        return Columns(
            budget=self.budget.name,
            norm=self.norm,
            targeted=False,
            surface=self.surface,
            eps=self.eps,
            steps=self.steps,
            extra={
                **self.budget.parameters(),
                **self.extra("budget", "eps", "steps", "surface"),
            },
        )

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """One run after another, on what is unbroken."""
        rivals = range(min(self.rivals, batch.logits.shape[1] - 1)) or [None]
        runs = [functools.partial(self._run, classifier, rival) for rival in rivals]
        if len(runs) == self.restarts == 1:
            return runs[0](batch)
        attempts = (run for run in runs for _ in range(self.restarts))
        return replace(in_turn(classifier, batch, attempts), stage=None)

    def _run(self, classifier: Classifier, rival: int | None, batch: Batch) -> Crafted:
        """Climbs until an image is misclassified; hands over its best point if it never is.

        On a model that draws at random it always does the latter: one misclassified pass says
        nothing of the next, while the best point is that of the best mean over `eot` draws.
        """
        if rival is not None:
            batch = replace(batch, targets=batch.rivals()[:, rival])
        result = batch.images.clone()
        queries = torch.zeros_like(batch.labels)
        steepness = torch.full_like(queries, torch.inf, dtype=torch.float64)
        active, part = torch.arange(len(result), device=result.device), batch
        climb = _Climb.begin(self._start(batch), 2 * self.radius(batch.images))
        marks = checkpoints(self.steps)
        for step in range(self.steps + 1):
            if step:
                moved = self._step(part.images, climb, MOMENTUM if step > 1 else 1.0)
                climb.previous, climb.current = climb.current, moved
            found = slope(
                self.surface,
                classifier,
                climb.current,
                part.labels,
                part.targets,
                part.draws.at(step),
                eot=self.eot,
            )
            queries[active] += self.eot if classifier.stochastic else 1
            steepness[active] = torch.minimum(steepness[active], found.norm)
            broken = found.logits.argmax(dim=1) != part.labels
            if not classifier.stochastic and bool(broken.any()):
                result[active[broken]] = climb.current[broken]
                going = ~broken
                active, part, climb = active[going], part[going], climb[going]
                if not len(active):
                    break
                found = Slope(*(value[going] for value in found))
            climb.record(found)
            if step in marks:
                climb.check(marks[step])
        result[active] = climb.best
        return Crafted(images=result, queries=queries, gradient=steepness)

    def _start(self, batch: Batch) -> Tensor:
        """L2: uniform on the sphere. Linf: uniform in the cube, enlarged until it touches it."""
        draws, count = batch.draws.at("start"), batch.images[0].numel()
        drawn = draws.normal(count) if self.norm == "l2" else 2 * draws.uniform(count) - 1
        noise = drawn.to(batch.images).view_as(batch.images)
        away = self.radius(batch.images) * noise / size(noise, self.norm)
        return (batch.images + away).clamp(0, 1)

    def _step(self, images: Tensor, climb: _Climb, share: float) -> Tensor:
        """Moves to x + share (z - x) + (1 - share) (x - x_before), z being PGD's next iterate."""
        current, radius = climb.current, self.radius(images)
        moved = current + climb.length * steepest(climb.gradient, self.norm)
        ahead = _within(images, moved, self.budget, radius) - current
        moved = current + share * ahead + (1 - share) * (current - climb.previous)
        return _within(images, moved, self.budget, radius)


def _within(images: Tensor, moved: Tensor, budget: Budget, radius: Tensor) -> Tensor:
    """The image of the ball, then of the box."""
    return (images + budget.project(moved - images, radius)).clamp(0, 1)


@dataclass(kw_only=True)
class _Climb:
    """Where the climb of each image stands.

    Attributes:
        current, previous, best: iterates, (B, C, H, W).
        gradient, best_gradient: of the surface there.
        value, best_value: of the surface, (B,).
        length: of a step, (B, 1, 1, 1), in the norm.
        rises: steps since the last checkpoint that raised the value, (B,).
        checked: the best value at the last checkpoint, (B,).
        halved: whether the steps were halved there, (B,); true before the first.
    """

    current: Tensor
    previous: Tensor
    best: Tensor
    gradient: Tensor
    best_gradient: Tensor
    value: Tensor
    best_value: Tensor
    length: Tensor
    rises: Tensor
    checked: Tensor
    halved: Tensor

    @classmethod
    def begin(cls, start: Tensor, length: Tensor) -> _Climb:
        """At the start, before it is looked at: worth less than anything."""
        lowest = start.new_full((len(start),), -torch.inf)
        return cls(
            current=start,
            previous=start,
            best=start,
            gradient=torch.zeros_like(start),
            best_gradient=torch.zeros_like(start),
            value=lowest,
            best_value=lowest,
            length=length,
            rises=-torch.ones_like(lowest),  # the start is above what was before, and no step
            checked=lowest,
            halved=torch.ones_like(lowest, dtype=torch.bool),
        )

    def __getitem__(self, chosen: Tensor) -> _Climb:
        """The climb of some of the images."""
        return _Climb(**{name: value[chosen] for name, value in vars(self).items()})

    def record(self, found: Slope) -> None:
        """Takes in what was seen at `current`."""
        self.rises = self.rises + (found.value > self.value)
        self.value, self.gradient = found.value, found.gradient
        self._take_best(found.value > self.best_value)

    def _take_best(self, better: Tensor) -> None:
        wide = better.view(-1, 1, 1, 1)
        self.best = torch.where(wide, self.current, self.best)
        self.best_gradient = torch.where(wide, self.gradient, self.best_gradient)
        self.best_value = torch.where(better, self.value, self.best_value)

    def check(self, steps: int) -> None:
        """Halves the steps where the last `steps` did too little, and returns to the best."""
        stuck = ~self.halved & (self.best_value <= self.checked)
        self.halved = (self.rises <= RHO * steps) | stuck
        self.checked, self.rises = self.best_value, torch.zeros_like(self.rises)
        wide = self.halved.view(-1, 1, 1, 1)
        self.length = torch.where(wide, self.length / 2, self.length)
        self.current = torch.where(wide, self.best, self.current)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)


def checkpoints(steps: int) -> dict[int, int]:
    """After which steps the length is looked at, each with the steps since the one before.

    w_j = ceil(p_j N) with p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06);
    counted in hundredths, since .22 + .19 is more than .41 in floating point.
    """
    percent, gap, marks, last = 22, 22, dict[int, int](), 0
    while percent <= 100:
        mark = -(-percent * steps // 100)
        if mark > last:
            marks[mark], last = mark - last, mark
        gap = max(gap - 3, 6)
        percent += gap
    return marks
