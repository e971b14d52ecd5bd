"""Who leads each column of a table, and whether it is significantly better than all others."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from analysis.statistics import CONFIDENCE, holm

TIED_SIGN = "="
TIED_NOTE = (
    "= where it is not significantly better than each other of these rows (paired t tests over "
    "equal seeds, Holm over the column)"
)
_DECIMALS = 12  # so that equal counts of images are equal whatever order they were summed in
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lead:
    """What leads a column.

    Attributes:
        labels: The best row, or all that are equally so.
        is_tied: Whether it is not significantly better than each of the others.
    """

    labels: frozenset[str]
    is_tied: bool


def leads(
    values: Mapping[str, pd.DataFrame],
    metrics: Sequence[str],
    may_lead: Mapping[str, Collection[str]],
) -> dict[str, Lead]:
    """The lead of each column that has one.

    Who has fewer than two seeds never leads, and where all are equal none does. The best is
    compared seed by seed with each other row that may lead; those tests are one family (METHODS
    4b). Pairs that share fewer than two seeds leave it open.

    Args:
        values: Label -> a row a seed, indexed by it, and a column a metric; NaN, or no column at
            all, where there is none.
        metrics: The columns.
        may_lead: Metric -> the labels whose attack is to be believed.
    """
    labels = list(values)
    seeds = sorted(set().union(*(frame.index for frame in values.values())))
    tables = [frame.reindex(index=seeds, columns=list(metrics)) for frame in values.values()]
    if not tables:
        return {}
    cube = np.stack([table.to_numpy(dtype=float) for table in tables])  # labels, seeds, metrics
    allowed = np.array([[label in may_lead[metric] for metric in metrics] for label in labels])
    allowed &= _count(cube) > 1
    means = np.where(allowed, _mean(cube).round(_DECIMALS), np.nan)
    shown = np.flatnonzero(allowed.sum(axis=0) > 1)
    best = np.nanargmax(means[:, shown], axis=0)
    ps = np.full(means.shape, np.nan)
    ps[:, shown] = _paired_p(cube[best, :, shown].T - cube[:, :, shown])
    found = {}
    for column, leader in zip(shown, best, strict=True):
        top, others = means[leader, column], np.flatnonzero(allowed[:, column])
        if top > np.nanmin(means[:, column]):
            adjusted = holm([ps[other, column] for other in others if other != leader])
            equal = frozenset(labels[other] for other in others if means[other, column] == top)
            tied = any(math.isnan(p) or p >= 1 - CONFIDENCE for p in adjusted)
            found[metrics[int(column)]] = Lead(equal, tied)
    return found


def _count(cube: _Array) -> npt.NDArray[np.int_]:
    """Seeds that are there, as of the second axis."""
    return np.asarray((~np.isnan(cube)).sum(axis=1))


def _mean(cube: _Array) -> _Array:
    """Over the seeds that are there; NaN without any."""
    count = _count(cube)
    total = np.nansum(cube, axis=1)
    mean: _Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _paired_p(differences: _Array) -> _Array:
    """As `statistics.compare` has it, of (labels, seeds, metrics) at once: columns are many."""
    count, mean = _count(differences), _mean(differences)
    squares = np.nansum((differences - mean[:, None, :]) ** 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(squares / (count - 1) / count)
        p = 2 * special.stdtr(count - 1, -np.abs(mean) / spread)
    p = np.where(spread == 0, (mean == 0).astype(float), p)
    return np.where(count > 1, p, np.nan)
