"""How near each reading of epsilon comes: the row it is chosen by beside those held out."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import style

_WIDTH, _ROW, _AROUND, _LEGEND = 8.4, 0.27, 0.75, 0.35  # inches: of the figure, a reading, …
_CALIBRATED: dict[str, Any] = {
    "marker": "o",
    "color": "black",
    "label": "SCE row: what it is calibrated on",
}
_HELD_OUT: dict[str, Any] = {
    "marker": "s",
    "color": "black",
    "markerfacecolor": "white",
    "label": "the other rows: held out",
}
_NEAREST: dict[str, Any] = {
    "marker": "o",
    "color": "black",
    "markerfacecolor": "none",
    "label": "nearest: the best of those tried, not what the paper did",
}


def draw_calibration(frame: pd.DataFrame) -> Figure:
    """Draws a panel a table: two dots a reading, the nearest to the SCE row on top.

    Args:
        frame: As `tables.paper.calibration_frame` makes it; not empty.
    """
    panels = list(frame.groupby(["table", "ours_on"], sort=False))
    heights = [_ROW * len(found) + _AROUND for _, found in panels]
    with style():
        size = (_WIDTH, sum(heights) + _LEGEND)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(
            len(panels), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
        )
        for axes, ((number, place), found) in zip(grid.flat, panels, strict=True):
            _draw(axes, found.reset_index(drop=True))
            axes.set_title(f"Table {number}, ours on {place}")
        axes.set(xlabel="mean distance to the published accuracies (points)", xlim=(0, None))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _draw(axes: Axes, found: pd.DataFrame) -> None:
    places = range(len(found))
    ends = found[["sce_points", "other_rows_points"]]
    axes.hlines(places, ends.min(axis=1), ends.max(axis=1), color="0.7", linewidth=1, zorder=0)
    axes.plot(found["other_rows_points"], places, linestyle="none", markersize=5, **_HELD_OUT)
    axes.plot(found["sce_points"], places, linestyle="none", markersize=5, **_CALIBRATED)
    axes.plot(found["sce_points"][:1], [0], linestyle="none", markersize=11, **_NEAREST)
    axes.set_yticks(places, [reading.removeprefix("ε as ") for reading in found["reading"]])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
