"""What a regime is: how a batch becomes the loss that is descended."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from trainables.classifier import Classifier
from trainables.registry import Component


class Regime(Component):
    """Turns a batch into per-sample training losses, whatever the loss is."""

    kind: ClassVar[str] = "regime"

    @abstractmethod
    def losses(
        self, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The training loss of each sample, (B,), and the deployed logits, (B, K)."""
