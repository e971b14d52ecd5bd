"""Points of a grid that are left out."""

import pytest

from trainables.errors import InvalidStudy

GRID = {"name": "isce", "s": {"linspace": [1, 2, 3]}, "m": [0.05, 0.1]}


@pytest.fixture
def kept(plan_of):
    """The points (s, m) that are left of the grid by rules."""

    def plan(exclude):
        found = plan_of(methods={"isce": {"loss": GRID, "exclude": exclude}})
        return [tuple(trial.point.values()) for trial in found.trials]

    return plan


@pytest.mark.parametrize(
    ("rules", "left_out"),
    [
        ({"loss.s": 1.5}, {(1.5, 0.05), (1.5, 0.1)}),
        ([{"loss.s": 1.5, "loss.m": 0.1}], {(1.5, 0.1)}),
        ([{"loss.s": [1, 2], "loss.m": 0.1}], {(1, 0.1), (2, 0.1)}),
        ({"loss.s": {"min": 1.5}, "loss.m": {"max": 0.05}}, {(1.5, 0.05), (2, 0.05)}),
        ({"loss.s": {"min": 1.2, "max": 1.8}, "loss.m": 0.1}, {(1.5, 0.1)}),
        ([{"loss.s": 2}, {"loss.m": 0.1}], {(2, 0.05), (1, 0.1), (1.5, 0.1), (2, 0.1)}),
        ({"loss.m": 0.1 + 1e-16}, {(1, 0.1), (1.5, 0.1), (2, 0.1)}),
    ],
    ids=str,
)
def test_what_matches_all_keys_of_a_rule_is_left_out(kept, rules, left_out):
    everything = [(s, m) for s in (1, 1.5, 2) for m in (0.05, 0.1)]
    assert kept(rules) == [point for point in everything if point not in left_out]


def test_a_component_is_excluded_by_its_name(plan_of):
    losses = ["sce", {"name": "isce", "s": [1, 2], "m": 0.1}]
    plan = plan_of(methods={"a": {"loss": losses, "exclude": {"loss": "isce", "loss.s": 2}}})
    assert [trial.label for trial in plan.trials] == ["a loss=sce", "a loss=isce s=1"]


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (3, "methods.isce.exclude: expected rules {loss.s: value, …}, found 3"),
        ([{}], "methods.isce.exclude: expected rules"),
        ({"loss.s": {"least": 1}}, "loss.s: expected {min: number, max: number}, found"),
        ({"loss.s": {"min": "one"}}, "loss.s: expected {min: number, max: number}, found"),
        ({"loss.S": 1}, "methods.isce.exclude.0.loss.S: no axis of this method; did you mean"),
        ({"loss.name": "isce"}, "(axes: loss.s, loss.m)"),
        ([{"loss.s": 2}, {"loss.s": 3}], "methods.isce.exclude.1: leaves nothing out"),
        ({"loss.s": True}, "methods.isce.exclude.0: leaves nothing out"),
        ({"loss.s": {"min": 0}}, "methods.isce.exclude: leaves out every point"),
    ],
    ids=str,
)
def test_rules_that_say_nothing_are_mistakes(kept, rules, told):
    with pytest.raises(InvalidStudy) as error:
        kept(rules)
    assert told in str(error.value)
    assert len(error.value.mistakes) == 1


def test_a_method_without_axes_has_nothing_to_exclude(plan_of):
    with pytest.raises(InvalidStudy) as error:
        plan_of(methods={"a": {"loss": "sce", "exclude": {"loss.s": 2}}})
    (told,) = error.value.mistakes
    assert str(told) == "methods.a.exclude.0.loss.s: no axis of this method (axes: none)"


def test_what_is_wrong_with_a_grid_is_told_once(plan_of):
    with pytest.raises(InvalidStudy) as error:
        plan_of(methods={"a": {"loss": {"name": "isce", "s": [-1, -2]}, "exclude": {"loss.s": 9}}})
    assert all("exclude" not in mistake.where for mistake in error.value.mistakes)
