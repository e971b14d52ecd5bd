"""A perceptron with one hidden layer as a backbone of one's own."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from trainables.backbones.base import Backbone
from trainables.registry import component


@component("mlp", revision=1)
class MLP(Backbone):
    """Flatten, linear, ReLU; for images of one size.

    Attributes:
        hidden: width of the hidden layer.
    """

    hidden: Annotated[int, Field(ge=1)] = 64

    @property
    def trunk_width(self) -> int:
        """The hidden layer's."""
        return self.hidden

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """The network for images of `shape`."""
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), self.hidden), nn.ReLU())
