"""Large-margin Gaussian mixture loss, L-GM (Wan et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trainables.losses.base import Head, Loss
from trainables.registry import component


@component("lgm", revision=1)
class LGM(Loss):
    """CE(-d_k (1 + alpha 1[k = y]), y) + weight d_y, with d_k = |h - mu_k|² / 2.

    Wan et al., "Rethinking Feature Distribution for Loss Functions in Image Classification",
    CVPR 2018: their classification loss with margin plus lambda times their likelihood loss,
    with identity covariance and equal priors. Raw and deployed logits are -d, without alpha.
    alpha = weight = 0 is cross entropy on -d.

    The means mu are learned with the network at twice its rate and start from N(0, 2/D), as
    in the authors' Caffe example (`lr_mult: 2`, `msra`).

    Attributes:
        alpha: margin, >= 0; 0.1 is where the authors' CIFAR-100 example starts (it rises
            to 0.3).
        weight: of the likelihood term (their lambda), >= 0; 0.1 is that example's.
    """

    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    def head(self, width: int, classes: int) -> Head:
        """The means of K Gaussians."""
        return _Head(width, classes, self)


class _Head(Head):
    rates: ClassVar[Mapping[str, float]] = {"centers": 2.0}

    def __init__(self, width: int, classes: int, config: LGM) -> None:
        super().__init__()
        self.config = config
        self.centers = nn.Parameter(torch.empty(classes, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the means from N(0, 2/D), Caffe's `msra`."""
        nn.init.kaiming_normal_(self.centers, nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """-d, (B, K)."""
        return -0.5 * (features.unsqueeze(1) - self.centers).square().sum(dim=2)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        raw = self(features)
        margin = 1 + self.config.alpha * F.one_hot(labels, raw.shape[1]).to(raw.dtype)
        classified = F.cross_entropy(raw * margin, labels, reduction="none")
        own = F.nll_loss(raw, labels, reduction="none")  # d_y
        return classified + self.config.weight * own
