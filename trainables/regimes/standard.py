"""Training on the images as they are."""

from __future__ import annotations

from torch import Tensor

from trainables.classifier import Classifier
from trainables.regimes.base import Regime
from trainables.registry import component


@component("standard", revision=1)
class Standard(Regime):
    """The loss on clean images."""

    def losses(
        self, classifier: Classifier, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The classifier's own loss and logits on the batch."""
        return classifier.training_losses(images, labels)
