"""No transform."""

from __future__ import annotations

from torch import Tensor

from trainables.registry import component
from trainables.seeding import Draws
from trainables.transforms.base import Transform, Transformation


@component("none", revision=1)
class NoTransform(Transform):
    """The image as it is."""

    def build(self) -> Transformation:
        """The identity."""
        return _Identity()


class _Identity(Transformation):
    def forward(self, images: Tensor, draws: Draws | None) -> Tensor:
        return images
