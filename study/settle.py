"""Nodes of a study file as components: every value of every axis, with what is wrong told."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError

from study.axes import Point, expand
from trainables import registry
from trainables.config import Training
from trainables.errors import BadPlugin, Mistake, UnknownName, plainly
from trainables.registry import Component


def settle(kind: str, node: Any, key: str, where: str, mistakes: list[Mistake]) -> list[Point]:
    """Every component that an axis of components names; mistakes are added, not raised.

    Args:
        kind: the registry to look in.
        node: a name, `{name: …, parameter: axis …}`, or a list of either.
        key: dotted key within the trial, such as `loss`.
        where: dotted key within the file.
        mistakes: what is wrong is added here.
    """
    points = []
    for point in expand(node, key, where, mistakes):
        made = _component(kind, point.value, where, mistakes)
        if made is not None:
            points.append(Point(made, point.axes))
    return points


def settle_training(node: dict[str, Any], where: str, mistakes: list[Mistake]) -> list[Point]:
    """Every training configuration that the node's axes span."""
    points = []
    for point in expand(node, "training", where, mistakes):
        if not isinstance(point.value, dict):
            mistakes.append(Mistake(where, f"expected keys, found {point.value!r}"))
            continue
        try:
            points.append(Point(Training(**point.value), point.axes))
        except ValidationError as error:
            mistakes += [told for item in error.errors() for told in explain(item, Training, where)]
    return points


def settle_labelled(
    kind: str, label: str, node: dict[str, Any] | None, mistakes: list[Mistake]
) -> list[Point]:
    """Every attack (or diagnostic) under a label; `attack:` names it where the label does not.

    An attack's `n`, its own number of images, is looked at and left out: it is no parameter.
    """
    where, parameters = f"{kind}s.{label}", dict(node or {})
    n = parameters.pop("n", None) if kind == "attack" else None
    if n is not None and (type(n) is not int or n < 1):
        mistakes.append(Mistake(f"{where}.n", f"expected a number of images, found {n!r}"))
    name = parameters.pop(kind, label)
    if "name" in parameters:
        mistakes.append(Mistake(f"{where}.name", f"unknown key; did you mean {kind!r}?"))
        return []
    return settle(kind, {"name": name, **parameters}, "", where, mistakes)


def _component(kind: str, value: Any, where: str, mistakes: list[Mistake]) -> Component | None:
    if not isinstance(value, str) and not (isinstance(value, dict) and "name" in value):
        what = f"expected the name of a {kind} or {{name: …, parameter: …}}, found {value!r}"
        mistakes.append(Mistake(where, what))
        return None
    try:
        return registry.build(kind, value)
    except (UnknownName, BadPlugin) as error:
        mistakes.append(Mistake(where, str(error)))
    except ValidationError as error:
        name = value if isinstance(value, str) else value["name"]
        cls = registry.find(kind, name)
        mistakes += [told for item in error.errors() for told in explain(item, cls, where)]
    return None


def explain(error: Any, cls: type, where: str = "") -> list[Mistake]:
    """One of pydantic's errors in our words; several where a nested component is at fault.

    Args:
        error: as pydantic lists it.
        cls: the model or dataclass that was to be made.
        where: dotted key at which it stands in the file.
    """
    key = ".".join([*filter(None, [where]), *map(str, error["loc"])])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, registry.Misfit):
        return [told for item in cause.errors for told in explain(item, cause.cls, key)]
    return [Mistake(key, plainly(error, _keys_at(cls, error["loc"])))]


def _keys_at(cls: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand where an error was found."""
    for key in loc[:-1]:
        field = cls.__pydantic_fields__.get(key)
        inner = _innermost(field.annotation) if field else None
        cls = inner or cls
    return [field.alias or name for name, field in cls.__pydantic_fields__.items()]


def _innermost(annotation: Any) -> Any:
    """The model that a field holds, as `Choose` in `Choose | None` and `dict[str, Method]`."""
    if hasattr(annotation, "__pydantic_fields__"):
        return annotation
    return next(filter(None, map(_innermost, get_args(annotation))), None)
