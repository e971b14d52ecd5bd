"""Searches: what was suggested, what became of it, and which suggestions are the best.

The store remembers, in `studies/<study>/searches/<id>`: every suggestion stands there before its
training begins, so that none is lost or tried twice. `study.sampler` makes them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from study.overlay import Place
from study.plan import candidate, ends
from study.planned import Extra, Plan, PlannedTrial
from study.protocol import Protocol
from study.space import Axis, Range, axes_of, searched
from study.spec import Search as Settings
from study.spec import Study
from trainables import names
from trainables.config import ModelConfig, content_id
from trainables.store import Store

SEARCHES = "searches"  # the folder of a study's searches


@dataclass(frozen=True)
class Suggestion:
    """A point that a search has chosen to try.

    Attributes:
        number: counted from 0.
        axes: its value along each axis, by dotted key.
        model_id: what is trained; several suggestions may name one.
        state: what has become of it, one of `names.SUGGESTED`.
        robust, clean: accuracies on validation images, under the headline and without an attack,
            of one that is complete.
        epoch: after how many its training was given up.
        reason: why it has failed.
    """

    number: int
    axes: Mapping[str, Any]
    model_id: str
    state: str = names.OPEN
    robust: float | None = None
    clean: float | None = None
    epoch: int | None = None
    reason: str = ""

    def values(self, settings: Settings) -> list[float]:
        """What is to be large."""
        return [getattr(self, objective) for objective in settings.objective]


class Search:
    """The search of one method in one place.

    Args:
        study: as it is in the place.
        place: data set and backbone.
        method: whose axes are searched.
        ends: the models at the ends of its space.
        plan: of the whole study; its grids may say how large the budget is.
        store: remembers.
    """

    def __init__(
        self,
        study: Study,
        place: Place,
        method: str,
        ends: Sequence[ModelConfig],
        plan: Plan,
        store: Store,
    ) -> None:
        assert study.search is not None
        self.study, self.place, self.method, self.store = study, place, method, store
        self.settings = study.search
        self.name = f"{plan.name}/{method}/{str(place).replace('/', '-')}"
        self.budget = _budget(study.search, plan, place)
        self.ends = ends
        self.id = self._id(plan.protocols[str(place)])
        self._entry = f"studies/{plan.name}/{SEARCHES}/{self.id}"
        self.suggestions = self._read()

    def _id(self, protocol: Protocol) -> str:
        """Names all that suggestions and their results depend on, less the budget."""
        sought = self.settings.model_dump(include={"sampler", "objective", "stop", "seed"})
        cells = [cell for cell in protocol.cells if cell.split == names.VALIDATION]
        return content_id(
            {
                "component": "search",
                **sought,
                "axes": {key: _plain(axis) for key, axis in self.axes.items()},
                "arms": [end.arm_id for end in self.ends],
                "seed of models": self.seed,
                "cells": [[cell.attack.identity(), cell.n] for cell in cells],
            }
        )

    @property
    def axes(self) -> dict[str, Axis]:
        """What may be chosen along each axis."""
        return axes_of(self.study, self.method)

    @property
    def seed(self) -> int:
        """The seed that every suggestion is trained with."""
        return self.study.seeds_of(self.method)[0]

    @property
    def open(self) -> list[Suggestion]:
        """What was suggested and has not ended."""
        return [suggestion for suggestion in self.suggestions if suggestion.state == names.OPEN]

    @property
    def left(self) -> int:
        """How many suggestions are still to be made."""
        return max(self.budget - len(self.suggestions), 0)

    @property
    def done(self) -> bool:
        """Whether all suggestions were made, and have ended."""
        return not self.left and not self.open

    @property
    def told(self) -> str:
        """How it stands: `isce on lenet5/mnist5k, tpe: 12 of 40 suggestions, 9 complete`."""
        states = Counter(suggestion.state for suggestion in self.suggestions)
        found = [f"{states[state]} {state}" for state in names.SUGGESTED]
        counts = ", ".join(count for count in found if not count.startswith("0 "))
        made = f"{len(self.suggestions)} of {self.budget} suggestions"
        where = f"{self.method} on {self.place}, {self.settings.sampler}"
        return f"{where}: {made}{', ' if counts else ''}{counts}"

    def extra(self, suggestion: Suggestion) -> Extra:
        """A suggestion as a point that is only tried."""
        return Extra(
            method=self.method,
            place=str(self.place),
            axes=suggestion.axes,
            seeds=(self.seed,),
            candidate=True,
        )

    def finalists(self) -> list[Extra]:
        """The best, with every seed; none before the search is done."""
        if not self.done:
            return []
        chosen = best(self.suggestions, self.settings)
        return [replace(self.extra(found), seeds=(), candidate=False) for found in chosen]

    def suggested(self, suggestion: Suggestion) -> None:
        """Keeps a suggestion, before anything is done for it."""
        self.suggestions.append(suggestion)
        self._write()

    def ended(self, model_id: str, state: str, **further: Any) -> list[Suggestion]:
        """Keeps what has become of the suggestions of a model, and returns them."""
        changed = []
        for suggestion in self.open:
            if suggestion.model_id == model_id:
                changed.append(replace(suggestion, state=state, **further))
                self.suggestions[suggestion.number] = changed[-1]
        self._write()
        return changed

    def describe(self) -> dict[str, Any]:
        """Plain data for the analysis."""
        chosen = best(self.suggestions, self.settings) if self.done else []
        return {
            "method": self.method,
            "dataset": self.place.dataset,
            "backbone": self.place.backbone,
            "budget": self.budget,
            **self.settings.model_dump(include={"sampler", "objective", "stop"}),
            "best": [suggestion.number for suggestion in chosen],
            "suggestions": [asdict(suggestion) for suggestion in self.suggestions],
        }

    def _read(self) -> list[Suggestion]:
        found = self.store.read_json(self._entry, "suggestions.json")
        return [Suggestion(**item) for item in found or ()]

    def _write(self) -> None:
        kept = json.dumps([asdict(suggestion) for suggestion in self.suggestions], indent=1)
        self.store.write(self._entry, {"suggestions.json": kept.encode()})


def searches(plan: Plan, store: Store) -> list[Search]:
    """Every search of a plan, a place at a time."""
    return [
        Search(study, place, method, found, plan, store)
        for place, study in plan.placed
        for method in searched(study)
        if (found := ends(study, place, method))
    ]


def ahead(plan: Plan, store: Store) -> Iterator[tuple[PlannedTrial, int]]:
    """What searches have still to train, by examples: a suggestion and a finalist, and how many.

    Which points they are nobody knows yet; they take what any point of the space takes.
    """
    for search in searches(plan, store):
        if search.done:
            continue
        first = {
            key: axis.low if isinstance(axis, Range) else axis[0]
            for key, axis in search.axes.items()
        }
        tried = search.extra(Suggestion(0, first, model_id=""))
        yield candidate(plan, tried), search.left + len(search.open)
        whole = replace(tried, candidate=False)
        seeds = search.study.seeds_of(search.method)
        yield candidate(plan, whole), search.settings.finalists * len(seeds)


def best(suggestions: Sequence[Suggestion], settings: Settings) -> list[Suggestion]:
    """The best suggestions that are complete, the very best first, each model once.

    Of one objective the largest; of two, of those that no other is at least as good as in both
    and better in one, the most robust. Ties go to the cleaner, then to the earlier.
    """
    complete: dict[str, Suggestion] = {}
    for suggestion in suggestions:
        if suggestion.state == names.COMPLETE:
            complete.setdefault(suggestion.model_id, suggestion)
    values = {item.number: item.values(settings) for item in complete.values()}
    front = [
        item
        for item in complete.values()
        if not any(_beats(other, values[item.number]) for other in values.values())
    ]
    shown = front if len(settings.objective) > 1 else list(complete.values())
    first = "clean" if settings.objective == ["clean"] else "robust"
    shown.sort(key=lambda item: (-getattr(item, first), -(item.clean or 0), item.number))
    return shown[: settings.finalists]


def _beats(values: Sequence[float], others: Sequence[float]) -> bool:
    pairs = list(zip(values, others, strict=True))
    return all(one >= other for one, other in pairs) and any(one > other for one, other in pairs)


def extras_of(search: Search) -> Iterator[Extra]:
    """What a search adds to the plan: all that it has tried, and its best."""
    for suggestion in search.suggestions:
        if not suggestion.reason.startswith(REFUSED):
            yield search.extra(suggestion)
    yield from search.finalists()


REFUSED = "refused: "  # begins the reason of what no model can be made of


def _budget(settings: Settings, plan: Plan, place: Place) -> int:
    """How many suggestions are made, those of a grid being its points."""
    if isinstance(settings.trials, int):
        return settings.trials
    like = (trial for trial in plan.trials if settings.trials in trial.methods)
    here = (trial for trial in like if trial.place == str(place) and not trial.refined)
    return len({trial.model.arm_id for trial in here})


def _plain(axis: Axis) -> Any:
    return asdict(axis) if isinstance(axis, Range) else list(axis)
