"""After a coarse grid: more seeds where the best point is undecided, more points around it."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import special  # and not `stats`, which takes a second to import

from study.plan import candidate
from study.planned import Extra, Plan
from study.refinements import points_of
from study.results import validated
from trainables import names
from trainables.errors import DamagedEntry, InvalidStudy, NothingToRefine
from trainables.store import Store

CONFIDENCE = 0.95


@dataclass
class Arm:
    """A point of a method's grid, with what validation says of it.

    Attributes:
        axes: its value along each axis, by dotted key.
        label: what readers call it.
        values: headline on validation images, a fraction, by seed.
        n: validation images.
    """

    axes: Mapping[str, Any]
    label: str
    n: int
    values: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Over its seeds."""
        return float(np.mean(list(self.values.values())))


@dataclass(frozen=True)
class Decision:
    """What is to be trained beside a method's grid, and why.

    Attributes:
        extras: the points, with their seeds.
        best: the point with the largest mean.
        half_width: of its interval.
        contenders: how many points cannot be told from the best, itself among them.
        points: how many there are.
    """

    extras: tuple[Extra, ...]
    best: Arm
    half_width: float
    contenders: int
    points: int


def decide(plan: Plan, store: Store, method: str, place: str, trainings: int) -> Decision:
    """Where further trainings say most about a method's best hyper-parameters.

    Every point has an interval of its mean, from the spread over seeds that all points share, or
    from the number of images where that is wider. Contenders are the points whose interval
    reaches that of the best. Half of the trainings are further seeds, a contender at a time, the
    fewest seeds and the highest upper end first (of all points where the best is decided: the
    widest interval first); the others are new points, halfway between a contender and its
    neighbours along one axis, the highest upper ends first.

    Args:
        plan: of the study.
        store: where its results are.
        method: one with numeric axes.
        place: data set and backbone.
        trainings: how many models may be trained.

    Raises:
        NothingToRefine: its grid is not measured yet, or it has none.
    """
    arms = _arms(plan, store, method, place)
    widths = half_widths(arms)
    best = max(arms, key=lambda arm: arm.mean)
    floor = best.mean - widths[arms.index(best)]
    upper = [arm.mean + width for arm, width in zip(arms, widths, strict=True)]
    contenders = [index for index, top in enumerate(upper) if top >= floor]
    seeds = list(_more_seeds(arms, upper, widths, contenders, trainings - trainings // 2))
    owner = next(study for study in plan.studies if method in study.methods)
    each = tuple(owner.seeds_of(method))
    left = (trainings - sum(len(more) for _, more in seeds)) // len(each)
    extras = [Extra(method=method, place=place, axes=axes, seeds=more) for axes, more in seeds]
    new = (
        Extra(method=method, place=place, axes=axes, seeds=each)
        for axes in _new_points(arms, upper, contenders)
    )
    extras += itertools.islice(filter(None, (_possible(plan, extra) for extra in new)), left)
    width = widths[arms.index(best)]
    return Decision(tuple(extras), best, width, len(contenders), len(arms))


def half_widths(arms: Sequence[Arm]) -> list[float]:
    """Half of each mean's 95 % interval: over seeds by their pooled spread, or over images."""
    free = sum(len(arm.values) - 1 for arm in arms)
    within = sum(float(np.var(list(arm.values.values()))) * len(arm.values) for arm in arms)
    tail = (1 + CONFIDENCE) / 2
    spread = math.sqrt(within / free) * float(special.stdtrit(free, tail)) if free else 0.0
    z = float(special.ndtri(tail))
    return [
        max(spread / math.sqrt(len(arm.values)), z * math.sqrt(arm.mean * (1 - arm.mean) / arm.n))
        for arm in arms
    ]


def refinable(plan: Plan) -> list[tuple[str, str]]:
    """The methods with numeric axes, each with a place: what `decide` takes."""
    places = dict.fromkeys(trial.place for trial in plan.trials)
    pairs = [(method, place) for method in plan.methods for place in places]
    return [pair for pair in pairs if len(points_of(plan, *pair)) > 1]


def _arms(plan: Plan, store: Store, method: str, place: str) -> list[Arm]:
    arms = []
    for trials in points_of(plan, method, place).values():
        first = trials[0]
        headline = plan.protocol(first).headline[names.VALIDATION]
        arm = Arm(first.axes[method], first.labels[method], first.cells[headline[0]].n)
        for trial in trials:
            try:
                found = validated(store, plan.protocol(trial), trial)
            except (FileNotFoundError, DamagedEntry):
                raise NothingToRefine(
                    f"{trial.name} has no result yet: run the study first, then refine it"
                ) from None
            arm.values[trial.model.seed] = found.robust
        arms.append(arm)
    if len(arms) < 2:
        raise NothingToRefine(f"{method} has no grid of numbers on {place}")
    return arms


def _more_seeds(
    arms: Sequence[Arm],
    upper: Sequence[float],
    widths: Sequence[float],
    contenders: Sequence[int],
    count: int,
) -> Iterator[tuple[Mapping[str, Any], tuple[int, ...]]]:
    """The points that get further seeds, each with those."""
    decided = len(contenders) < 2
    among = range(len(arms)) if decided else contenders
    have = {index: len(arms[index].values) for index in among}
    given: dict[int, list[int]] = {}
    for _ in range(count):
        index = min(have, key=lambda i: (have[i], -(widths if decided else upper)[i]))
        last = max([*arms[index].values, *given.get(index, [])])
        given.setdefault(index, []).append(last + 1)
        have[index] += 1
    return ((arms[index].axes, tuple(seeds)) for index, seeds in given.items())


def _new_points(
    arms: Sequence[Arm], upper: Sequence[float], contenders: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Midpoints between contenders and their neighbours, the most promising first."""
    known = {_key(arm.axes) for arm in arms}
    found: dict[tuple[Any, ...], tuple[float, dict[str, Any]]] = {}
    for axis in arms[0].axes:
        for first, second in _neighbours(arms, axis):
            if first in contenders or second in contenders:
                between = _between(arms[first].axes[axis], arms[second].axes[axis], arms, axis)
                point = {**arms[first].axes, axis: between}
                if _key(point) not in known:
                    found[_key(point)] = (upper[first] + upper[second], point)
    return (point for _, point in sorted(found.values(), key=lambda item: -item[0]))


def _neighbours(arms: Sequence[Arm], axis: str) -> Iterator[tuple[int, int]]:
    """Pairs of points that are next to each other along one axis and alike in all others."""
    lines: dict[tuple[Any, ...], list[int]] = {}
    for index, arm in enumerate(arms):
        others = {key: value for key, value in arm.axes.items() if key != axis}
        lines.setdefault(_key(others), []).append(index)
    for line in lines.values():
        yield from pairwise(sorted(line, key=lambda index: arms[index].axes[axis]))


def _between(low: float, high: float, arms: Sequence[Arm], axis: str) -> float:
    """Halfway; by ratio where the axis is spaced so, whole where it is of whole numbers."""
    values = sorted({arm.axes[axis] for arm in arms})
    ratios = [b / a for a, b in pairwise(values)] if values[0] > 0 else []
    steps = [b - a for a, b in pairwise(values)]
    by_ratio = len(ratios) > 1 and np.std(ratios) / np.mean(ratios) < np.std(steps) / np.mean(steps)
    middle = math.sqrt(low * high) if by_ratio else (low + high) / 2
    return float(f"{middle:.6g}")


def _possible(plan: Plan, extra: Extra) -> Extra | None:
    """The point, in whole numbers where its parameters ask for them; None if no model has it."""
    whole = {key: round(value) for key, value in extra.axes.items()}
    for axes in (extra.axes, whole):
        with contextlib.suppress(InvalidStudy):
            candidate(plan, replace(extra, axes=axes))
            return replace(extra, axes=axes)
    return None


def _key(axes: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple((key, f"{value:.6g}") for key, value in sorted(axes.items()))
