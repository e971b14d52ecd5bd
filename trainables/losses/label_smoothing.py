"""Label smoothing (Szegedy et al. 2016)."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trainables.losses.base import Head, LinearHead, Loss
from trainables.registry import component


@component("label_smoothing", revision=1)
class LabelSmoothing(Loss):
    """-sum_k q_k log softmax(z)_k with q_k = (1 - e) 1[k = y] + e / K; deployed logits z.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
    section 7. The targets sum to 1. e = 0 is softmax cross entropy.

    Attributes:
        e: share of the target spread evenly over all K classes, in [0, 1); 0.1 is the
            original's (its epsilon).
    """

    e: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def head(self, width: int, classes: int) -> Head:
        """A linear layer."""
        return _Head(width, classes, self)


class _Head(LinearHead):
    def __init__(self, width: int, classes: int, config: LabelSmoothing) -> None:
        super().__init__(width, classes)
        self.config = config

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(
            self(features), labels, reduction="none", label_smoothing=self.config.e
        )
