"""Two configurations of a study side by side, from the store."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.statistics import Difference, compare
from study.planned import Plan, PlannedTrial
from study.results import read_outcome, worst
from trainables import names
from trainables.errors import BadOption
from trainables.store import Store


@dataclass(frozen=True)
class Row:
    """One number of both.

    Attributes:
        name: its metric.
        first, second: means over seeds, fractions; NaN where there is no result.
        difference: `first - second`, seed by seed.
    """

    name: str
    first: float
    second: float
    difference: Difference

    @property
    def told(self) -> str:
        """In points, with half the interval where there is one: `-14.1 ± 9.0`."""
        value = self.difference.estimate
        if value.is_missing:
            return "-"
        mean = f"{100 * value.mean:+.1f}"
        return mean if value.is_exploratory else f"{mean} ± {100 * value.half_width:.1f}"


@dataclass(frozen=True)
class Comparison:
    """Two configurations on one data set and backbone.

    Attributes:
        place: data set and backbone; of single trials on different ones both.
        changed: parameters that differ, with both values; empty text for one that does not apply.
        seeds: how many both have, which are paired.
        rows: the headline, then every cell that both have.
    """

    place: str
    changed: dict[str, tuple[str, str]]
    seeds: int
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data for other programs; what is not a number is null."""
        return {
            "place": self.place,
            "changed": {key: list(values) for key, values in self.changed.items()},
            "seeds": self.seeds,
            "cells": {row.name: _plain(row) for row in self.rows},
        }


def _plain(row: Row) -> dict[str, float | None]:
    value = row.difference.estimate
    numbers = {
        "first": row.first,
        "second": row.second,
        "difference": value.mean,
        "half_width": value.half_width,
        "p": row.difference.p,
    }
    return {key: None if math.isnan(number) else number for key, number in numbers.items()}


def compare_arms(
    plan: Plan, store: Store, first: Sequence[PlannedTrial], second: Sequence[PlannedTrial]
) -> list[Comparison]:
    """Compares the trials of two configurations wherever both are planned.

    Two single trials are compared whatever their seeds and places are; else seeds are paired.

    Raises:
        BadOption: there is no data set and backbone that both have.
    """
    if len(first) == len(second) == 1:
        place = " and ".join(dict.fromkeys([first[0].place, second[0].place]))
        return [_compared(plan, store, place, {0: first[0]}, {0: second[0]}, single=True)]
    places = [
        place
        for place in dict.fromkeys(trial.place for trial in first)
        if place in {trial.place for trial in second}
    ]
    if not places:
        raise BadOption("the two have no data set and backbone in common: nothing to compare")
    return [
        _compared(plan, store, place, _by_seed(first, place), _by_seed(second, place), single=False)
        for place in places
    ]


def _by_seed(trials: Sequence[PlannedTrial], place: str) -> dict[int, PlannedTrial]:
    return {trial.model.seed: trial for trial in trials if trial.place == place}


def _compared(
    plan: Plan,
    store: Store,
    place: str,
    first: Mapping[int, PlannedTrial],
    second: Mapping[int, PlannedTrial],
    *,
    single: bool,
) -> Comparison:
    one, other = _values(plan, store, first), _values(plan, store, second)
    common = [name for name in one.columns if name in other.columns]
    rows = tuple(
        Row(name, one[name].mean(), other[name].mean(), compare(one[name], other[name]))
        for name in common
    )
    mine, theirs = (next(iter(trials.values())).params() for trials in (first, second))
    ignored = {"method"} if single else {"method", "seed"}
    changed = {
        key: (mine.get(key, ""), theirs.get(key, ""))
        for key in dict.fromkeys([*mine, *theirs])
        if key not in ignored and mine.get(key) != theirs.get(key)
    }
    return Comparison(place, changed, len(first.keys() & second.keys()), rows)


def _values(plan: Plan, store: Store, trials: Mapping[int, PlannedTrial]) -> pd.DataFrame:
    """A row a seed, a column a number; NaN for what has no result."""
    rows = {seed: dict(_numbers(plan, store, trial)) for seed, trial in trials.items()}
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def _numbers(plan: Plan, store: Store, trial: PlannedTrial) -> Iterator[tuple[str, float]]:
    """The headline, then every cell."""
    there = store.entries(f"outcomes/{trial.id}")
    outcomes = {
        name: read_outcome(store, trial.id, id)
        for name, id in trial.cell_ids.items()
        if id in there
    }
    headline = plan.protocol(trial).headline[names.TEST]
    whole = outcomes.keys() >= set(headline)
    yield names.ROBUST, worst([outcomes[name] for name in headline]) if whole else math.nan
    for name in trial.cells:
        yield name, outcomes[name].accuracy if name in outcomes else math.nan
