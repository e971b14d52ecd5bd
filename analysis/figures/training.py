"""How training went: loss and accuracies against epochs, a line and its band a configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from mlflow import MlflowClient

from analysis.choice import Arm, shown_arms
from analysis.figures.style import Appearance, style
from analysis.plan import Group
from analysis.runs import DONE, INCOMPLETE, Results
from analysis.statistics import Estimate, estimate
from trainables import names

_ACCURACIES = {
    names.TRAIN_ACCURACY: "accuracy on what it is trained on",
    names.VALIDATION_ACCURACY: "accuracy on validation images",
}
_QUANTITIES = (names.TRAIN_LOSS, *_ACCURACIES)
# In inches: the panels of the accuracies, one of a loss, a line of the legend.
_WIDE, _SMALL, _LEGEND = (5.2, 3.1), (2.08, 1.55), 0.22
_COLUMNS, _IN_LEGEND = 5, 5
_CUT = 99.9  # %: an error of zero has no logarithm
_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, _CUT)
_MARKS = 12  # at most so many markers on a line


def training_frame(results: Results, group: Group) -> pd.DataFrame:
    """What the figure shows: a row a configuration, quantity and epoch.

    Columns: `dataset, backbone, method, label, quantity` (`train_loss`, `train_accuracy`,
    `validation_accuracy`), `epoch` (from 1), `mean, half_width` (over seeds; accuracies as
    fractions, losses in each loss's own unit), `seeds`. Only the runs that tables show are asked
    for their histories, and of those only what has ended: half a training is no result.
    """
    arms = list(shown_arms(results, group))
    shown = f"training {group} {[(arm.method, arm.label, arm.runs) for arm in arms]}"
    return results.client.table(shown, lambda: _histories(results.client, group, arms))


def _histories(client: MlflowClient, group: Group, arms: Sequence[Arm]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dataset": group.dataset,
            "backbone": group.backbone,
            "method": arm.method,
            "label": arm.label,
            "quantity": quantity,
            "epoch": epoch,
            "mean": value.mean,
            "half_width": value.half_width,
            "seeds": value.seeds,
        }
        for arm in arms
        for quantity in _QUANTITIES
        for epoch, value in _epochs(client, arm, quantity)
    )


def _epochs(client: MlflowClient, arm: Arm, quantity: str) -> Iterator[tuple[int, Estimate]]:
    """Mean over the seeds that got so far."""
    ended = arm.rows[arm.rows["state"].isin((DONE, INCOMPLETE))]
    # Whatever is logged twice, as by a trial that was resumed, counts as it was logged last.
    histories = {
        run: {point.step: point.value for point in client.get_metric_history(run, quantity)}
        for run in ended["run_id"]
    }
    for epoch in sorted(set().union(*histories.values())):
        values = [history.get(epoch, math.nan) for history in histories.values()]
        yield epoch, estimate(pd.Series(values))


def draw_training(frame: pd.DataFrame, drawn_as: Mapping[str, Appearance]) -> Figure:
    """Draws both accuracies with all lines in a panel, and each loss in a panel of its own.

    Losses of different kinds have no common scale, so that lines beside each other would say
    something that is not so.

    Args:
        frame: As `training_frame` makes it; not empty.
        drawn_as: Label -> how it is drawn.
    """
    labels = list(dict.fromkeys(frame["label"]))
    rows = math.ceil(len(labels) / _COLUMNS)
    foot = _LEGEND * math.ceil(len(labels) / _IN_LEGEND) + 0.1
    heights = [_WIDE[1], _SMALL[1] * rows + 0.3]
    with style():
        size = (2 * _WIDE[0], sum(heights) + foot)
        figure = Figure(figsize=size, layout="constrained")
        parts = GridSpec(2, 1, figure, height_ratios=heights)
        top, below = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
        panels = top.subplots(1, 2, sharey=True)
        for axes, (quantity, title) in zip(panels, _ACCURACIES.items(), strict=True):
            for label, line in frame[frame["quantity"] == quantity].groupby("label", sort=False):
                _draw_line(axes, line, drawn_as[str(label)], unit=100.0, top=_CUT)
            axes.set_title(title)
        _accuracy_axis(panels[0], 100 * frame.loc[frame["quantity"].isin(_ACCURACIES), "mean"])
        small = list(below.subplots(rows, _COLUMNS, squeeze=False).flat)
        losses = frame[frame["quantity"] == names.TRAIN_LOSS]
        for axes, label in zip(small, labels, strict=False):
            _draw_loss(axes, losses[losses["label"] == label], drawn_as[label])
            axes.set_title(label, fontsize=8)
        for axes in small[len(labels) :]:
            axes.set_visible(False)
        below.supylabel("training loss, each in its own unit", fontsize=9)
        below.supxlabel("epoch", fontsize=9)
        handles = [Line2D([], [], label=label, **drawn_as[label].line) for label in labels]
        figure.legend(handles=handles, loc="outside lower center", ncols=_IN_LEGEND)
    return figure


def _accuracy_axis(axes: Axes, means: pd.Series) -> None:
    """Logarithmic in the error, for what differs near 100 % alone; around all means, in %."""
    axes.set_yscale("function", functions=(_stretched, _unstretched))
    bottom = max(tick for tick in _TICKS[:-1] if tick <= means.min())
    top = min(tick for tick in _TICKS if tick >= min(means.max(), _CUT) and tick > bottom)
    axes.set(ylim=(bottom, top), ylabel="accuracy (%)")
    axes.yaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _draw_loss(axes: Axes, line: pd.DataFrame, look: Appearance) -> None:
    _draw_line(axes, line, look, unit=1.0, top=math.inf)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=7)


def _draw_line(
    axes: Axes, line: pd.DataFrame, look: Appearance, *, unit: float, top: float
) -> None:
    """One configuration's line and its band, up to where the axis ends."""
    mean, half = unit * line["mean"], unit * line["half_width"].fillna(0)
    every = math.ceil(len(line) / _MARKS)
    axes.plot(line["epoch"], mean.clip(upper=top), markevery=every, **look.line)
    axes.fill_between(
        line["epoch"],
        (mean - half).clip(lower=0),
        (mean + half).clip(upper=top),
        color=look.colour,
        alpha=0.1,
        linewidth=0,
    )
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _stretched(accuracy: npt.NDArray[Any]) -> npt.NDArray[Any]:
    place: npt.NDArray[Any] = -np.log10(np.maximum(100 - np.asarray(accuracy), 100 - _CUT))
    return place


def _unstretched(place: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(100 - np.power(10.0, -np.asarray(place)))
