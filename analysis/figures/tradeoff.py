"""Clean against robust accuracy: what a method's robustness costs, and which give most of both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.choice import shown_arms
from analysis.figures.style import Appearance, style
from analysis.plan import Group
from analysis.runs import Results
from analysis.statistics import estimate
from analysis.tables.audit import gravest, headline_marks
from analysis.tables.text import MARK_SIGNS
from trainables import names

_SIZE = (7.6, 4.6)  # inches


def tradeoff_frame(results: Results, group: Group) -> pd.DataFrame:
    """A row a configuration that has both: clean and headline accuracy, as fractions.

    `front` says whether no other has more of one and no less of the other. A headline whose
    attack is masked or weak is no robustness that could be traded for: it is never on the front.
    """
    records = []
    for arm in shown_arms(results, group):
        clean, robust = (estimate(arm.values(name)) for name in (names.CLEAN, names.ROBUST))
        if clean.is_missing or robust.is_missing:
            continue
        records.append(
            {
                "dataset": group.dataset,
                "backbone": group.backbone,
                "method": arm.method,
                "label": arm.label,
                "clean": clean.mean,
                "clean_half_width": clean.half_width,
                "robust": robust.mean,
                "robust_half_width": robust.half_width,
                "seeds": robust.seeds,
                "attack_mark": gravest(headline_marks(arm)),
            }
        )
    frame = pd.DataFrame(records)
    return frame if frame.empty else frame.assign(front=_front(frame))


def draw_tradeoff(frame: pd.DataFrame, drawn_as: Mapping[str, Appearance], headline: str) -> Figure:
    """Draws every configuration with its intervals, and the front through those on it.

    Args:
        frame: As `tradeoff_frame` makes it; not empty.
        drawn_as: Label -> how it is drawn.
        headline: The attack in words.
    """
    with style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        for _, row in frame.iterrows():
            sign = MARK_SIGNS.get(row["attack_mark"], "")
            axes.errorbar(
                100 * row["clean"],
                100 * row["robust"],
                xerr=100 * np.nan_to_num(row["clean_half_width"]),
                yerr=100 * np.nan_to_num(row["robust_half_width"]),
                label=f"{row['label']} {sign}".rstrip(),
                **drawn_as[row["label"]].point,
            )
        front = frame[frame["front"]].sort_values("clean")
        axes.plot(
            100 * front["clean"], 100 * front["robust"], color="0.45", lw=1, ls="--", zorder=0
        )
        axes.set(xlabel="clean accuracy (%)", ylabel="headline accuracy (%)")
        # An interval may reach beyond what an accuracy can be; the axes do not.
        axes.set_xlim(max(axes.get_xlim()[0], 0), min(axes.get_xlim()[1], 100.5))
        axes.set_ylim(max(axes.get_ylim()[0], -1), min(axes.get_ylim()[1], 100.5))
        axes.set_title(headline)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        figure.legend(loc="outside right center")
    return figure


def _front(frame: pd.DataFrame) -> list[bool]:
    """Whether each row is dominated by none of those that may be on the front."""
    points = frame[["clean", "robust"]].to_numpy().round(12)
    sound = ~frame["attack_mark"].isin((names.MASKED, names.WEAK)).to_numpy()
    return [
        bool(sound[index])
        and not any(
            sound[other] and (points[other] >= point).all() and (points[other] > point).any()
            for other in range(len(points))
        )
        for index, point in enumerate(points)
    ]
