"""Components: frozen dataclasses that are found by (kind, name) and identified by content.

A component's fields are its parameters. `@component(name, revision=n)` makes the class a
frozen, validated dataclass and registers it under its base's kind. `revision` is bumped
by any change of code that can alter a number, so that no stale result survives it.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from trainables.errors import UnknownName

_STRICT = ConfigDict(extra="forbid", strict=True)
_components: dict[str, dict[str, type[Component]]] = {}

C = TypeVar("C", bound="Component")


class Component:
    """What every loss, backbone, data set, attack, budget, regime and transform is.

    Attributes:
        kind: which registry it stands in; set once by the kind's base class.
        name: what a study file calls it; set by `component`.
        revision: bumped by whatever alters a number it produces.
        unhashed: parameters added later, each with the value that reproduces what was
            done before; left out of the identity at that value, so that old ids stand.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    revision: ClassVar[int]
    unhashed: ClassVar[Mapping[str, Any]] = {}

    def parameters(self) -> dict[str, Any]:
        """Its fields by name; nested components as their own `spec`."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields}

    def spec(self) -> dict[str, Any]:
        """What a study file would say: `{name: …, parameter: …}`; `build` reverses it."""
        return {"name": self.name, **self.parameters()}

    def identity(self) -> dict[str, Any]:
        """What goes into an id: kind, name, revision and the parameters that count."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {
            "component": f"{self.kind}/{self.name}",
            "revision": self.revision,
            "parameters": {
                field.name: value.identity() if isinstance(value, Component) else _plain(value)
                for field in fields
                if (value := getattr(self, field.name)) != self.unhashed.get(field.name, _NEVER)
            },
        }


_NEVER = object()


def _plain(value: Any) -> Any:
    return value.spec() if isinstance(value, Component) else value


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def component(name: str, *, revision: int) -> Callable[[type[C]], type[C]]:
    """Registers a class under `name` and makes it a frozen, keyword-only, validated dataclass.

    Raises:
        ValueError: the name is taken within its kind.
    """

    def register(cls: type[C]) -> type[C]:
        made = cast(type[C], dataclass(frozen=True, kw_only=True, config=_STRICT)(cls))
        made.name, made.revision = name, revision
        kind = _components.setdefault(made.kind, {})
        if name in kind and _place(kind[name]) != _place(made):  # a reloaded module may replace
            raise ValueError(f"two components of kind {made.kind!r} are named {name!r}")
        kind[name] = made
        return made

    return register


def _place(cls: type[Component]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def names(kind: str) -> tuple[str, ...]:
    """The registered names of a kind, sorted."""
    _load()
    return tuple(sorted(_components.get(kind, {})))


def find(kind: str, name: str) -> type[Component]:
    """The class registered under (kind, name).

    Raises:
        UnknownName: lists the names there are and the nearest one.
    """
    _load()
    try:
        return _components[kind][name]
    except (KeyError, TypeError):
        raise UnknownName(kind, name, names(kind)) from None


def build(kind: str, spec: str | Mapping[str, Any]) -> Component:
    """Makes a component from `name` or `{name: …, parameter: …}`.

    Raises:
        UnknownName: no such component.
        pydantic.ValidationError: all parameters that are unknown or out of range.
    """
    parameters = {"name": spec} if isinstance(spec, str) else dict(spec)
    cls = find(kind, parameters.pop("name", ""))
    return cls(**parameters)


def every(kind: str) -> Iterator[type[Component]]:
    """All components of a kind, by name; what the contract tests run over."""
    return (find(kind, name) for name in names(kind))


_PACKAGES = ("datasets", "backbones", "losses", "transforms", "regimes", "attacks")
_loaded = False


def _load() -> None:
    """Imports every component module once: a new file is found without touching another."""
    global _loaded
    if _loaded:
        return
    for package in _PACKAGES:
        found = importlib.import_module(f"trainables.{package}")
        for module in pkgutil.iter_modules(found.__path__, f"{found.__name__}."):
            importlib.import_module(module.name)
    _loaded = True
