"""How a search went: what each suggestion came to, and where along each axis the good ones lie."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import CHOICE_COLOUR, PALETTE, style
from analysis.plan import axis_label
from analysis.searches import SearchView
from trainables import names

_PANEL = (3.3, 2.9)  # inches
_FOOT = 0.45
_MOST = 5  # axes that have a panel
_TITLES = {"robust": "headline accuracy (%)", "clean": "clean accuracy (%)"}


def draw_history(view: SearchView) -> Figure:
    """Draws accuracies on validation images: by number with the best so far, and by each axis.

    Of two objectives one against the other, with their front, in place of the first panel.
    """
    shown = view.numeric[:_MOST]
    objective = view.objectives[-1] if len(view.objectives) == 1 else "robust"
    columns = 1 + len(shown)
    width, height = _PANEL[0] * columns, _PANEL[1] + _FOOT
    with style():
        figure = Figure(figsize=(width, height))
        panels = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
        if len(view.objectives) > 1:
            _draw_front(panels[0], view)
        else:
            _draw_numbers(panels[0], view, objective)
        for axes, key in zip(panels[1:], shown, strict=True):
            _draw_axis(axes, view, key, objective)
        figure.subplots_adjust(
            left=0.7 / width,
            right=1 - 0.15 / width,
            bottom=(0.45 + _FOOT) / height,
            top=1 - 0.15 / height,
            wspace=0.28,
        )
        low, high = _limits(view, objective)
        for axes in panels:
            axes.set_ylim(low, high)
        figure.legend(handles=_legend(view), loc="lower center", ncols=4)
    return figure


def _limits(view: SearchView, objective: str) -> tuple[float, float]:
    """Whole percents around all that is drawn, two points at least."""
    values = 100 * _complete(view)[objective]
    if values.empty:
        return 0.0, 100.0
    return float(np.floor(values.min() - 1)), float(np.ceil(values.max() + 1))


def _draw_numbers(axes: Axes, view: SearchView, objective: str) -> None:
    complete = _complete(view)
    axes.plot(complete["number"] + 1, 100 * complete[objective], "o", ms=4, color=PALETTE[0])
    axes.step(
        complete["number"] + 1,
        100 * complete[objective].cummax(),
        where="post",
        color=PALETTE[1],
    )
    _draw_stopped(axes, view.frame[view.frame["state"] == names.STOPPED_EARLY]["number"] + 1)
    _draw_best(axes, complete, complete["number"] + 1, objective)
    axes.set(xlabel="suggestion", ylabel=f"{_TITLES[objective]}, validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_front(axes: Axes, view: SearchView) -> None:
    complete = _complete(view)
    axes.plot(100 * complete["clean"], 100 * complete["robust"], "o", ms=4, color=PALETTE[0])
    _draw_best(axes, complete, 100 * complete["clean"], "robust")
    axes.set(xlabel="clean accuracy (%), validation", ylabel="headline accuracy (%), validation")


def _draw_axis(axes: Axes, view: SearchView, key: str, objective: str) -> None:
    complete = _complete(view)
    axes.plot(complete[key], 100 * complete[objective], "o", ms=4, color=PALETTE[0])
    _draw_stopped(axes, view.frame[view.frame["state"] == names.STOPPED_EARLY][key])
    _draw_best(axes, complete, complete[key], objective)
    values = view.frame[key].dropna()
    if (values > 0).all() and values.max() > 20 * values.min():
        axes.set_xscale("log")
    axes.set_xlabel(axis_label(key))


def _draw_stopped(axes: Axes, places: pd.Series) -> None:
    """Ticks along the bottom: they have no accuracy of a whole training."""
    axes.plot(
        places, np.zeros(len(places)), "|", ms=8, color="0.5", transform=axes.get_xaxis_transform()
    )


def _draw_best(axes: Axes, complete: pd.DataFrame, places: pd.Series, objective: str) -> None:
    best = complete["best"] > 0
    axes.plot(
        places[best],
        100 * complete[best][objective],
        "*",
        ms=12,
        color=CHOICE_COLOUR,
        markeredgecolor="black",
        zorder=4,
    )


def _complete(view: SearchView) -> pd.DataFrame:
    return view.frame[view.frame["state"] == names.COMPLETE]


def _legend(view: SearchView) -> list[Line2D]:
    star = Line2D([], [], marker="*", ls="", ms=11, color=CHOICE_COLOUR, markeredgecolor="black")
    star.set_label("trained with every seed")
    handles = [Line2D([], [], marker="o", ls="", ms=4, color=PALETTE[0], label="tried")]
    if len(view.objectives) == 1:
        handles.append(Line2D([], [], color=PALETTE[1], label="best so far"))
    if (view.frame["state"] == names.STOPPED_EARLY).any():
        handles.append(Line2D([], [], marker="|", ls="", color="0.5", label="given up early"))
    return [*handles, star]
