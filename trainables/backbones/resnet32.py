"""ResNet-32 for small images (He et al. 2016, section 4.2): 6n + 2 layers, n = 5."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.backbones.base import Backbone
from trainables.registry import component

STAGES = ((16, 1), (32, 2), (64, 2))  # channels and stride of each stage's first block
BLOCKS = 5  # n

Shortcut = Literal["A", "B"]


@component("resnet32", revision=1)
class ResNet32(Backbone):
    """conv 16, three stages of five blocks (16, 32, 64 channels, strides 1, 2, 2), average.

    A block is conv-BN-ReLU-conv-BN plus its shortcut, then ReLU; all convolutions 3 x 3
    without bias. Parameters on colour images, shortcut A, with a linear layer of 10:
    conv 432 + BN 32; stage 1: 5 * (2 * 2,304 + 64) = 23,360; stage 2: 4,608 + 9,216 + 128 and
    4 * (2 * 9,216 + 128) = 88,192; stage 3: 18,432 + 36,864 + 256 and 4 * (2 * 36,864 + 256)
    = 351,488; linear 650: together 464,154; on grey images 288 fewer, 463,866. Shortcut B
    adds 512 + 64 and 2,048 + 128: 466,906 and 466,618.

    Attributes:
        shortcut: where the shape changes, `A` takes every second pixel and pads channels with
            zeros, as the original on CIFAR-10; `B` is a 1 x 1 convolution with BN.
    """

    shortcut: Shortcut = "A"

    @property
    def trunk_width(self) -> int:
        """64 features."""
        return 64

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """The network for images of `shape`; any size passes."""
        channels = STAGES[0][0]
        layers: list[nn.Module] = [*_conv_bn(shape[0], channels, 3, 1), nn.ReLU()]
        for width, stride in STAGES:
            for block in range(BLOCKS):
                step = stride if block == 0 else 1
                layers.append(_Block(channels, width, step, self.shortcut))
                channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(channels, width, 3, stride), nn.ReLU(), *_conv_bn(width, width, 3, 1)
        )
        self.shortcut: nn.Module = nn.Identity()
        if (channels, stride) != (width, 1):
            self.shortcut = (
                _Subsample(width - channels, stride)
                if shortcut == "A"
                else nn.Sequential(*_conv_bn(channels, width, 1, stride))
            )

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = F.relu(self.body(maps) + self.shortcut(maps))
        return result


class _Subsample(nn.Module):
    """Shortcut A: every `stride`-th pixel, and `extra` channels of zeros."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra = extra
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        before = self.extra // 2
        pad = (0, 0, 0, 0, before, self.extra - before)
        return F.pad(maps[:, :, :: self.stride, :: self.stride], pad)


def _conv_bn(channels: int, width: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """A convolution without bias, He-initialised, and its batch normalisation."""
    return (
        _Conv(channels, width, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(width),
    )


class _Conv(nn.Conv2d):
    def reset_parameters(self) -> None:
        """He et al.'s initialisation: normal, variance 2 / fan in."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
