"""Figure 4: where the classes lie in feature space, one panel a method."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from mpl_toolkits.mplot3d import Axes3D

from analysis.figures.embedding import COORDINATES, Clouds
from analysis.figures.style import PALETTE, style

_MARKERS = "os^vDPX<>p"
_COLUMNS, _PANEL = 4, 2.9  # panels in a row; inches
_HEAD, _FOOT, _LEGEND = 0.5, 0.65, 0.2  # inches; the last a row of the legend
_IN_LEGEND = 10  # classes in a row of it
_TITLE = 30  # characters in a line


def draw_clouds(clouds: Clouds) -> Figure:
    """Draws one scatter panel a method, in as many dimensions as it has features."""
    panels = list(clouds.frame.groupby("configuration", sort=False))
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    foot = _FOOT + _LEGEND * math.ceil(clouds.frame["label"].nunique() / _IN_LEGEND)
    height = rows * _PANEL + _HEAD + foot
    with style():
        figure = Figure(figsize=(max(columns, 2) * _PANEL, height))
        grid = GridSpec(
            rows, columns, figure, 0.05, foot / height, 0.97, 1 - _HEAD / height, hspace=0.35
        )
        for index, (name, points) in enumerate(panels):
            shown = points.dropna(axis="columns", how="all")
            axes = figure.add_subplot(grid[index], projection="3d" if "z" in shown else None)
            draw_cloud(axes, shown)
            axes.set_title(textwrap.fill(f"{name}, seed {points['seed'].iloc[0]}", _TITLE))
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="lower center",
            ncols=_IN_LEGEND,
            title=f"{clouds.group}, class",
            markerscale=1.8,
        )
    return figure


def draw_cloud(axes: Axes, points: pd.DataFrame) -> None:
    """Draws one method's images, each class in a colour and with a marker of its own.

    Args:
        axes: Axes of as many dimensions as `points` has coordinates.
        points: One row an image.
    """
    coordinates = [name for name in COORDINATES if name in points]
    solid = isinstance(axes, Axes3D)
    more: dict[str, Any] = {"depthshade": False} if solid else {}  # else colours would differ
    for label in sorted(points["label"].unique()):
        members = points.loc[points["label"] == label, coordinates]
        axes.scatter(
            *members.to_numpy().T,
            s=9,  # type: ignore[misc]  # no third coordinate
            marker=_MARKERS[label % len(_MARKERS)],
            color=PALETTE[label % len(PALETTE)],
            linewidths=0,
            label=str(label),
            rasterized=True,  # ten thousand points would make a slow page
            **more,
        )
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=6, pad=-3 if solid else 2)
    if isinstance(axes, Axes3D):
        axes.set_box_aspect(None, zoom=1.1)
    else:
        axes.set_aspect("equal", adjustable="datalim")
