"""Study files as plain data: where they are, and YAML read the way people write it.

Free of torch, so that `study list`, `report` and `ui` start at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainables.errors import InvalidStudy, Mistake, StudyError, nearest

PRESETS = Path(__file__).parent / "presets"

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_WRITTEN = re.compile(rf"{_NUMBER}(?:\s*/\s*{_NUMBER})?$")


class StudyFileNotFound(StudyError, FileNotFoundError):
    """Neither a file nor a preset goes by that name."""


@dataclass(frozen=True)
class StudyFile:
    """A study file as read.

    Attributes:
        source: what the user called it.
        text: the file's text.
        data: its content, with numbers as numbers and overrides applied.
    """

    source: str
    text: str
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """The study's name.

        Raises:
            InvalidStudy: the file gives none.
        """
        try:
            return study_name(self.data.get("study"))
        except ValueError as error:
            raise InvalidStudy(self.source, [Mistake("study", str(error))]) from None


def study_name(value: Any) -> str:
    """The name itself; it names folders, an experiment and a lock, so it is kept plain.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        return value
    raise ValueError(f"expected a name of letters, digits, `-`, `_` and `.`, found {value!r}")


def presets() -> dict[str, Path]:
    """All presets by name."""
    return {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}


def read_study(source: str, overrides: Iterable[str] = ()) -> StudyFile:
    """Reads a preset by name or a file by path.

    Args:
        source: a preset's name, or the path of a YAML file.
        overrides: `key.key=value`, each value read as YAML.

    Raises:
        StudyFileNotFound: there is neither; lists the presets.
        InvalidStudy: not YAML, not a mapping, a key twice, a malformed override.
    """
    path = presets().get(source, Path(source))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise StudyFileNotFound(f"{source!r} is no text file (expected YAML in UTF-8)") from None
    except OSError as error:
        known = ", ".join(presets())
        hint = nearest(source, presets())
        raise StudyFileNotFound(
            f"no study file {source!r} ({type(error).__name__}) and no preset of that name{hint} "
            f"(presets: {known})"
        ) from None
    data = _parse(source, text)
    mistakes = [mistake for item in overrides for mistake in _override(data, item)]
    if mistakes:
        raise InvalidStudy(source, mistakes)
    return StudyFile(source, text, data)


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads `1e-3` and `8/255` and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *base`
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool) or key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} stands twice or is not a plain name",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        self.flatten_mapping(node)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> float | str:
        """A number as people write it; what is none after all stays text."""
        text = str(self.construct_scalar(node))
        numerator, _, denominator = text.partition("/")
        try:
            return plain_number(float(numerator) / float(denominator or 1))
        except (ValueError, ArithmeticError):
            return text


# Plain text alone: what is quoted stays text.
_Loader.add_implicit_resolver("!number", _WRITTEN, list("+-.0123456789"))
_Loader.add_constructor("!number", _Loader.construct_number)


def plain_number(value: float) -> float:
    """The number to 12 significant digits, as an int where it is whole (`1e3` epochs)."""
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded


def _load_yaml(text: str, where: str, mistakes: list[Mistake]) -> Any:
    """Plain data; what cannot be read is told with its place."""
    try:
        data = yaml.load(text, Loader=_Loader)
        _check_keys(data, where, mistakes)
        return data
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        mistakes.append(Mistake(where, f"not readable as YAML{place}: {error.problem}"))
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        mistakes.append(Mistake(where, f"not readable as YAML: {error}"))
    except RecursionError:
        mistakes.append(Mistake(where, "not readable as YAML: it holds itself, or nests too deep"))
    return None


def _check_keys(node: Any, path: str, mistakes: list[Mistake]) -> None:
    """Keys that YAML does not read as text are told."""
    if isinstance(node, Mapping):
        for key, item in node.items():
            if not isinstance(key, str):
                hint = " (YAML reads on, off, yes and no so: quote the key)"
                what = f"expected a name as key, found {key!r}{hint}"
                mistakes.append(Mistake(path, what))
            _check_keys(item, f"{path}.{key}".lstrip("."), mistakes)
    elif isinstance(node, list):
        for item in node:
            _check_keys(item, path, mistakes)


def _parse(source: str, text: str) -> dict[str, Any]:
    mistakes: list[Mistake] = []
    data = _load_yaml(text, "", mistakes)
    if not mistakes and not isinstance(data, dict):
        mistakes.append(Mistake("", f"expected a mapping of keys, found {_kind(data)}"))
    if mistakes:
        raise InvalidStudy(source, mistakes)
    result: dict[str, Any] = data
    return result


def _override(data: dict[str, Any], item: str) -> list[Mistake]:
    """Sets one `key.key=value`."""
    path, equals, text = item.partition("=")
    where = f"--set {item}"
    if not equals or not path:
        return [Mistake(where, "expected key=value, such as training.epochs=3")]
    mistakes: list[Mistake] = []
    value = _load_yaml(text, where, mistakes)
    *parents, last = path.split(".")
    node = data
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            return [Mistake(where, f"{parent!r} holds {_kind(child)}, not keys")]
        node = child
    node[last] = value
    return mistakes


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "a mapping", str: "text", type(None): "nothing"}
    return kinds.get(type(value), f"{value!r}")
