"""Training on the images as they are."""

from __future__ import annotations

from torch import Tensor

from trainables.classifier import Classifier, TrainingPass
from trainables.regimes.base import Regime
from trainables.registry import component
from trainables.seeding import Draws


@component("standard", revision=1)
class Standard(Regime):
    """The loss on clean images."""

    def training_pass(
        self, classifier: Classifier, images: Tensor, labels: Tensor, draws: Draws
    ) -> TrainingPass:
        """The classifier's own pass over the batch."""
        return classifier.training_pass(images, labels, draws)
