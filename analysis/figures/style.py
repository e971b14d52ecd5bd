"""One look for all figures: a palette that colour-blind readers can tell apart, no global state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patheffects import withStroke

# Okabe and Ito (2008), less its yellow, which is the choice's own; from the eighth on whatever lies
# farthest from all before it, with and without red-green vision.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"),
    *("#332288", "#661100", "#B2DF8A", "#004D40", "#00CED1", "#666666", "#999933", "#7F3C8D"),
)
CHOICE_COLOUR = "#F0E442"
SEQUENTIAL = "cividis"  # read alike with and without colour vision, and in grey
# What tells lines and points apart in grey; their numbers have no common divisor, so that the
# pairs repeat late.
MARKERS = "os^vDPX<>phd*"
DASHES = ("-", "--", ":", "-.")

MOST_WRITTEN = 25  # points along an axis: of more, neither values nor names can be read

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "robust-loss-study",  # else every SVG has other ids
}


def style() -> AbstractContextManager[None]:
    """The context in which figures are drawn and saved."""
    return mpl.rc_context(_RC)


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each method of a study, the same in all of its figures."""
    return {method: PALETTE[i % len(PALETTE)] for i, method in enumerate(methods)}


@dataclass(frozen=True)
class Appearance:
    """How one configuration is drawn wherever it has a line or a point."""

    colour: str
    marker: str
    dash: str

    @property
    def line(self) -> dict[str, Any]:
        """For `Axes.plot`."""
        return {
            "color": self.colour,
            "linestyle": self.dash,
            "marker": self.marker,
            "markersize": 4,
            "linewidth": 1.4,
        }

    @property
    def point(self) -> dict[str, Any]:
        """For `Axes.errorbar`, without a line from point to point."""
        return {
            "color": self.colour,
            "linestyle": "none",
            "marker": self.marker,
            "markersize": 7,
            "markeredgecolor": "black",
            "markeredgewidth": 0.6,
            "elinewidth": 0.9,
            "capsize": 2,
        }


def appearances(
    shown: Iterable[tuple[str, str]], colours: Mapping[str, str]
) -> dict[str, Appearance]:
    """How each of the shown configurations is drawn, the same in every figure.

    Args:
        shown: (method, label) of all that tables show, in their order, with results or without.
        colours: Method -> colour, as `method_colours` makes it.
    """
    return {
        label: Appearance(colours[method], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, (method, label) in enumerate(shown)
    }


def choice_mark(size: float) -> dict[str, Any]:
    """How the point that validation chose is marked: a star that any ground lets stand out."""
    return {
        "linestyle": "none",
        "marker": "*",
        "markersize": size,
        "markerfacecolor": CHOICE_COLOUR,
        "markeredgecolor": "black",
        "markeredgewidth": 0.8,
        "path_effects": [withStroke(linewidth=2.4, foreground="white")],
    }


def ticks(levels: Sequence[Any]) -> tuple[list[int], list[str]]:
    """Places and names of an axis' levels: all of them, or of very many every fifth."""
    shown = list(range(0, len(levels), 1 if len(levels) <= MOST_WRITTEN else 5))
    return shown, [_named(levels[index]) for index in shown]


def _named(level: Any) -> str:
    return level if isinstance(level, str) else f"{level:.3g}"


def tint(colour: str, strength: float) -> str:
    """A colour mixed with white: none of it at 0, all of it at 1."""
    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(colour))
    return to_hex((red, green, blue))
