"""Figures over all methods: accuracy along eps and steps, clean against robust accuracy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.figures.curves import curves, curves_frame, draw_curves
from analysis.figures.style import method_colours, save
from analysis.figures.tradeoff import _front, draw_tradeoff, tradeoff_frame
from analysis.plan import Group
from analysis.runs import Results
from trainables import names

from .tracked_study import MARGIN_RAW, WEAK


def test_a_curve_is_an_attack_of_which_one_number_varies(small: Results, group: Group) -> None:
    (curve,) = curves(small.plan, group)
    assert (curve.title, curve.along) == ("PGD untargeted l2_rms", "eps")
    assert curve.detail == "20 steps, margin_raw"
    assert [cell.name for cell in curve.cells] == [WEAK, MARGIN_RAW]


def test_curves_run_along_steps_at_the_largest_eps(small: Results, group: Group) -> None:
    raw = small.plan.raw
    place = str(group)
    cells = dict(raw["protocols"][place]["cells"])
    for eps, steps in ((0.04, 5), (0.02, 5)):
        cells[f"more-{eps}-{steps}"] = {**cells[MARGIN_RAW], "eps": eps, "steps": steps}
    protocols = {place: {**raw["protocols"][place], "cells": cells}}
    plan = replace(small.plan, raw={**raw, "protocols": protocols})
    found = [(c.along, [(cell.eps, cell.steps) for cell in c.cells]) for c in curves(plan, group)]
    assert found == [
        ("eps", [(0.02, 20), (0.04, 20)]),
        ("steps", [(0.04, 5), (0.04, 20)]),
    ]


def test_points_are_means_over_seeds(small: Results, group: Group) -> None:
    frame = curves_frame(small, group)
    sce = frame[frame["label"] == "sce"].set_index("x")
    assert sce.loc[0.04, "accuracy"] == pytest.approx(0.6)
    assert sce.loc[0.04, "half_width"] == pytest.approx(0.24841, abs=1e-5)
    assert sce["seeds"].tolist() == [3, 3]


def test_lines_and_bands_are_drawn_in_percent(small: Results, group: Group) -> None:
    frame = curves_frame(small, group)
    figure = draw_curves(frame, method_colours(small.plan.methods))
    (axes,) = (axes for axes in figure.axes if axes.get_visible())
    assert len(axes.lines) == len(axes.collections) == frame["label"].nunique()
    assert axes.lines[0].get_ydata()[1] == pytest.approx(60)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() <= 100 and band[:, 1].min() >= 0
    assert next(text.get_text() for text in figure.legends[0].get_texts()) == "sce"


def test_tradeoff_has_both_accuracies_of_every_shown_method(small: Results, group: Group) -> None:
    frame = tradeoff_frame(small, group).set_index("label")
    assert frame.loc["sce", "robust"] == pytest.approx(0.5)
    assert frame.loc["sce", "clean"] == pytest.approx(0.9)
    assert list(frame["method"]) == ["sce", "norm-sce", "isce"]


def test_the_front_is_what_nothing_exceeds_in_both() -> None:
    frame = pd.DataFrame(
        [
            (0.99, 0.2, names.TRUSTED, True),
            (0.95, 0.6, names.UNAUDITED, True),
            (0.95, 0.6, names.TRUSTED, True),  # equal points do not exceed each other
            (0.95, 0.5, names.TRUSTED, False),
            (0.90, 0.9, names.MASKED, False),  # no robustness to trade for
            (0.93, 0.7, names.WEAK, False),
            (0.80, 0.61, names.TRUSTED, True),
        ],
        columns=["clean", "robust", "attack_mark", "wanted"],
    )
    assert _front(frame) == frame["wanted"].tolist()


def test_tradeoff_is_drawn(small: Results, group: Group, tmp_path) -> None:  # type: ignore[no-untyped-def]
    frame = tradeoff_frame(small, group)
    figure = draw_tradeoff(frame, method_colours(small.plan.methods), "PGD")
    axes = figure.axes[0]
    assert axes.get_title() == "PGD"
    marks = np.array([c[0].get_xydata()[0] for c in axes.containers])
    assert marks == pytest.approx(100 * frame[["clean", "robust"]].to_numpy())
    assert len(save(figure, tmp_path, "tradeoff")) == 3
