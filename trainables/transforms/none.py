"""No transform."""

from __future__ import annotations

from torch import nn

from trainables.registry import component
from trainables.transforms.base import Transform


@component("none", revision=1)
class NoTransform(Transform):
    """The image as it is."""

    def build(self) -> nn.Module:
        """The identity."""
        return nn.Identity()
