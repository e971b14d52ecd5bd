"""Axes of a study file: lists, `linspace`, `logspace` and `const`, and their product."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.loader import plain_number
from trainables.errors import Mistake

MOST_VALUES = 10_000  # of one axis
LARGEST = 1e100


@dataclass(frozen=True)
class Point:
    """One choice along every axis of a node.

    Attributes:
        value: the node with its axes settled.
        axes: what was chosen, by dotted key; only keys that had a choice.
    """

    value: Any
    axes: dict[str, Any]


def expand(node: Any, key: str, where: str, mistakes: list[Mistake]) -> list[Point]:
    """Every settled form of a node, in the file's order, the last key running fastest.

    Args:
        node: plain data in which a list, `{linspace: [from, to, n]}` or
            `{logspace: [from, to, n]}` is an axis and `{const: value}` is not.
        key: the node's dotted key within the trial, such as `loss.s`.
        where: its dotted key within the file, for messages.
        mistakes: what is wrong is added here.
    """
    if isinstance(node, list):
        return _axis(node, key, where, mistakes)
    if not isinstance(node, dict):
        return [Point(node, {})]
    for name, make in _SPACES.items():
        if name in node:
            values = _spaced(name, make, node, where, mistakes)
            return [] if values is None else _axis(values, key, where, mistakes)
    if set(node) == {"const"}:
        return [Point(node["const"], {})]
    parts = [
        expand(item, f"{key}.{name}".lstrip("."), f"{where}.{name}".lstrip("."), mistakes)
        for name, item in node.items()
    ]
    return [
        Point(
            dict(zip(node, (point.value for point in chosen), strict=True)),
            {name: value for point in chosen for name, value in point.axes.items()},
        )
        for chosen in itertools.product(*parts)
    ]


def _axis(values: Sequence[Any], key: str, where: str, mistakes: list[Mistake]) -> list[Point]:
    if not values:
        mistakes.append(Mistake(where, "expected at least one value, found an empty grid"))
    points = []
    for value in values:
        for point in expand(value, key, where, mistakes):
            chosen = {key: _choice(point.value)}
            points.append(Point(point.value, {**chosen, **point.axes}))
    return points


def _choice(value: Any) -> Any:
    """What a choice is called: a component by its name."""
    return value.get("name", value) if isinstance(value, dict) else value


def _spaced(
    name: str, make: _Maker, node: dict[str, Any], where: str, mistakes: list[Mistake]
) -> Sequence[float] | None:
    """The values of a space, None where it is malformed."""
    bounds = node[name]
    numbers = isinstance(bounds, list) and len(bounds) == 3 and not any(map(_no_number, bounds))
    if len(node) != 1 or not numbers or bounds[2] not in range(MOST_VALUES + 1):
        what = f"expected {{{name}: [from, to, number of values up to {MOST_VALUES}]}}"
        mistakes.append(Mistake(where, f"{what}, found {node!r}"))
        return None
    if name == "logspace" and min(bounds[:2]) <= 0:
        mistakes.append(Mistake(where, f"expected ends > 0, found {bounds[:2]!r}"))
        return None
    values = make(float(bounds[0]), float(bounds[1]), int(bounds[2]))
    return [plain_number(float(value)) for value in values]


def _no_number(value: Any) -> bool:
    """Whether it is none that can be computed with."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return not plain or not abs(value) < LARGEST


_Maker = Callable[[float, float, int], np.ndarray]
_SPACES: dict[str, _Maker] = {"linspace": np.linspace, "logspace": np.geomspace}
