"""Differences over seeds and images both."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.choice import Arm, shown_arms
from analysis.images import Images, image_shares, worst_shares
from analysis.plan import Group
from analysis.runs import Results
from analysis.statistics import crossed_bootstrap

from .tracked_study import CE_RAW, DEPLOYED, IMAGES, MARGIN_RAW

GROUP = Group("mnist5k", "lenet5")


def crossed_interval(
    results: Results, first: Arm, second: Arm, cells: list[str]
) -> tuple[float, float]:
    """Of one pair."""
    return Images(results).crossed_intervals([(first, second, cells)])[0]


@pytest.fixture
def arms(small: Results) -> dict[str, Arm]:
    """The rows of the table by method."""
    return {arm.method: arm for arm in shown_arms(small, GROUP)}


def test_images_are_paired_by_seed_and_place(small: Results, arms: dict[str, Arm]) -> None:
    """Of `sce` 4 and 5 of 10 images stand with seeds 0 and 1, of `norm-sce` 2 and 4.

    The last image falls to `ce_raw`, the first ones to `margin_raw`: see `survivors`.
    """

    def standing(robust: int) -> np.ndarray:
        kept = [int(IMAGES - 1 - robust <= i < IMAGES - 1) for i in range(IMAGES)]
        return np.array(kept, dtype=float)

    differences = np.stack([standing(4) - standing(2), standing(5) - standing(4)])
    found = crossed_interval(small, arms["sce"], arms["norm-sce"], [CE_RAW, MARGIN_RAW])
    assert found == crossed_bootstrap(differences)
    assert found[0] < 0.15 < found[1]


def test_fewer_than_two_common_seeds_have_no_interval(small: Results, arms: dict[str, Arm]) -> None:
    found = crossed_interval(small, arms["sce"], arms["isce"], [MARGIN_RAW])
    assert all(map(math.isnan, found))
    absent = crossed_interval(small, arms["sce"], arms["norm-sce"], [MARGIN_RAW, "no such cell"])
    assert all(map(math.isnan, absent))


def test_equal_configurations_do_not_differ(small: Results, arms: dict[str, Arm]) -> None:
    assert crossed_interval(small, arms["sce"], arms["sce"], [DEPLOYED]) == (0.0, 0.0)


def test_an_unfinished_run_is_no_seed(small: Results, arms: dict[str, Arm]) -> None:
    half = arms["sce"].rows.assign(state=["done", "incomplete", "failed"])
    cut = replace(arms["sce"], rows=half)
    assert math.isnan(crossed_interval(small, cut, arms["norm-sce"], [MARGIN_RAW])[0])


def test_shares_are_per_image_and_count_passes() -> None:
    outcomes = pd.DataFrame(
        {
            "cell": ["a", "a", "b", "b", "c", "c"],
            "index": [0, 1, 1, 0, 0, 1],
            "passes": [10, 10, 10, 10, 10, 10],
            "correct_after": [10, 2, 10, 4, 0, 0],
        }
    )
    shares = image_shares(outcomes)
    assert worst_shares(shares, ["a", "b"]).tolist() == pytest.approx([0.4, 0.2])
    assert not len(worst_shares(shares, ["a", "d"]))
    assert not len(worst_shares(image_shares(outcomes.iloc[1:]), ["a", "b"]))
