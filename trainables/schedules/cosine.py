"""Cosine annealing (Loshchilov and Hutter 2017), without restarts."""

from __future__ import annotations

import math

from trainables.registry import component
from trainables.schedules.base import Schedule, Share


@component("cosine", revision=1)
class Cosine(Schedule):
    """floor + (1 - floor) (1 + cos(pi t / T)) / 2 (torch's CosineAnnealingLR).

    Attributes:
        floor: what it falls to, as a share of `lr`.
    """

    floor: Share = 0.0

    def factor(self, step: int, total: int) -> float:
        """Falls from 1 at the first step towards `floor` after the last."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * step / total)) / 2
