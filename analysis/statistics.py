"""Means and intervals whose replicate is the seed, never the image.

Two checkpoints of one loss differ "significantly" image by image more often than not, so an
interval over images would say nothing about losses. One seed has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.typing import SeriesGroupBy
from scipy import special  # and not `stats`, which takes a second to import

CONFIDENCE = 0.95
POWER = 0.8  # of the test whose smallest detectable difference is told
_DRAWS = 4000  # of the bootstrap: its ends are then good to a few per cent of their distance
SEEDS_FOR_A_CLAIM = 5  # below it the half-width exceeds the differences in question


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: In the unit of the values; NaN without values.
        half_width: Of the t interval at `CONFIDENCE`; NaN with fewer than two seeds.
        seeds: How many values there were.
    """

    mean: float
    half_width: float
    seeds: int

    @property
    def is_missing(self) -> bool:
        """Whether there was nothing to average."""
        return self.seeds == 0

    @property
    def is_exploratory(self) -> bool:
        """Whether one seed is all there is: no interval, no claim."""
        return self.seeds == 1

    @property
    def standard_error(self) -> float:
        """Of the mean; NaN with fewer than two seeds."""
        return self.half_width / _quantile(self.seeds) if self.seeds > 1 else math.nan

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; never so with one seed."""
        return abs(self.mean) > self.half_width


def estimate(values: pd.Series | npt.NDArray[np.float64]) -> Estimate:
    """Mean and t interval of one value a seed; NaN values are seeds that are not there."""
    known = np.asarray(values, dtype=float)
    present = known[~np.isnan(known)]
    count = len(present)
    if count == 0:
        return Estimate(math.nan, math.nan, 0)
    mean = float(present.mean())
    if count == 1:
        return Estimate(mean, math.nan, 1)
    standard_error = float(present.std(ddof=1)) / math.sqrt(count)
    return Estimate(mean, _quantile(count) * standard_error, count)


def estimates(grouped: SeriesGroupBy[Any, Any]) -> pd.DataFrame:
    """`estimate` of every group: `mean, half_width, seeds`, a row each."""
    counts = grouped.count()
    quantiles = counts.map(lambda count: _quantile(count) if count > 1 else math.nan)
    half_width: pd.Series = quantiles * grouped.std(ddof=1) / np.sqrt(counts)
    return pd.DataFrame({"mean": grouped.mean(), "half_width": half_width, "seeds": counts})


@cache
def _quantile(seeds: int) -> float:
    """Half-widths of the t interval in standard errors."""
    return float(special.stdtrit(seeds - 1, (1 + CONFIDENCE) / 2))


def paired_difference(first: pd.Series, second: pd.Series | float) -> Estimate:
    """Mean and t interval of `first - second`, seed by seed.

    Trials that differ in the loss alone share initialisation and batches at equal seeds, so
    the difference varies far less than either.

    Args:
        first: One value a seed, indexed by seed.
        second: The same for what it is compared with, seeds that only one has being left out; or
            one value for all.
    """
    return estimate(first - second)


@dataclass(frozen=True)
class Difference:
    """Two arms compared at equal seeds.

    Attributes:
        estimate: Mean and t interval of the paired differences.
        p: Of a paired t test that they are zero on average; NaN with fewer than two seeds.
        detectable: The smallest true difference that so many seeds of this spread would show,
            two-sided at 5 %, four times out of five; NaN with fewer than two seeds.
    """

    estimate: Estimate
    p: float
    detectable: float


def compare(first: pd.Series, second: pd.Series | float) -> Difference:
    """Compares `first - second`, seed by seed; arguments as of `paired_difference`.

    Differences that do not vary at all have p = 0, or 1 where they are zero, and nothing is too
    small for them to show.
    """
    value = paired_difference(first, second)
    if value.seeds < 2:
        return Difference(value, math.nan, math.nan)
    spread = value.standard_error
    if spread == 0:
        return Difference(value, float(value.mean == 0), 0.0)
    p = 2 * float(special.stdtr(value.seeds - 1, -abs(value.mean) / spread))
    return Difference(value, p, _detectable_effect(value.seeds) * spread * math.sqrt(value.seeds))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p values of one family; NaN stays NaN and counts as no member."""
    known = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    adjusted, largest = list(ps), 0.0
    for done, (p, place) in enumerate(known):
        largest = max(largest, min(p * (len(known) - done), 1.0))
        adjusted[place] = largest
    return adjusted


@cache
def _detectable_effect(seeds: int) -> float:
    """In standard deviations of the differences; the tail of the other sign adds below 1e-5."""
    free = seeds - 1
    shift = special.nctdtrinc(free, 1 - POWER, special.stdtrit(free, (1 + CONFIDENCE) / 2))
    return float(shift) / math.sqrt(seeds)


def equivalence(first: pd.Series, second: pd.Series | float, margin: float) -> float:
    """P of two one-sided paired t tests: that `first - second` lies within the margin.

    Args:
        first: One value a seed, indexed by seed.
        second: The same for what it is compared with, or one value for all.
        margin: The largest difference that counts as none, in the values' unit.

    Returns:
        The larger p of the two; NaN with fewer than two seeds.
    """
    value = paired_difference(first, second)
    if value.seeds < 2:
        return math.nan
    spread = value.standard_error
    if spread == 0:
        return float(abs(value.mean) >= margin)
    farthest = (margin - abs(value.mean)) / spread
    return float(special.stdtr(value.seeds - 1, -farthest))


@dataclass(frozen=True)
class Flatness:
    """Whether the points of a grid differ by more than seeds do.

    Attributes:
        points_sd: SD of the points' means over seeds.
        noise_sd: SD that the means would have by the seeds' noise alone.
        p: Of an F test that all points are equal, seed effects fitted.
        points: How many.
        seeds: How many have every point.
    """

    points_sd: float
    noise_sd: float
    p: float
    points: int
    seeds: int

    @property
    def is_flat(self) -> bool:
        """Whether no difference between points is seen at `CONFIDENCE`."""
        return not self.p < 1 - CONFIDENCE


def flatness(values: pd.DataFrame) -> Flatness | None:
    """Asks whether a surface is flat, before anybody points at its maximum (METHODS 4b).

    Two-way analysis of variance without replication: what a seed does to all points alike is
    fitted and takes no part in the noise.

    Args:
        values: One row a point, one column a seed; seeds that lack a point are left out.

    Returns:
        None below two points or two whole seeds, which have no noise to compare with.
    """
    whole = values.dropna(axis="columns").to_numpy(dtype=float)
    points, seeds = whole.shape
    if points < 2 or seeds < 2:
        return None
    means = whole.mean(axis=1)
    noise = whole - means[:, None] - whole.mean(axis=0) + whole.mean()
    free = (points - 1) * (seeds - 1)
    mean_square = float((noise**2).sum()) / free
    between = float(means.var(ddof=1))
    if mean_square < 1e-24:  # seeds agree to the last image
        p = float(between < 1e-24)
    else:
        p = float(special.fdtrc(points - 1, free, seeds * between / mean_square))
    return Flatness(math.sqrt(between), math.sqrt(mean_square / seeds), p, points, seeds)


def crossed_bootstrap(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Percentile interval of a mean over seeds and images, both drawn anew.

    Seeds alone leave out that other images might have been taken, images alone that other seeds
    might have been (Owen 2007, "The pigeonhole bootstrap").

    Args:
        differences: One paired difference a seed and image, (seeds, images).

    Returns:
        The ends of the interval at `CONFIDENCE`; NaN with fewer than two seeds.
    """
    return crossed_bootstraps(differences[None])[0]


def crossed_bootstraps(differences: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """The intervals of many comparisons by the same draws, in a fraction of the time.

    Args:
        differences: As of `crossed_bootstrap`, (comparisons, seeds, images).
    """
    comparisons, seeds, images = differences.shape
    if seeds < 2:
        return [(math.nan, math.nan)] * comparisons
    of_seeds, of_images = _weights(seeds, images)
    over_images = of_images @ differences.reshape(-1, images).T
    by_seed = over_images.reshape(_DRAWS, comparisons, seeds)
    means = np.einsum("dcs,ds->dc", by_seed, of_seeds)
    ends = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return [(float(low), float(high)) for low, high in ends.T]


@lru_cache(maxsize=2)  # 32 MB for 1,000 images; the comparisons of a table are of one shape
def _weights(seeds: int, images: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How often each draw has each seed and each image, as shares of all it draws."""
    draws = np.random.default_rng(0)
    of_seeds = draws.multinomial(seeds, np.full(seeds, 1 / seeds), size=_DRAWS) / seeds
    of_images = draws.multinomial(images, np.full(images, 1 / images), size=_DRAWS) / images
    return of_seeds, of_images
