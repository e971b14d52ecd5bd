"""Additive angular margin loss, ArcFace (Deng et al. 2019)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trainables.losses.base import Head, Loss
from trainables.registry import component

TINY = 1e-12  # sin² below it counts as it: the root's slope stays finite at cos = ±1


@component("arcface", revision=1)
class ArcFace(Loss):
    """CE(S g, y) with g_y = cos(theta_y + M) and g_j = cos(theta_j), theta_k between h and W_k.

    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019,
    eq. 3. Where theta_y > pi - M, g_y = cos(theta_y) - M sin(M), as in the authors' code: the
    cosine would rise again there. Raw and deployed logits are S cos(theta), without M. M = 0
    is cross entropy on those.

    Attributes:
        s: scale of the logits (S), > 0; 30 suits K = 10 (64 in the original, for the tens of
            thousands of classes of face data).
        m: angular margin in rad (M), in [0, pi/2]; 0.5 is the original's.
    """

    s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    m: Annotated[float, Field(ge=0, le=math.pi / 2)] = 0.5

    def head(self, width: int, classes: int) -> Head:
        """A linear layer without bias, whose rows are the directions W."""
        return _Head(width, classes, self)


class _Head(Head):
    def __init__(self, width: int, classes: int, config: ArcFace) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(width, classes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """S cos(theta), (B, K)."""
        return self.config.s * self._cosines(features)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        cosines = self._cosines(features)
        own = F.one_hot(labels, cosines.shape[1]).to(torch.bool)
        logits = self.config.s * torch.where(own, self._with_margin(cosines), cosines)
        return F.cross_entropy(logits, labels, reduction="none")

    def _cosines(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(features, dim=1), F.normalize(self.linear.weight, dim=1))

    def _with_margin(self, cosines: Tensor) -> Tensor:
        """cos(theta + M) by the sum's identity: the slope of acos has no bound."""
        m = self.config.m
        sines = (1 - cosines.square()).clamp(min=TINY).sqrt()
        added = cosines * math.cos(m) - sines * math.sin(m)
        return torch.where(cosines >= -math.cos(m), added, cosines - m * math.sin(m))
