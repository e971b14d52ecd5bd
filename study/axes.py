"""Axes of a study file: lists, spaces, ranges and `const`; their product, and `zip`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.loader import is_number, plain_number
from trainables.errors import Mistake

ZIP = "zip"
# What a search may choose any number of: {key: [from, to]}; by key, whether equal ratios are
# equally far, and whether only whole numbers are meant.
RANGES = {"uniform": (False, False), "loguniform": (True, False), "integers": (False, True)}
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
            `{logspace: [from, to, n]}` is an axis and `{const: value}` is not. Axes within
            `zip: {…}` go hand in hand: its first values, its second values, and so on, as keys
            of the node that it stands in. A range of `RANGES`, which only a search can settle,
            is its two ends.
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
    for name in RANGES:
        if name in node:
            ends = _ends(name, node, where, mistakes)
            return [] if ends is None else _axis(ends, key, where, mistakes)
    if set(node) == {"const"}:
        return [Point(node["const"], {})]
    parts = [
        _zipped(item, node, key, where, mistakes)
        if name == ZIP
        else _keyed(name, item, key, where, mistakes)
        for name, item in node.items()
    ]
    return [_merged(chosen) for chosen in itertools.product(*parts)]


def _zipped(
    axes: Any, node: dict[str, Any], key: str, where: str, mistakes: list[Mistake]
) -> list[Point]:
    """The keys that axes hand in hand give to the node that they stand in."""
    where = _below(where, ZIP)
    if not isinstance(axes, dict) or len(axes) < 2:
        what = f"expected two axes or more, {{parameter: [values], …}}, found {axes!r}"
        mistakes.append(Mistake(where, what))
        return []
    mistakes += [
        Mistake(_below(where, name), "stands beside `zip` as well") for name in axes if name in node
    ]
    parts = [_keyed(name, item, key, where, mistakes) for name, item in axes.items()]
    sizes = {name: len(part) for name, part in zip(axes, parts, strict=True)}
    if len(set(sizes.values())) > 1:
        what = f"expected equally many values of each, found {sizes!r}"
        mistakes.append(Mistake(where, what))
        return []
    return [_merged(chosen) for chosen in zip(*parts, strict=True)]


def _keyed(name: str, item: Any, key: str, where: str, mistakes: list[Mistake]) -> list[Point]:
    """What stands at one key of a node, settled, as nodes of this key alone."""
    found = expand(item, _below(key, name), _below(where, name), mistakes)
    return [Point({name: point.value}, point.axes) for point in found]


def _merged(points: Iterable[Point]) -> Point:
    """Points of different keys of one node as one."""
    value, axes = dict[str, Any](), dict[str, Any]()
    for point in points:
        value |= point.value
        axes |= point.axes
    return Point(value, axes)


def _below(key: str, name: str) -> str:
    return f"{key}.{name}".lstrip(".")


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


def _ends(
    name: str, node: dict[str, Any], where: str, mistakes: list[Mistake]
) -> Sequence[float] | None:
    """Both ends of a range, None where it is malformed."""
    ends, (log, whole) = node[name], RANGES[name]
    numbers = isinstance(ends, list) and len(ends) == 2 and not any(map(_no_number, ends))
    kind = "whole number" if whole else "number"
    if len(node) != 1 or not numbers or (whole and any(type(end) is not int for end in ends)):
        what = f"expected {{{name}: [from, to]}}, each a {kind}, found {node!r}"
    elif not ends[0] < ends[1]:
        what = f"expected from < to, found {ends!r}"
    elif log and ends[0] <= 0:
        what = f"expected ends > 0, found {ends!r}"
    else:
        return list(ends)
    mistakes.append(Mistake(where, what))
    return None


def _no_number(value: Any) -> bool:
    """Whether it is none that can be computed with."""
    return not is_number(value) or not abs(value) < LARGEST


_Maker = Callable[[float, float, int], np.ndarray]
_SPACES: dict[str, _Maker] = {"linspace": np.linspace, "logspace": np.geomspace}
