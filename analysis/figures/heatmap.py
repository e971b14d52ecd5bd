"""The surfaces as heat maps with every value written in, and the intervals' widths the same way."""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from analysis.figures.grid import Grid, Measure
from analysis.figures.style import MOST_WRITTEN, SEQUENTIAL, choice_mark, style, ticks
from analysis.figures.surface import choice_text, panel_title, seeds_of
from analysis.plan import axis_label

_COLUMNS, _WIDTH = 4, 14.0  # at most so many panels, and so many inches, in a row
# In inches: a point of the grid, a panel's title and axis labels, what a title juts out to the
# right, the scale below all.
_CELL, _TITLE, _LABELS, _LEFT, _RIGHT, _FOOT = 0.44, 0.62, 0.5, 0.75, 0.35, 0.9
_LEGEND, _LEAST = 0.25, 5.0  # a line below the scale; the width that its label takes
_SMALL_CELL = 0.11  # of a grid with more than MOST_WRITTEN points along an axis
_SCALE = (3.2, 0.12)  # inches
_STAR = (11.0, 9.5)  # points to the right of a point's value, and up


def draw_heatmaps(grid: Grid) -> Figure:
    """Draws one annotated heat map with contours a measure, all on one colour scale."""
    return _draw(grid, "accuracy", 100.0, f"accuracy (%)\n{_whose(grid)}")


def draw_widths(grid: Grid) -> Figure:
    """Draws the half-width of every point's interval: where the surface is not yet known."""
    widest = 100 * np.nanmax(grid.frame["half_width"].to_numpy(dtype=float), initial=0.01)
    label = f"half-width (points) of the 95 % interval\n{_whose(grid)}"
    return _draw(grid, "half_width", widest, label)


def _draw(grid: Grid, of: str, top: float, label: str) -> Figure:
    shape = grid.values(grid.measures[0]).shape
    with style():
        foot = _FOOT + (_LEGEND if grid.choice else 0)
        figure, panels = _panels(len(grid.measures), shape, foot)
        for axes, measure in zip(panels, grid.measures, strict=True):
            image = draw_heatmap(axes, grid, measure, of=of, top=top)
        width, height = figure.get_size_inches()
        place = (_LEFT / width, (foot - 0.25) / height, _SCALE[0] / width, _SCALE[1] / height)
        scale = figure.colorbar(image, cax=figure.add_axes(place), orientation="horizontal")
        scale.set_label(label, loc="left")
        if grid.choice:
            handle = Line2D([], [], label=choice_text(grid), **choice_mark(11))
            figure.legend(handles=[handle], loc="lower left", bbox_to_anchor=(0.4 / width, 0))
    return figure


def _panels(count: int, shape: tuple[int, int], foot: float) -> tuple[Figure, list[Axes]]:
    """An empty figure with room for `count` grids of (rows, columns) points above a foot."""
    cell = _CELL if max(shape) <= MOST_WRITTEN else _SMALL_CELL
    panel_width, panel_height = max(cell * shape[1], 2.3), max(cell * shape[0], _CELL)
    fitting = max(int(_WIDTH // (panel_width + _LEFT)), 1)
    columns = min(_COLUMNS, fitting, count)
    rows = math.ceil(count / columns)
    gap = _TITLE + _LABELS
    used = columns * (panel_width + _LEFT)
    width = max(used + _RIGHT, _LEAST)
    height = rows * (panel_height + gap) + foot
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=_LEFT / width,
        right=used / width,
        bottom=(foot + _LABELS) / height,
        top=1 - _TITLE / height,
        wspace=_LEFT / panel_width,
        hspace=gap / panel_height,
    )
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def draw_heatmap(
    axes: Axes, grid: Grid, measure: Measure, *, of: str = "accuracy", top: float = 100.0
) -> AxesImage:
    """Draws one measure in percent; a missing point is grey and says so.

    Args:
        axes: Axes to draw on.
        grid: The data; accuracies as fractions.
        measure: Which of the grid's measures.
        of: The frame's column that is shown; accuracy has contours.
        top: Where the colour scale ends, in percent.

    Returns:
        The image, for a colour scale.
    """
    values = 100 * grid.values(measure, of)
    colours = mpl.colormaps[SEQUENTIAL].with_extremes(bad="0.85")
    image = axes.imshow(
        np.ma.masked_invalid(values.to_numpy(dtype=float)),
        cmap=colours,
        vmin=0,
        vmax=top,
        origin="lower",
        aspect="auto",
    )
    if of == "accuracy":
        _contours(axes, values)
    if max(values.shape) <= MOST_WRITTEN:
        _annotate(axes, values, light=0.55 * top)
    if of == "accuracy":
        _dots(axes, grid, measure, values, top)
    _mark_choice(axes, grid, measure, values)
    axes.set_xticks(*ticks(list(values.columns)))
    axes.set_yticks(*ticks(list(values.index)))
    axes.set(xlabel=axis_label(grid.x), ylabel=axis_label(grid.y))
    axes.set_title(panel_title(grid, measure), fontsize=7)
    axes.tick_params(length=0, labelsize=7)
    return image


def _contours(axes: Axes, values: pd.DataFrame) -> None:
    """A few lines of equal accuracy, at round numbers; none on a flat or torn surface."""
    known = values.to_numpy(dtype=float)
    if min(known.shape) < 2 or np.isnan(known).all():
        return
    low, high = np.nanmin(known), np.nanmax(known)
    levels = [level for level in MaxNLocator(5).tick_values(low, high) if low < level < high]
    if not levels:
        return
    masked = np.ma.masked_invalid(known)
    # Black under white is seen on either end of the scale.
    for colour, width in (("black", 1.6), ("white", 0.7)):
        axes.contour(masked, levels=levels, colors=colour, linewidths=width, alpha=0.8)


def _annotate(axes: Axes, values: pd.DataFrame, *, light: float) -> None:
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
                color="black" if missing or value > light else "white",
            )


def _mark_choice(axes: Axes, grid: Grid, measure: Measure, values: pd.DataFrame) -> None:
    """Stars the chosen point beside its value, so that it stays readable."""
    beside = offset_copy(axes.transData, axes.get_figure(root=True), *_STAR, units="points")
    for x, y in grid.chosen(measure)[[grid.x, grid.y]].to_numpy(dtype=float):
        place = _place(x, values.columns), _place(y, values.index)
        axes.plot(*([value] for value in place), transform=beside, **choice_mark(8))


def _place(value: float, along: pd.Index) -> float:
    """Where a value lies along an axis of cells, between two of them if it must."""
    return float(np.interp(value, along.to_numpy(dtype=float), np.arange(len(along))))


def _dots(axes: Axes, grid: Grid, measure: Measure, values: pd.DataFrame, top: float) -> None:
    """The points beside the grid, where they lie between its cells, on the same scale."""
    for x, y, accuracy in grid.beside(measure):
        axes.scatter(
            [_place(x, values.columns)],
            [_place(y, values.index)],
            c=[100 * accuracy],
            cmap=SEQUENTIAL,
            vmin=0,
            vmax=top,
            s=28,
            edgecolors="white",
            linewidths=0.8,
            zorder=3,
        )


def _whose(grid: Grid) -> str:
    beside = "; dots: refined" if grid.frame["refined"].any() else ""
    return f"{grid.method} on {grid.group}, {seeds_of(grid)}{beside}"
