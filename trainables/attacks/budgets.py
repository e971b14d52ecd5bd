"""Budgets: how epsilon is read (METHODS 3). Each is a ball around the image."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import PlainValidator
from torch import Tensor

from trainables import registry
from trainables.registry import Component, component
from trainables.seeding import Draws

Norm = Literal["l2", "linf"]
TINY = 1e-30  # below it a gradient counts as zero


class Budget(Component):
    """A ball: its norm, and its radius for a given eps.

    Attributes:
        norm: the norm the ball is of.
    """

    kind: ClassVar[str] = "budget"
    norm: ClassVar[Norm]

    @abstractmethod
    def radius(self, images: Tensor, eps: float) -> Tensor:
        """The ball's radius around each image (B, C, H, W): (B, 1, 1, 1)."""


@component("l2_abs", revision=1)
class L2Absolute(Budget):
    """|delta|_2 <= eps."""

    norm: ClassVar[Norm] = "l2"

    def radius(self, images: Tensor, eps: float) -> Tensor:
        """The radius is eps."""
        return images.new_full((len(images), 1, 1, 1), eps)


@component("l2_rms", revision=1)
class L2RootMeanSquare(Budget):
    """|delta|_2 <= eps sqrt(d), d the number of pixels times channels."""

    norm: ClassVar[Norm] = "l2"

    def radius(self, images: Tensor, eps: float) -> Tensor:
        """The radius is eps sqrt(d): 28 eps on MNIST, 55.4 eps on CIFAR-10."""
        return images.new_full((len(images), 1, 1, 1), eps * images[0].numel() ** 0.5)


@component("linf", revision=1)
class LInf(Budget):
    """|delta|_inf <= eps."""

    norm: ClassVar[Norm] = "linf"

    def radius(self, images: Tensor, eps: float) -> Tensor:
        """The radius is eps."""
        return images.new_full((len(images), 1, 1, 1), eps)


BudgetField = Annotated[Budget, PlainValidator(registry.reader("budget"))]


def size(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each sample of (B, C, H, W), as (B, 1, 1, 1)."""
    flat = delta.flatten(1)
    length = flat.norm(dim=1) if norm == "l2" else flat.abs().amax(dim=1)
    return length.view(-1, 1, 1, 1)


def project(delta: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """The nearest point to delta within the ball."""
    if norm == "linf":
        return delta.clamp(min=-radius, max=radius)
    return delta * (radius / size(delta, norm).clamp(min=TINY)).clamp(max=1)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of length one along which a linear function rises most.

    L2: g / |g|, divided by its largest entry first, because squares of the gradients of a
    saturated model underflow in float32 (a logit gap of 50 gives 6e-22).
    """
    if norm == "linf":
        return gradient.sign()
    scaled = gradient / size(gradient, "linf").clamp(min=TINY)
    return scaled / size(scaled, "l2").clamp(min=TINY)


def random_point(images: Tensor, radius: Tensor, norm: Norm, draws: Draws) -> Tensor:
    """A uniform point of the ball around each image, before any clipping."""
    size_of_image = images[0].numel()
    if norm == "linf":
        noise = 2 * draws.uniform(size_of_image) - 1
    else:
        direction = draws.normal(size_of_image)
        length = draws.at("length").uniform(1) ** (1 / size_of_image)
        noise = direction / direction.norm(dim=1, keepdim=True) * length
    return images + radius * noise.to(images).view_as(images)
