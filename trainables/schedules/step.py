"""A learning rate that drops at milestones."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from trainables.registry import component
from trainables.schedules.base import Schedule


def _as_tuple(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected {{const: [0.5, 0.75]}} (a list is an axis), found {value!r}")
    return tuple(value)


Milestone = Annotated[float, Field(gt=0, lt=1)]


@component("step", revision=1)
class Step(Schedule):
    """Multiplied by `gamma` at each milestone (torch's MultiStepLR).

    Attributes:
        milestones: shares of the training's steps; He et al. (2016) drop at a half and at
            three quarters. In a study file `{const: [0.5, 0.75]}`, since a list is an axis.
        gamma: what the rate is multiplied by, 0.1 in the original.
    """

    milestones: Annotated[tuple[Milestone, ...], BeforeValidator(_as_tuple)] = (0.5, 0.75)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    def factor(self, step: int, total: int) -> float:
        """`gamma` to the number of milestones that are behind."""
        behind = sum(step >= max(1, round(share * total)) for share in self.milestones)
        return float(self.gamma**behind)
