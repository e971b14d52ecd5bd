"""What a schedule is: the learning rate of every step as a multiple of the study's."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field, PlainValidator

from trainables import registry
from trainables.registry import Component

Share = Annotated[float, Field(ge=0, le=1)]


class Schedule(Component):
    """A function of the step alone, so that a resumed training needs no state of it."""

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """What `lr` is multiplied by at `step`, 0 ... `total` - 1."""


ScheduleField = Annotated[Schedule, PlainValidator(registry.reader("schedule"))]
