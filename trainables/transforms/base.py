"""What a transform is: a module between the image and the network."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from trainables.registry import Component


class Transform(Component):
    """Part of the deployed model, so attacks look through it."""

    kind: ClassVar[str] = "transform"

    @abstractmethod
    def build(self) -> nn.Module:
        """A module from images (B, C, H, W) in [0, 1] to images in [0, 1]."""
