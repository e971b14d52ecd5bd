"""Surfaces: what a white-box attack differentiates (METHODS 3).

Each is a per-sample objective that the attack *raises*: (classifier, images, labels,
targets) -> (B,). Without targets it moves away from the true label, with targets it moves
towards them. Margins and DLR are free of scale, cross entropies are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trainables.attacks.budgets import TINY
from trainables.classifier import Classifier
from trainables.errors import UnknownLoss
from trainables.losses.base import Loss, Unknown
from trainables.seeding import Draws

Surface = Literal[
    "ce_deployed",  # CE of the deployed logits: what the paper's own columns are
    "ce_infer",  # CE of eq. 2's probabilities, discontinuous where the argmax changes
    "ce_raw",
    "margin_raw",
    "dlr_raw",
    "margin_deployed",
    "train_loss",  # the label-dependent training loss; success is judged on deployed logits
]
SURFACES: tuple[Surface, ...] = get_args(Surface)

Rescale = Literal["none", "unit"]
Eot = Annotated[int, Field(ge=1)]
EOT = 20  # draws a gradient of a model that draws at random is averaged over (METHODS 3)


class Slope(NamedTuple):
    """What one look at a model gives an adversary.

    Attributes:
        gradient: of the surface's value, (B, C, H, W); zero for an image where any of it is
            not finite, since no step can be taken along that.
        norm: its L2 norm, (B,) float64.
        value: the surface's value, (B,).
        logits: deployed logits, (B, K).
    """

    gradient: Tensor
    norm: Tensor
    value: Tensor
    logits: Tensor


def slope(
    surface: Surface,
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    draws: Draws,
    *,
    eot: int = 1,
    rescale: Rescale = "none",
) -> Slope:
    """The gradient of a surface, its mean over `eot` draws where the model draws at random."""
    looks = eot if classifier.stochastic else 1
    current = images.detach().requires_grad_()
    gradient, value, logits = torch.zeros_like(images), torch.zeros(()), torch.zeros(())
    for number in range(looks):
        drawn = draws.at(number) if number else draws  # the first draw is the only one's
        found, deployed = objective(surface, classifier, current, labels, targets, drawn, rescale)
        gradient = gradient + torch.autograd.grad(found.sum(), current)[0] / looks
        value, logits = value + found.detach() / looks, logits + deployed.detach() / looks
    finite = gradient.flatten(1).isfinite().all(dim=1)
    gradient = torch.where(finite.view(-1, 1, 1, 1), gradient, 0.0)
    return Slope(gradient, _length(gradient), value, logits)


def objective(
    surface: Surface,
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    draws: Draws | None = None,
    rescale: Rescale = "none",
) -> tuple[Tensor, Tensor]:
    """The value of `surface` for each image, (B,), and the deployed logits, (B, K)."""
    features, head = classifier.features(images, draws), classifier.head
    raw = head(features)
    deployed = head.deployed(raw)
    if surface == "train_loss":
        if targets is None:
            return head.loss(features, labels), deployed
        return -head.loss(features, targets), deployed
    kind, _, which = surface.partition("_")
    logits = {"raw": raw, "deployed": deployed, "infer": head.inferred(raw)}[which]
    if rescale == "unit":
        logits = logits / logits.detach().std(dim=1, keepdim=True).clamp(min=TINY)
    return _OBJECTIVES[kind](logits, labels, targets), deployed


def settled(surface: Surface, loss: Loss) -> Surface:
    """The one name of all surfaces that are equal for models of a loss: planned once.

    Raises:
        UnknownLoss: `train_loss` of a network whose training loss is not known.
    """
    if surface == "train_loss" and isinstance(loss, Unknown):
        raise UnknownLoss(
            "surface train_loss: what a network that gives logits itself was trained with is not "
            "known; attack another surface, such as ce_raw or margin_raw"
        )
    if surface == "ce_infer" and loss.infers_deployed:
        surface = "ce_deployed"
    if surface == "train_loss" and loss.trains_deployed:
        surface = "ce_deployed"
    if loss.deploys_raw and surface == "ce_deployed":
        return "ce_raw"
    if loss.deploys_raw and surface == "margin_deployed":
        return "margin_raw"
    return surface


def _length(gradient: Tensor) -> Tensor:
    """L2 norms in float64, where squares of 1e-30 are still numbers: (B,)."""
    length: Tensor = gradient.flatten(1).double().norm(dim=1)
    return length


def _cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def _margin(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """max_{j != y} z_j - z_y, or z_t - z_y for a target t."""
    true = _pick(logits, labels)
    if targets is not None:
        return _pick(logits, targets) - true
    others = logits.masked_fill(F.one_hot(labels, logits.shape[1]).to(torch.bool), -torch.inf)
    return others.max(dim=1).values - true  # one class of those tied: amax averages gradients


def _dlr(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, eqs. 3 and 4): free of shift and scale.

    (max_{j != y} z_j - z_y) / (z_1 - z_3), z_k being the k-th largest; towards a target t
    (z_t - z_y) / (z_1 - (z_3 + z_4) / 2). With fewer classes the smallest stands in.
    """
    ranked = logits.sort(dim=1, descending=True).values
    third, fourth = (ranked[:, min(k, logits.shape[1] - 1)] for k in (2, 3))
    below = third if targets is None else (third + fourth) / 2
    return _margin(logits, labels, targets) / (ranked[:, 0] - below + 1e-12)


def _pick(logits: Tensor, index: Tensor) -> Tensor:
    return logits.gather(1, index.unsqueeze(1)).squeeze(1)


_OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "ce": _cross_entropy,
    "margin": _margin,
    "dlr": _dlr,
}
