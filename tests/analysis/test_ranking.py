"""Who leads a column, and whether for certain."""

from __future__ import annotations

import math
import time

import numpy as np
import pandas as pd
import pytest

from analysis.statistics import compare
from analysis.tables.ranking import Lead, _paired_p, leads

NONE = math.nan
EVERYBODY = {"a": "xyz"}


def frames(**values: list[float]) -> dict[str, pd.DataFrame]:
    """One metric, `a`; seeds from 0."""
    return {label: pd.DataFrame({"a": found}) for label, found in values.items()}


def lead(may_lead: str = "xyz", **values: list[float]) -> Lead | None:
    return leads(frames(**values), ["a"], {"a": may_lead}).get("a")


def test_the_best_is_compared_seed_by_seed() -> None:
    """Paired, x is above y by 0.1 ± 0.01 at each seed: t = 17; unpaired nothing could be said."""
    assert lead(x=[0.9, 0.5, 0.7], y=[0.8, 0.39, 0.61]) == Lead(frozenset("x"), False)
    assert lead(x=[0.9, 0.5, 0.7], y=[0.39, 0.61, 0.8]) == Lead(frozenset("x"), True)


def test_it_has_to_be_better_than_all_others_with_holm() -> None:
    """Alone y has p = 0.027 (differences 0.1, 0.2, 0.15; t = 5.196, so p = 0.035)."""
    x, y = [0.9, 0.9, 0.9], [0.8, 0.7, 0.75]
    assert lead(x=x, y=y) == Lead(frozenset("x"), False)
    # Twice the same p of 0.035: by Holm 0.070 each.
    assert lead(x=x, y=y, z=y) == Lead(frozenset("x"), True)
    # Of a rival that is far off, 0 as good as: the family is two, the larger p stays 0.035.
    assert lead(x=x, y=y, z=[0.1, 0.1, 0.1]) == Lead(frozenset("x"), False)


def test_equals_lead_together_and_are_tied() -> None:
    assert lead(x=[0.5, 0.7], y=[0.7, 0.5], z=[0.1, 0.1]) == Lead(frozenset("xy"), True)
    # 0.1 + 0.2 and 0.3 are the same counts of images, summed in another order.
    assert lead(x=[0.1 + 0.2, 0.3], y=[0.3, 0.3], z=[0.1, 0.1]) == Lead(frozenset("xy"), True)


def test_where_all_are_equal_nobody_leads() -> None:
    assert lead(x=[0.5, 0.7], y=[0.7, 0.5]) is None


def test_one_seed_never_leads_nor_is_compared() -> None:
    assert lead(x=[0.9, NONE, NONE], y=[0.5, 0.5, 0.5], z=[0.4, 0.4, 0.4]) == Lead(
        frozenset("y"), False
    )
    assert lead(x=[0.9, 0.9], y=[0.5, NONE]) is None  # one alone is no column's best


def test_who_may_not_lead_neither_leads_nor_is_compared() -> None:
    values = {"x": [0.9, 0.9], "y": [0.5, 0.5], "z": [0.1, 0.1]}
    assert lead("yz", **values) == Lead(frozenset("y"), False)
    assert lead("y", **values) is None


def test_seeds_that_are_not_shared_leave_it_open() -> None:
    values = {"x": [0.9, 0.9, NONE, NONE], "y": [NONE, NONE, 0.1, 0.1]}
    assert lead(**values) == Lead(frozenset("x"), True)


def test_columns_that_an_arm_lacks_are_missing() -> None:
    values = frames(x=[0.9, 0.9], y=[0.5, 0.5])
    assert leads(values, ["a", "b"], {"a": "xy", "b": "xy"}).keys() == {"a"}
    assert leads({}, [], {}) == {}
    unseen = pd.DataFrame(index=pd.Index([], name="seed"))
    assert leads({**values, "z": unseen}, ["a"], EVERYBODY) == leads(values, ["a"], EVERYBODY)


def test_it_is_the_test_that_single_comparisons_have() -> None:
    draws = np.random.default_rng(0)
    cube = draws.normal(size=(4, 5, 6))
    cube[draws.random(cube.shape) < 0.3] = NONE
    cube[0, :, 0], cube[1, :, 0] = 0.0, 0.25
    wanted = [
        [compare(pd.Series(cube[i, :, j]), pd.Series(np.zeros(5))).p for j in range(6)]
        for i in range(4)
    ]
    assert _paired_p(cube) == pytest.approx(np.array(wanted), nan_ok=True)


def test_thousands_of_columns_take_no_time() -> None:
    draws = np.random.default_rng(0)
    metrics = [f"m{i}" for i in range(3000)]
    values = {
        label: pd.DataFrame(draws.random((5, 3000)), columns=metrics) for label in "abcdefghijklm"
    }
    started = time.process_time()
    found = leads(values, metrics, dict.fromkeys(metrics, "abcdefghijklm"))
    assert len(found) == 3000
    assert time.process_time() - started < 2
