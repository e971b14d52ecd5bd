"""All mistakes of a study file at once, before anything is started."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from study.files import StudyFile, study_name
from study.overlay import RULES, Place, at_places, pruned
from study.search_mistakes import search_mistakes
from study.settle import explain, settle, settle_labelled, settle_training
from study.spec import CLEAN, Drawing, Evaluate, Study
from trainables import registry
from trainables.attacks.base import Attack
from trainables.checkpoint import require_safetensors
from trainables.datasets.base import Dataset
from trainables.errors import BadCheckpoint, BadPlugin, InvalidStudy, Mistake, nearest, unknown_key


def check(file: StudyFile) -> list[tuple[Place, Study]]:
    """The study of a file in each of its places; of a union the studies of all of its parts.

    Everything but the outline is looked at as plain data, so that a mistake in one place
    hides none in another.

    Raises:
        InvalidStudy: all mistakes of the file, each with its key, what was expected, what
            was found and the nearest valid name.
    """
    mistakes: list[Mistake] = []
    if file.parts:
        mistakes += _union_mistakes(file)
    checked = []
    for part in file.parts or (file,):
        found: list[Mistake] = []
        if part.figures:
            mistakes += _drawing_mistakes(part)
            continue
        places = list(at_places(part.data, part.overrides, found))
        for place, data in places:
            study = _checked(_anchored(data, part.folder), found)
            if study is not None:
                checked.append((place, study))
        if not places:  # what is wrong with its data or backbone is told by the check of all
            plain = {key: value for key, value in part.data.items() if key != RULES}
            _checked(pruned(plain), found)
        prefix = f"{part.source}: " if file.parts else ""
        mistakes += [Mistake(f"{prefix}{told.where}", told.what) for told in found]
    if mistakes:
        raise InvalidStudy(file.source, list(dict.fromkeys(mistakes)))
    return checked


def _drawing_mistakes(file: StudyFile) -> list[Mistake]:
    """What is wrong with a file that trains nothing."""
    try:
        Drawing.model_validate(pruned(file.data))
        return []
    except ValidationError as error:
        return [told for item in error.errors() for told in explain(item, Drawing)]


def _union_mistakes(file: StudyFile) -> Iterator[Mistake]:
    """A union has a name and a question; all else is its parts'."""
    try:
        study_name(file.data.get("study"))
    except ValueError as error:
        yield Mistake("study", str(error))
    set_by_hand = {item.partition("=")[0].partition(".")[0] for item in file.overrides}
    for key in file.data:
        if key not in {"study", "question", *set_by_hand}:
            yield Mistake(key, "stands in a union, whose keys are those of its parts")


def _checked(data: dict[str, Any], told: list[Mistake]) -> Study | None:
    """The study of plain data; None where there is a mistake."""
    data = _choose_methods(data)
    study, mistakes = _outline(data)
    mistakes += _plugin_mistakes(data)  # first: what they register is looked up below
    mistakes += _component_mistakes(data)
    mistakes += _origin_mistakes(data)
    mistakes += _size_mistakes(data)
    mistakes += _reference_mistakes(data)
    mistakes += _headline_mistakes(data)
    told += mistakes
    if mistakes or study is None:
        return None
    wrong = list(search_mistakes(study))
    told += wrong
    return None if wrong else study


def _outline(data: dict[str, Any]) -> tuple[Study | None, list[Mistake]]:
    """The file's keys and plain values."""
    try:
        return Study.model_validate(data), []
    except ValidationError as error:
        return None, [told for item in error.errors() for told in explain(item, Study)]


def _choose_methods(data: dict[str, Any]) -> dict[str, Any]:
    """`choose: {methods: …}` is the same as `choose: {method: …}`."""
    choose = data.get("choose")
    if isinstance(choose, dict) and "methods" in choose and "method" not in choose:
        choose = {("method" if key == "methods" else key): item for key, item in choose.items()}
        return {**data, "choose": choose}
    return data


def _plugin_mistakes(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """Imports the packages of the user's own components; those that cannot be are told."""
    plugins = data.get("plugins", [])
    modules = plugins if isinstance(plugins, list) else [plugins] * isinstance(plugins, str)
    for number, module in enumerate(modules):
        try:
            registry.load_plugin(str(module))
        except BadPlugin as error:
            yield Mistake(f"plugins.{number}", str(error))


def _component_mistakes(data: Mapping[str, Any]) -> list[Mistake]:
    """Unknown components, and parameters that are unknown or out of range."""
    mistakes: list[Mistake] = []

    def look(kind: str, holder: Mapping[str, Any], key: str, where: str) -> None:
        if holder.get(key) is not None:
            settle(kind, holder[key], key, where, mistakes)

    look("dataset", data, "data", "data")
    look("backbone", data, "backbone", "backbone")
    if isinstance(data.get("training"), dict):
        settle_training(data["training"], "training", mistakes)
    for name, method in _mappings(data.get("methods")):
        where = f"methods.{name}"
        for kind, key in _METHOD_PARTS.items():
            look(kind, method, key, f"{where}.{key}")
        if isinstance(method.get("training"), dict):
            settle_training(method["training"], f"{where}.training", mistakes)
    for kind in ("attack", "diagnostic"):
        for label, node in _mapping(data.get(f"{kind}s")).items():
            if node is None or isinstance(node, dict):
                settle_labelled(kind, label, node, mistakes)
    return mistakes


_METHOD_PARTS = {
    "loss": "loss",
    "regime": "regime",
    "transform": "transform",
    "dataset": "data",
    "backbone": "backbone",
}


def _mapping(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def _mappings(node: Any) -> Iterable[tuple[str, dict[str, Any]]]:
    return [(name, item) for name, item in _mapping(node).items() if isinstance(item, dict)]


def _anchored(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A study's data with checkpoints by their absolute paths."""

    def anchored(node: Any) -> Any:
        if isinstance(node, list):
            return [anchored(item) for item in node]
        return str(folder / Path(node).expanduser()) if isinstance(node, str) else node

    methods = {
        name: {**method, "checkpoint": anchored(method["checkpoint"])}
        for name, method in _mappings(data.get("methods"))
        if "checkpoint" in method
    }
    return {**data, "methods": {**data["methods"], **methods}} if methods else data


def _origin_mistakes(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """A method is trained, with a loss, or has a checkpoint, and nothing of training."""
    for name, method in _mappings(data.get("methods")):
        where = f"methods.{name}"
        if method.get("checkpoint") is not None:
            yield from _file_mistakes(method["checkpoint"], f"{where}.checkpoint")
            for key, why in _TRAINS.items():
                if key in method:
                    yield Mistake(f"{where}.{key}", f"a checkpoint is not trained: {why}")
        elif method.get("loss") is None:
            yield Mistake(f"{where}.loss", "missing")
        elif "normalize" in method:
            what = "stands with a `checkpoint` alone: else images are normalised as their data set"
            yield Mistake(f"{where}.normalize", what)


def _file_mistakes(node: Any, where: str) -> Iterator[Mistake]:
    for path in node if isinstance(node, list) else [node]:
        try:
            if isinstance(path, str):
                require_safetensors(Path(path))
        except BadCheckpoint as error:
            yield Mistake(where, str(error))


_TRAINS = {
    "regime": "leave it out",
    "training": "leave it out",
    "seeds": "leave it out; several checkpoints of one arm are a list, `checkpoint: [a, b]`",
}


def _size_mistakes(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """More images asked for than a data set has."""
    holders = [data, *(method for _, method in _mappings(data.get("methods")))]
    nodes = [holder["data"] for holder in holders if holder.get("data") is not None]
    datasets = [cast(Dataset, point.value) for node in nodes for point in _quietly(node)]
    sizes = {**Evaluate().model_dump(), **_mapping(data.get("evaluate"))}
    for split, n in sizes.items():
        for dataset in datasets:
            size = dataset.sizes.get(split)
            if size is not None and type(n) is int and n > size:
                what = f"expected at most {size}, all {split} images of {dataset.name}, found {n}"
                yield Mistake(f"evaluate.{split}", what)


def _quietly(node: Any) -> Iterable[Any]:
    """The data sets of a node; what is wrong with it is told elsewhere."""
    return settle("dataset", node, "data", "data", [])


def _reference_mistakes(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """Names that refer to methods and attacks of the file which are not there."""
    for where, name, kind, key in _references(data):
        known = list(_mapping(data.get(key)))
        if name not in known:
            hint = f"{nearest(name, known)} (there are: {', '.join(known) or 'none'})"
            yield Mistake(where, f"no {kind} {name!r} in this file{hint}")


def _references(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(where, name, kind, key that defines it) of every name that must be defined."""
    compare, choose = _mapping(data.get("compare")), _mapping(data.get("choose"))
    if isinstance(compare.get("baseline"), str):
        yield "compare.baseline", compare["baseline"], "method", "methods"
    for name, controls in _mapping(compare.get("controls")).items():
        for control in [name, *(controls if isinstance(controls, list) else [])]:
            yield f"compare.controls.{name}", str(control), "method", "methods"
    chosen = choose.get("method", [])
    for name in chosen if isinstance(chosen, list) else [chosen]:
        yield "choose.method", str(name), "method", "methods"
    for label, node in _mapping(data.get("attacks")).items():
        sources = node.get("source", []) if isinstance(node, dict) else []
        for source in sources if isinstance(sources, list) else [sources]:
            yield f"attacks.{label}.source", str(source), "method", "methods"
    audit = _mapping(data.get("audit"))
    if isinstance(audit.get("transfer"), str):
        yield "audit.transfer", audit["transfer"], "method", "methods"
    search = _mapping(data.get("search"))
    named = search.get("methods", [])
    for name in named if isinstance(named, list) else [named]:
        yield "search.methods", str(name), "method", "methods"
    if isinstance(search.get("trials"), str):
        yield "search.trials", search["trials"], "method", "methods"
    by = _mapping(search.get("stop")).get("by", CLEAN)
    if isinstance(by, str) and by != CLEAN:
        yield "search.stop.by", by, "attack", "attacks"
    headline = _mapping(data.get("headline"))
    if "attack" in headline:
        yield "headline.attack", str(headline["attack"]), "attack", "attacks"


def _headline_mistakes(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """A headline that names no attack, no setting of it, or several."""
    headline, attacks = _mapping(data.get("headline")), _mapping(data.get("attacks"))
    label = str(headline.get("attack", ""))
    if "headline" in data and not label:
        yield Mistake("headline.attack", "missing: which attack leads the results")
    node, wrong = attacks.get(label), list[Mistake]()
    if label not in attacks or not (node is None or isinstance(node, dict)):
        return
    settled = [cast(Attack, point.value) for point in settle_labelled("attack", label, node, wrong)]
    if wrong or not settled:
        return
    if settled[0].columns() is None:
        yield Mistake("headline.attack", f"expected an attack, {label!r} leaves images as they are")
        return
    parameters = list(settled[0].parameters())
    for key in _wanted(headline):
        if key not in parameters:
            yield Mistake(f"headline.{key}", unknown_key(key, parameters))
            return
    settings = {_less_surface(attack) for attack in headline_attacks(headline, settled)}
    if len(settings) != 1:
        what = f"expected keys that name one setting of {label!r}, found {len(settings)} settings"
        yield Mistake("headline", f"{what} for {_wanted(headline)!r}")


def headline_attacks(headline: Mapping[str, Any], attacks: Iterable[Attack]) -> list[Attack]:
    """The raw surfaces of the setting that the headline names; all surfaces without a raw one.

    Args:
        headline: `{attack: label, parameter: value …}`.
        attacks: all settings under that label.
    """
    found = matching(headline, attacks)
    raw = [attack for attack in found if surface_of(attack).endswith("raw")]
    return raw or found


def matching(headline: Mapping[str, Any], attacks: Iterable[Attack]) -> list[Attack]:
    """All surfaces of the setting that the headline names."""
    wanted = _wanted(headline)
    return [attack for attack in attacks if _matches(attack, wanted)]


def _wanted(headline: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that the headline's setting has."""
    return {key: value for key, value in headline.items() if key != "attack"}


def _matches(attack: Attack, wanted: Mapping[str, Any]) -> bool:
    parameters = attack.parameters()
    return all(
        key in parameters and _settled(parameters[key]) == _settled(value)
        for key, value in wanted.items()
    )


def _settled(value: Any) -> Any:
    """A nested component by its name alone where it has no parameters."""
    return value["name"] if isinstance(value, dict) and set(value) == {"name"} else value


def _less_surface(attack: Attack) -> str:
    return json.dumps({**attack.parameters(), "surface": None}, sort_keys=True)


def surface_of(attack: Attack) -> str:
    """What an attack differentiates; nothing for the clean cell."""
    columns = attack.columns()
    return columns.surface if columns else ""
