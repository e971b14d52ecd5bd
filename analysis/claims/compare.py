"""One arm against others, cell by cell: does the claim come out, its opposite, or neither?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from analysis.choice import Arm
from analysis.claims.claim import Claim
from analysis.claims.place import Place, View, Yardstick
from analysis.statistics import (
    CONFIDENCE,
    SEEDS_FOR_A_CLAIM,
    Difference,
    compare,
    equivalence,
    estimate,
    holm,
)
from analysis.tables.text import digits, plain, points, signed

FOR, AGAINST, OPEN = "for", "against", "open"
NO_IMAGES = (math.nan, math.nan)
_ALPHA = 1 - CONFIDENCE
_CLOSE = 1e-12  # to which shares of images are equal


@dataclass(frozen=True)
class Comparison:
    """The arm against one other, in one cell.

    Attributes:
        yardstick: The cell.
        arm: Whose accuracy, or number, it is about.
        other: Whom it is compared with; of a number its bounds.
        difference: The arm's less the other's, seed by seed; a fraction, or the number's unit.
        crossed: Interval of the same over seeds and images; NaN of a number.
        p: That it lies where it does by chance; by Holm over the finding. Of a number NaN.
        outcome: `FOR` the claim, `AGAINST` it, or `OPEN`.
        why: What keeps it open.
    """

    yardstick: Yardstick
    arm: str
    other: str
    difference: Difference
    crossed: tuple[float, float]
    p: float
    outcome: str
    why: str = ""

    @property
    def shown(self) -> str:
        """The difference with its interval over seeds, in points or the number's unit."""
        value = self.difference.estimate
        return points(value) if self.yardstick.cells else plain(value)

    @property
    def crossed_shown(self) -> str:
        """The interval over seeds and images, in points; empty where there is none."""
        if any(map(math.isnan, self.crossed)):
            return ""
        return signed(" to ".join(f"{100 * end:+.1f}" for end in self.crossed))

    @property
    def p_shown(self) -> str:
        """To two digits."""
        return "" if math.isnan(self.p) else f"{self.p:.2g}"

    @property
    def detectable_shown(self) -> str:
        """In points, or the number's unit."""
        value = self.difference.detectable
        if math.isnan(value):
            return ""
        return f"{100 * value:.1f}" if self.yardstick.cells else digits(value, 3)


@dataclass(frozen=True)
class _Pair:
    """The subject and another in one cell; `differences` one a seed, indexed by seed."""

    yardstick: Yardstick
    subject: Arm
    other: Arm
    differences: pd.Series

    @cached_property
    def difference(self) -> Difference:
        """Over seeds."""
        return compare(self.differences, 0.0)


def compared(
    place: Place, claim: Claim, view: View, subject: Arm, others: Sequence[Arm]
) -> tuple[Comparison, ...]:
    """Every comparison of a finding that has a seed in common."""
    pairs = list(_pairs(view, subject, others))
    tests = [_test(claim, pair) for pair in pairs]
    adjusted = holm([p for _, p in tests])
    measured = [(pair.subject, pair.other, pair.yardstick.cells) for pair in pairs]
    by_number = not all(pair.yardstick.cells for pair in pairs)
    crossed = [NO_IMAGES] * len(pairs) if by_number else place.images.crossed_intervals(measured)
    return tuple(
        _comparison(place, claim, pair, towards, p, ends)
        for pair, (towards, _), p, ends in zip(pairs, tests, adjusted, crossed, strict=True)
    )


def _pairs(view: View, subject: Arm, others: Sequence[Arm]) -> Iterator[_Pair]:
    metrics = [yardstick.metric for yardstick in view.yardsticks]
    own = _values(subject, metrics)
    found = [(other, own - _values(other, metrics)) for other in others]
    for yardstick in view.yardsticks:
        for other, table in found:
            differences = table[yardstick.metric]
            if differences.notna().any():
                yield _Pair(yardstick, subject, other, differences)


def _values(arm: Arm, metrics: Sequence[str]) -> pd.DataFrame:
    """A row a seed; rounded, so that shares of images are equal where their counts are."""
    columns = arm.rows.reindex(columns=list(metrics)).round(12)
    return columns.set_axis(pd.Index(arm.rows["seed"]), axis="index")


def bounded(claim: Claim, view: View, subject: Arm) -> tuple[Comparison, ...]:
    """The number that a claim bounds, by its t interval over seeds."""
    assert claim.within
    low, high = claim.within
    (yardstick,) = view.yardsticks
    value = estimate(subject.values(yardstick.metric))
    ends = value.mean - value.half_width, value.mean + value.half_width
    if value.seeds < SEEDS_FOR_A_CLAIM:
        outcome, why = OPEN, _few(value.seeds)
    elif low - _CLOSE <= ends[0] and ends[1] <= high + _CLOSE:
        outcome, why = FOR, ""
    elif ends[1] < low - _CLOSE or ends[0] > high + _CLOSE:
        outcome, why = AGAINST, ""
    else:
        outcome, why = OPEN, "its interval crosses a bound"
    difference = Difference(value, math.nan, math.nan)
    bounds = f"exactly {low:g}" if low == high else f"{low:g} to {high:g}"
    compared_with = (yardstick, subject.label, bounds, difference, NO_IMAGES, math.nan)
    return (Comparison(*compared_with, outcome, why),)


def _test(claim: Claim, pair: _Pair) -> tuple[str, float]:
    """Which way the mean points, and the p of its doing so by chance."""
    if not claim.as_good_as:
        beyond = _beyond(pair, claim.threshold)
        return (FOR if beyond.estimate.mean > 0 else AGAINST), beyond.p
    mean = pair.difference.estimate.mean * pair.yardstick.unit
    if abs(mean) <= claim.margin:
        return FOR, equivalence(pair.differences, 0.0, claim.margin / pair.yardstick.unit)
    return AGAINST, _beyond(pair, math.copysign(claim.margin, mean)).p


def _beyond(pair: _Pair, threshold: float) -> Difference:
    """The difference less a threshold, which is in the unit of `by` and `margin`."""
    if threshold == 0:
        return pair.difference
    return compare(pair.differences, threshold / pair.yardstick.unit)


def _comparison(
    place: Place, claim: Claim, pair: _Pair, towards: str, p: float, crossed: tuple[float, float]
) -> Comparison:
    one, other = pair.subject.label, pair.other.label
    found = Comparison(pair.yardstick, one, other, pair.difference, crossed, p, towards)
    why = next(_obstacles(place, claim, pair, found), "")
    return replace(found, outcome=OPEN, why=why) if why else found


def _obstacles(place: Place, claim: Claim, pair: _Pair, found: Comparison) -> Iterator[str]:
    """What keeps a comparison from deciding anything, the gravest first."""
    seeds, towards = found.difference.estimate.seeds, found.outcome
    if seeds < SEEDS_FOR_A_CLAIM:
        yield _few(seeds)
    if math.isnan(found.p) or found.p >= _ALPHA:
        yield "may differ by more" if claim.as_good_as else "no difference seen"
    if pair.yardstick.cells and not _agrees(claim, towards, [100 * end for end in found.crossed]):
        yield "the interval over seeds and images does not agree"
    relied_on = _relied_on(claim, (pair.subject, pair.other), towards)
    doubts = [place.doubt(arm, pair.yardstick) for arm in relied_on]
    if any(doubts):
        yield f"not trusted: {', '.join(filter(None, doubts))}"
    if towards == AGAINST and not pair.yardstick.has_threat_model:
        yield "no threat model: contradicts nothing alone"


def _few(seeds: int) -> str:
    return f"{seeds} seed{'s' if seeds != 1 else ''} of the {SEEDS_FOR_A_CLAIM} that a claim needs"


def _agrees(claim: Claim, towards: str, crossed: Sequence[float]) -> bool:
    """Whether the crossed interval, in points, lies on the same side; NaN never does.

    What is as good as another is decided by the t tests alone: no study has the images that would
    bring an interval over them within a point.
    """
    low, high = crossed
    if claim.as_good_as:
        return towards == FOR or low > claim.margin or high < -claim.margin
    return low > claim.threshold if towards == FOR else high < claim.threshold


def _relied_on(claim: Claim, arms: tuple[Arm, Arm], towards: str) -> Iterable[Arm]:
    """Whose accuracies have to be believed: accuracy under attack is an upper bound.

    A difference is certain if its larger side is: the arm's where it exceeds what is claimed, the
    other's where it does not. What is equal needs both.
    """
    if claim.as_good_as:
        return arms
    return arms[:1] if towards == FOR else arms[1:]
