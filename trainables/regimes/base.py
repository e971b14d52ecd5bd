"""What a regime is: how a batch becomes the loss that is descended."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from trainables.classifier import Classifier, TrainingPass
from trainables.registry import Component
from trainables.seeding import Draws


class Regime(Component):
    """Turns a batch into per-sample training losses, whatever the loss is."""

    kind: ClassVar[str] = "regime"

    @abstractmethod
    def training_pass(
        self, classifier: Classifier, images: Tensor, labels: Tensor, draws: Draws
    ) -> TrainingPass:
        """The pass whose losses are descended.

        Args:
            classifier: the model, in training mode.
            images: (B, C, H, W) in [0, 1].
            labels: true classes, (B,).
            draws: of this batch in this epoch, for whatever is drawn.
        """
