"""What the driver does with what it hears, whoever runs the trials."""

from __future__ import annotations

from typing import Protocol

from trainables.trial import Report


class Listener(Protocol):
    """Hears of every trial's start, of each of its steps, and of a worker's death."""

    def say(self, line: str) -> None:
        """Something that is of no single trial."""

    def started(self, trial_id: str) -> None:
        """A worker has taken the trial up."""

    def reported(self, report: Report) -> None:
        """A step has ended; `report.done` on the last one."""

    def lost(self, trial_id: str, reason: str, details: str = "") -> None:
        """The trial's worker died; in details, what Ray knows of it."""

    def excused(self, trial_id: str) -> None:
        """It was lost because its machine was: that says nothing of the trial."""

    def stopped(self, trial_id: str, epoch: int) -> None:
        """A search has given the trial's training up."""
