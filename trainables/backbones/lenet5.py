"""LeNet-5 (LeCun et al. 1998) in its ReLU and max-pool form."""

from __future__ import annotations

from torch import nn

from trainables.backbones.base import Backbone, Sized
from trainables.registry import component


@component("lenet5", revision=1)
class LeNet5(Backbone):
    """conv 6-5x5 pad 2, pool, conv 16-5x5, pool, 120, 84; then the loss's layer of K.

    Parameters on 28 x 28 grey images with a linear layer of 10: 156 + 2,416 + 48,120 +
    10,164 + 850 = 61,706.
    """

    @property
    def trunk_width(self) -> int:
        """84 features."""
        return 84

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """The network for images of `shape`; 28 x 28 gives the original 5 x 5 last maps."""
        channels, height, width = shape
        rows, columns = ((side // 2 - 4) // 2 for side in (height, width))
        return Sized(
            (height, width),
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * rows * columns, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
