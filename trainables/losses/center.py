"""Center loss (Wen et al. 2016)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trainables.losses.base import Head, LinearHead, Loss
from trainables.registry import component


@component("center", revision=1)
class Center(Loss):
    """CE(z, y) + weight/2 |h - c_y|²; deployed logits z.

    Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV
    2016, eq. 5. The centers c are not descended: after each step, with n_j images of class j
    in the batch, c_j -= rate sum_{y=j} (c_j - h) / (1 + n_j) (their eq. 4). They start at
    zero, so that no seed enters (the original's Caffe example draws them; the first batches
    replace either). weight = 0 is softmax cross entropy.

    Attributes:
        weight: of the distance (their lambda), >= 0. Public code has 0.0005 to 1, the paper
            0.003 for faces; 0.01 is in between.
        rate: of the centers (their alpha), in [0, 1]; 0.5 is the original's.
    """

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    rate: Annotated[float, Field(ge=0, le=1)] = 0.5

    def head(self, width: int, classes: int) -> Head:
        """A linear layer beside the centers."""
        return _Head(width, classes, self)


class _Head(LinearHead):
    centers: Tensor

    def __init__(self, width: int, classes: int, config: Center) -> None:
        super().__init__(width, classes)
        self.config = config
        self.register_buffer("centers", torch.zeros(classes, width))

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        distances = (features - self.centers[labels]).square().sum(dim=1)
        classified = F.cross_entropy(self(features), labels, reduction="none")
        return classified + self.config.weight / 2 * distances

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Moves each class's center towards the mean of its features in the batch."""
        # A product with the labels' one-hot matrix sums in one order on every device.
        own = F.one_hot(labels, len(self.centers)).to(features.dtype)
        counts = own.sum(dim=0).unsqueeze(1)
        steps = own.T @ (self.centers[labels] - features) / (1 + counts)
        self.centers -= self.config.rate * steps
