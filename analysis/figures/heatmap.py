"""The surfaces as heat maps with every value written in: one panel a test cell."""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from analysis.figures.grid import Grid, Measure
from analysis.figures.style import SEQUENTIAL, choice_mark, style
from analysis.figures.surface import choice_text, panel_title, seeds_text
from analysis.plan import axis_label
from trainables.names import number

_COLUMNS, _WIDTH = 4, 14.0  # at most so many panels, and so many inches, in a row
# In inches: a point of the grid, a panel's title and axis labels, the scale below all.
_CELL, _TITLE, _LABELS, _LEFT, _FOOT = 0.44, 0.62, 0.5, 0.6, 0.75
_SCALE = (3.2, 0.12)  # inches
_STAR = (11.0, 9.5)  # points to the right of a point's value, and up


def draw_heatmaps(grid: Grid) -> Figure:
    """Draws one annotated heat map a measure of the grid, all on one colour scale."""
    shape = grid.values(grid.measures[0]).shape
    with style():
        figure, panels = _panels(len(grid.measures), shape)
        for axes, measure in zip(panels, grid.measures, strict=True):
            image = draw_heatmap(axes, grid, measure)
        width, height = figure.get_size_inches()
        place = (_LEFT / width, 0.5 / height, _SCALE[0] / width, _SCALE[1] / height)
        scale = figure.colorbar(image, cax=figure.add_axes(place), orientation="horizontal")
        scale.set_label(_scale_label(grid), loc="left")
        if grid.choice:
            handle = Line2D([], [], label=choice_text(grid), **choice_mark(11))
            figure.legend(handles=[handle], loc="lower right", bbox_to_anchor=(1, 0.2 / height))
    return figure


def _panels(count: int, shape: tuple[int, int]) -> tuple[Figure, list[Axes]]:
    """An empty figure with room for `count` grids of (rows, columns) points."""
    panel_width, panel_height = max(_CELL * shape[1], 2.3), _CELL * shape[0]
    fitting = max(int(_WIDTH // (panel_width + _LEFT)), 1)
    columns = min(_COLUMNS, fitting, count)
    rows = math.ceil(count / columns)
    gap = _TITLE + _LABELS
    width = columns * (panel_width + _LEFT) + 0.1
    height = rows * (panel_height + gap) + _FOOT
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - 0.1 / width,
        bottom=(_FOOT + _LABELS) / height,
        top=1 - _TITLE / height,
        wspace=_LEFT / panel_width,
        hspace=gap / panel_height,
    )
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def draw_heatmap(axes: Axes, grid: Grid, measure: Measure) -> AxesImage:
    """Draws one measure in percent; a missing point is grey and says so.

    Args:
        axes: Axes to draw on.
        grid: The data; accuracies as fractions.
        measure: Which of the grid's measures.

    Returns:
        The image, for a colour scale.
    """
    values = 100 * grid.values(measure)
    colours = mpl.colormaps[SEQUENTIAL].with_extremes(bad="0.85")
    image = axes.imshow(
        np.ma.masked_invalid(values.to_numpy(dtype=float)),
        cmap=colours,
        vmin=0,
        vmax=100,
        origin="lower",
        aspect="auto",
    )
    _annotate(axes, values)
    _mark_choice(axes, grid, measure, values)
    axes.set_xticks(range(values.shape[1]), [number(float(x)) for x in values.columns])
    axes.set_yticks(range(values.shape[0]), [number(float(y)) for y in values.index])
    axes.set(xlabel=axis_label(grid.x), ylabel=axis_label(grid.y))
    axes.set_title(panel_title(grid, measure), fontsize=8)
    axes.tick_params(length=0, labelsize=7)
    return image


def _annotate(axes: Axes, values: pd.DataFrame) -> None:
    for row, line in enumerate(values.to_numpy(dtype=float)):
        for column, value in enumerate(line):
            missing = math.isnan(value)
            axes.text(
                column,
                row,
                "—" if missing else f"{value:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if missing or value > 55 else "white",
            )


def _mark_choice(axes: Axes, grid: Grid, measure: Measure, values: pd.DataFrame) -> None:
    """Stars the chosen point beside its value, so that it stays readable."""
    beside = offset_copy(axes.transData, axes.get_figure(root=True), *_STAR, units="points")
    for x, y in grid.chosen(measure)[[grid.x, grid.y]].to_numpy(dtype=float):
        column, row = values.columns.tolist().index(x), values.index.tolist().index(y)
        axes.plot([column], [row], transform=beside, **choice_mark(8))


def _scale_label(grid: Grid) -> str:
    return f"accuracy (%) of {grid.method} on {grid.group}, {seeds_text(grid.seeds)}"
