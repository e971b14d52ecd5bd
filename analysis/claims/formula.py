"""Claims on formulas, evaluated on a grid: nothing is trained for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.claims.claim import Region
from trainables import theory

_Floats = NDArray[np.float64]
_FINE, _COARSE = 501, 41  # values of an axis, where up to two vary and where more do
# "s > 1 and m > 0", says the paper: at (1, 0) I-SCE is SCE.
_OPEN = ("s", "m")


@dataclass(frozen=True)
class Evaluation:
    """A formula over a region.

    Attributes:
        points: How many were evaluated.
        failing: The share of them at which it is not above zero.
        least: Its smallest value.
        least_at: Where: s, m, f and S.
        largest: Its largest value.
        largest_at: Where.
    """

    points: int
    failing: float
    least: float
    least_at: Mapping[str, float]
    largest: float
    largest_at: Mapping[str, float]

    @property
    def numbers(self) -> dict[str, float]:
        """All of it under flat names."""
        at = {f"least_at_{axis}": value for axis, value in self.least_at.items()}
        at |= {f"largest_at_{axis}": value for axis, value in self.largest_at.items()}
        extremes = {"least": self.least, "largest": self.largest}
        return {"points": self.points, "failing_share": self.failing, **extremes, **at}


def evaluate(formula: str, region: Region) -> Evaluation:
    """Evaluates `z`, `advantage` or `shift` on a grid, the ends among its points.

    The lower end of a range of s or m is not: there the claims say nothing.
    """
    ranges = {axis: tuple(ends) for axis, ends in region.model_dump().items()}
    varied = sum(len(ends) == 2 for ends in ranges.values())
    count = _FINE if varied <= 2 else _COARSE
    axes = {axis: _values(axis, ends, count) for axis, ends in ranges.items()}
    grid = dict(zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    found = _FORMULAS[formula](grid["f"], grid["S"], grid["s"], grid["m"])
    lowest, highest = int(found.argmin()), int(found.argmax())
    return Evaluation(
        points=found.size,
        failing=float((found <= 0).mean()),
        least=float(found.flat[lowest]),
        least_at={axis: float(values.flat[lowest]) for axis, values in grid.items()},
        largest=float(found.flat[highest]),
        largest_at={axis: float(values.flat[highest]) for axis, values in grid.items()},
    )


def _values(axis: str, ends: tuple[float, ...], count: int) -> _Floats:
    if len(ends) == 1:
        return np.array(ends)
    low, high = ends
    values: _Floats = np.linspace(low, high, count)
    return values[int(axis in _OPEN) :]


def _advantage(f: _Floats, S: _Floats, s: _Floats, m: _Floats) -> _Floats:
    """P_I - P (eq. 12): of two logits, the second of which stands for the sum of the others."""
    logits = np.stack(np.broadcast_arrays(f, np.log(S)), axis=-1)
    return theory.advantage(logits, np.zeros(f.shape, dtype=np.int64), s, m)


def _shift(f: _Floats, S: _Floats, s: _Floats, m: _Floats) -> _Floats:
    """By how much s f + m exceeds f, the largest logit: below zero the class may change."""
    return np.asarray((s - 1) * f + m)


_FORMULAS: Mapping[str, Callable[[_Floats, _Floats, _Floats, _Floats], _Floats]] = {
    "z": theory.condition,
    "advantage": _advantage,
    "shift": _shift,
}
