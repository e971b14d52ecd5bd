"""What a loss is: the last layer, what is trained, and what is deployed.

The training loss sees labels, the deployed logits never do (METHODS: a user who attacks
the label-dependent training logits attacks another model than the one that classifies).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.registry import Component


class Head(nn.Module):
    """The classifying layer with its loss: features h (B, D) -> raw logits z (B, K).

    Attributes:
        rates: for a parameter that the original trains at a rate of its own, its name and
            the multiple of the learning rate.
    """

    rates: ClassVar[Mapping[str, float]] = {}

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Raw logits z, (B, K)."""

    def deployed(self, raw: Tensor) -> Tensor:
        """What the argmax is taken over when the model is used, (B, K)."""
        return raw

    def inferred(self, raw: Tensor) -> Tensor:
        """What the softmax is taken over when the model reports probabilities, (B, K)."""
        return self.deployed(raw)

    @final
    def probabilities(self, raw: Tensor) -> Tensor:
        """What the deployed model reports as class probabilities, (B, K)."""
        return self.inferred(raw).softmax(dim=1)

    @abstractmethod
    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """The training loss of each sample, (B,)."""

    def inner(self, features: Tensor, labels: Tensor) -> Tensor:
        """What the attack inside adversarial training raises, (B,).

        CE(z, y) on the raw logits, without the label-dependent parts of the training loss. A
        loss on which that is blind names its own.
        """
        return F.cross_entropy(self(features), labels, reduction="none")

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Moves state that is not descended, after each step of the optimiser.

        Args:
            features: of the step's batch, (B, D), without a gradient.
            labels: of the step's batch, (B,).
        """


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

    @property
    def infers_deployed(self) -> bool:
        """True where probabilities are the softmax of the deployed logits."""
        return True

    @property
    def trains_deployed(self) -> bool:
        """True where the training loss is CE(deployed logits, y)."""
        return False

    def refuses(self, width: int, classes: int) -> str | None:
        """Why it cannot be had with D = `width` features and K = `classes`; None if it can."""
        return None


@dataclass(frozen=True)
class Unknown(Loss):
    """In a loss's place where a network gives logits itself: what it was trained with is unknown.

    No study file can name it, and nothing is trained with it.
    """

    name: ClassVar[str] = "unknown"
    revision: ClassVar[int] = 1

    def head(self, width: int, classes: int) -> Head:
        """No layer: the network's logits are the raw and the deployed ones."""
        return _Logits()

    def refuses(self, width: int, classes: int) -> str | None:
        """Features are no logits."""
        return "loss is missing: the one whose layer stands on the features" if width else None


class _Logits(Head):
    def forward(self, features: Tensor) -> Tensor:
        return features

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        raise ValueError("the loss that this network was trained with is not known")
