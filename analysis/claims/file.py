"""Reads a claims file, and tells all of its mistakes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

import analysis.published
from analysis.claims.claim import TAGS, Claim, keys_at
from trainables.errors import InvalidStudy, Mistake, plainly, unknown_key

PAPER = Path(analysis.published.__file__).parent / "claims.yaml"
_KEYS = ("claims", "scale")


def read_claims(path: Path = PAPER) -> list[Claim]:
    """The claims of a file: `claims:`, a list of `Claim`, and `scale:` of all that say none.

    Raises:
        InvalidStudy: All mistakes of the file, each with its place.
    """
    mistakes: list[Mistake] = []
    data = _loaded(path, mistakes)
    mistakes += [Mistake(str(key), unknown_key(str(key), _KEYS)) for key in data.keys() - {*_KEYS}]
    items = data.get("claims")
    if not mistakes and (not isinstance(items, list) or not items):
        mistakes.append(Mistake("claims", f"expected a list of claims, found {items!r}"))
    claims = list[Claim]()
    for number, item in enumerate(items if isinstance(items, list) else []):
        whole = {"scale": data["scale"], **item} if "scale" in data and _maps(item) else item
        try:
            claims.append(Claim.model_validate(whole))
        except ValidationError as error:
            mistakes += [_told(("claims", number), each) for each in error.errors()]
    mistakes += _twice(items)
    if mistakes:
        raise InvalidStudy(str(path), mistakes)
    return claims


def _loaded(path: Path, mistakes: list[Mistake]) -> Mapping[str, Any]:
    """The file's keys; none where it cannot be read, which is told."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        mistakes.append(Mistake("", f"not readable as YAML{place}: {error.problem}"))
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        mistakes.append(Mistake("", f"not readable as YAML: {type(error).__name__}: {error}"))
        return {}
    if not _maps(data):
        mistakes.append(Mistake("", f"expected claims: and a list, found {data!r}"))
        return {}
    found: Mapping[str, Any] = data
    return found


def _maps(item: Any) -> bool:
    return isinstance(item, Mapping)


def _twice(items: Any) -> Iterator[Mistake]:
    """Ids that more than one claim has, whether or not they are right in all else."""
    found = [item.get("id") for item in items if _maps(item)] if isinstance(items, list) else []
    for number, id in enumerate(found):
        if id is not None and id in found[:number]:
            yield Mistake(f"claims.{number}.id", f"{id!r} is claims.{found.index(id)}'s already")


def _told(where: Sequence[int | str], error: Any) -> Mistake:
    """One of pydantic's errors in our words."""
    inside = [key for key in error["loc"] if key not in TAGS]
    known = keys_at(inside[:-1]) or ()
    return Mistake(".".join(map(str, [*where, *inside])), plainly(error, known))
