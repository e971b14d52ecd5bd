"""What an attack is, and everything about it that must never be wrong."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from trainables.attacks.budgets import Norm, size
from trainables.classifier import Classifier
from trainables.errors import BrokenInvariant
from trainables.losses.base import Loss
from trainables.registry import Component
from trainables.seeding import wrong_classes

ROUNDING = 1e-5  # the share of eps by which float32 may overshoot a budget
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
        indices: each image's place in its split's fixed order, which keys its draws, (B,).
        seed: of the draws.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None
    indices: Tensor
    seed: int


@dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """What an attack did to each image; all tensors (B,) on the CPU.

    Attributes:
        correct_before: passes (0 .. `passes`) that classified the clean image rightly.
        correct_after: the same under attack; 0 where the clean image was already wrong.
        l2, linf: norms of the perturbation, 0 for images that were not attacked.
        queries: forward passes spent on the image.
        targets: class aimed at, -1 without one.
        hit: whether the target was reached.
        passes: stochastic passes an image, 1 for a deterministic model.
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

        Success is judged by running the classifier on the clipped result. The mode of the
        classifier and its parameters' gradients are left as they were.

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
        if not bool(((images >= 0) & (images <= 1)).all()):  # NaN is outside too
            raise ValueError("expected images in [0, 1]")
        indices = torch.arange(len(images)) if indices is None else indices
        adversarial, queries = images.clone(), torch.zeros(len(images), dtype=torch.long)
        with _frozen(classifier):
            with torch.no_grad():
                clean = classifier(images)
            before = clean.argmax(dim=1) == labels
            targets = (
                wrong_classes(labels, indices, clean.shape[1], seed) if self.targeted else None
            )
            alive = before.nonzero().squeeze(1)
            if len(alive):
                batch = Batch(
                    images=images[alive],
                    labels=labels[alive],
                    targets=None if targets is None else targets[alive],
                    indices=indices[alive.cpu()],
                    seed=seed,
                )
                result, spent = self.perturb(classifier, batch)
                adversarial[alive] = result.detach().clamp(0, 1)
                queries[alive.cpu()] = spent.cpu()
                self._check(images[alive], adversarial[alive])
            with torch.no_grad():
                predicted = classifier(adversarial).argmax(dim=1)
        return _judge(images, labels, adversarial, before, predicted, targets, queries)

    def _check(self, images: Tensor, adversarial: Tensor) -> None:
        if not bool(adversarial.isfinite().all()):
            raise BrokenInvariant(f"{self} made an image with pixels that are no numbers")
        radius = self.radius(images)
        if radius is None or self.norm is None:
            return
        excess = size(adversarial - images, self.norm) - radius * (1 + ROUNDING)
        if bool(excess.max() > SLACK):
            raise BrokenInvariant(f"{self} left its budget by {float(excess.max()):.3g}")


def _judge(
    images: Tensor,
    labels: Tensor,
    adversarial: Tensor,
    before: Tensor,
    predicted: Tensor,
    targets: Tensor | None,
    queries: Tensor,
) -> AttackOutcome:
    delta = adversarial - images
    none = torch.full_like(labels, -1)
    return AttackOutcome(
        correct_before=before.long().cpu(),
        correct_after=(before & (predicted == labels)).long().cpu(),
        l2=size(delta, "l2").flatten().cpu(),
        linf=size(delta, "linf").flatten().cpu(),
        queries=queries,
        targets=(none if targets is None else targets).cpu(),
        hit=(predicted == (none if targets is None else targets)).long().cpu(),
    )


@contextlib.contextmanager
def _frozen(classifier: Classifier) -> Iterator[None]:
    """Eval mode and no gradients on parameters within, everything as it was after."""
    modes = {module: module.training for module in classifier.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in classifier.parameters()}
    classifier.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
        for module, mode in modes.items():
            module.training = mode
