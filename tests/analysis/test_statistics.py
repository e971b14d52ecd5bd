"""Means and intervals over seeds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from analysis.statistics import (
    compare,
    crossed_bootstrap,
    equivalence,
    estimate,
    estimates,
    flatness,
    holm,
    paired_difference,
)

FIRST, SECOND = pd.Series([0.61, 0.64, 0.60, 0.66]), pd.Series([0.58, 0.63, 0.60, 0.62])


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


def test_estimates_of_groups_are_the_estimates_of_each() -> None:
    values = pd.Series([0.4, 0.5, 0.7, 0.9, 0.3, math.nan, 0.4, math.nan])
    groups = values.groupby(list("aaabcccd"))
    found = estimates(groups)
    for name, group in groups:
        wanted = estimate(group)
        numbers = [wanted.mean, wanted.half_width, wanted.seeds]
        assert found.loc[name].tolist() == pytest.approx(numbers, nan_ok=True)


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


def test_comparison_is_the_paired_t_test() -> None:
    found = compare(FIRST, SECOND)
    assert found.p == pytest.approx(stats.ttest_rel(FIRST, SECOND).pvalue, rel=1e-9)
    assert found.estimate == paired_difference(FIRST, SECOND)


def test_smallest_detectable_difference_has_the_power_it_says() -> None:
    spread = float((FIRST - SECOND).std(ddof=1))
    effect = compare(FIRST, SECOND).detectable / spread
    assert TTestPower().power(effect, nobs=4, alpha=0.05) == pytest.approx(0.8, abs=1e-4)


def test_one_seed_compares_nothing() -> None:
    found = compare(pd.Series([0.6]), pd.Series([0.5]))
    assert found.estimate.mean == pytest.approx(0.1)
    assert math.isnan(found.p) and math.isnan(found.detectable)
    assert math.isnan(equivalence(pd.Series([0.6]), pd.Series([0.6]), 0.01))
    assert all(map(math.isnan, crossed_bootstrap(np.ones((1, 9)))))


def test_differences_that_do_not_vary_are_certain() -> None:
    same = pd.Series([0.5, 0.75])
    assert compare(same, same).p == 1
    assert compare(same + 0.25, same).p == 0
    assert equivalence(same, same, 0.01) == 0
    assert equivalence(same + 0.25, same, 0.01) == 1


@settings(max_examples=20)  # since each collects the garbage
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_is_statsmodels(ps: list[float]) -> None:
    """Which collects garbage at every call, and so takes longer than a whole table."""
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_holm_is_step_down_and_skips_what_is_missing() -> None:
    assert holm([0.01, math.nan, 0.04, 0.03])[:1] == pytest.approx([0.03])
    assert holm([0.01, math.nan, 0.04, 0.03])[2:] == pytest.approx([0.06, 0.06])
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([]) == []


@pytest.mark.parametrize("margin", [0.001, 0.02, 0.05, 0.2])
def test_equivalence_is_two_one_sided_tests(margin: float) -> None:
    reference = DescrStatsW(FIRST - SECOND).ttost_mean(-margin, margin)[0]
    assert equivalence(FIRST, SECOND, margin) == pytest.approx(reference, rel=1e-9)
    assert equivalence(SECOND, FIRST, margin) == pytest.approx(reference, rel=1e-9)


def test_crossed_bootstrap_has_the_variance_of_both_axes() -> None:
    """Of effects of seed and image that add up: each of its own variance over its own number."""
    draws = np.random.default_rng(3)
    seeds, images = draws.normal(0, 0.04, (12, 1)), draws.normal(0, 0.5, (1, 300))
    low, high = crossed_bootstrap(0.1 + seeds + images)
    variance = seeds.var() / 12 + images.var() / 300
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(variance), rel=0.06)
    assert (high + low) / 2 == pytest.approx(0.1 + seeds.mean() + images.mean(), abs=0.004)


def test_crossed_bootstrap_is_the_same_every_time() -> None:
    differences = np.random.default_rng(1).normal(size=(3, 40))
    assert crossed_bootstrap(differences) == crossed_bootstrap(differences)


def test_flatness_is_a_two_way_analysis_of_variance() -> None:
    rng = np.random.default_rng(3)
    values = pd.DataFrame(rng.normal(0.5, 0.05, (6, 4)) + rng.normal(0, 0.1, 4))
    values.iloc[2] += 0.07
    long = values.stack().rename("y").rename_axis(["point", "seed"]).reset_index()
    expected = anova_lm(ols("y ~ C(point) + C(seed)", long).fit())
    found = flatness(values)
    assert found is not None
    assert found.p == pytest.approx(expected.loc["C(point)", "PR(>F)"], rel=1e-9)
    noise = expected.loc["Residual", "mean_sq"]
    assert found.noise_sd == pytest.approx(math.sqrt(noise / 4), rel=1e-9)
    assert found.points_sd == pytest.approx(values.mean(axis=1).std(), rel=1e-12)
    assert (found.points, found.seeds) == (6, 4)
    assert not flatness(values + np.arange(6)[:, None]).is_flat  # type: ignore[union-attr]


def test_flatness_leaves_seeds_out_that_lack_a_point() -> None:
    values = pd.DataFrame({0: [0.5, 0.6, 0.5], 1: [0.5, 0.7, 0.5], 2: [0.9, math.nan, 0.1]})
    found = flatness(values)
    assert found is not None
    assert found.seeds == 2
    assert flatness(values[[0, 2]]) is None
    assert flatness(values.iloc[:1]) is None


def test_surfaces_without_noise_are_flat_only_where_all_is_equal() -> None:
    same = pd.DataFrame({0: [0.5, 0.5], 1: [0.6, 0.6]})
    assert flatness(same).p == 1  # type: ignore[union-attr]
    tilted = pd.DataFrame({0: [0.5, 0.6], 1: [0.6, 0.7]})
    assert flatness(tilted).p == 0  # type: ignore[union-attr]
