"""Study files laid over each other, as plain data: keys that are set, and rules of when."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from study.axes import expand
from study.loader import GONE, kind_of, load_yaml
from trainables.errors import Mistake, unknown_key

RULES = "when"
_PLACE = ("data", "backbone")  # what a rule may ask for


def merged(base: Any, over: Any) -> Any:
    """One node laid over another.

    Mappings are merged key by key; what is null is taken away (`GONE`, see `pruned`), components
    of another name are replaced as a whole, and so is everything else. Rules add up, the later
    lead.
    """
    if not isinstance(base, dict) or not isinstance(over, dict):
        return copy.deepcopy(over)
    if "name" in over and over["name"] != base.get("name"):
        return copy.deepcopy(over)
    result = dict(base)
    for key, value in over.items():
        if value is None and key in result:
            result[key] = GONE
        elif key == RULES and isinstance(result.get(key), list) and isinstance(value, list):
            result[key] = [*result[key], *copy.deepcopy(value)]
        else:
            result[key] = merged(result.get(key), value)
    return result


def pruned(node: Any) -> Any:
    """A node without what was taken away."""
    if isinstance(node, dict):
        return {key: pruned(item) for key, item in node.items() if item is not GONE}
    return [pruned(item) for item in node] if isinstance(node, list) else node


def with_keys(data: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Data with keys laid over it, each dotted (`training.epochs`) or a mapping of its own.

    What a file took away stays away: a scale's keys for a method, say, that it does without.
    """
    result = dict(data)
    for dotted, value in keys.items():
        over: Any = value
        for key in reversed(dotted.split(".")):
            over = {key: over}
        result = merged(result, _less_gone(result, over))
    return result


def _less_gone(base: Any, over: Any) -> Any:
    """What is laid over a node, less what would be laid over nothing."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    kept = {key: item for key, item in over.items() if base.get(key) is not GONE}
    return {key: _less_gone(base.get(key), item) for key, item in kept.items()}


def overridden(
    data: dict[str, Any], overrides: Iterable[str], mistakes: list[Mistake]
) -> dict[str, Any]:
    """Data with `key.key=value` set, each value read as YAML and replacing what was there.

    Null takes away what was there.
    """
    data = copy.deepcopy(data)
    for item in overrides:
        mistakes += _override(data, item)
    return data


def _override(data: dict[str, Any], item: str) -> list[Mistake]:
    path, equals, text = item.partition("=")
    where = f"--set {item}"
    if not equals or not path:
        return [Mistake(where, "expected key=value, such as training.epochs=3")]
    mistakes: list[Mistake] = []
    value = load_yaml(text, where, mistakes)
    *parents, last = path.split(".")
    node = data
    for parent in parents:
        child = node.setdefault(parent, {})
        if child is GONE:
            child = node[parent] = {}
        if not isinstance(child, dict):
            return [Mistake(where, f"{parent!r} holds {kind_of(child)}, not keys")]
        node = child
    node[last] = GONE if value is None and last in node else value
    return mistakes


@dataclass(frozen=True, order=True)
class Place:
    """A data set and a backbone, by their names: what is never averaged over."""

    dataset: str
    backbone: str

    def __str__(self) -> str:
        """As run names have it: `lenet5/mnist5k`."""
        return f"{self.backbone}/{self.dataset}"


@dataclass(frozen=True)
class _Rule:
    """Keys that are set where a trial is of certain data sets, or backbones.

    Attributes:
        where: its key in the file.
        wanted: `data` or `backbone` -> the names that match.
        keys: what is set, dotted or not.
    """

    where: str
    wanted: Mapping[str, Collection[str]]
    keys: Mapping[str, Any]

    def fits(self, found: Mapping[str, str]) -> bool:
        """Whether all that it asks for is known and matches."""
        return all(found.get(key) in names for key, names in self.wanted.items())


def at_places(
    data: Mapping[str, Any], overrides: Collection[str], mistakes: list[Mistake]
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """A study as it is in each of its places: its rules applied, and what was set set again.

    Rules that ask for the data set alone come first, for they may choose the backbone; of
    rules that set the same key the later leads.

    Args:
        data: the study's keys.
        overrides: what was set by hand; it outlasts every rule.
        mistakes: malformed rules, and rules that match no place, are added here.
    """
    plain = {key: value for key, value in data.items() if key != RULES}
    rules = list(_rules(data.get(RULES), mistakes))
    used: set[str] = set()

    def ruled(keys: dict[str, Any], rules: Iterable[_Rule], **found: str) -> dict[str, Any]:
        for rule in rules:
            if rule.fits(found):
                used.add(rule.where)
                keys = with_keys(keys, rule.keys)
        return overridden(keys, overrides, [])

    of_both = [rule for rule in rules if "backbone" in rule.wanted]  # fit none without one
    for dataset in _names("data", plain):
        here = ruled(plain, rules, data=dataset)
        for backbone in _names("backbone", here):
            place = Place(dataset, backbone)
            yield place, pruned(ruled(here, of_both, data=dataset, backbone=backbone))
    for rule in rules:
        if rule.where not in used:
            mistakes.append(Mistake(f"{rule.where}.if", f"matches no trial: {_told(rule.wanted)}"))


def _names(key: str, data: Mapping[str, Any]) -> list[str]:
    """The data sets, or backbones, that the study or a method of its own has."""
    methods = data.get("methods")
    own = methods.values() if isinstance(methods, dict) else []
    nodes = [data, *(method for method in own if isinstance(method, dict))]
    points = [
        point.value
        for node in nodes
        if node.get(key) is not None
        for point in expand(node[key], key, key, [])  # its mistakes are told by `check`
    ]
    named = [point.get("name") if isinstance(point, dict) else point for point in points]
    return list(dict.fromkeys(name for name in named if isinstance(name, str)))


def _rules(node: Any, mistakes: list[Mistake]) -> Iterator[_Rule]:
    """Every rule that is well formed."""
    if node is not None and not isinstance(node, list):
        what = f"expected a list of {{if: …, set: …}}, found {kind_of(node)}"
        mistakes.append(Mistake(RULES, what))
        return
    for number, item in enumerate(node or []):
        rule = _rule(f"{RULES}.{number}", item, mistakes)
        if rule is not None:
            yield rule


def _rule(where: str, node: Any, mistakes: list[Mistake]) -> _Rule | None:
    before = len(mistakes)
    if not isinstance(node, dict) or set(node) != {"if", "set"}:
        found = sorted(map(str, node)) if isinstance(node, dict) else kind_of(node)
        mistakes.append(Mistake(where, f"expected {{if: …, set: …}}, found {found}"))
        return None
    wanted, keys = node["if"], node["set"]
    for part, held in (("if", wanted), ("set", keys)):
        if not isinstance(held, dict) or not held:
            what = f"expected keys, found {kind_of(held)}"
            mistakes.append(Mistake(f"{where}.{part}", what))
    if len(mistakes) > before:
        return None
    for key in wanted:
        if key not in _PLACE:
            mistakes.append(Mistake(f"{where}.if.{key}", unknown_key(key, _PLACE)))
    fixed = [key for key in _PLACE if key in wanted or key == "data"]
    for key in keys:
        if key.partition(".")[0] in fixed:
            what = f"cannot be set by a rule that asks for {' and '.join(wanted)}"
            mistakes.append(Mistake(f"{where}.set.{key}", what))
    rule = _Rule(where, {key: _listed(names) for key, names in wanted.items()}, keys)
    return rule if len(mistakes) == before else None


def _listed(names: Any) -> list[str]:
    return [str(name) for name in (names if isinstance(names, list) else [names])]


def _told(wanted: Mapping[str, Collection[str]]) -> str:
    return ", ".join(f"{key} {' or '.join(names)}" for key, names in wanted.items())
