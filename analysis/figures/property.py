"""Figure 5: where the property of section 3.3.1 holds, and where it does not; needs no training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mpl_toolkits.mplot3d import Axes3D

from analysis.figures.style import PALETTE, SEQUENTIAL, style, tint
from trainables import theory

_VIEW = {"elev": 24.0, "azim": -128.0}
_CONTOURS = (5, 10, 15, 20, 25, 30, 35)  # of 1000 z
_BEYOND_S = np.linspace(1.0, 8.0, 141)
_BEYOND_F = np.linspace(0.0, 4.0, 161)
_M = 0.1  # at which the paper's experiments stand
_FAILS, _HOLDS = tint(PALETTE[5], 0.55), tint(PALETTE[0], 0.25)


def property_frame() -> pd.DataFrame:
    """What the figure shows, a row a point: panel, s, m, f_i, S and z of `theory.condition`."""
    s, m = (axis.ravel() for axis in np.meshgrid(theory.FIGURE5_S, theory.FIGURE5_M))
    far_s, far_f = (axis.ravel() for axis in np.meshgrid(_BEYOND_S, _BEYOND_F))
    panels = [
        pd.DataFrame({"panel": "published", "s": s, "m": m, "f_i": theory.FIGURE5_F_I}),
        pd.DataFrame({"panel": "beyond", "s": far_s, "m": _M, "f_i": far_f}),
    ]
    frame = pd.concat(panels, ignore_index=True).assign(S=theory.FIGURE5_OTHERS)
    return frame.assign(z=theory.condition(frame["f_i"], frame["S"], frame["s"], frame["m"]))


def draw_property(frame: pd.DataFrame) -> Figure:
    """Draws the published surface, the same as a map with its contours, and the region around it.

    Args:
        frame: As `property_frame` makes it.
    """
    published = _pivot(frame, "published", "m")
    beyond = _pivot(frame, "beyond", "f_i")
    with style():
        figure = Figure(figsize=(11.5, 4.4))
        _surface(figure.add_subplot(1, 3, 1, projection="3d"), published)
        _map(figure, figure.add_subplot(1, 3, 2), published)
        _region(figure.add_subplot(1, 3, 3), beyond)
        figure.subplots_adjust(left=0.03, right=0.985, bottom=0.2, top=0.88, wspace=0.26)
    return figure


def _pivot(frame: pd.DataFrame, panel: str, rows: str) -> pd.DataFrame:
    found = frame[frame["panel"] == panel]
    return found.pivot(index=rows, columns="s", values="z")


def _surface(axes: Axes3D, values: pd.DataFrame) -> None:
    s, m = np.meshgrid(values.columns, values.index)
    axes.plot_surface(s, m, values, cmap=SEQUENTIAL, rstride=2, cstride=2, edgecolor="0.3", lw=0.2)
    axes.set(xlabel="s", ylabel="m", xticks=[1, 1.5, 2], yticks=[0, 0.05, 0.1])
    axes.set_zlabel("z", labelpad=6)
    axes.view_init(**_VIEW)
    axes.set_box_aspect((1, 1, 0.85), zoom=0.95)
    axes.set_title(f"(a) z at f = {theory.FIGURE5_F_I:g}, S = {theory.FIGURE5_OTHERS:g}", y=1.0)


def _map(figure: Figure, axes: Axes, values: pd.DataFrame) -> None:
    thousand = 1000 * values
    image = axes.pcolormesh(
        values.columns, values.index, thousand, cmap=SEQUENTIAL, shading="nearest", rasterized=True
    )
    lines = axes.contour(
        values.columns, values.index, thousand, _CONTOURS, colors="white", linewidths=0.8
    )
    axes.clabel(lines, fmt="%g", fontsize=8)
    axes.set(xlabel="s", ylabel="m", title="(b) the same, 1000 z")
    figure.colorbar(image, ax=axes, pad=0.02)


def _region(axes: Axes, values: pd.DataFrame) -> None:
    holds = (values > 0).astype(float)
    axes.pcolormesh(
        values.columns,
        values.index,
        holds,
        cmap=ListedColormap([_FAILS, _HOLDS]),
        vmin=0,
        vmax=1,
        shading="nearest",
        rasterized=True,
    )
    axes.contour(values.columns, values.index, values, [0], colors="black", linewidths=1.2)
    axes.plot([1, 2], [theory.FIGURE5_F_I] * 2, color="black", lw=3, solid_capstyle="butt")
    axes.annotate("the paper's", (2, theory.FIGURE5_F_I), (4, 4), textcoords="offset points")
    axes.set(xlabel="s", ylabel="logit f of the true class")
    axes.set_title(f"(c) sign of z at m = {_M:g}, S = {theory.FIGURE5_OTHERS:g}")
    handles = [
        Patch(facecolor=_HOLDS, edgecolor="black", label="z > 0"),
        Patch(facecolor=_FAILS, edgecolor="black", label="z ≤ 0: it fails", hatch="///"),
    ]
    axes.contourf(
        values.columns, values.index, holds, levels=[-0.5, 0.5], colors="none", hatches=["///"]
    )
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
