"""DeepFool in L2 (Moosavi-Dezfooli et al. 2016), batched over images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast

import torch
from pydantic import model_validator
from torch import Tensor

from trainables.attacks.base import (
    NO_GRADIENT,
    Batch,
    Columns,
    Crafted,
    Eps,
    Steps,
    Stepwise,
    within,
)
from trainables.attacks.budgets import L2BallField, Norm
from trainables.attacks.surfaces import EOT, Eot
from trainables.classifier import Classifier
from trainables.losses.base import Head, Loss
from trainables.registry import component
from trainables.seeding import Draws

OvershootRule = Literal["total", "per_step"]
Output = Literal["raw", "deployed", "probabilities"]
TOP = 10  # classes that are looked at, the true one among them, as in the original
BEYOND = 1e-4  # what `total` adds to every step so that it crosses, in L2, as in foolbox
SHORTEST = 1e-8  # normals count as no shorter than this, as in foolbox


@component("deepfool", revision=1)
class DeepFool(Stepwise):
    """The smallest step over the nearest linearised boundary, until the class flips.

    Per active image, with l its class and w_k = grad z_k - grad z_l: the nearest of the
    top 10 classes is argmin_k |z_k - z_l| / |w_k|, and r += (|z_k - z_l| / |w_k| + 1e-4) w/|w|.

    Without a budget there is no threat model: it looks for the smallest perturbation, however
    large, and eps is the overshoot, the paper's reading (METHODS 3). With one an image is broken
    only if |delta|_2 is within it: an image that needs more is handed back clean, not shortened.
    One run answers all numbers of steps, all budgets and none.

    Attributes:
        overshoot: eta, the share by which the perturbation is enlarged; 0.02 in the original.
        steps: most linearisations an image.
        overshoot_rule: `total` enlarges the whole perturbation, x0 + (1 + eta) r, as in the
            original; `per_step` enlarges each step alone and adds no 1e-4 (torchattacks),
            which leaves images ON the boundary and counts them as robust.
        budget: an L2 ball that is judged by, together with `eps`.
        eps: size of the budget, in its unit, >= 0.
        output: what is linearised. `deployed` is a 5x artefact on I-SCE's normalised logits,
            `probabilities` destroys images: what careless code does (METHODS 3).
        eot: draws that logits and normals are averaged over on a model that draws at random,
            where every step is taken: no lucky draw ends it.
    """

    unhashed: ClassVar[dict[str, Any]] = {"budget": None, "eps": None, "output": "raw", "eot": 1}

    overshoot: Eps = 0.02
    steps: Steps = 50
    overshoot_rule: OvershootRule = "total"
    budget: L2BallField | None = None
    eps: Eps | None = None
    output: Output = "raw"
    eot: Eot = EOT

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.budget is None) != (self.eps is None):
            raise ValueError("expected budget and eps together: one is the size of the other")
        return self

    @property
    def norm(self) -> Norm | None:
        """L2 with a budget."""
        return None if self.budget is None else self.budget.norm

    def radius(self, images: Tensor) -> Tensor | None:
        """The budget's, (B, 1, 1, 1)."""
        if self.budget is None or self.eps is None:
            return None
        return self.budget.radius(images, self.eps, self.steps)

    def columns(self) -> Columns:
        """Listed with its budget, else with its overshoot as eps, the paper's reading."""
        extra = self.extra("budget", "eps", "steps", "output")
        if self.eot == 1:  # one name for a cell, whether the model draws at random or not
            del extra["eot"]
        if self.budget is None:
            extra.pop("overshoot", None)
        return Columns(
            budget="overshoot" if self.budget is None else self.budget.name,
            norm=self.norm,
            targeted=False,
            surface=self.output,
            eps=self.overshoot if self.eps is None else self.eps,
            steps=self.steps,
            extra=extra,
        )

    def settled(self, loss: Loss, *, stochastic: bool) -> DeepFool:
        """`raw` where the deployed logits are the raw ones; `eot` as in any attack."""
        attack = cast(DeepFool, super().settled(loss, stochastic=stochastic))
        same = self.output == "deployed" and loss.deploys_raw
        return replace(attack, output="raw") if same else attack

    def alike(self) -> DeepFool:
        """All but the number of steps and what is judged by."""
        return replace(self, steps=1, budget=None, eps=None)

    def perturb_each(
        self, peers: Sequence[Self], classifier: Classifier, batch: Batch
    ) -> list[Crafted]:
        """One run for all, each of what is within its own budget."""
        made = super().perturb_each(peers, classifier, batch)
        pairs = zip(peers, made, strict=True)
        return [within(peer, one, batch.images) for peer, one in pairs]

    def iterates(self, classifier: Classifier, batch: Batch) -> Iterator[Crafted]:
        """Steps every image until its class flips, or it can go no further."""
        total = self.overshoot_rule == "total"
        result = batch.images.clone()
        state = torch.zeros_like(result) if total else result.clone()  # r, or the image itself
        queries = torch.zeros_like(batch.labels)
        steepness = torch.full_like(queries, NO_GRADIENT, dtype=torch.float64)
        active = torch.arange(len(result), device=result.device)
        looks = self.eot if classifier.stochastic else 1
        for number in itertools.count():
            yield Crafted(images=result, queries=queries, gradient=steepness)
            if not len(active):
                return
            part = replace(batch[active], images=result[active])
            seen = self._linearise(classifier, part, part.draws.at(number), looks)
            queries[active] += looks
            moving = active[seen.right]
            step, length = self._step(seen.gaps[:, seen.right], seen.normals[:, seen.right])
            steepness[moving] = _smaller(steepness[moving], length)
            before, start = state[moving], batch.images[moving]
            if total:
                after = before + step
                result[moving] = (start + (1 + self.overshoot) * after).clamp(0, 1)
            else:
                after = (before + (1 + self.overshoot) * step).clamp(0, 1)
                result[moving] = after
            state[moving] = after
            if not classifier.stochastic:  # there one flipped draw says nothing of the next
                active = moving[(after != before).flatten(1).any(dim=1)]

    def _linearise(self, classifier: Classifier, batch: Batch, draws: Draws, looks: int) -> _Linear:
        """One look at the images, or the mean of several on a model that draws at random.

        A backward pass a class is as fast on the CPU as all of them batched, or faster, and
        needs a class less memory.
        """
        rivals, current = batch.rivals()[:, : TOP - 1], batch.images.detach().requires_grad_()
        classes = rivals.shape[1]
        normals = current.new_zeros(classes, *current.shape)
        gaps, right = current.new_zeros(classes, len(current)), torch.zeros_like(batch.labels)
        for look in range(looks):
            raw = classifier.raw(current, draws.at(look) if look else draws)
            logits = _linearised(self.output, classifier.head, raw)
            differences = logits.gather(1, rivals) - logits.gather(1, batch.labels.unsqueeze(1))
            for k in range(classes):
                wanted, more = differences[:, k].sum(), k + 1 < classes
                normals[k] += torch.autograd.grad(wanted, current, retain_graph=more)[0] / looks
            gaps += differences.detach().T / looks
            right += classifier.head.deployed(raw.detach()).argmax(dim=1) == batch.labels
        return _Linear(gaps.abs(), normals, right > 0)

    def _step(self, gaps: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """The step over the nearest boundary, (B, C, H, W), and its normal's length, (B,).

        Classes whose gap or normal is not finite are passed over; where none is left, and
        where the step itself would not be finite, both are zero.
        """
        lengths = normals.flatten(2).norm(dim=2)
        usable = lengths.isfinite() & gaps.isfinite()
        lengths = lengths.clamp(min=SHORTEST)
        distances = torch.where(usable, gaps / lengths, torch.inf)
        nearest, each = distances.argmin(dim=0), torch.arange(gaps.shape[1], device=gaps.device)
        extra = BEYOND if self.overshoot_rule == "total" else 0.0
        scale = (distances[nearest, each] + extra) / lengths[nearest, each]
        normal = normals[nearest, each]
        step = scale.view(-1, 1, 1, 1) * normal
        finite = step.flatten(1).isfinite().all(dim=1)
        length = torch.where(finite, normal.flatten(1).double().norm(dim=1), 0.0)
        return torch.where(finite.view(-1, 1, 1, 1), step, 0.0), length


class _Linear(NamedTuple):
    """A model around images.

    Attributes:
        gaps: |z_k - z_l| of each rival class, (K - 1, B).
        normals: grad (z_k - z_l), (K - 1, B, C, H, W).
        right: whether a draw is still classified as its label, (B,).
    """

    gaps: Tensor
    normals: Tensor
    right: Tensor


def _linearised(output: Output, head: Head, raw: Tensor) -> Tensor:
    if output == "raw":
        return raw
    return head.deployed(raw) if output == "deployed" else head.probabilities(raw)


def _smaller(known: Tensor, length: Tensor) -> Tensor:
    return torch.where(known == NO_GRADIENT, length, torch.minimum(known, length))
