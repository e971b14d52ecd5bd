"""One cycle (Smith and Topin 2018): up, then far down."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from trainables.registry import component
from trainables.schedules.base import Schedule


@component("one_cycle", revision=1)
class OneCycle(Schedule):
    """From lr / div up to lr, then down to lr / (div final_div), both along a cosine.

    As torch's OneCycleLR, whose defaults these are, with the momenta left as they are.

    Attributes:
        warmup: share of the steps that go up.
        div: the first rate is lr / div.
        final_div: the last rate is the first one divided by it.
    """

    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    div: Annotated[float, Field(ge=1)] = 25.0
    final_div: Annotated[float, Field(ge=1)] = 1e4

    def factor(self, step: int, total: int) -> float:
        """Up along a cosine to 1 at the end of the warm-up, then down along another."""
        if total == 1:
            return 1.0
        first, last = 1 / self.div, 1 / (self.div * self.final_div)
        top, end = self.warmup * total - 1, total - 1
        if step <= top:
            return _along(first, 1.0, step / top) if top > 0 else 1.0
        return _along(1.0, last, (step - top) / (end - top))


def _along(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
