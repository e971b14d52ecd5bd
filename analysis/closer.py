"""The section "Looking closer": what the diagnostics found, as figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.embedding import clouds
from analysis.figures.exhibits import gallery
from analysis.figures.gallery import draw_gallery
from analysis.figures.scatter import draw_clouds
from analysis.figures.style import inlined, save, save_data
from analysis.plan import Group
from analysis.runs import Results
from analysis.specimens import examined
from analysis.statistics import CONFIDENCE
from analysis.tables.findings import FindingsTable, findings_frame, findings_tables
from analysis.tables.text import EXPLORATORY_NOTE


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: an SVG as a data URI, and the file that has its data."""

    group: Group
    image: str
    data: str


@dataclass(frozen=True)
class Look:
    """What one diagnostic found.

    Attributes:
        label: The study's name for it.
        kind: Which diagnostic it is.
        pictures: One a data set and backbone that has something to draw.
        tables: One a data set and backbone, unless the diagnostic has none.
        data: The file that has the tables' numbers.
        notes: What must be said below them.
    """

    label: str
    kind: str
    pictures: tuple[Picture, ...]
    tables: tuple[FindingsTable, ...]
    data: str
    notes: tuple[str, ...]


def look_closer(results: Results, folder: Path) -> tuple[list[Look], list[Path]]:
    """Writes the figures and tables of every diagnostic, in the plan's order.

    Returns:
        What the page shows, and every file.
    """
    looks, files = [], []
    for label, kind in results.plan.diagnostics.items():
        stem = kind if label == kind else f"{kind}-{label}"
        tables = findings_tables(results, label)
        pictures = []
        for group, figure, frame in _drawn(results, label, kind):
            suffix = f"-{group.stem}" if len(results.plan.groups) > 1 else ""
            name = f"{stem}{suffix}"
            files += [*save(figure, folder, name), save_data(frame, folder, name)]
            pictures.append(Picture(group, inlined(folder / f"{name}.svg"), f"{name}.csv"))
        if tables:
            files.append(save_data(findings_frame(tables), folder, f"table-{stem}"))
        notes = tuple(_notes(results, label, tables))
        looks.append(Look(label, kind, tuple(pictures), tuple(tables), f"table-{stem}.csv", notes))
    return looks, files


def _drawn(results: Results, label: str, kind: str) -> Iterator[tuple[Group, Figure, pd.DataFrame]]:
    """The figures of a diagnostic, with their data."""
    for group in results.plan.groups:
        if kind == "exhibits" and (images := gallery(results, group, label)):
            yield group, draw_gallery(images), images.frame
        if kind == "embedding" and (points := clouds(results, group, label)):
            yield group, draw_clouds(points), points.frame


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
