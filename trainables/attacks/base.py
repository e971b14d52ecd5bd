"""What an attack is, and everything about it that must never be wrong."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from trainables.attacks.budgets import Norm, size
from trainables.classifier import Classifier, frozen
from trainables.errors import BrokenInvariant
from trainables.losses.base import Loss
from trainables.registry import Component
from trainables.seeding import Draws, wrong_classes

ROUNDING = 1e-5  # the share of eps by which float32 may overshoot a budget
PASSES = 10  # over which a model that draws at random is scored (METHODS 3)
SLACK = 1e-7  # what float32 rounds pixels of about 1 by, where eps is smaller than 0.01

Eps = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images that an attack works on.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        labels: true classes, (B,).
        targets: classes to reach, (B,), or None where the attack has none.
        draws: the adversary's own random numbers for these images.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None
    draws: Draws


@dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """What an attack did to each image; all tensors (B,) on the CPU.

    Attributes:
        correct_before: passes (0 .. `passes`) that classified the clean image rightly.
        correct_after: those of them that classify it rightly under attack too.
        l2, linf: norms of the perturbation, 0 for images that were not attacked.
        queries: forward passes spent on the image.
        targets: class aimed at, -1 without one.
        hit: passes that reached the target.
        passes: passes an image, 1 for a deterministic model. Before and under attack a pass
            draws the same, so that the two differ by the perturbation alone.
    """

    correct_before: Tensor
    correct_after: Tensor
    l2: Tensor
    linf: Tensor
    queries: Tensor
    targets: Tensor
    hit: Tensor
    passes: int = 1


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What every attack is listed by; `extra` holds its parameters not at their default."""

    budget: str
    norm: Norm | None
    targeted: bool
    surface: str
    eps: float
    steps: int
    extra: dict[str, object]


class Attack(Component):
    """Base of all attacks: subclasses write `perturb`, `__call__` owns the invariants."""

    kind: ClassVar[str] = "attack"

    @property
    def targeted(self) -> bool:
        """Whether it aims at a class."""
        return False

    @property
    def norm(self) -> Norm | None:
        """The norm its budget is in, None without a budget."""
        return None

    def radius(self, images: Tensor) -> Tensor | None:
        """The largest perturbation allowed around each image, (B, 1, 1, 1), in `norm`."""
        return None

    @abstractmethod
    def columns(self) -> Columns | None:
        """How it stands in a cell's name, None for the clean cell."""

    def for_loss(self, loss: Loss) -> Attack:
        """The same attack in the form that is planned once for all equal surfaces."""
        return self

    def extra(self, *listed: str) -> dict[str, object]:
        """The parameters that are not at their default, less those `listed` elsewhere."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {
            field.name: value
            for field in fields
            if field.name not in listed and (value := getattr(self, field.name)) != field.default
        }

    @abstractmethod
    def perturb(self, classifier: Classifier, batch: Batch) -> tuple[Tensor, Tensor]:
        """Attacks images that are all classified rightly.

        Returns:
            Adversarial images (B, C, H, W) and the forward passes spent on each, (B,).
        """

    @final
    def __call__(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        indices: Tensor | None = None,
        seed: int = 0,
    ) -> AttackOutcome:
        """Attacks the images that the classifier gets right and judges the result.

        Success is judged by running the classifier on the clipped result, with draws of its
        own that the adversary does not know. The mode of the classifier and its parameters'
        gradients are left as they were.

        Args:
            classifier: the model, on the images' device.
            images: (B, C, H, W) in [0, 1].
            labels: true classes, (B,).
            indices: place of each image in its split's order; counted from 0 by default.
            seed: of targets and other draws.

        Raises:
            ValueError: images outside [0, 1].
            BrokenInvariant: a perturbation left its budget or is not finite, a bug of the
                attack's.
        """
        return self.craft(classifier, images, labels, indices=indices, seed=seed)[1]

    @final
    def craft(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        indices: Tensor | None = None,
        seed: int = 0,
    ) -> tuple[Tensor, AttackOutcome]:
        """The adversarial images too, (B, C, H, W), beside what calling the attack gives."""
        if not bool(((images >= 0) & (images <= 1)).all()):  # NaN is outside too
            raise ValueError("expected images in [0, 1]")
        indices = torch.arange(len(images)) if indices is None else indices
        draws = Draws((seed,), indices)
        adversarial, queries = images.clone(), torch.zeros(len(images), dtype=torch.long)
        with frozen(classifier, classifier):
            clean = _passes(classifier, images, draws)
            before = clean.argmax(dim=2) == labels
            targets = (
                wrong_classes(labels, indices, clean.shape[2], seed) if self.targeted else None
            )
            alive = before.any(dim=0).nonzero().squeeze(1)
            if len(alive):
                batch = Batch(
                    images=images[alive],
                    labels=labels[alive],
                    targets=None if targets is None else targets[alive],
                    draws=draws.at("attack", self.name)[alive],
                )
                result, spent = self.perturb(classifier, batch)
                adversarial[alive] = result.detach().clamp(0, 1)
                queries[alive.cpu()] = spent.cpu()
                self._check(images[alive], adversarial[alive])
            after = _passes(classifier, adversarial, draws).argmax(dim=2)
        return adversarial, _judge(images, labels, adversarial, before, after, targets, queries)

    def _check(self, images: Tensor, adversarial: Tensor) -> None:
        if not bool(adversarial.isfinite().all()):
            raise BrokenInvariant(f"{self} made an image with pixels that are no numbers")
        radius = self.radius(images)
        if radius is None or self.norm is None:
            return
        excess = size(adversarial - images, self.norm) - radius * (1 + ROUNDING)
        if bool(excess.max() > SLACK):
            raise BrokenInvariant(f"{self} left its budget by {float(excess.max()):.3g}")


@torch.no_grad()
def _passes(classifier: Classifier, images: Tensor, draws: Draws) -> Tensor:
    """The deployed logits of each pass, (passes, B, K)."""
    passes = range(PASSES if classifier.stochastic else 1)
    return torch.stack([classifier(images, draws.at("judge", number)) for number in passes])


def _judge(
    images: Tensor,
    labels: Tensor,
    adversarial: Tensor,
    before: Tensor,
    after: Tensor,
    targets: Tensor | None,
    queries: Tensor,
) -> AttackOutcome:
    """`before`: which passes were right on the clean image; `after`: predictions; (passes, B)."""
    delta = adversarial - images
    targets = torch.full_like(labels, -1) if targets is None else targets
    return AttackOutcome(
        correct_before=before.sum(dim=0).cpu(),
        correct_after=(before & (after == labels)).sum(dim=0).cpu(),
        l2=size(delta, "l2").flatten().cpu(),
        linf=size(delta, "linf").flatten().cpu(),
        queries=queries,
        targets=targets.cpu(),
        hit=(after == targets).sum(dim=0).cpu(),
        passes=len(before),
    )
