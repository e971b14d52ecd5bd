"""Means and intervals whose replicate is the seed, never the image.

Two checkpoints of one loss differ "significantly" image by image more often than not, so an
interval over images would say nothing about losses. One seed has no interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
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
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; never so with one seed."""
        return abs(self.mean) > self.half_width


def estimate(values: pd.Series) -> Estimate:
    """Mean and t interval of one value a seed; NaN values are seeds that are not there."""
    present = values.dropna()
    count = len(present)
    if count == 0:
        return Estimate(math.nan, math.nan, 0)
    mean = float(present.mean())
    if count == 1:
        return Estimate(mean, math.nan, 1)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Estimate(mean, quantile * float(present.std(ddof=1)) / math.sqrt(count), count)


def paired_difference(first: pd.Series, second: pd.Series) -> Estimate:
    """Mean and t interval of `first - second`, seed by seed.

    Trials that differ in the loss alone share initialisation and batches at equal seeds, so
    the difference varies far less than either.

    Args:
        first: One value a seed, indexed by seed.
        second: The same for what it is compared with; seeds that only one has are left out.
    """
    return estimate(first - second)
