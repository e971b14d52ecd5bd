"""Validation chooses, the test set never."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.choice import choices, choose, shown_arms
from analysis.plan import Group, Plan
from analysis.runs import Results
from trainables import names

from .tracked_study import VAL_CLEAN

AXES = ["loss.s", "loss.m"]


def rows(*points: tuple[float, float, float, float, float]) -> pd.DataFrame:
    """One row a point: s, m, validation headline, clean validation accuracy, test headline."""
    columns = [*AXES, names.ROBUST_VAL, VAL_CLEAN, names.ROBUST]
    frame = pd.DataFrame(points, columns=columns)
    return frame.assign(
        method="isce",
        arm=[f"arm{i}" for i in range(len(frame))],
        label=[f"isce s={point[0]:g} m={point[1]:g}" for point in points],
    )


def test_choice_is_made_on_validation(small: Results, group: Group) -> None:
    choice = choose(small.rows(group, "isce"), axes=AXES)
    assert choice is not None
    assert choice.point == {"loss.s": 1.5, "loss.m": 0.1}
    assert (choice.validation, choice.test, choice.points) == (0.6, 0.5, 5)
    assert (choice.best_test, choice.best_label) == (0.8, "isce s=2 m=0.05")
    assert choice.regret == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("points", "chosen"),
    [
        ([(1, 0.1, 0.5, 0.9, 0.9), (2, 0.1, 0.6, 0.8, 0.1)], 2),
        ([(1, 0.1, 0.5, 0.8, 0.9), (2, 0.1, 0.5, 0.9, 0.1)], 2),
        ([(2, 0.1, 0.5, 0.9, 0.9), (1, 0.2, 0.5, 0.9, 0.1)], 1),
        ([(1, 0.2, 0.5, 0.9, 0.9), (1, 0.1, 0.5, 0.9, 0.1)], 1),
    ],
    ids=["validation", "clean", "smaller s", "smaller m"],
)
def test_order_of_the_rules(points: list[tuple[float, ...]], chosen: float) -> None:
    choice = choose(rows(*points), axes=AXES)  # type: ignore[arg-type]
    assert choice is not None
    assert choice.point["loss.s"] == chosen
    assert choice.test == 0.1
    assert choice.label.startswith(f"isce s={chosen} m=0.")


def test_sums_in_another_order_still_tie() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point."""
    frame = pd.concat([rows((1, 0.1, v, 0.9, 0.0)) for v in (0.1, 0.2, 0.3)]).assign(arm="a")
    later = pd.concat([rows((2, 0.1, v, 0.9, 0.0)) for v in (0.3, 0.2, 0.1)]).assign(arm="b")
    choice = choose(pd.concat([later, frame]), axes=AXES)
    assert choice is not None
    assert choice.arm == "a"


def test_no_choice_without_a_validation_result() -> None:
    assert choose(rows((1, 0.1, float("nan"), 0.9, 0.5)), axes=AXES) is None


def test_one_configuration_is_no_choice(small: Results, group: Group) -> None:
    plan = Plan({**small.plan.raw, "choose": ["sce"]})
    results = Results(plan, small.frame, "", small.report_run, small.client)
    assert choices(results, group) == {}


def test_untuned_arms_are_shown_one_by_one(small: Results, group: Group) -> None:
    plan = Plan({**small.plan.raw, "choose": []})
    results = Results(plan, small.frame, "", small.report_run, small.client)
    assert [arm.label for arm in shown_arms(results, group)][2:4] == [
        "isce s=1 m=0.05",
        "isce s=1.5 m=0.05",
    ]


def test_shown_arms_are_one_a_method(small: Results, group: Group) -> None:
    labels = [arm.label for arm in shown_arms(small, group)]
    assert labels == ["sce", "norm-sce", "isce s=1.5 m=0.1"]
