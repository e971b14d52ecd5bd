"""Figures over all methods: accuracy along eps and steps, clean against robust, training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.choice import shown_arms
from analysis.figures.curves import curves, curves_frame, draw_curves
from analysis.figures.files import Drawing
from analysis.figures.style import (
    DASHES,
    MARKERS,
    PALETTE,
    Appearance,
    appearances,
    method_colours,
)
from analysis.figures.tradeoff import _front, draw_tradeoff, tradeoff_frame
from analysis.figures.training import _stretched, _unstretched, draw_training, training_frame
from analysis.plan import Group
from analysis.runs import DONE, INCOMPLETE, Results
from trainables import names

from .tracked_study import MARGIN_RAW, WEAK


def drawn(results: Results, group: Group) -> Mapping[str, Appearance]:
    """How the report draws a study's configurations."""
    arms = [(arm.method, arm.label) for arm in shown_arms(results, group)]
    return appearances(arms, method_colours(results.plan.methods))


def test_what_is_drawn_differs_in_grey_too() -> None:
    """Methods share no colour and marker, arms of a method share its colour alone."""
    shown = [(f"m{i}", f"m{i}") for i in range(len(MARKERS))] + [("m0", "m0 s=2")]
    found = appearances(shown, method_colours([method for method, _ in shown[:-1]]))
    assert len({look.marker for look in list(found.values())[:-1]}) == len(MARKERS)
    assert found["m0"].colour == found["m0 s=2"].colour == PALETTE[0]
    assert (found["m0"].marker, found["m0"].dash) != (found["m0 s=2"].marker, found["m0 s=2"].dash)
    assert len(MARKERS) % len(DASHES) == 1


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
    figure = draw_curves(frame, drawn(small, group))
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


def test_tradeoff_is_drawn(small: Results, group: Group) -> None:
    frame = tradeoff_frame(small, group)
    axes = draw_tradeoff(frame, drawn(small, group), "PGD").axes[0]
    assert axes.get_title() == "PGD"
    marks = np.array([c[0].get_xydata()[0] for c in axes.containers])
    assert marks == pytest.approx(100 * frame[["clean", "robust"]].to_numpy())
    drawing = Drawing(draw_tradeoff, (frame, drawn(small, group), "PGD"))
    assert len([data for data in drawing.files(["png", "pdf", "svg"]) if data]) == 3
    wide = frame.assign(clean_half_width=2.0, robust_half_width=2.0)
    axes = draw_tradeoff(wide, drawn(small, group), "PGD").axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 100.5), (-1, 100.5))


# --- training


def test_training_is_a_mean_over_the_seeds_that_ended(small: Results, group: Group) -> None:
    frame = training_frame(small, group)
    assert list(frame.columns[4:]) == ["quantity", "epoch", "mean", "half_width", "seeds"]
    loss = frame[frame["quantity"] == names.TRAIN_LOSS].set_index(["label", "epoch"])
    assert loss.loc[("sce", 1), "mean"] == pytest.approx((2 + 3 + 4) / 3)
    assert loss.loc[("sce", 2), "mean"] == pytest.approx((1 + 2 + 3) / 3)  # logged twice
    assert loss.loc[("sce", 1), "half_width"] == pytest.approx(2.48414, abs=1e-5)  # t of two
    assert loss.loc[("norm-sce", 1), ["mean", "seeds"]].tolist() == [2.5, 2]
    assert loss.loc[("isce s=1.5 m=0.1", 1), "seeds"] == 1
    validation = frame[frame["quantity"] == names.VALIDATION_ACCURACY]
    sce = validation[validation["label"] == "sce"]
    assert sce["mean"].tolist() == pytest.approx([0.6, 0.91])


def test_only_runs_that_tables_show_are_asked(
    small: Results, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], small.client.get_metric_history
    monkeypatch.setattr(
        small.client, "get_metric_history", lambda run, key: asked.append(run) or ask(run, key)
    )
    frame = training_frame(small, group)
    assert set(frame["label"]) == {"sce", "norm-sce", "isce s=1.5 m=0.1"}
    assert len(asked) == 3 * (3 + 2 + 1)  # the grid has five more


def test_a_failed_training_is_no_result(small: Results, group: Group) -> None:
    frame = small.frame.assign(state=small.frame["state"].where(small.frame["seed"] != 1, "failed"))
    found = training_frame(replace(small, frame=frame), group)
    assert found.loc[found["label"] == "sce", "seeds"].unique().tolist() == [2]
    assert found.loc[found["label"] == "norm-sce", "seeds"].unique().tolist() == [1]


def test_a_trial_that_lacks_a_cell_has_trained_all_the_same(flat: Results, group: Group) -> None:
    assert flat.rows(group, "sce")["state"].tolist() == [DONE, INCOMPLETE]
    assert set(training_frame(flat, group)["seeds"]) == {2}


def test_a_seed_that_stopped_early_leaves_the_others(small: Results, group: Group) -> None:
    ask = small.client.get_metric_history

    class Stopped:
        def get_metric_history(self, run: str, key: str) -> list[object]:
            return [point for point in ask(run, key) if run != first or point.step == 1]

        def table(self, what: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
            return compute()

    first = small.rows(group, "sce")["run_id"].iloc[0]
    frame = training_frame(replace(small, client=Stopped()), group)  # type: ignore[arg-type]
    loss = frame[(frame["quantity"] == names.TRAIN_LOSS) & (frame["label"] == "sce")]
    assert loss["seeds"].tolist() == [3, 2]
    assert loss["mean"].tolist() == pytest.approx([3, 2.5])


def test_accuracies_share_an_axis_and_each_loss_has_its_own(small: Results, group: Group) -> None:
    looks = drawn(small, group)
    figure = draw_training(training_frame(small, group), looks)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    train, validation, *losses = shown
    assert [axes.get_title() for axes in shown] == [
        "accuracy on what it is trained on",
        "accuracy on validation images",
        *looks,
    ]
    assert [len(axes.lines) for axes in shown] == [3, 3, 1, 1, 1]
    assert train.get_ylim() == validation.get_ylim() == (50, 99.9)
    assert train.lines[0].get_ydata().tolist() == pytest.approx([50, 99.9])  # 100 % is cut
    assert validation.lines[0].get_ydata().tolist() == pytest.approx([60, 91])
    assert losses[0].lines[0].get_ydata().tolist() == pytest.approx([3, 2])
    assert len({axes.get_ylim() for axes in losses}) == 3
    colours = [look.colour for look in looks.values()]
    assert [line.get_color() for line in train.lines] == colours
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(looks)
    assert [line.get_color() for line in legend.get_lines()] == colours


def test_training_has_a_band_a_line_of_its_seeds(small: Results, group: Group) -> None:
    figure = draw_training(training_frame(small, group), drawn(small, group))
    train, validation, loss, *_ = figure.axes
    found = [axes.collections[0].get_paths()[0].vertices[:, 1] for axes in (validation, loss)]
    assert set(found[0].round(3)) == {60, 88.516, 93.484}  # 91 and 4.30265 * 1 / sqrt(3)
    assert set(found[1].round(3)) == {0.516, 5.484, 0, 4.484}  # a loss is not below 0
    assert len(train.collections) == len(train.lines)


def trained(epochs: int = 2, **means: Sequence[float]) -> pd.DataFrame:
    """The training of one seed: quantity -> means of the first epochs; the last goes on."""
    return pd.DataFrame(
        ("sce", quantity, epoch, found[min(epoch, len(found)) - 1], math.nan)
        for quantity, found in means.items()
        for epoch in range(1, epochs + 1)
    ).set_axis(["label", "quantity", "epoch", "mean", "half_width"], axis=1)


@pytest.mark.parametrize(
    ("accuracies", "ends"),
    [
        ([0.97, 0.993], (95, 99.5)),
        ([0.97, 0.98], (95, 98)),
        ([0.95, 0.95], (95, 98)),
        ([1.0, 1.0], (99.5, 99.9)),
        ([0.1, 0.4], (0, 50)),
    ],
)
def test_the_accuracies_axis_ends_around_them_whatever_the_losses(
    accuracies: list[float], ends: tuple[float, float]
) -> None:
    frame = trained(train_loss=[30, 0.001], train_accuracy=accuracies)
    axes = draw_training(frame, {"sce": Appearance("red", "o", "-")}).axes[0]
    assert axes.get_ylim() == ends


@pytest.mark.parametrize(("epochs", "every"), [(2, 1), (24, 2), (25, 3)])
def test_a_line_has_a_dozen_markers_at_most(epochs: int, every: int) -> None:
    frame = trained(epochs, train_loss=[2, 1], train_accuracy=[0.5, 0.9])
    figure = draw_training(frame, {"sce": Appearance("red", "o", "-")})
    assert figure.axes[0].lines[0].get_markevery() == every


def test_the_accuracies_axis_is_logarithmic_in_the_error() -> None:
    values = np.array([0.0, 90.0, 99.0, 99.9, 100.0])
    assert np.diff(_stretched(values)) == pytest.approx([1, 1, 1, 0])
    assert _unstretched(_stretched(values[:4])) == pytest.approx(values[:4])
