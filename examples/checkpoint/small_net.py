"""A network of one's own in plain PyTorch, which knows nothing of this project."""

import torch
from torch import nn


class SmallNet(nn.Module):
    """Grey images of 28 x 28, normalised -> ten logits; 7,018 parameters.

    Args:
        channels: maps of the second convolution.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2)
        self.conv2 = nn.Conv2d(8, channels, 3, stride=2)
        self.drop = nn.Dropout(0.2)
        self.linear = nn.Linear(channels * 36, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.conv2(torch.relu(self.conv1(images))))
        return self.linear(self.drop(maps.view(len(images), -1)))
