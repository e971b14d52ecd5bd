"""What a loss is: the last layer, what is trained, and what is deployed.

The training loss sees labels, the deployed logits never do (METHODS: a user who attacks
the label-dependent training logits attacks another model than the one that classifies).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from trainables.registry import Component


class Head(nn.Module):
    """The classifying layer with its loss: features h (B, D) -> raw logits z (B, K)."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Raw logits z, (B, K)."""

    def deployed(self, raw: Tensor) -> Tensor:
        """What the argmax is taken over when the model is used, (B, K)."""
        return raw

    def probabilities(self, raw: Tensor) -> Tensor:
        """What the deployed model reports as class probabilities, (B, K)."""
        return self.deployed(raw).softmax(dim=1)

    @abstractmethod
    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """The training loss of each sample, (B,)."""


class LinearHead(Head):
    """A head whose raw logits are z = W h + b."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Raw logits z = W h + b, (B, K)."""
        logits: Tensor = self.linear(features)
        return logits


class Loss(Component):
    """A loss with its parameters; makes the head that holds its learnable state."""

    kind: ClassVar[str] = "loss"

    @abstractmethod
    def head(self, width: int, classes: int) -> Head:
        """The last layer for D = `width` features and K = `classes`."""

    @property
    def deploys_raw(self) -> bool:
        """True where raw and deployed logits are one: equal surfaces are then attacked once."""
        return True
