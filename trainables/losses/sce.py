"""Softmax cross entropy, the baseline of every study."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.base import Head, LinearHead, Loss
from trainables.registry import component


@component("sce", revision=1)
class SCE(Loss):
    """CE(z, y) on z = W h + b (the paper's eq. 1); deployed logits z."""

    def head(self, width: int, classes: int) -> Head:
        """A linear layer."""
        return _Head(width, classes)

    @property
    def trains_deployed(self) -> bool:
        """Its training loss is CE(z, y)."""
        return True


class _Head(LinearHead):
    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(features), labels, reduction="none")
