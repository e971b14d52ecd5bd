"""Ours beside the published numbers: the right cells, differences, order and what is missing."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis.audit import Audit
from analysis.checks import Check
from analysis.figures.calibration import draw_calibration
from analysis.figures.files import Drawing
from analysis.plan import Group, Plan
from analysis.published import Column, published
from analysis.published.match import row_of
from analysis.runs import DONE, Results
from analysis.tables.paper import (
    PaperTable,
    calibration_frame,
    column_title,
    nearest_readings,
    notes,
    paper_frame,
    paper_tables,
)
from analysis.tables.paper_text import printed, row_title, to_latex, to_markdown
from trainables import names

SCE = {"loss": "sce", "regime": "standard", "transform": "none"}
ISCE = {**SCE, "loss": "isce", "loss.s": "1", "loss.m": "0.1", "loss.normalize": "logits"}
ARMS = {
    "sce": (SCE, [0.60, 0.62, 0.64]),
    "isce": (ISCE, [0.90, 0.91, 0.92]),
    "norm-sce": ({**ISCE, "loss.m": "0"}, [0.89, 0.92, 0.91]),
    "at-l2": ({**SCE, "regime": "adversarial"}, [0.99]),
    "center": ({**SCE, "loss": "center"}, [0.2, 0.2, 0.2]),
}
PATH = {"budget": "path_linf", "norm": "", "extra": {"kappa": "0.5"}}
BALL = {"budget": "l2_rms", "norm": "l2", "extra": {}}
UN = Column("mnist", "lenet5", "pgd", 0.02, 10, "un")
TAR = Column("mnist", "lenet5", "pgd", 0.02, 10, "tar")
CLEAN = Column("mnist", "lenet5", "clean", 0.0, 0, "")


def cells() -> dict[str, dict[str, Any]]:
    """Both goals on a path, the untargeted one in a ball; clean; what no column has."""
    pgd = {"split": "test", "attack": "pgd", "algorithm": "pgd", "surface": "ce_deployed", "n": 9}
    small = {**pgd, "eps": 0.02, "steps": 10, "check": ""}
    return {
        "cell/test/clean": {"split": "test", "attack": "clean", "n": 9, "check": ""},
        "path-un": {**small, **PATH, "targeted": False},
        "path-tar": {**small, **PATH, "targeted": True},
        "ball-un": {**small, **BALL, "targeted": False},
        "other-steps": {**small, **BALL, "targeted": False, "steps": 11},
        "of-the-audit": {**small, **BALL, "targeted": False, "check": "steps"},
        "on-validation": {**small, **BALL, "targeted": False, "split": "validation"},
    }


def results(dataset: str = "mnist", backbone: str = "lenet5", **raw: Any) -> Results:
    """A study as the tracking server would hand it over."""
    trials, rows = [], []
    for method, (params, values) in ARMS.items():
        for seed, value in enumerate(values):
            trial = f"{method}-{seed}"
            about = {"trial_id": trial, "dataset": dataset, "backbone": backbone, "arm": method}
            trials.append({**about, "methods": [method], "axes": {}, "params": params})
            numbers = {"clean": 0.98, "path-un": value, "path-tar": value / 2, "ball-un": value}
            about |= {"method": method, "label": method, "seed": seed, "run_id": trial}
            rows.append({**about, "state": DONE, "attack_mark": "", **numbers})
    protocol = {
        "headline": {"label": "", "test": ["ball-un"], "validation": []},
        "cells": cells(),
        "rebuilds": raw.pop("rebuilds", []),
        "worst_raw": {},
    }
    plan = {
        "study": "t",
        "command": "study run t",
        "methods": list(ARMS),
        "choose": [],
        "axes": {},
        "seeds": {method: [0, 1, 2] for method in ARMS},
        "protocols": {f"{backbone}/{dataset}": protocol},
        "trials": trials,
        **raw,
    }
    return Results(Plan(plan), pd.DataFrame(rows), "", "", client())


@cache
def client() -> MlflowClient:
    """Nothing is asked of it."""
    return MlflowClient("sqlite://")


def tables(**raw: Any) -> list[PaperTable]:
    study = results(**raw)
    return paper_tables(study, study.plan.groups[0])


def row(table: PaperTable, label: str) -> Any:
    return next(row for row in table.rows if row.label == label)


def test_a_table_stands_once_in_each_reading() -> None:
    path, ball = tables()
    assert [table.table.number for table in (path, ball)] == [5, 5]
    assert path.reading.title == "ε as path_linf, kappa 0.5, surface ce_deployed"
    assert ball.reading.title == "ε as l2_rms, surface ce_deployed"
    assert set(path.reading.cells) == {CLEAN, UN, TAR}
    assert {column: cell.name for column, cell in ball.reading.cells.items()} == {
        CLEAN: "cell/test/clean",
        UN: "ball-un",
    }
    assert path.columns == published(5).columns


def test_ours_published_and_the_difference() -> None:
    entry = row(tables()[0], "sce").entries[UN]
    assert entry.ours.mean == pytest.approx(0.62)
    assert entry.published == 65.55
    assert entry.difference == pytest.approx(62 - 65.55)
    assert printed(entry) == "65.55, −3.5"  # half to even, as Python has it
    targeted = row(tables()[0], "isce").entries[TAR]
    assert targeted.published == 98.40
    assert targeted.ours.mean == pytest.approx(0.455)


def test_rows_are_the_papers_and_controls_stand_below() -> None:
    shown = [(row.published, row.label) for row in tables()[0].rows]
    assert shown == [
        ("SCE", "sce"),
        ("Center", "center"),
        ("L-GM", ""),
        ("MMC", ""),
        ("I-SCE", "isce"),
        ("Random", ""),
        ("AT", "at-l2"),
        ("", "norm-sce"),
    ]
    titles = [row_title(row) for row in tables()[0].rows]
    assert titles[4:] == ["I-SCE", "Random", "AT (at-l2)", "norm-sce (control)"]


def test_missing_cells_are_told_with_the_command() -> None:
    path = tables()[0]
    missing = row(path, "").entries[UN]
    assert missing.ours.is_missing and math.isnan(missing.difference)
    assert "— missing: `study run t` computes it." in list(notes(path))
    assert printed(missing) == f"{missing.published:.2f}"
    assert row(path, "norm-sce").entries[UN].published is None


def test_the_best_is_marked_and_whether_it_leads_for_certain() -> None:
    path = tables()[0]
    best = {label: row(path, label).entries[UN] for label in ("sce", "isce", "norm-sce", "at-l2")}
    assert [entry.is_best for entry in best.values()] == [False, True, False, False]  # AT: one seed
    assert best["isce"].is_tied  # norm-sce is as good
    assert not any(row(path, label).entries[CLEAN].is_best for label in best)  # all are equal


def test_a_best_that_is_better_than_all_others_is_not_tied(monkeypatch: Any) -> None:
    monkeypatch.setitem(ARMS, "norm-sce", (ARMS["norm-sce"][0], [0.5, 0.51, 0.52]))
    entry = row(tables()[0], "isce").entries[UN]
    assert entry.is_best and not entry.is_tied


def test_masked_attacks_do_not_lead(monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "analysis.tables.paper.cell_marks",
        lambda arm, *_: {"path-un": names.MASKED if arm.label == "isce" else names.UNAUDITED},
    )
    path = tables()[0]
    assert row(path, "isce").entries[UN].mark == names.MASKED
    assert not row(path, "isce").entries[UN].is_best
    assert row(path, "norm-sce").entries[UN].is_best


def test_nor_do_attacks_that_a_check_of_their_own_doubts() -> None:
    """A path has no threat model and no other mark, whatever its gradients."""
    study = results()
    failed = Check("gradients", "path-un", "", names.MASKED, "fail", {})
    audits = {"isce-1": Audit((failed,), {})}
    path, ball = paper_tables(study, study.plan.groups[0], audits)
    assert row(path, "isce").entries[UN].is_doubted
    assert row(path, "norm-sce").entries[UN].is_best
    assert row(path, "isce").entries[TAR].is_best
    assert row(ball, "isce").entries[UN].is_best
    assert row(path, "isce").entries[UN].sign == "○ ✗"
    assert row(path, "isce").entries[TAR].sign == row(path, "sce").entries[UN].sign == "○"
    assert "^{\\circ \\times}" in to_latex([path])
    told = "✗ a check of the cell's own attack fails (audit.csv): it never leads."
    assert told in list(notes(path)) and told not in list(notes(ball))


def test_distances_are_over_attacked_columns_and_leave_sce_out() -> None:
    path = tables()[0]
    assert path.calibration == pytest.approx((abs(62 - 65.55) + abs(31 - 91.43)) / 2)
    others = [abs(91 - 98.74), abs(45.5 - 98.40), abs(20 - 74.44), abs(10 - 96.65)]
    others += [abs(99 - 93.91), abs(49.5 - 64.56)]
    assert path.held_out == pytest.approx(sum(others) / 6)


def test_the_nearest_reading_is_told_as_the_best_of_those_tried() -> None:
    frame = calibration_frame(tables())
    path, ball = tables()
    assert ball.calibration < path.calibration
    assert frame["reading"].tolist() == [ball.reading.title, path.reading.title]
    assert frame["sce_points"].tolist() == pytest.approx([ball.calibration, path.calibration])
    (told,) = nearest_readings(frame)
    assert "of 2 readings “ε as l2_rms, surface ce_deployed” comes nearest" in told
    assert "3.5 points off" in told and "not what the paper did" in told
    assert calibration_frame([]).empty and not list(nearest_readings(calibration_frame([])))


def test_readings_are_drawn_with_what_they_are_chosen_by_and_what_is_held_out() -> None:
    path, ball = tables()
    other = replace(path, reading=replace(path.reading, surface="margin_raw"))
    frame = calibration_frame([path, ball, other, *tables(dataset="mnist5k", rebuilds=[1])])
    one, five = draw_calibration(frame).axes
    assert (one.get_title(), five.get_title()) == (
        "Table 1, ours on lenet5/mnist5k",
        "Table 5, ours on lenet5/mnist",
    )
    assert [line.get_label().split(":")[0] for line in five.lines] == [
        "the other rows",
        "SCE row",
        "nearest",
    ]
    assert five.lines[2].get_ydata() == [0]
    held_out, calibrated, nearest = (line.get_xdata() for line in five.lines)
    between = [segment[:, 0].tolist() for segment in five.collections[0].get_segments()]
    assert between == [sorted(ends) for ends in zip(calibrated, held_out, strict=True)]
    assert five.get_xlim()[0] == 0
    assert calibrated == pytest.approx([ball.calibration, path.calibration, path.calibration])
    assert held_out == pytest.approx([ball.held_out, path.held_out, path.held_out])
    assert nearest == pytest.approx([ball.calibration])
    assert five.get_ylim() == (2.5, -0.5)  # the nearest on top
    assert [tick.get_text() for tick in five.get_yticklabels()] == [
        "l2_rms, surface ce_deployed",
        "path_linf, kappa 0.5, surface ce_deployed",
        "path_linf, kappa 0.5, surface margin_raw",
    ]


def test_the_figure_calls_the_nearest_the_best_of_those_tried() -> None:
    figure = draw_calibration(calibration_frame(tables()))
    (legend,) = figure.legends
    assert any("not what the paper did" in text.get_text() for text in legend.get_texts())
    drawing = Drawing(draw_calibration, (calibration_frame(tables()),))
    assert len([data for data in drawing.files(["png", "pdf", "svg"]) if data]) == 3


def test_agreement_is_kendalls_tau_over_shared_rows() -> None:
    """Ours: AT, I-SCE, SCE, Center. Untargeted as printed: I-SCE, AT, Center, SCE; targeted:
    I-SCE, Center, SCE, AT."""
    assert tables()[0].agreement == pytest.approx(((4 - 2) / 6 + (2 - 4) / 6) / 2)
    assert tables()[1].agreement == pytest.approx((4 - 2) / 6)


def test_slips_are_told_below_and_beside() -> None:
    path = tables()[0]
    assert row(path, "isce").entries[UN].notes == ("Above the clean accuracy, 98.42.",)
    told = "Published I-SCE, PGD untargeted 10, ε = 0.02: Above the clean accuracy, 98.42."
    assert told in list(notes(path))
    assert "The paper prints no rows for ArcFace and LS." in list(notes(path))


def test_a_study_stands_beside_what_it_declares_or_what_fits() -> None:
    assert tables(backbone="cnn8") == []
    assert tables(dataset="mnist5k") == []
    small = tables(dataset="mnist5k", rebuilds=[1], scale="small")
    assert {table.table.number for table in small} == {1}
    assert row(small[0], "sce").entries[replace(UN, backbone="resnet32")].published == 64.38
    assert "decides nothing about the paper" in next(notes(small[0]))
    assert row_of(ARMS["at-l2"][0]) == "AT"


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"loss.s": "1.5"}, None),
        ({"loss.normalize": "none"}, None),
        ({"transform": "random_resize_pad"}, None),
        ({"regime": "adversarial"}, None),
        ({}, "I-SCE"),
        ({"checkpoint.sha256": "0"}, None),  # trained nobody knows how
        ({"loss": "label_smoothing"}, "LS"),
        ({"loss": "sce", "transform": "random_resize_pad"}, "Random"),
        ({"loss": "a_plugins"}, None),
    ],
)
def test_rows_are_known_by_what_they_are(changed: dict[str, str], name: str | None) -> None:
    assert row_of({**ISCE, **changed}) == name


def test_markdown_has_every_number() -> None:
    text = to_markdown(tables()[:1])
    (line,) = [line for line in text.splitlines() if line.startswith("| I-SCE ")]
    assert "**91.0 ± 2.5 ○** = (98.74, −7.7)" in line
    assert "| AT (at-l2) |" in text and "99.0 † ○ (93.91, +5.1)" in text
    assert column_title(UN) in text


def test_latex_is_balanced_and_escaped() -> None:
    text = to_latex(tables())
    assert text.count("\\begin{table*}") == text.count("\\end{table*}") == 2 * 2
    assert text.count("{") == text.count("}")
    assert "ε" not in text and "−" not in text and "path\\_linf" in text
    rows = [line for line in text.splitlines() if line.startswith("I-SCE &")]
    assert sum(line.count(" & ") for line in rows) == 2 * 9


def test_csv_has_a_row_a_cell() -> None:
    frame = paper_frame(tables())
    assert len(frame) == 2 * 8 * 9
    read = list(csv.DictReader(io.StringIO(frame.to_csv(index=False))))
    found = next(
        r for r in read if r["method"] == "sce" and r["goal"] == "un" and r["eps"] == "0.02"
    )
    assert float(found["ours_percent"]) == 62.0
    assert float(found["published_percent"]) == 65.55
    assert float(found["difference_points"]) == pytest.approx(-3.55)


def test_groups_of_other_data_have_none() -> None:
    study = results(dataset="cifar10", backbone="lenet5")
    assert paper_tables(study, Group("cifar10", "lenet5")) == []
