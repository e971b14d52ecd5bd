"""The eight-layer network of Keras' CIFAR-10 example, counting its pools as layers."""

from __future__ import annotations

from torch import nn

from trainables.backbones.base import Backbone, Sized
from trainables.registry import component


@component("cnn8", revision=1)
class CNN8(Backbone):
    """conv 32 same, conv 32 valid, pool, conv 64 same, conv 64 valid, pool, 512; then K.

    All convolutions 3 x 3 with ReLU. The example's dropout is left out: attacks and pairs
    of models need no noise of training. Parameters on 32 x 32 colour images with a linear
    layer of 10: 896 + 9,248 + 18,496 + 36,928 + (64 * 6 * 6 + 1) * 512 = 1,180,160 + 5,130
    = 1,250,858.
    """

    @property
    def trunk_width(self) -> int:
        """512 features."""
        return 512

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """The network for images of `shape`; 32 x 32 gives last maps of 6 x 6."""
        channels, height, width = shape
        rows, columns = (((side - 2) // 2 - 2) // 2 for side in (height, width))
        return Sized(
            (height, width),
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * rows * columns, 512),
            nn.ReLU(),
        )
