"""The gallery: each method's worst and best images under attack, a method a row."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.exhibits import ENDS, Exhibit, Gallery
from analysis.figures.style import style
from analysis.specimens import Array
from analysis.tables.text import digits

BROKEN_COLOUR = "#A33C00"
_COLUMNS = 8  # at least so many images have room at either end
# In inches: from image to image, an attacked and a clean one, and all around them.
_PITCH, _LARGE, _SMALL = 0.78, 0.68, 0.28
_TITLE, _CAPTION, _ROW, _MARGIN, _BETWEEN = 0.98, 0.22, 1.3, 0.15, 0.4
_HEADINGS = {
    "worst": "Worst: the smallest margins, most confidently wrong first",
    "best": "Best: the largest margins, most safely right first",
}
_KEY = (
    "Large: under the attack; small: before it. Below: true class → predicted class, and the "
    "margin under the attack\n(raw logit of the true class less the largest other). "
    "Framed and bold: broken. Shown are images that were right before."
)


def draw_gallery(gallery: Gallery) -> Figure:
    """Draws every exhibit, one below the other."""
    counts = [exhibit.frame["group"].value_counts().max() for exhibit in gallery.exhibits]
    half = _PITCH * np.nanmax([_COLUMNS, *counts])
    width = 2 * (_MARGIN + half) + _BETWEEN
    height = _TITLE + _ROW * len(gallery.exhibits)
    lefts = dict(zip(ENDS, (_MARGIN, _MARGIN + half + _BETWEEN), strict=True))
    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))  # its unit is the inch, downwards
        axes.text(_MARGIN, 0.12, f"{gallery.group}. {_KEY}", va="top")
        for end, left in lefts.items():
            axes.text(left, _TITLE - 0.12, _HEADINGS[end], va="bottom", weight="bold")
        for index, exhibit in enumerate(gallery.exhibits):
            draw_exhibit(axes, exhibit, lefts, _TITLE + _ROW * index)
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
    return figure


def draw_exhibit(axes: Axes, exhibit: Exhibit, lefts: dict[str, float], top: float) -> None:
    """Draws one method's images below its caption.

    Args:
        axes: Axes in inches, downwards.
        exhibit: The data.
        lefts: Where the worst and the best begin.
        top: Where the caption does.
    """
    left, right = min(lefts.values()), axes.figure.get_figure(root=True).get_figwidth() - _MARGIN
    axes.plot([left, right], [top, top], color="0.75", linewidth=0.6)
    axes.text(left, top + 0.05, exhibit.caption, va="top", fontsize=8)
    for end, start in lefts.items():
        for place, row in enumerate(np.flatnonzero(exhibit.frame["group"] == end)):
            _draw_image(axes, exhibit, int(row), start + place * _PITCH, top + _CAPTION)


def _draw_image(axes: Axes, exhibit: Exhibit, row: int, left: float, top: float) -> None:
    fate = exhibit.frame.iloc[row]
    broken = fate["after"] != fate["label"]
    colour = BROKEN_COLOUR if broken else "black"
    below = top + _LARGE + 0.04
    _show(axes, exhibit.attacked[row], left, top, _LARGE)
    _show(axes, exhibit.clean[row], left, below, _SMALL)
    if broken:
        frame = Rectangle((left, top), _LARGE, _LARGE, fill=False, edgecolor=colour, linewidth=2)
        axes.add_patch(frame)
    axes.text(
        left + _SMALL + 0.03,
        below,
        f"{fate['label']} → {fate['after']}\n{digits(fate['margin'], 2)}",
        va="top",
        fontsize=6.5,
        color=colour,
        weight="bold" if broken else "normal",
    )


def _show(axes: Axes, image: Array, left: float, top: float, size: float) -> None:
    """An image (C, H, W); other than three channels are shown as their mean, in grey."""
    shown = image if len(image) == 3 else image.mean(axis=0, keepdims=True)
    pixels = np.moveaxis(np.broadcast_to(shown, (3, *image.shape[1:])), 0, -1)
    place = (left, left + size, top + size, top)
    axes.imshow(np.clip(pixels, 0, 1), extent=place, interpolation="none")
