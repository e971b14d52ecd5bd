"""Means and intervals over seeds."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.statistics import estimate, paired_difference


def test_interval_is_students_t() -> None:
    value = estimate(pd.Series([0.4, 0.5, 0.6]))
    # t(0.975, 2) = 4.302653, standard deviation 0.1
    assert value.mean == pytest.approx(0.5)
    assert value.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert value.seeds == 3


def test_missing_seeds_are_not_counted() -> None:
    assert estimate(pd.Series([0.4, math.nan, 0.6])).seeds == 2


def test_one_seed_has_no_interval_and_decides_nothing() -> None:
    value = estimate(pd.Series([0.9]))
    assert value.is_exploratory
    assert math.isnan(value.half_width)
    assert not value.excludes_zero


def test_no_seed_is_missing() -> None:
    value = estimate(pd.Series([math.nan]))
    assert value.is_missing
    assert math.isnan(value.mean)


def test_interval_excludes_zero() -> None:
    assert estimate(pd.Series([0.10, 0.11, 0.12])).excludes_zero
    assert not estimate(pd.Series([-0.1, 0.11, 0.12])).excludes_zero


def test_differences_pair_equal_seeds() -> None:
    first = pd.Series([0.9, 0.5, 0.6], index=[7, 0, 1])
    second = pd.Series([0.4, 0.3, 0.1], index=[1, 0, 2])
    value = paired_difference(first, second)
    assert value.seeds == 2
    assert value.mean == pytest.approx(0.2)
    assert value.half_width == pytest.approx(0.0, abs=1e-12)
