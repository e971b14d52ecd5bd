"""What may stand in a study file: every component, told by its own docstring."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from trainables import registry
from trainables.errors import UnknownName
from trainables.registry import Component


def describe_all() -> str:
    """Every component with the first line of what it says of itself, a kind a paragraph."""
    return "\n\n".join(
        "\n".join([kind, *(f"  {cls.name:<20} {_summary(cls)}" for cls in registry.every(kind))])
        for kind in registry.kinds()
    )


def describe(name: str) -> str:
    """A component: its docstring, and each of its parameters with its type and default.

    Args:
        name: as a study file has it; where several kinds have it, all of them are told.

    Raises:
        UnknownName: there is none; lists those there are and suggests the nearest.
    """
    found = [registry.find(kind, name) for kind in registry.kinds() if name in registry.names(kind)]
    if not found:
        known = {name for kind in registry.kinds() for name in registry.names(kind)}
        raise UnknownName("component", name, known)
    return "\n\n".join(map(_told, found))


def _told(cls: type[Component]) -> str:
    parameters = [_parameter(field) for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return "\n".join(
        [
            f"{cls.kind} {cls.name} (revision {cls.revision}, {cls.__module__})",
            "",
            inspect.getdoc(cls) or "",
            "",
            "Parameters:" if parameters else "It has no parameters.",
            *parameters,
        ]
    )


def _parameter(field: dataclasses.Field[Any]) -> str:
    needed = field.default is dataclasses.MISSING
    told = "to be given" if needed else f"by default {_plain(field.default)!r}"
    return f"  {field.name}: {told}"


def _plain(value: Any) -> Any:
    """A component by what a study file would say."""
    return value.spec() if isinstance(value, Component) else value


def _summary(cls: type[Component]) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
