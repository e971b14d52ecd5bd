"""What is wrong with a file's search, and with ranges where nothing is searched."""

from __future__ import annotations

from collections.abc import Iterator

from study.settle import settle_labelled
from study.space import axes_of, has_zip, nodes, ranges, searched
from study.spec import CLEAN, Study
from trainables.errors import Mistake


def search_mistakes(study: Study) -> Iterator[Mistake]:
    """All mistakes of a search, of a study that is sound otherwise."""
    looked_for = searched(study)
    for where in _misplaced(study, looked_for):
        what = "a range has no points of its own: `search` explores it, a grid takes linspace"
        yield Mistake(where, what)
    if study.search is None:
        return
    if not looked_for:
        yield Mistake("search", "expected a method with axes to search, found none")
    for name in looked_for:
        yield from _method_mistakes(study, name)
    yield from _budget_mistakes(study, looked_for)
    yield from _headline_mistakes(study)
    if study.search.stop is not None and study.search.stop.by != CLEAN:
        yield from _stop_mistakes(study, study.search.stop.by)


def _misplaced(study: Study, looked_for: list[str]) -> Iterator[str]:
    for name in study.methods:
        if name not in looked_for:
            for part, node in nodes(study, name).items():
                yield from ranges(node, f"methods.{name}.{part}")
    yield from ranges(study.attacks, "attacks")
    yield from ranges(study.diagnostics, "diagnostics")
    for part, node in (("data", study.data), ("backbone", study.backbone)):
        yield from ranges(node, part)


def _method_mistakes(study: Study, name: str) -> Iterator[Mistake]:
    where, method = f"methods.{name}", study.methods[name]
    if not axes_of(study, name):
        yield Mistake(where, "is to be searched, but has no axis")
    if any(map(has_zip, nodes(study, name).values())):
        yield Mistake(where, "`zip` is for grids: a search chooses along each axis on its own")
    if method.exclude:
        yield Mistake(f"{where}.exclude", "is for grids: a search has ranges")
    for part in ("data", "backbone"):
        if isinstance(getattr(method, part), list):
            yield Mistake(f"{where}.{part}", "expected one, for a method that is searched")


def _budget_mistakes(study: Study, looked_for: list[str]) -> Iterator[Mistake]:
    """A budget that is as large as a grid needs a grid."""
    assert study.search is not None
    like = study.search.trials
    if isinstance(like, str) and like in looked_for:
        what = f"expected a method with a grid, {like!r} is searched itself"
        yield Mistake("search.trials", what)
    elif isinstance(like, str) and not axes_of(study, like):
        yield Mistake("search.trials", f"expected a method with a grid, {like!r} has no axes")


def _headline_mistakes(study: Study) -> Iterator[Mistake]:
    """An objective that needs other models could not be measured of one point alone."""
    label = study.headline["attack"]
    settled = settle_labelled("attack", label, study.attacks[label], [])
    if any(point.value.name == "transfer" for point in settled):
        yield Mistake("search", f"the headline {label!r} needs other models: search by another")


def _stop_mistakes(study: Study, label: str) -> Iterator[Mistake]:
    settings = settle_labelled("attack", label, study.attacks[label], [])
    if len(settings) != 1:
        what = f"expected an attack of one setting, {label!r} has {len(settings)}"
        yield Mistake("search.stop.by", what)
