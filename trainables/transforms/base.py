"""What a transform is: a module between the image and the network."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from trainables.registry import Component
from trainables.seeding import Draws


class Transformation(nn.Module):
    """A transform at work: images (B, C, H, W) in [0, 1] to images in [0, 1].

    Attributes:
        stochastic: whether it draws when the model is deployed: accuracies are then means
            over several passes.
    """

    stochastic: ClassVar[bool] = False

    @abstractmethod
    def forward(self, images: Tensor, draws: Draws | None) -> Tensor:
        """The images as the network sees them; `draws` are needed where it draws."""


class Transform(Component):
    """Part of the deployed model, so attacks look through it."""

    kind: ClassVar[str] = "transform"

    @abstractmethod
    def build(self) -> Transformation:
        """The module."""

    @property
    def stochastic(self) -> bool:
        """Whether a deployed model with it draws at random."""
        return self.build().stochastic

    def refuses(self, shape: tuple[int, int, int]) -> str | None:
        """Why it cannot be had with images of `shape` (C, H, W); None if it can."""
        return None
