"""What was found of each image, for the few configurations that are compared with each other."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException

from analysis.choice import Arm
from analysis.runs import Results, outcomes
from analysis.statistics import crossed_bootstraps

_Shares = npt.NDArray[np.float64]
_Key = tuple[tuple[str, ...], ...]  # the runs of both sides, and the cells


class Images:
    """Per-image outcomes of the runs that are asked for, each read once."""

    def __init__(self, results: Results) -> None:
        self._client = results.client
        self._runs: dict[str, Mapping[str, _Shares]] = {}
        self._intervals: dict[_Key, tuple[float, float]] = {}

    def crossed_intervals(
        self, pairs: Sequence[tuple[Arm, Arm, Sequence[str]]]
    ) -> list[tuple[float, float]]:
        """Intervals of mean differences `first - second`, over seeds and images both.

        Each image counts by the worst of the cells, each seed of `first` is paired with the same
        of `second`, and images are the first that all runs saw (METHODS 4b).

        Args:
            pairs: `first`, `second` and names of test cells over the same images: one cell, or
                those of a headline.

        Returns:
            Low and high end of the crossed bootstrap's interval of each pair, fractions; NaN below
            two common seeds that have every cell.
        """
        keys = [_key(*pair) for pair in pairs]
        fresh = dict(zip(keys, pairs, strict=True))
        fresh = {key: pair for key, pair in fresh.items() if key not in self._intervals}
        alike: dict[tuple[int, ...], dict[_Key, _Shares]] = {}
        for key, pair in fresh.items():
            differences = self._differences(*pair)
            alike.setdefault(differences.shape, {})[key] = differences
        for found in alike.values():
            intervals = crossed_bootstraps(np.stack(list(found.values())))
            self._intervals |= zip(found, intervals, strict=True)
        return [self._intervals[key] for key in keys]

    def worst_by_seed(self, arm: Arm, cells: Sequence[str]) -> pd.Series:
        """Accuracy against each image's worst of the cells, a fraction a seed, indexed by seed."""
        if len(cells) == 1:
            return arm.values(cells[0])
        means = {seed: shares.mean() for seed, shares in self._by_seed(arm, cells).items()}
        return pd.Series(means, dtype=float)

    def _differences(self, first: Arm, second: Arm, cells: Sequence[str]) -> _Shares:
        """(seeds, images), the seeds being those that both have."""
        one, other = (self._by_seed(arm, cells) for arm in (first, second))
        common = sorted(one.keys() & other.keys())
        if not common:
            return np.empty((0, 1))
        n = min(len(shares) for seed in common for shares in (one[seed], other[seed]))
        return np.stack([one[seed][:n] - other[seed][:n] for seed in common])

    def _by_seed(self, arm: Arm, cells: Sequence[str]) -> dict[int, _Shares]:
        """Each seed's share of right passes by image, of the seeds that have every cell."""
        found = {seed: self._shares(run_id, cells) for seed, run_id in arm.runs.items()}
        return {seed: shares for seed, shares in found.items() if len(shares)}

    def _shares(self, run_id: str, cells: Sequence[str]) -> _Shares:
        if run_id not in self._runs:
            self._runs[run_id] = self._read(run_id)
        return worst_shares(self._runs[run_id], cells)

    def _read(self, run_id: str) -> Mapping[str, _Shares]:
        """Nothing of a run that kept no outcomes."""
        try:
            return image_shares(outcomes(self._client, run_id))
        except (MlflowException, OSError):
            return {}


def image_shares(outcomes: pd.DataFrame) -> Mapping[str, _Shares]:
    """Each image's share of right passes by cell, in the order of the images."""
    frame = outcomes.sort_values("index", kind="stable")
    shares = (frame["correct_after"] / frame["passes"]).to_numpy(dtype=np.float64)
    places = frame.groupby("cell", sort=False, observed=True).indices
    return {str(cell): shares[where] for cell, where in places.items()}


def worst_shares(shares: Mapping[str, _Shares], cells: Sequence[str]) -> _Shares:
    """Each image's share under the worst of the cells.

    Nothing unless every cell is there for every image: a worst case over fewer attacks is another
    number.
    """
    found = [shares.get(cell, np.empty(0)) for cell in cells]
    alike = len({len(kept) for kept in found}) == 1
    return functools.reduce(np.minimum, found) if alike else np.empty(0)


def _key(first: Arm, second: Arm, cells: Sequence[str]) -> _Key:
    return tuple(first.runs.values()), tuple(second.runs.values()), tuple(cells)
