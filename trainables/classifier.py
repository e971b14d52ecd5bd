"""What is deployed: transform, normalisation, backbone and the loss's head in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.backbones.base import Backbone
from trainables.datasets.base import Dataset
from trainables.losses.base import Head, Loss
from trainables.seeding import initialise
from trainables.transforms.base import Transform


class Classifier(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> deployed logits (B, K).

    Normalisation lives inside, so that attacks see [0, 1]. Attacks may differentiate the
    raw logits, the deployed ones, or the training loss; accuracy is the deployed argmax.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        transform: nn.Module,
        backbone: nn.Module,
        head: Head,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Deployed logits, (B, K)."""
        return self.head.deployed(self.raw(images))

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features h, (B, D)."""
        features: Tensor = self.backbone((self.transform(images) - self.mean) / self.std)
        return features

    def raw(self, images: Tensor) -> Tensor:
        """Raw logits z, (B, K)."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def training_losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The label-dependent training loss of each sample, (B,), and deployed logits (B, K)."""
        features = self.features(images)
        return self.head.loss(features, labels), self.head.deployed(self.head(features))


def build_classifier(
    *, dataset: Dataset, backbone: Backbone, loss: Loss, transform: Transform, seed: int
) -> Classifier:
    """A classifier with parameters drawn by (seed, layer name), on the CPU.

    Trials that differ only in the loss start from the same weights.
    """
    classifier = Classifier(
        transform=transform.build(),
        backbone=backbone.build(dataset.shape),
        head=loss.head(backbone.width, dataset.classes),
        mean=dataset.mean,
        std=dataset.std,
    )
    initialise(classifier, seed)
    return classifier
