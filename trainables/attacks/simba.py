"""SimBA (Guo et al. 2019, Simple Black-box Adversarial Attacks, Algorithm 1), batched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trainables.attacks.base import Batch, Columns, Crafted, Eps, Steps, Stepwise
from trainables.attacks.budgets import L2BallField, Norm
from trainables.classifier import Classifier
from trainables.registry import component

Basis = Literal["pixel", "dct"]
STEP = 0.2  # the original's epsilon


@component("simba", revision=1)
class SimBA(Stepwise):
    """Goes along one vector of an orthonormal basis after another, wherever p_y falls.

    Each image has the basis in an order of its own. A vector q is tried backwards, x - step q,
    and if p_y does not fall, forwards; a trial that lowers p_y is kept. Trials are clipped to
    [0, 1] and, within a ball, projected onto it. An image is done when a kept trial is
    misclassified, or when it has been through the basis once. All as in the authors' code
    (github.com/cg563/simple-blackbox-attack, `simba_single`); the paper tries forwards first.

    That p_y falls is seen from its log odds in float64, which fall when it does: p_y itself is
    exactly 1 in float32 from a logit gap of 17 on, in float64 from 37. A trial that clipping
    undoes is counted as the query it is, but neither looked at nor kept: p_y cannot fall.

    A model that draws at random draws afresh for each query, and no image is done at a lucky
    pass. Trials are compared with the one draw that was kept, as the algorithm has it: that is
    the lowest of many, so ever fewer trials are kept, and SimBA is weak on such models.

    Attributes:
        budget: the ball in L2 that the perturbation is projected onto, `l2_abs` for METHODS'
            mode `l2ball`. By default none, METHODS' mode `step`: no threat model. The paper's
            |delta|_2 <= eps sqrt(trials kept) holds for pixels; frequencies that were clipped
            are orthogonal no more, and pass it by a little.
        eps: the ball's size in its unit; without a ball the length of a step, 0.2 in the
            original.
        step: the length of a step within a ball, in pixel values; 0.2 by default (METHODS 3).
        basis: `pixel`, or `dct`: all frequencies of each channel's orthonormal 2-D DCT-II.
        steps: the limit; the paper's 300 queries on MNIST by default, 500 on CIFAR-10.
        limit: what `steps` counts: `queries` of the model, the first on the clean image and one
            or two a vector; or `iterations`, vectors tried.
    """

    budget: L2BallField | None = None
    eps: Eps
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    basis: Basis = "pixel"
    steps: Steps = 300
    limit: Literal["queries", "iterations"] = "queries"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.budget is None and self.step is not None:
            raise ValueError("expected step with a budget alone: without one eps is the step")
        return self

    @property
    def norm(self) -> Norm | None:
        """L2 within a ball, else none."""
        return None if self.budget is None else self.budget.norm

    def radius(self, images: Tensor) -> Tensor | None:
        """The largest perturbation of each image, (B, 1, 1, 1), within a ball."""
        return None if self.budget is None else self.budget.radius(images, self.eps, self.steps)

    def columns(self) -> Columns:
        """Listed by its ball, or as `step`."""
        ball = {} if self.budget is None else self.budget.parameters()
        return Columns(
            budget="step" if self.budget is None else self.budget.name,
            norm=self.norm,
            targeted=False,
            surface="none",
            eps=self.eps,
            steps=self.steps,
            extra={**ball, **self.extra("budget", "eps", "steps")},
        )

    def iterates(self, classifier: Classifier, batch: Batch) -> Iterator[Crafted]:
        """Spends a query, or an iteration's one or two, on every image that is not done."""
        walk = _Walk(self, classifier, batch)
        yield walk.state
        walk.begin()
        if self.limit == "queries":
            yield walk.state
        while len(walk.active):
            walk.query(walk.active)
            if self.limit == "iterations":
                walk.query(walk.active[walk.forwards[walk.active]])
            yield walk.state


class _Walk:
    """Where each of B images stands; images at different vectors share the model's batches.

    Attributes:
        state: the images as they are by now, and the queries spent on each.
        active: places in the batch of those that are not done, (A,).
        forwards: whether an image's next trial is its vector's second, (B,).
    """

    def __init__(self, attack: SimBA, classifier: Classifier, batch: Batch) -> None:
        images, labels = batch.images, batch.labels
        self.attack, self.classifier, self.batch = attack, classifier, batch
        self.radius = attack.radius(images)
        self.length = attack.eps if attack.budget is None else attack.step or STEP
        self.state = Crafted(
            images=images.clone(memory_format=torch.contiguous_format),
            queries=torch.zeros_like(labels),
        )
        self.active = torch.arange(len(images), device=images.device)
        self.forwards = torch.zeros_like(labels, dtype=torch.bool)
        self.vector = torch.zeros_like(labels)  # how many of its vectors an image is through with
        self.rounds = 0
        rank = batch.draws.at("order").uniform(images[0].numel())
        self.order = rank.argsort(dim=1, stable=True)[:, : attack.steps].to(images.device)
        make = dct if attack.basis == "dct" else torch.eye
        self.rows, self.columns = (make(side).to(images) for side in images.shape[2:])

    def begin(self) -> None:
        """The first query, on the images as they are."""
        self.odds, wrong = self._look(self.batch.images, self.active)
        self.state.queries[:] = 1
        self.active = self.active[~wrong]

    def query(self, who: Tensor) -> None:
        """Spends one query on each of some active images, (N,): its next trial."""
        trials, asked = self._trials(who)
        kept, done = torch.zeros_like(self.forwards), torch.zeros_like(self.forwards)
        self.rounds += 1  # also where nobody asks: draws must not depend on who is in the batch
        if len(asked):
            odds, wrong = self._look(trials, asked)
            falls = odds < self.odds[asked]
            kept[asked], done[asked] = falls, falls & wrong
            lower = asked[falls]
            self.state.images[lower], self.odds[lower] = trials[falls], odds[falls]
        self.state.queries[who] += 1
        through = kept[who] | self.forwards[who]
        self.vector[who] += through
        self.forwards[who] = ~through
        done |= self.vector == self.order.shape[1]
        self.active = self.active[~done[self.active]]

    def _trials(self, who: Tensor) -> tuple[Tensor, Tensor]:
        """The next trials, (M, C, H, W), and the images they are of, (M,).

        Those of `who` but for the ones that clipping undoes.
        """
        images = self.state.images
        channels, height, width = images.shape[1:]
        index = self.order[who, self.vector[who]]
        channel, row, column = index // (height * width), index // width % height, index % width
        length = self.length * (2 * self.forwards[who].to(images) - 1).view(-1, 1, 1)
        step = length * self.rows[row].unsqueeze(2) * self.columns[column].unsqueeze(1)
        # One channel changes. Whole rows are copied by index_select, 4 times faster than by [].
        before = images.flatten(0, 1).index_select(0, who * channels + channel)
        after = step.add_(before).clamp_(0, 1)
        changed = (before.sub_(after).abs_().flatten(1).amax(dim=1) > 0).nonzero().squeeze(1)
        asked = who[changed]
        trials = images.index_select(0, asked)
        place = torch.arange(len(asked), device=who.device) * channels + channel[changed]
        trials.flatten(0, 1).index_copy_(0, place, after.index_select(0, changed))
        if self.attack.budget is not None:
            assert self.radius is not None
            centre = self.batch.images.index_select(0, asked)
            trials = centre + self.attack.budget.project(trials - centre, self.radius[asked])
        return trials, asked

    @torch.no_grad()
    def _look(self, images: Tensor, who: Tensor) -> tuple[Tensor, Tensor]:
        """Log odds of the true class, (N,) float64, and which images are safely broken, (N,)."""
        draws = self.batch.draws.at(self.rounds)[who]
        logits, labels = self.classifier(images, draws), self.batch.labels[who]
        wrong = (logits.argmax(dim=1) != labels) & (not self.classifier.stochastic)
        return log_odds(logits, labels), wrong


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p_y / (1 - p_y)) = z_y - log sum_{j != y} exp(z_j), in float64: (B,).

    Rises with p_y, and goes on to where the float64 p_y is 1.
    """
    precise, true = logits.double(), labels.unsqueeze(1)
    others = precise.scatter(1, true, -torch.inf).logsumexp(dim=1)
    odds: Tensor = precise.gather(1, true).squeeze(1) - others
    return odds


def dct(side: int) -> Tensor:
    """The orthonormal DCT-II: row u is sqrt(2/n) cos(pi u (2i + 1) / 2n), and sqrt(1/n) for 0.

    The outer product of rows u and v is the image whose 2-D DCT is one at (u, v), 0 elsewhere.
    """
    place = torch.arange(side, dtype=torch.float64)
    rows = (math.pi / side * place.unsqueeze(1) * (place + 0.5)).cos() * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows
