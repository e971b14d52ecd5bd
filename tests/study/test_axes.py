"""Axes and their product."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.axes import expand


def points(node, key="loss"):
    mistakes = []
    found = expand(node, key, f"methods.a.{key}", mistakes)
    return found, [str(mistake) for mistake in mistakes]


def test_a_list_and_a_linspace_make_a_grid_the_last_key_fastest():
    found, mistakes = points({"name": "isce", "s": {"linspace": [1, 2, 3]}, "m": [0.05, 0.1]})
    assert not mistakes
    assert [(p.value["s"], p.value["m"]) for p in found] == [
        (1, 0.05), (1, 0.1), (1.5, 0.05), (1.5, 0.1), (2, 0.05), (2, 0.1)
    ]  # fmt: skip
    assert found[2].axes == {"loss.s": 1.5, "loss.m": 0.05}


def test_logspace_runs_from_end_to_end():
    found, _ = points({"logspace": [1e-4, 1e-2, 3]}, "training.lr")
    assert [p.value for p in found] == [1e-4, 1e-3, 1e-2]


def test_linspace_has_no_rounding_tails():
    found, _ = points({"linspace": [0.02, 0.1, 5]})
    assert [p.value for p in found] == [0.02, 0.04, 0.06, 0.08, 0.1]


def test_const_is_no_axis():
    found, _ = points({"x": {"const": [1, 2]}})
    assert [p.value for p in found] == [{"x": [1, 2]}]
    assert found[0].axes == {}


def test_a_list_of_components_is_an_axis_named_by_them():
    found, _ = points([{"name": "sce"}, {"name": "isce", "s": [1, 2]}])
    assert [p.axes for p in found] == [
        {"loss": "sce"},
        {"loss": "isce", "loss.s": 1},
        {"loss": "isce", "loss.s": 2},
    ]


@pytest.mark.parametrize("node", [[], {"linspace": [1, 2, 0]}, {"s": []}, [[]]], ids=str)
def test_an_empty_grid_is_a_mistake(node):
    assert "empty grid" in points(node)[1][0]


@pytest.mark.parametrize(
    "node",
    [{"linspace": 3}, {"linspace": [1, 2]}, {"linspace": [1, 2, 2.5]}, {"linspace": ["a", 2, 3]},
     {"linspace": [1, 2, 3], "x": 1},
     {"linspace": [1, float("inf"), 3]}, {"linspace": [1, float("nan"), 3]},
     {"linspace": [0, 1, 10**13]}, {"logspace": [0, 1, 3]}],
    ids=str,
)  # fmt: skip
def test_a_malformed_space_is_a_mistake_with_its_key(node):
    found, mistakes = points(node)
    assert len(mistakes) == 1
    assert mistakes[0].startswith("methods.a.loss: expected")
    assert not found


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
@settings(deadline=None, derandomize=True)
def test_a_product_has_every_combination_once(sizes):
    node = {f"k{i}": list(range(size)) for i, size in enumerate(sizes)}
    found, _ = points(node)
    assert len({tuple(p.value.values()) for p in found}) == len(found) == math.prod(sizes)


def test_zipped_axes_go_hand_in_hand_within_the_product():
    found, mistakes = points(
        {"name": "isce", "zip": {"s": [1, 2], "m": {"linspace": [0.05, 0.1, 2]}}, "x": [3, 4]}
    )
    assert not mistakes
    assert [tuple(p.value.values()) for p in found] == [
        ("isce", 1, 0.05, 3), ("isce", 1, 0.05, 4), ("isce", 2, 0.1, 3), ("isce", 2, 0.1, 4)
    ]  # fmt: skip
    assert found[1].axes == {"loss.s": 1, "loss.m": 0.05, "loss.x": 4}


@pytest.mark.parametrize(
    ("axes", "where", "what"),
    [
        ([[1, 2]], "zip", "expected two axes or more"),
        ({"s": [1, 2]}, "zip", "expected two axes or more"),
        ({"s": [1, 2], "m": [1, 2, 3]}, "zip", "expected equally many values of each"),
        ({"s": [1, 2], "m": 3}, "zip", "found {'s': 2, 'm': 1}"),
        ({"s": [1, 2], "t": [3, 4]}, "zip.t", "stands beside `zip` as well"),
        ({"s": [1, 2], "m": {"linspace": 3}}, "zip.m", "expected {linspace"),
    ],
    ids=str,
)
def test_axes_that_cannot_be_zipped_are_a_mistake(axes, where, what):
    _, mistakes = points({"name": "isce", "t": 1, "zip": axes})
    assert mistakes[0].startswith(f"methods.a.loss.{where}: ")
    assert what in mistakes[0]


@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4))
@settings(deadline=None, derandomize=True)
def test_zipped_axes_have_as_many_points_as_each(sizes):
    found, mistakes = points({"zip": {f"k{i}": list(range(size)) for i, size in enumerate(sizes)}})
    if len(set(sizes)) == 1:
        assert [set(p.value.values()) for p in found] == [{i} for i in range(sizes[0])]
        assert not mistakes
    else:
        assert not found
        assert len(mistakes) == 1
