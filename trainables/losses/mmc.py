"""Max-Mahalanobis center loss, MMC (Pang et al. 2020)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.losses.base import Head, Loss
from trainables.registry import component


@component("mmc", revision=1)
class MMC(Loss):
    """|h' - mu_y|² / 2 with h' = W h + b, (B, D), and fixed centers mu: a regular simplex.

    Pang et al., "Rethinking Softmax Cross-Entropy Loss for Adversarial Robustness", ICLR
    2020. Raw and deployed logits are -|h' - mu|². The linear layer stands for the dense one
    that the authors' network ends in and is part of the method: features behind a ReLU cannot
    reach the negative coordinates of the centers.

    Attributes:
        radius: length of the centers, > 0; 10 is the authors' code's (C_MM = 100 under the
            root).
    """

    radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0

    def head(self, width: int, classes: int) -> Head:
        """A linear layer D -> D and the centers."""
        return _Head(width, classes, self)

    def refuses(self, width: int, classes: int) -> str | None:
        """K points at equal distances span K - 1 dimensions."""
        if width >= classes - 1:
            return None
        return f"mmc needs at least K - 1 = {classes - 1} features, found {width}"


class _Head(Head):
    centers: Tensor

    def __init__(self, width: int, classes: int, config: MMC) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        centers = simplex(width, classes, config.radius).to(self.linear.weight.dtype)
        self.register_buffer("centers", centers, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """-|h' - mu_k|², (B, K)."""
        moved: Tensor = self.linear(features)
        return -(moved.unsqueeze(1) - self.centers).square().sum(dim=2)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        moved: Tensor = self.linear(features)
        return 0.5 * (moved - self.centers[labels]).square().sum(dim=1)

    def inner(self, features: Tensor, labels: Tensor) -> Tensor:
        """The training loss: logits of correct images lie so far apart that CE is flat there."""
        return self.loss(features, labels)


def simplex(width: int, classes: int, radius: float) -> Tensor:
    """K points of length `radius`, as far apart as can be: (K, D) float64.

    What the authors' `craft_MMcenters.m` arrives at row by row, in closed form: mu_k has
    coordinates -a_j / (K - j) for j < k, a_k at k and zeros behind, where
    a_j = radius sqrt(K (K - j) / ((K - 1) (K - j + 1))).
    """
    j = torch.arange(1, classes, dtype=torch.float64)
    own = radius * (classes * (classes - j) / ((classes - 1) * (classes - j + 1))).sqrt()
    centers = torch.zeros(classes, width, dtype=torch.float64)
    centers[:, : classes - 1] = (-own / (classes - j)).expand(classes, -1).tril(-1)
    centers.diagonal()[: classes - 1] = own
    return centers
