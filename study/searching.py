"""A search while it goes on: hands out what is to be tried, and hears what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from study.interrupts import uninterrupted
from study.listener import Listener
from study.plan import candidate
from study.planned import Plan, PlannedTrial
from study.results import is_complete, validated
from study.sampler import Sampler
from study.search import REFUSED, Search, Suggestion
from study.spec import Stop
from trainables import names
from trainables.errors import DamagedEntry, InvalidStudy, NonFiniteLoss
from trainables.training import watched
from trainables.trial import Report, record_of


class Keeper(Listener, Protocol):
    """Tracks and shows what is heard; the driver's watcher."""

    def will_try(self, trial: PlannedTrial) -> None:
        """A search will try this one."""

    def diverged(self, trial: PlannedTrial, reason: str) -> None:
        """It has no result, which says something of the point and is no failure of the study."""

    def tried_before(self, trial: PlannedTrial) -> None:
        """Its results are there already."""


class Searching:
    """The search's side of a run, whoever runs the trials; a `Listener`.

    Args:
        search: what is looked for.
        sampler: suggests.
        plan: of the study.
        keeper: hears of everything too.
    """

    def __init__(self, search: Search, sampler: Sampler, plan: Plan, keeper: Keeper) -> None:
        self.search = search
        self.sampler = sampler
        self.plan = plan
        self.keeper = keeper
        self._open = list({found.model_id: found for found in search.open}.values())
        self._tried: dict[str, PlannedTrial] = {}

    @property
    def stop(self) -> Stop | None:
        """When trainings are given up."""
        return self.search.settings.stop

    @property
    def epochs(self) -> int:
        """How long the longest training is."""
        return max(end.training.epochs for end in self.search.ends)

    @property
    def exhausted(self) -> bool:
        """Whether all was handed out."""
        return not self._open and not self.search.left

    def next(self) -> PlannedTrial | None:
        """What to try next; None where all was handed out.

        First what was suggested before and has not ended, such as when the driver was killed.
        """
        while not self.exhausted:
            with uninterrupted():
                trial = self._planned(self._open.pop(0)) if self._open else self._suggested()
                if trial is not None and not self._known(trial):
                    self._tried[trial.id] = trial
                    self.keeper.will_try(trial)
                    return trial
        return None

    def histories(self) -> Iterator[tuple[str, list[float]]]:
        """The trials that have ended, with what was looked at after each of their epochs."""
        ended = {
            s.model_id
            for s in self.search.suggestions
            if s.state in (names.COMPLETE, names.STOPPED_EARLY)
        }
        return ((model_id, self._history(model_id)) for model_id in sorted(ended))

    def say(self, line: str) -> None:
        """Something that is of no single trial."""
        self.keeper.say(line)

    def started(self, trial_id: str) -> None:
        """A worker has taken the trial up."""
        self.keeper.started(trial_id)

    def lost(self, trial_id: str, reason: str, details: str = "") -> None:
        """Its worker died; the suggestion stays open."""
        self.keeper.lost(trial_id, reason, details)

    def excused(self, trial_id: str) -> None:
        """It was lost because its machine was."""
        self.keeper.excused(trial_id)

    def reported(self, report: Report) -> None:
        """A step has ended."""
        trial = self._tried[report.trial_id]
        if report.failed is not None and report.failed.startswith(NonFiniteLoss.__name__):
            self._end(trial.id, names.FAILED, reason=report.failed)
            self.keeper.diverged(trial, report.failed)
            return
        self.keeper.reported(report)
        if report.done and not (report.failed or report.starved or report.away):
            self._complete(trial)

    def stopped(self, trial_id: str, epoch: int) -> None:
        """Its training was given up."""
        self._end(trial_id, names.STOPPED_EARLY, epoch=epoch)
        self.keeper.stopped(trial_id, epoch)

    def _planned(self, suggestion: Suggestion) -> PlannedTrial:
        return candidate(self.plan, self.search.extra(suggestion))

    def _suggested(self) -> PlannedTrial | None:
        """A new suggestion, kept; None where it needs no trial of its own."""
        number, axes = self.sampler.suggest()
        suggestion = Suggestion(number, axes, model_id="")
        try:
            trial = self._planned(suggestion)
        except InvalidStudy as error:
            self.search.suggested(
                replace(suggestion, state=names.FAILED, reason=f"{REFUSED}{error}")
            )
            self.sampler.tell(self.search.suggestions[-1])
            return None
        earlier = [s for s in self.search.suggestions if s.model_id == trial.id]
        self.search.suggested(replace(suggestion, model_id=trial.id))
        if not earlier:
            return trial
        if earlier[0].state != names.OPEN:  # else it is told when the earlier one has ended
            first = earlier[0]
            further = {key: getattr(first, key) for key in ("robust", "clean", "epoch", "reason")}
            self._end(trial.id, first.state, **further)
        return None

    def _known(self, trial: PlannedTrial) -> bool:
        """Whether the results are there already, such as of a grid's point."""
        if not is_complete(trial, self.search.store):
            return False
        self.keeper.tried_before(trial)
        return self._complete(trial)

    def _complete(self, trial: PlannedTrial) -> bool:
        try:
            found = validated(self.search.store, self.plan.protocol(trial), trial)
        except (DamagedEntry, FileNotFoundError):  # to be measured anew
            return False
        self._end(trial.id, names.COMPLETE, clean=found.clean, robust=found.robust)
        return True

    def _end(self, model_id: str, state: str, **further: object) -> None:
        with uninterrupted():
            for suggestion in self.search.ended(model_id, state, **further):
                self.sampler.tell(suggestion, self._history(model_id))

    def _history(self, model_id: str) -> list[float]:
        """What a stop rule looks at, after each epoch."""
        history = record_of(self.search.store, model_id)["history"]
        return [watched(epoch) for epoch in history]
