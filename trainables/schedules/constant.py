"""A constant learning rate."""

from __future__ import annotations

from trainables.registry import component
from trainables.schedules.base import Schedule


@component("constant", revision=1)
class Constant(Schedule):
    """The same rate throughout, Adam's usual companion."""

    def factor(self, step: int, total: int) -> float:
        """One."""
        return 1.0
