"""FAB-T, the targeted fast adaptive boundary attack (Croce & Hein 2020), by torchattacks.

"Minimally distorted adversarial examples with a fast adaptive boundary attack" (arXiv
1907.02044), algorithm 1 with a rival in place of the nearest class, as in AutoAttack.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.attacks.base import NO_GRADIENT, Attack, Batch, Columns, Crafted, Eps, Steps, within
from trainables.attacks.budgets import BallField, L2Absolute, L2RootMeanSquare, LInf, Norm, size
from trainables.attacks.surfaces import EOT, Eot
from trainables.classifier import Classifier
from trainables.registry import component

LIBRARY_NORMS: dict[Norm, str] = {"l2": "L2", "linf": "Linf"}


@component("fab", revision=1)
class FAB(Attack):
    """Looks for the smallest perturbation that breaks an image, towards one rival after another.

    Each step linearises z_t - z_y, projects the image and where it stands onto that boundary
    within the box, goes 5 % beyond it between the two (at most 0.1 of the way to the image's
    side), and moves a tenth back towards the image whenever that is misclassified, as whatever
    class. It starts at the image: nothing is drawn.

    The run knows nothing of eps, so that one answers every ball of a norm. An image is broken
    only if its smallest perturbation is within the budget; else it is handed back clean.
    AutoAttack's FAB breaks the same images but spares those within eps the other rivals.

    A model that draws at random is attacked as the mean of its logits over `eot` draws, the same
    at every step: no lucky draw counts. Its smallest perturbation lies on the boundary of that
    mean, where about half of other draws are still right, which is why AutoAttack leaves FAB
    out for such models.

    The library computes in float32, whatever the images are in.

    Attributes:
        budget: the ball that is judged by, which names the norm that is minimised; `l2_rms`
            by default.
        eps: size of the budget, in its unit, >= 0.
        steps: of each run; 100 as in AutoAttack.
        rivals: likeliest wrong classes that are tried; 9 as in AutoAttack.
        eot: draws that the logits are averaged over on a model that draws at random. Memory
            grows with it.
    """

    unhashed: ClassVar[dict[str, Any]] = {"eot": 1}

    budget: BallField = L2RootMeanSquare()
    eps: Eps
    steps: Steps = 100
    rivals: Annotated[int, Field(ge=1)] = 9
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

    def alike(self) -> FAB:
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

    @torch.no_grad()  # but where the library asks for gradients
    def _smallest(self, classifier: Classifier, batch: Batch) -> Crafted:
        """The smallest perturbations that break the images; clean ones where none did."""
        images, model = batch.images, _Watched(classifier, batch, self.eot)
        attack = _library().FAB(model, norm=LIBRARY_NORMS[self.norm], steps=self.steps)
        best, least = images, torch.full_like(images[:, :1, :1, :1], torch.inf)
        for rivals in batch.rivals()[:, : self.rivals].T:
            attack.target_class = rivals
            # Not by calling the attack: that knows one eps, sets torch's seed and the mode.
            found = attack.attack_single_run_targeted(images, batch.labels)
            moved = size(found - images.float(), self.norm) > 0  # else it found nothing
            found = found.to(images)
            length = size(found - images, self.norm)
            better = moved & (length < least)
            best, least = torch.where(better, found, best), torch.where(better, length, least)
        return Crafted(images=best, queries=model.queries, gradient=model.gradient)


class _Watched(nn.Module):
    """A classifier's mean raw logits as a function of float32 images alone.

    The library asks for nothing else, of all images or of those that it attacks.

    Attributes:
        queries: forward passes spent on each image, (B,).
        gradient: smallest norm of the gradients it was given, as in `Crafted`.
    """

    def __init__(self, classifier: Classifier, batch: Batch, eot: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.batch = batch
        self.looks = eot if classifier.stochastic else 1
        self.queries = torch.zeros_like(batch.labels)
        self.gradient = torch.full_like(batch.labels, NO_GRADIENT, dtype=torch.float64)
        self.attacked = torch.arange(len(batch.labels), device=batch.labels.device)
        # The library attacks what it finds right: within rounding, that may not be all images.
        right = self(batch.images.float()).argmax(dim=1) == batch.labels
        self.attacked = right.nonzero().squeeze(1)

    def forward(self, images: Tensor) -> Tensor:
        everything = torch.arange(len(self.queries), device=images.device)
        rows = everything if len(images) == len(everything) else self.attacked
        if images.requires_grad:
            images.register_hook(functools.partial(self._follow, rows))
        draws, inputs = self.batch.draws[rows], images.to(self.batch.images.dtype)
        looks = [self.classifier.raw(inputs, draws.at(look)) for look in range(self.looks)]
        self.queries[rows] += self.looks
        return torch.stack(looks).mean(dim=0).to(images.dtype)

    def _follow(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """The gradient without what is not finite, along which no step can be taken."""
        finite = gradient.flatten(1).isfinite().all(dim=1)
        gradient = torch.where(finite.view(-1, 1, 1, 1), gradient, 0.0)
        norm, known = gradient.flatten(1).double().norm(dim=1), self.gradient[rows]
        self.gradient[rows] = torch.where(known == NO_GRADIENT, norm, torch.minimum(known, norm))
        return gradient


def _library() -> ModuleType:
    """Imported by those who use it: it takes seconds. Its own warnings are none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchattacks")
