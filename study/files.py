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

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FRACTION = re.compile(rf"({_NUMBER.pattern})\s*/\s*({_NUMBER.pattern})")


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
    except (OSError, UnicodeDecodeError) as error:
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
    """The safe loader, which also refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict) or key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} stands twice or is not a plain name",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _parse(source: str, text: str) -> dict[str, Any]:
    try:
        data = _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = f"not readable as YAML: {error.problem}"
        raise InvalidStudy(source, [Mistake(where, what)]) from None
    except yaml.YAMLError as error:
        raise InvalidStudy(source, [Mistake("", f"not readable as YAML: {error}")]) from None
    if not isinstance(data, dict):
        what = f"expected a mapping of keys, found {_kind(data)}"
        raise InvalidStudy(source, [Mistake("", what)])
    mistakes: list[Mistake] = []
    read = _as_written(data, "", mistakes)
    if mistakes:
        raise InvalidStudy(source, mistakes)
    result: dict[str, Any] = read
    return result


def _as_written(node: Any, path: str, mistakes: list[Mistake]) -> Any:
    """Numbers that YAML reads as text become numbers; keys that it reads as such are told."""
    if isinstance(node, Mapping):
        for key in node:
            if not isinstance(key, str):
                hint = " (YAML reads on, off, yes and no so: quote the key)"
                what = f"expected a name as key, found {key!r}{hint}"
                mistakes.append(Mistake(path, what))
        return {
            str(key): _as_written(item, f"{path}.{key}".lstrip("."), mistakes)
            for key, item in node.items()
        }
    if isinstance(node, list):
        return [_as_written(item, path, mistakes) for item in node]
    return _as_number(node) if isinstance(node, str) else node


def _as_number(text: str) -> float | str:
    """`1e-3` and `8/255` as numbers, any other text as it is."""
    if _NUMBER.fullmatch(text.strip()):
        return plain_number(float(text))
    if _FRACTION.fullmatch(text.strip()):
        numerator, denominator = map(float, text.split("/"))
        return plain_number(numerator / denominator) if denominator else text
    return text


def plain_number(value: float) -> float:
    """The number to 12 significant digits, as an int where it is whole (`1e3` epochs)."""
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded


def _override(data: dict[str, Any], item: str) -> list[Mistake]:
    """Sets one `key.key=value`."""
    path, equals, text = item.partition("=")
    where = f"--set {item}"
    if not equals or not path:
        return [Mistake(where, "expected key=value, such as training.epochs=3")]
    mistakes: list[Mistake] = []
    try:
        value = _as_written(_load_yaml(text), path, mistakes)
    except yaml.YAMLError:
        return [Mistake(where, f"the value is not readable as YAML: {text!r}")]
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
