"""Figure 3: accuracy as a surface over two hyper-parameters, one panel an attack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from analysis.figures.grid import Grid, Measure, alone
from analysis.figures.style import MOST_WRITTEN, choice_mark, style, tint
from analysis.plan import axis_label
from analysis.statistics import Estimate

_PANEL = 3.5  # inches
_COLUMNS = 3  # of panels, and of the legend below them
_LINE = 0.22  # inches, of the legend
_VIEW = {"elev": 24.0, "azim": -128.0}
_PLANE_ALPHA = 0.35
_Corners = npt.NDArray[np.float64]


def draw_figure3(grid: Grid, colours: dict[str, str]) -> Figure:
    """Draws one surface panel a measure of the grid, all on one accuracy axis."""
    columns = min(_COLUMNS, len(grid.measures))
    rows = math.ceil(len(grid.measures) / columns)
    limits = accuracy_limits(grid)
    with style():
        legend = _legend(grid, colours)
        lines = math.ceil(len(legend) / columns)
        foot = 0.73 + _LINE * lines
        height = _PANEL * rows + foot + 0.2
        figure = Figure(figsize=(_PANEL * columns, height))
        for index, measure in enumerate(grid.measures):
            axes = figure.add_subplot(rows, columns, index + 1, projection="3d")
            draw_surface(axes, grid, measure, colours=colours, limits=limits)
            axes.set_title(f"({_letter(index)}) {panel_title(grid, measure)}", y=1.0)
        figure.subplots_adjust(
            left=0.045, right=0.98, bottom=foot / height, top=1 - 0.5 / height, wspace=0.1
        )
        figure.legend(handles=legend, loc="lower center", ncols=columns)
        note = (0.2 + _LINE * lines) / height
        figure.text(0.5, note, _footnote(grid, limits), ha="center", va="bottom", fontsize=8)
    return figure


def draw_surface(
    axes: Axes3D,
    grid: Grid,
    measure: Measure,
    *,
    colours: dict[str, str],
    limits: tuple[float, float],
) -> Axes3D:
    """Draws one measure: the surface, the baseline's plane, the point that validation chose.

    A missing point leaves a hole: no face touches it. Points between holes are dots, and so are
    those beside the grid.

    Args:
        axes: Three-dimensional axes to draw on.
        grid: The data; accuracies as fractions, drawn in percent.
        measure: Which of the grid's measures.
        colours: Method -> colour.
        limits: Of the accuracy axis, in percent.
    """
    values = 100 * grid.values(measure)
    reference = grid.reference(measure)
    axes.computed_zorder = False  # else the mark may vanish behind the surface
    _add_faces(axes, values, reference, colours[grid.method], colours.get(grid.baseline, "grey"))
    dots = [*alone(_thinned(values)), *(grid.beside(measure) * (1, 1, 100))]
    _add_dots(axes, dots, colours[grid.method], floor=limits[0])
    _mark_choice(axes, grid, measure, floor=limits[0])
    axes.set(
        xlim=(values.columns.min(), values.columns.max()),
        ylim=(values.index.min(), values.index.max()),
        zlim=limits,
        xticks=_few(values.columns),
        yticks=_few(values.index),
        xlabel=axis_label(grid.x),
        ylabel=axis_label(grid.y),
        zlabel="accuracy (%)",
    )
    _tidy_ticks(axes)
    axes.view_init(**_VIEW)
    axes.set_box_aspect((1, 1, 0.9), zoom=0.9)
    return axes


def accuracy_limits(grid: Grid) -> tuple[float, float]:
    """Percent limits that hold every value and reference of the grid, in whole tens."""
    values = 100 * grid.frame[["accuracy", "baseline"]].to_numpy(dtype=float)
    if np.isnan(values).all():
        return 0.0, 100.0
    low = 10 * math.floor(np.nanmin(values) / 10)
    high = 10 * math.ceil(np.nanmax(values) / 10)
    return float(low), float(max(high, low + 10))


def _add_faces(
    axes: Axes3D, values: pd.DataFrame, reference: Estimate, colour: str, plane_colour: str
) -> None:
    """Surface and plane as one collection: only then are they sorted by depth, face by face."""
    corners = list(_quads(values))
    faces = [quad for quad in corners if not np.isnan(quad).any()]
    shades: list[Any] = _shades([float(quad[:, 2].mean()) for quad in faces], colour)
    edges = [to_rgba("black", 0.55)] * len(faces)
    if not reference.is_missing:
        faces += [_flattened(quad, 100 * reference.mean) for quad in corners]
        shades += [to_rgba(plane_colour, _PLANE_ALPHA)] * len(corners)
        edges += [to_rgba(plane_colour, _PLANE_ALPHA)] * len(corners)
    if faces:
        axes.add_collection3d(
            Poly3DCollection(faces, facecolors=shades, edgecolors=edges, linewidths=0.4)
        )


def _add_dots(axes: Axes3D, dots: Sequence[Any], colour: str, *, floor: float) -> None:
    """Dots, each with a line down to the floor that says over which point it stands."""
    for x, y, z in dots:
        axes.plot([x, x], [y, y], [floor, z], color=colour, linewidth=0.8, zorder=3)
        axes.plot([x], [y], [z], "o", color=colour, markersize=4, zorder=4)


def _quads(values: pd.DataFrame) -> Iterator[_Corners]:
    """The four corners (x, y, z) of each cell of the grid."""
    thin = _thinned(values)
    x, y, z = thin.columns.to_numpy(), thin.index.to_numpy(), thin.to_numpy()
    for row in range(len(y) - 1):
        for column in range(len(x) - 1):
            around = ((row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column))
            yield np.array([(x[j], y[i], z[i, j]) for i, j in around], dtype=float)


def _thinned(values: pd.DataFrame) -> pd.DataFrame:
    return values.iloc[_spread(len(values)), _spread(len(values.columns))]


def _spread(count: int) -> list[int]:
    """Places along an axis, from end to end; of very many as many as edges can be told apart."""
    kept = np.linspace(0, count - 1, min(count, MOST_WRITTEN))
    return [round(place) for place in kept]


def _flattened(quad: _Corners, level: float) -> _Corners:
    return np.column_stack([quad[:, :2], np.full(len(quad), level)])


def _shades(levels: list[float], colour: str) -> list[str]:
    """Tints of one colour, the fuller the higher, so that slopes can be seen."""
    low, high = min(levels, default=0.0), max(levels, default=0.0)
    spread = (high - low) or 1.0
    return [tint(colour, 0.35 + 0.6 * (level - low) / spread) for level in levels]


def _mark_choice(axes: Axes3D, grid: Grid, measure: Measure, *, floor: float) -> None:
    """A star, and a line down to the floor that says over which point it stands."""
    for x, y, accuracy in grid.chosen(measure)[[grid.x, grid.y, "accuracy"]].to_numpy(dtype=float):
        z = 100 * accuracy
        axes.plot([x, x], [y, y], [floor, z], color="black", linewidth=0.8, linestyle=":", zorder=5)
        axes.plot([x], [y], [z], zorder=6, **choice_mark(12))


def _tidy_ticks(axes: Axes3D) -> None:
    """Keeps the labels of both floor axes apart at the corner where they meet."""
    axes.tick_params(pad=-1)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("left")
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("right")


def _few(values: pd.Index) -> list[float]:
    """First, middle and last: more tick labels would overlap."""
    return [float(values[0]), float(values[len(values) // 2]), float(values[-1])]


def _letter(index: int) -> str:
    return chr(ord("a") + index)


def panel_title(grid: Grid, measure: Measure) -> str:
    """Attack; size and steps; surface and the baseline's mean: a line each."""
    reference = grid.reference(measure)
    beside = "" if reference.is_missing else f"; {grid.baseline} {100 * reference.mean:.1f} %"
    detail = "\n".join(measure.detail.rsplit(", ", 1))
    return f"{measure.title}\n{detail}{beside}"


def _legend(grid: Grid, colours: dict[str, str]) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [
        Patch(facecolor=colours[grid.method], label=f"{grid.method}, {seeds_of(grid)}")
    ]
    if grid.frame["refined"].any():
        dot: dict[str, Any] = {"marker": "o", "linestyle": "", "color": colours[grid.method]}
        handles.append(Line2D([], [], label=f"{grid.method}, refined", **dot))
    seeds = int(grid.frame["baseline_seeds"].max())
    if seeds:
        label = f"{grid.baseline}, {seeds_text(seeds)} (plane)"
        colour = colours[grid.baseline]
        handles.append(Patch(facecolor=colour, alpha=_PLANE_ALPHA, label=label))
    if grid.choice:
        handles.append(Line2D([], [], label=choice_text(grid), **choice_mark(11)))
    return handles


def choice_text(grid: Grid) -> str:
    """The legend of the choice's mark."""
    return f"chosen on validation: {grid.choice.label}" if grid.choice else ""


def seeds_of(grid: Grid) -> str:
    """What the grid's values are means of, which a refinement makes differ."""
    found = grid.frame["seeds"][grid.frame["seeds"] > 0]
    fewest = int(found.min()) if len(found) else 0
    if fewest in (0, grid.seeds):
        return seeds_text(grid.seeds)
    return f"mean of {fewest} to {grid.seeds} seeds"


def seeds_text(seeds: int) -> str:
    """What a value is the mean of."""
    return "one seed (exploratory)" if seeds <= 1 else f"mean of {seeds} seeds"


def _footnote(grid: Grid, limits: tuple[float, float]) -> str:
    holes = f" Points without a result, left open: {grid.holes}." if grid.holes else ""
    return (
        f"{grid.group}. All panels share one accuracy axis, {limits[0]:.0f} to "
        f"{limits[1]:.0f} %.{holes}"
    )
