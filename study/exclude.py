"""`exclude:` of a method: points of its grid that are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from study.loader import is_number
from trainables.errors import Mistake, nearest

Rule = Mapping[str, Any]
BOUNDS = {"min", "max"}


class Exclusions:
    """A method's rules, and what they have left out.

    A rule is a mapping of axes, by dotted key (`loss.s`), to a value, a list of values, or
    `{min: …, max: …}` (either end may be open, both are included). It leaves out what matches all
    of its keys.

    Args:
        rules: of one method.
        where: the dotted key of the rules within the file.
    """

    def __init__(self, rules: Sequence[Rule], where: str) -> None:
        self.rules = rules
        self.where = where
        self._used = [False] * len(rules)
        self._axes: dict[str, None] = {}
        self._left = 0

    def leave_out(self, axes: Mapping[str, Any]) -> bool:
        """Whether a point is left out by any rule."""
        self._axes |= dict.fromkeys(axes)
        matched = [_matches(rule, axes) for rule in self.rules]
        self._used = [used or now for used, now in zip(self._used, matched, strict=True)]
        self._left += not any(matched)
        return any(matched)

    def mistakes(self) -> list[Mistake]:
        """Rules about what is no axis, rules that left nothing out, and nothing that is left."""
        told = []
        for number, (rule, used) in enumerate(zip(self.rules, self._used, strict=True)):
            where = f"{self.where}.{number}"
            strange = [key for key in rule if key not in self._axes]
            for key in strange:
                hint = f"{nearest(key, self._axes)} (axes: {', '.join(self._axes) or 'none'})"
                told.append(Mistake(f"{where}.{key}", f"no axis of this method{hint}"))
            if not used and not strange:
                told.append(Mistake(where, f"leaves nothing out: no point has {dict(rule)!r}"))
        if not self._left:
            told.append(Mistake(self.where, "leaves out every point of this method"))
        return told


def _matches(rule: Rule, axes: Mapping[str, Any]) -> bool:
    return all(key in axes and _fits(axes[key], wanted) for key, wanted in rule.items())


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_fits(value, each) for each in wanted)
    if isinstance(wanted, Mapping):
        low, high = wanted.get("min", -math.inf), wanted.get("max", math.inf)
        return is_number(value) and (low < value < high or _fits(value, [low, high]))
    if is_number(value) and is_number(wanted):
        return math.isclose(value, wanted, rel_tol=1e-9)
    return isinstance(value, bool) is isinstance(wanted, bool) and bool(value == wanted)


def as_rules(value: Any) -> Any:
    """One rule as a list of one; what is no rule is told.

    Raises:
        ValueError: what was expected, and what was found.
    """
    rules = value if isinstance(value, list) else [value]
    for rule in rules:
        if not isinstance(rule, dict) or not rule:
            raise ValueError(f"expected rules {{loss.s: value, …}}, found {rule!r}")
        for key, wanted in rule.items():
            bounded = isinstance(wanted, dict)
            if bounded and (
                not wanted or set(wanted) - BOUNDS or not all(map(is_number, wanted.values()))
            ):
                raise ValueError(f"{key}: expected {{min: number, max: number}}, found {wanted!r}")
    return rules
