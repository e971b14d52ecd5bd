"""What a backbone is: a network from images to penultimate features."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from trainables.registry import Component


class Backbone(Component):
    """A feature extractor; the classifying layer belongs to the loss."""

    kind: ClassVar[str] = "backbone"

    @abstractmethod
    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """The network for images of `shape` (C, H, W): (B, C, H, W) -> features (B, width)."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of penultimate features D."""
