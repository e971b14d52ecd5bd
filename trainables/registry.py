"""Components: frozen dataclasses that are found by (kind, name) and identified by content.

A component's fields are its parameters. `@component(name, revision=n)` makes the class a
frozen, validated dataclass and registers it under its base's kind. `revision` is bumped
by any change of code that can alter a number, so that no stale result survives it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from trainables.errors import BadPlugin, UnknownName

STRICT = ConfigDict(extra="forbid", strict=True)
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
        """Its fields by name, as plain data; nested components as their own `spec`."""
        return parameters_of(self)

    def spec(self) -> dict[str, Any]:
        """What a study file would say: `{name: …, parameter: …}`; `build` reverses it."""
        return {"name": self.name, **self.parameters()}

    def identity(self) -> dict[str, Any]:
        """What goes into an id: kind, name, revision and the parameters that count."""
        source = _source(type(self).__module__)
        return {
            "component": f"{self.kind}/{self.name}",
            "revision": self.revision if source is None else f"{self.revision} {source}",
            "parameters": hashed_parameters(self, self.unhashed),
        }


def parameters_of(holder: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as plain data that JSON can hold."""
    return {name: _plain(value) for name, value in _fields(holder)}


def hashed_parameters(holder: Any, unhashed: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that reach an id; components by their identity.

    Args:
        holder: a dataclass.
        unhashed: fields that are left out at the value that stands here.
    """
    return {
        name: value.identity() if isinstance(value, Component) else _plain(value)
        for name, value in _fields(holder)
        if value != unhashed.get(name, _NEVER)
    }


_NEVER = object()


def _fields(holder: Any) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(holder, field.name)) for field in dataclasses.fields(holder))


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.spec()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return parameters_of(value)
    return value


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def component(name: str, *, revision: int) -> Callable[[type[C]], type[C]]:
    """Registers a class under `name` and makes it a frozen, keyword-only, validated dataclass.

    Raises:
        ValueError: the name is taken within its kind.
    """

    def register(cls: type[C]) -> type[C]:
        made = cast(type[C], dataclass(frozen=True, kw_only=True, config=STRICT)(cls))
        made.name, made.revision = name, revision
        kind = _components.setdefault(made.kind, {})
        if name in kind and _place(kind[name]) != _place(made):  # a reloaded module may replace
            raise ValueError(f"two components of kind {made.kind!r} are named {name!r}")
        kind[name] = made
        return made

    return register


def _place(cls: type[Component]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def importer(kind: str) -> Callable[[Importer], Importer]:
    """Registers what makes a component of `module:name`, for a kind that has such."""

    def register(make: Importer) -> Importer:
        _importers[kind] = make
        return make

    return register


Importer = Callable[[str], type[Component]]
_importers: dict[str, Importer] = {}


def kinds() -> tuple[str, ...]:
    """All kinds of components, sorted."""
    _load()
    return tuple(sorted(_components))


def names(kind: str) -> tuple[str, ...]:
    """The registered names of a kind, sorted."""
    _load()
    return tuple(sorted(_components.get(kind, {})))


def find(kind: str, name: str) -> type[Component]:
    """The class registered under (kind, name), or made of what `module:name` names.

    Raises:
        UnknownName: lists the names there are and the nearest one.
        BadPlugin: a module that cannot be imported.
    """
    _load()
    if kind in _importers and isinstance(name, str) and ":" in name:
        return _importers[kind](name)
    try:
        return _components[kind][name]
    except (KeyError, TypeError):
        raise UnknownName(kind, name, names(kind), _broken) from None


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


class Misfit(ValueError):
    """Parameters that a nested component cannot have: its class, and pydantic's account."""

    def __init__(self, cls: type[Component], error: ValidationError) -> None:
        self.cls = cls
        self.errors = error.errors()
        wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in self.errors)
        super().__init__("; ".join(wrong))


def reader(kind: str) -> Callable[[Any], Any]:
    """Reads a component that is another's parameter: itself, its name, or `{name: …}`.

    What it raises is a ValueError, which pydantic collects; what is wrong with its parameters
    is a `Misfit`.
    """

    def read(value: Any) -> Any:
        if isinstance(value, Component) and value.kind == kind:
            return value
        if not isinstance(value, str | dict):
            raise ValueError(f"expected the name of a {kind} or {{name: …}}, found {value!r}")
        try:
            return build(kind, value)
        except ValidationError as error:
            name = value if isinstance(value, str) else value["name"]
            raise Misfit(find(kind, name), error) from None
        except UnknownName as error:
            raise ValueError(str(error)) from None

    return read


_PACKAGES = (
    "datasets",
    "backbones",
    "losses",
    "transforms",
    "schedules",
    "regimes",
    "attacks",
    "diagnostics",
)
ENTRY_POINTS = "robust_loss_study.plugins"
_loaded = False
_broken: list[str] = []  # why installed plugins could not be loaded


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
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            load_plugin(point.module)
        except BadPlugin as error:  # told where a name is missed: others need not care
            _broken.append(f"{error} (an entry point of {point.dist and point.dist.name})")


def load_plugin(module: str) -> None:
    """Imports a package that registers components of its own.

    Its source is hashed into the identity of its components: a change of it is a change of
    what they compute, whatever their `revision` says.

    Args:
        module: dotted name, importable here and on every worker.

    Raises:
        BadPlugin: it cannot be imported, or one of its components cannot be registered.
    """
    _load()
    if module.partition(".")[0] == _OURS:
        raise BadPlugin(f"plugin {module!r} is a part of this package, which is loaded anyway")
    try:
        importlib.import_module(module)
        _source(module)
    except Exception as error:
        raise BadPlugin(
            f"cannot import plugin {module!r} ({type(error).__name__}: {error}); expected a "
            "package that is installed in this environment, or lies on PYTHONPATH (the folder of "
            "the study file is not searched)"
        ) from error


_OURS = __name__.partition(".")[0]


def _source(module: str) -> str | None:
    """The digest of the source of a plugin's top-level package; None for our own."""
    top = module.partition(".")[0]
    return None if top == _OURS else _digest(top)


@functools.cache  # what was imported stays in memory: a file that changes later counts later
def _digest(top: str) -> str:
    """16 hex digits of the SHA-256 of an imported module's or package's Python source."""
    package = sys.modules[top]
    folders = [Path(folder) for folder in getattr(package, "__path__", ())]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    digest = hashlib.sha256()
    for path in files or [Path(str(package.__file__))]:
        name = path.relative_to(folders[0]) if len(folders) == 1 else Path(path.name)
        digest.update(f"{name.as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
