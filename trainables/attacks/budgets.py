"""Budgets: how epsilon is read (METHODS 3). A ball around the image, or a path that leaves it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PlainValidator
from torch import Tensor

from trainables import registry
from trainables.registry import Component, component
from trainables.seeding import Draws

Norm = Literal["l2", "linf"]
TINY = 1e-30  # below it a gradient counts as zero
Kappa = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Budget(Component):
    """How far an attack may go, for a given eps and number of steps.

    Attributes:
        norm: the norm that sizes are measured in, and that a step is the steepest in.
        threat: whether it is a threat model: a ball says what the image may become, a path
            only what the attacker does.
    """

    kind: ClassVar[str] = "budget"
    norm: ClassVar[Norm]
    threat: ClassVar[bool] = True

    @abstractmethod
    def radius(self, images: Tensor, eps: float, steps: int) -> Tensor:
        """The largest perturbation of each image (B, C, H, W): (B, 1, 1, 1)."""

    def step_length(self, images: Tensor, eps: float, steps: int) -> Tensor:
        """The usual length of one of `steps` steps: 2.5 radius / N (Madry et al. 2018)."""
        return 2.5 * self.radius(images, eps, steps) / steps

    def project(self, delta: Tensor, radius: Tensor) -> Tensor:
        """The nearest perturbation that is allowed."""
        return project(delta, radius, self.norm)


@component("l2_abs", revision=1)
class L2Absolute(Budget):
    """|delta|_2 <= eps."""

    norm: ClassVar[Norm] = "l2"

    def radius(self, images: Tensor, eps: float, steps: int) -> Tensor:
        """The radius is eps."""
        return _everywhere(images, eps)


@component("l2_rms", revision=1)
class L2RootMeanSquare(Budget):
    """|delta|_2 <= eps sqrt(d), d the number of pixels times channels."""

    norm: ClassVar[Norm] = "l2"

    def radius(self, images: Tensor, eps: float, steps: int) -> Tensor:
        """The radius is eps sqrt(d): 28 eps on MNIST, 55.4 eps on CIFAR-10."""
        return _everywhere(images, eps * images[0].numel() ** 0.5)


@component("l2_rel", revision=1)
class L2Relative(Budget):
    """|delta|_2 <= eps |x|_2."""

    norm: ClassVar[Norm] = "l2"

    def radius(self, images: Tensor, eps: float, steps: int) -> Tensor:
        """The radius is eps times the image's own norm."""
        return eps * size(images, "l2")


@component("linf", revision=1)
class LInf(Budget):
    """|delta|_inf <= eps."""

    norm: ClassVar[Norm] = "linf"

    def radius(self, images: Tensor, eps: float, steps: int) -> Tensor:
        """The radius is eps."""
        return _everywhere(images, eps)


class Path(Budget):
    """N steps of one length each and no projection: the image may end N steps away."""

    threat: ClassVar[bool] = False
    kappa: Kappa

    def radius(self, images: Tensor, eps: float, steps: int) -> Tensor:
        """N kappa eps: where a straight path ends."""
        return steps * self.step_length(images, eps, steps)

    def step_length(self, images: Tensor, eps: float, steps: int) -> Tensor:
        """Kappa eps, however many steps there are."""
        return _everywhere(images, self.kappa * eps)

    def project(self, delta: Tensor, radius: Tensor) -> Tensor:
        """Nothing is projected."""
        return delta


@component("path_l2", revision=1)
class L2Path(Path):
    """N steps of length kappa eps along g / |g|_2.

    Attributes:
        kappa: steps' length in eps; METHODS 3 tried 1, 3 and 6.
    """

    norm: ClassVar[Norm] = "l2"
    kappa: Kappa = 1.0


@component("path_linf", revision=1)
class LInfPath(Path):
    """N steps kappa eps sign(g).

    Attributes:
        kappa: steps' length in eps; METHODS 3 tried 0.5 and 1.
    """

    norm: ClassVar[Norm] = "linf"
    kappa: Kappa = 1.0


def _ball(budget: Budget) -> Budget:
    if not budget.threat:
        raise ValueError(f"expected a ball such as l2_abs or linf, found the path {budget.name}")
    return budget


def _l2_ball(budget: Budget) -> Budget:
    if budget.norm != "l2":
        raise ValueError(f"expected a ball in L2 such as l2_abs, found {budget.name}")
    return _ball(budget)


BudgetField = Annotated[Budget, PlainValidator(registry.reader("budget"))]
BallField = Annotated[BudgetField, AfterValidator(_ball)]
L2BallField = Annotated[BudgetField, AfterValidator(_l2_ball)]


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


def _everywhere(images: Tensor, value: float) -> Tensor:
    return images.new_full((len(images), 1, 1, 1), value)
