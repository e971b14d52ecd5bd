"""Surfaces: what a white-box attack differentiates (METHODS 3).

Each is a per-sample objective that the attack *raises*: (classifier, images, labels,
targets) -> (B,). Without targets it moves away from the true label, with targets it moves
towards them. Margins are free of scale, cross entropies are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.classifier import Classifier
from trainables.seeding import Draws

Surface = Literal["ce_deployed", "ce_raw", "margin_deployed", "margin_raw"]
SURFACES: tuple[Surface, ...] = get_args(Surface)


def objective(
    surface: Surface,
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    draws: Draws | None = None,
) -> tuple[Tensor, Tensor]:
    """The value of `surface` for each image, (B,), and the deployed logits, (B, K)."""
    kind, _, logits_of = surface.partition("_")
    raw = classifier.raw(images, draws)
    deployed = classifier.head.deployed(raw)
    logits = raw if logits_of == "raw" else deployed
    return _OBJECTIVES[kind](logits, labels, targets), deployed


def on_raw(surface: Surface) -> Surface:
    """The same objective on the raw logits."""
    return "ce_raw" if surface.startswith("ce") else "margin_raw"


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


def _pick(logits: Tensor, index: Tensor) -> Tensor:
    return logits.gather(1, index.unsqueeze(1)).squeeze(1)


_OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "ce": _cross_entropy,
    "margin": _margin,
}
