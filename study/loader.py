"""YAML read the way people write it: numbers as numbers, keys as names, no key twice.

And written so that it is read as the same again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from trainables.errors import Mistake

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_WRITTEN = re.compile(rf"{_NUMBER}(?:\s*/\s*{_NUMBER})?$")


class GONE:
    """Stands where something was taken away, so that no scale and no rule brings back a part."""


_GONE_TAG = "!gone"


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
_Loader.add_constructor(_GONE_TAG, lambda *_: GONE)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes text that the loader would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        """A node that stands twice is written twice."""
        return True


_Dumper.add_implicit_resolver("!number", _WRITTEN, list("+-.0123456789"))
_Dumper.add_representer(type, lambda dumper, _: dumper.represent_scalar(_GONE_TAG, ""))


def plain_number(value: float) -> float:
    """The number to 12 significant digits, as an int where it is whole (`1e3` epochs)."""
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded


def load_yaml(text: str, where: str, mistakes: list[Mistake]) -> Any:
    """Plain data; None where it cannot be read, which is told with its place."""
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


def dump_yaml(data: Any) -> str:
    """The text that `load_yaml` reads as the same data, what was taken away included."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


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


def is_number(value: Any) -> bool:
    """Whether it is a number; YAML's true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind_of(data: Any) -> str:
    """What plain data is, in words."""
    kinds = {list: "a list", dict: "a mapping", str: "text", type(None): "nothing"}
    return kinds.get(type(data), f"{data!r}")
