"""Accuracy against eps and against steps: a panel an attack, a line and its band a method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.choice import Arm, shown_arms
from analysis.figures.style import Appearance, style
from analysis.plan import Cell, Group, Plan
from analysis.runs import Results
from analysis.statistics import estimate
from analysis.tables.text import GOALS
from trainables import names

_COLUMNS, _PANEL = 4, (3.4, 2.9)  # panels a row, along eps and steps in turn; inches


@dataclass(frozen=True)
class Curve:
    """What one panel shows: an attack whose size, or whose length, varies and nothing else does.

    Attributes:
        title: The attack, what it aims at, and how its eps is read.
        detail: What is held.
        along: `eps` or `steps`.
        cells: From the smallest to the largest.
    """

    title: str
    detail: str
    along: str
    cells: tuple[Cell, ...]


def curves(plan: Plan, group: Group) -> list[Curve]:
    """Every series of the group's cells along eps, at most steps, and along steps, at most eps."""
    families: dict[tuple[object, ...], list[Cell]] = {}
    for cell in plan.protocol(group).test_attacks:
        family = (cell.attack, cell.budget, cell.targeted, cell.surface, cell.extra)
        families.setdefault(family, []).append(cell)
    return [curve for cells in families.values() for curve in _of(cells)]


def curves_frame(results: Results, group: Group) -> pd.DataFrame:
    """What the figure shows, accuracies as fractions: a row a panel, method and point."""
    shown = curves(results.plan, group)
    records = [
        {
            "dataset": group.dataset,
            "backbone": group.backbone,
            "panel": index,
            "title": curve.title,
            "detail": curve.detail,
            "along": curve.along,
            "method": arm.method,
            "label": arm.label,
            "x": getattr(cell, curve.along),
            **_estimated(arm, cell),
        }
        for index, curve in enumerate(shown)
        for arm in shown_arms(results, group)
        for cell in curve.cells
    ]
    return pd.DataFrame(records)


def draw_curves(frame: pd.DataFrame, drawn_as: Mapping[str, Appearance]) -> Figure:
    """Draws one panel a curve, all on one accuracy axis; missing points are left out.

    Args:
        frame: As `curves_frame` makes it; not empty.
        drawn_as: Label -> how it is drawn.
    """
    panels = list(frame.groupby("panel"))
    labels = list(dict.fromkeys(frame["label"]))
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    legend_lines = math.ceil(len(labels) / 6)
    with style():
        height = _PANEL[1] * rows + 0.3 * legend_lines + 0.2
        figure = Figure(figsize=(_PANEL[0] * columns, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (_, panel) in zip(grid.flat, panels, strict=False):
            _draw(axes, panel, drawn_as)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        figure.supylabel("accuracy (%)", fontsize=9)
        handles = [Line2D([], [], label=label, **drawn_as[label].line) for label in labels]
        figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _of(cells: Sequence[Cell]) -> Iterator[Curve]:
    """A family's series that have more than one point."""
    first = cells[0]
    largest, most = max(cell.eps for cell in cells), max(cell.steps for cell in cells)
    along_eps = sorted((c for c in cells if c.steps == most), key=lambda cell: cell.eps)
    along_steps = sorted((c for c in cells if c.eps == largest), key=lambda cell: cell.steps)
    goal = GOALS[first.goal]
    extra = "".join(f", {key} {value}" for key, value in first.extra)
    title = " ".join(filter(None, (first.attack_title, goal, first.budget)))
    surface = f"{first.surface}{extra}"
    if len({cell.eps for cell in along_eps}) > 1:
        yield Curve(title, f"{most} steps, {surface}", "eps", tuple(along_eps))
    if len({cell.steps for cell in along_steps}) > 1:
        yield Curve(title, f"{along_steps[0].size}, {surface}", "steps", tuple(along_steps))


def _estimated(arm: Arm, cell: Cell) -> dict[str, float]:
    value = estimate(arm.values(cell.metric))
    return {"accuracy": value.mean, "half_width": value.half_width, "seeds": value.seeds}


def _draw(axes: Axes, panel: pd.DataFrame, drawn_as: Mapping[str, Appearance]) -> None:
    for label, line in panel.dropna(subset=["accuracy"]).groupby("label", sort=False):
        look = drawn_as[str(label)]
        accuracy, half = 100 * line["accuracy"], 100 * line["half_width"].fillna(0)
        axes.plot(line["x"], accuracy, **look.line)
        axes.fill_between(
            line["x"],
            (accuracy - half).clip(lower=0),
            (accuracy + half).clip(upper=100),
            color=look.colour,
            alpha=min(0.13, 0.6 / len(drawn_as)),  # many bands lie over each other
            linewidth=0,
        )
    first = panel.iloc[0]
    is_eps = first["along"] == "eps"
    axes.set_title(f"{first['title']}\n{first['detail']}", fontsize=8)
    axes.set(xlabel="ε" if is_eps else "steps", ylim=(-2, 102))
    ticks = sorted(panel["x"].unique())
    axes.set_xticks(ticks, [names.number(tick) for tick in ticks])
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
