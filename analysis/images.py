"""What was found of each image, for the few configurations that are compared with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.choice import Arm
from analysis.runs import DONE, Results, image_shares, outcomes
from analysis.statistics import crossed_bootstrap


def crossed_interval(
    results: Results, first: Arm, second: Arm, cells: Sequence[str]
) -> tuple[float, float]:
    """Interval of the mean difference `first - second`, over seeds and images both (METHODS 4b).

    Each image counts by the worst of the cells, each seed of `first` is paired with the same of
    `second`, and images are the first that all runs saw. Only these runs' outcomes are read.

    Args:
        results: Where the runs are.
        first: A configuration.
        second: What it is compared with.
        cells: Metric names of test cells, over the same images: one, or those of a headline.

    Returns:
        Low and high end of the crossed bootstrap's interval, fractions; NaN below two common
        seeds that have every cell.
    """
    one, other = (_by_seed(results, arm, cells) for arm in (first, second))
    common = sorted(one.keys() & other.keys())
    if len(common) < 2:
        return math.nan, math.nan
    n = min(len(shares) for seed in common for shares in (one[seed], other[seed]))
    pairs = [one[seed].iloc[:n].to_numpy() - other[seed].iloc[:n].to_numpy() for seed in common]
    return crossed_bootstrap(np.stack(pairs))


def _by_seed(results: Results, arm: Arm, cells: Sequence[str]) -> dict[int, pd.Series]:
    """Each seed's share of right passes by image, of the seeds that have every cell."""
    done = arm.rows[arm.rows["state"] == DONE]
    shares = {
        int(seed): image_shares(outcomes(results.client, run_id), cells)
        for seed, run_id in zip(done["seed"], done["run_id"], strict=True)
    }
    return {seed: found for seed, found in shares.items() if not found.empty}


def worst_by_seed(results: Results, arm: Arm, cells: Sequence[str]) -> pd.Series:
    """Accuracy against each image's worst of several cells, a fraction a seed, indexed by seed.

    Args:
        results: Where the runs are.
        arm: A configuration.
        cells: Metric names of test cells over the same images.
    """
    if len(cells) == 1:
        return arm.values(cells[0])
    means = {seed: found.mean() for seed, found in _by_seed(results, arm, cells).items()}
    return pd.Series(means, dtype=float)
