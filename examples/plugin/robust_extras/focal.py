"""Focal loss (Lin et al. 2017) as a loss of one's own."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trainables.losses.base import Head, LinearHead, Loss
from trainables.registry import component


@component("focal", revision=1)
class Focal(Loss):
    """(1 - p_y)^gamma CE(z, y): what is learnt already counts less.

    Attributes:
        gamma: focusing parameter, 2 in the original; below 1 the gradient would not be finite
            where CE is 0.
    """

    gamma: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0

    def head(self, width: int, classes: int) -> Head:
        """A linear layer."""
        return _Head(width, classes, self)


class _Head(LinearHead):
    def __init__(self, width: int, classes: int, config: Focal) -> None:
        super().__init__(width, classes)
        self.config = config

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        entropy = F.cross_entropy(self(features), labels, reduction="none")
        return (-(-entropy).expm1()) ** self.config.gamma * entropy
