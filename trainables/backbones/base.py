"""What a backbone is: a network from images to penultimate features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

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
        """Number of penultimate features D."""
        return self.trunk_width if self.embedding is None else self.embedding


class FlattenAs(nn.Module):
    """Flattens maps; those of another size than expected are averaged to it before.

    So a linear layer can follow whatever size a transform makes. Maps that fit are left as
    they are: the average's gradient is not deterministic on a GPU.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.size = (rows, columns)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C * rows * columns)."""
        fits = maps.shape[2:] == self.size
        return (maps if fits else F.adaptive_avg_pool2d(maps, self.size)).flatten(1)
