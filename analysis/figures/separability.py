"""How far apart the classes lie in feature space: every method, over all of its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.choice import shown_arms
from analysis.figures.style import Appearance, style
from analysis.plan import Group
from analysis.runs import Results
from analysis.specimens import metric
from analysis.statistics import estimate

FISHER, NEAREST = "fisher", "nearest_mean"
_WIDTH, _ROW, _AROUND = 8.4, 0.26, 1.0  # inches: of the figure, a configuration, axes and title
_MANY = 15  # how often the smallest the largest Fisher ratio may be on a linear axis


def separability_frame(results: Results, group: Group, label: str) -> pd.DataFrame:
    """What the figure shows: a row a configuration that a diagnostic `embedding` has examined.

    Columns: `dataset, backbone, method, label`; `fisher`, `nearest_mean` (a fraction), each with
    its `_half_width` over seeds; `seeds`.

    Args:
        results: The study.
        group: Data set and backbone.
        label: The diagnostic.
    """
    records = []
    for arm in shown_arms(results, group):
        fisher, nearest = (estimate(arm.values(metric(label, n))) for n in (FISHER, NEAREST))
        if not nearest.is_missing:
            records.append(
                {
                    "dataset": group.dataset,
                    "backbone": group.backbone,
                    "method": arm.method,
                    "label": arm.label,
                    FISHER: fisher.mean,
                    f"{FISHER}_half_width": fisher.half_width,
                    NEAREST: nearest.mean,
                    f"{NEAREST}_half_width": nearest.half_width,
                    "seeds": nearest.seeds,
                }
            )
    return pd.DataFrame(records)


def draw_separability(frame: pd.DataFrame, drawn_as: Mapping[str, Appearance]) -> Figure:
    """Draws a dot and its interval a configuration, Fisher ratio beside the share nearest.

    Args:
        frame: As `separability_frame` makes it; not empty.
        drawn_as: Label -> how it is drawn.
    """
    with style():
        size = (_WIDTH, _ROW * len(frame) + _AROUND)
        figure = Figure(figsize=size, layout="constrained")
        fisher, nearest = figure.subplots(1, 2, sharey=True)
        _dots(fisher, frame, FISHER, drawn_as, unit=1.0)
        _dots(nearest, frame, NEAREST, drawn_as, unit=100.0)
        labels = [f"{row.label}{' †' if row.seeds == 1 else ''}" for row in frame.itertuples()]
        fisher.set_yticks(range(len(frame)), labels)
        fisher.set(
            title="Fisher ratio: variance between over within", ylim=(len(frame) - 0.5, -0.5)
        )
        nearest.set(title="nearest to their own class mean (%)")
        nearest.set_xlim(max(nearest.get_xlim()[0], 0), min(nearest.get_xlim()[1], 100.5))
        if frame[FISHER].max() > _MANY * frame[FISHER].min():
            fisher.set(xscale="log", xlabel="logarithmic axis")
        else:
            fisher.set_xlim(left=0)
    return figure


def _dots(
    axes: Axes, frame: pd.DataFrame, of: str, drawn_as: Mapping[str, Appearance], *, unit: float
) -> None:
    for place, (_, row) in enumerate(frame.iterrows()):
        half = unit * row[f"{of}_half_width"]
        axes.errorbar(
            unit * row[of],
            place,
            xerr=0 if math.isnan(half) else half,
            **drawn_as[row["label"]].point,
        )
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
