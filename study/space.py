"""The axes of a method as a space to search: what may be chosen along each, and what was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from study.axes import RANGES, ZIP, expand
from study.spec import Method, Study

PARTS = ("loss", "regime", "transform", "training")  # of a method; data and backbone are a place


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both among them.

    Attributes:
        low, high: the ends.
        log: whether equal ratios, not equal differences, are equally far.
        whole: whether only whole numbers are meant.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


Choices = tuple[Any, ...]
Axis = Range | Choices
Pick = Callable[[str, Axis], Any]  # an axis's dotted key, and what there is to choose from


def searched(study: Study) -> list[str]:
    """The methods whose axes are searched: those that are named, or all that have axes."""
    if study.search is None:
        return []
    return study.search.methods or [name for name in study.methods if axes_of(study, name)]


def nodes(study: Study, name: str) -> dict[str, Any]:
    """The parts of a method whose axes are searched, by the key that they have in a trial."""
    method = study.methods[name]
    parts = {part: getattr(method, part) for part in PARTS[:-1]}
    trained = method.checkpoint is None
    return {**parts, "training": {**study.training, **method.training} if trained else {}}


def settled(study: Study, name: str, pick: Pick) -> Method:
    """A method with one choice along each of its axes, each still an axis, of one value.

    Args:
        study: whose method it is.
        name: the method's.
        pick: is asked for each axis in the file's order; of a list of components first for the
            name, then for the axes of the one that was chosen.
    """
    parts = {part: _settled(node, part, pick) for part, node in nodes(study, name).items()}
    return study.methods[name].model_copy(update=parts)


def at(study: Study, name: str, axes: Mapping[str, Any]) -> Method:
    """A method at a point of its space, on its grid or off it.

    Raises:
        KeyError: the point says nothing of an axis.
    """
    return settled(study, name, lambda key, _: axes[key])


def axes_of(study: Study, name: str) -> dict[str, Axis]:
    """Every axis of a method, those of all components that may be chosen among them."""
    found: dict[str, Axis] = {}
    for part, node in nodes(study, name).items():
        found |= _axes(node, part)
    return found


def has_zip(node: Any) -> bool:
    """Whether axes go hand in hand anywhere in a node."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return (isinstance(node, dict) and ZIP in node) or any(map(has_zip, inner))


def ranges(node: Any, where: str) -> Iterator[str]:
    """The dotted keys at which a node has ranges, which have no points of their own."""
    if isinstance(node, dict):
        if set(node) & RANGES.keys():
            yield where
        for key, item in node.items():
            yield from ranges(item, f"{where}.{key}")
    elif isinstance(node, list):
        for item in node:
            yield from ranges(item, where)


def _settled(node: Any, key: str, pick: Pick) -> Any:
    axis = _axis(node, key)
    if axis is not None:
        value = pick(key, axis)
        for choice in _components(node):
            if choice["name"] == value:
                return [_settled(choice, key, pick)]
        return [value]
    if isinstance(node, dict) and set(node) != {"const"}:
        # Of one point, axes that went hand in hand are axes like any other.
        plain = {name: item for name, item in node.items() if name != ZIP} | node.get(ZIP, {})
        return {name: _settled(item, f"{key}.{name}", pick) for name, item in plain.items()}
    return node


def _axes(node: Any, key: str) -> dict[str, Axis]:
    found: dict[str, Axis] = {}
    axis = _axis(node, key)
    if axis is not None:
        found[key] = axis
        for choice in _components(node):
            found |= _axes(choice, key)
    elif isinstance(node, dict) and set(node) != {"const"}:
        for name, item in node.items():
            found |= _axes(item, f"{key}.{name}")
    return found


def _axis(node: Any, key: str) -> Axis | None:
    """What there is to choose from at a node itself; None where it is no axis."""
    if isinstance(node, dict):
        for name, (log, whole) in RANGES.items():
            if name in node:
                low, high = node[name]
                return Range(low, high, log=log, whole=whole)
        if not set(node) & {"linspace", "logspace"}:
            return None
    elif not isinstance(node, list):
        return None
    if isinstance(node, list) and any(isinstance(item, dict) for item in node):
        return tuple(item["name"] if isinstance(item, dict) else item for item in node)
    return tuple(point.value for point in expand(node, key, key, []))


def _components(node: Any) -> list[dict[str, Any]]:
    """The choices of a list that are components with parameters."""
    listed = node if isinstance(node, list) else []
    return [item for item in listed if isinstance(item, dict)]
