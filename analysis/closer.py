"""The section "Looking closer": what the diagnostics found, as figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.choice import shown_arms
from analysis.figures.embedding import clouds
from analysis.figures.exhibits import gallery
from analysis.figures.files import Album, Drawing
from analysis.figures.gallery import draw_gallery
from analysis.figures.scatter import draw_clouds
from analysis.figures.separability import draw_separability, separability_frame
from analysis.figures.style import appearances, method_colours
from analysis.plan import Group
from analysis.runs import Results
from analysis.specimens import examined
from analysis.statistics import CONFIDENCE
from analysis.tables.findings import FindingsTable, findings_frame, findings_tables
from analysis.tables.text import EXPLORATORY_NOTE

SEPARABILITY = "separability"  # what an embedding has beside its scatter


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it, and the file that has its data."""

    group: Group
    image: Drawing
    data: str


@dataclass(frozen=True)
class Look:
    """What one diagnostic found.

    Attributes:
        label: The study's name for it.
        kind: Which diagnostic it is.
        pictures: One a data set and backbone that has something to draw.
        separability: Of an embedding, how far apart the classes lie; likewise.
        tables: One a data set and backbone, unless the diagnostic has none.
        data: The file that has the tables' numbers.
        notes: What must be said below them.
    """

    label: str
    kind: str
    pictures: tuple[Picture, ...]
    separability: tuple[Picture, ...]
    tables: tuple[FindingsTable, ...]
    data: str
    notes: tuple[str, ...]


def look_closer(results: Results, album: Album) -> list[Look]:
    """What every diagnostic found, in the plan's order; figures and tables go to the album."""
    found = []
    for label, kind in results.plan.diagnostics.items():
        tables = findings_tables(results, label)
        pictures: dict[str, list[Picture]] = {kind: [], SEPARABILITY: []}
        for what, group, drawing, frame in _drawn(results, label, kind):
            suffix = f"-{group.stem}" if len(results.plan.groups) > 1 else ""
            name = f"{_stem(what, label, kind)}{suffix}"
            album.add_data(name, frame)
            pictures[what].append(Picture(group, album.add_figure(name, drawing), f"{name}.csv"))
        data = f"table-{_stem(kind, label, kind)}"
        if tables:
            album.add_data(data, findings_frame(tables))
        found.append(
            Look(
                label=label,
                kind=kind,
                pictures=tuple(pictures[kind]),
                separability=tuple(pictures[SEPARABILITY]),
                tables=tuple(tables),
                data=f"{data}.csv",
                notes=tuple(_notes(results, label, tables)),
            )
        )
    return found


def _stem(what: str, label: str, kind: str) -> str:
    """The name of a file, with the study's own label where that is not the diagnostic's name."""
    return what if label == kind else f"{what}-{label}"


def _drawn(
    results: Results, label: str, kind: str
) -> Iterator[tuple[str, Group, Drawing, pd.DataFrame]]:
    """The figures of a diagnostic, each with what it shows and its data."""
    for group in results.plan.groups:
        if kind == "exhibits" and (images := gallery(results, group, label)):
            yield kind, group, Drawing(draw_gallery, (images,)), images.frame
        if kind == "embedding" and (points := clouds(results, group, label)):
            yield kind, group, Drawing(draw_clouds, (points,)), points.frame
        if kind == "embedding":
            frame = separability_frame(results, group, label)
            arms = [(arm.method, arm.label) for arm in shown_arms(results, group)]
            if not frame.empty:
                drawn_as = appearances(arms, method_colours(results.plan.methods))
                drawing = Drawing(draw_separability, (frame, drawn_as))
                yield SEPARABILITY, group, drawing, frame


def _notes(results: Results, label: str, tables: Sequence[FindingsTable]) -> Iterator[str]:
    if tables:
        level = f"{100 * CONFIDENCE:.0f} %"
        yield f"Mean over seeds ± half-width of its {level} t interval."
    values = [value for table in tables for row in table.rows for value in row.estimates.values()]
    if any(value.is_exploratory for value in values):
        yield EXPLORATORY_NOTE
    planned = results.frame["trial_id"].nunique()
    absent = planned - examined(results.frame, label)["trial_id"].nunique()
    if absent:
        yield (
            f"Left out: {absent} of {planned} trials, which have no findings yet: "
            f"`{results.plan.command}` computes them."
        )
