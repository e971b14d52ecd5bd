"""What a backbone is: a network from images to penultimate features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from trainables.registry import STRICT, Component


@validated(frozen=True, kw_only=True, config=STRICT)
class Backbone(Component):
    """A feature extractor; the classifying layer belongs to the loss.

    Attributes:
        embedding: width of a linear layer between the trunk and the classifier; none by
            default. The paper's Figure 4 shows one of 3.
    """

    kind: ClassVar[str] = "backbone"
    unhashed: ClassVar[Mapping[str, Any]] = {"embedding": None}
    channels_last: ClassVar[bool] = True  # whether its layers take either memory layout

    embedding: Annotated[int, Field(ge=1)] | None = None

    @abstractmethod
    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """The network without an embedding for images of `shape` (C, H, W)."""

    @property
    @abstractmethod
    def trunk_width(self) -> int:
        """Number of the trunk's features."""

    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """The network for images of `shape` (C, H, W): (B, C, H, W) -> features (B, width).

        Larger images pass too, as a transform may make them.
        """
        trunk = self.trunk(shape)
        if self.embedding is not None:
            trunk.append(nn.Linear(self.trunk_width, self.embedding))
        return trunk

    @property
    def width(self) -> int:
        """Number of penultimate features D; 0 for a network that gives logits itself."""
        return self.trunk_width if self.embedding is None else self.embedding


class Sized(nn.Sequential):
    """Layers for images of one size; those of another are resized to it first.

    A layer that flattens its maps needs that where a transform makes larger images. It takes
    the picture as a whole: averaging the last maps alone would leave digits off their place.
    Resizing is bilinear with antialiasing, by products with two fixed matrices, whose gradient
    is deterministic on a GPU too.
    """

    def __init__(self, size: tuple[int, int], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> what the layers make of them."""
        if images.shape[2:] != self.size:
            rows, columns = (
                _resizing(old, new, images)
                for old, new in zip(images.shape[2:], self.size, strict=True)
            )
            images = rows @ images @ columns.mT
        for layer in self:
            images = layer(images)
        return images


def _resizing(old: int, new: int, like: Tensor) -> Tensor:
    """The matrix (new, old) that resizes one axis."""
    eye = torch.eye(old, dtype=like.dtype, device=like.device)[None, None]
    return F.interpolate(eye, (new, old), mode="bilinear", antialias=True)[0, 0]
