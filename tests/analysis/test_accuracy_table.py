"""The accuracy table: its numbers, and what each format makes of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO

import pandas as pd
import pytest

from analysis.choice import Arm
from analysis.plan import Group, Plan
from analysis.runs import Results
from analysis.statistics import Estimate
from analysis.tables.accuracy import AccuracyTable, Row, accuracy_table, table_frame, table_row
from analysis.tables.audit import read_audits
from analysis.tables.latex import to_latex
from analysis.tables.markdown import to_markdown, to_terminal
from analysis.tables.text import marked, percent, points
from trainables import names

from .audited import OWN
from .audited_study import PATH, SMALLER
from .tracked_study import DEEPFOOL, MARGIN_RAW, WEAK


@pytest.fixture(scope="module")
def table(small: Results, group: Group) -> AccuracyTable:
    """The table of `small`."""
    return accuracy_table(small, group)


def test_sections_are_the_papers_tables(table: AccuracyTable) -> None:
    assert [section.title for section in table.sections] == [
        "Summary",
        "DeepFool, surface raw, 10 images (no threat model)",
        "PGD, l2_rms, surface ce_raw, 10 images",
        "PGD, l2_rms, surface margin_raw, 10 images",
        "PGD, l2_rms, surface ce_deployed, 10 images",
    ]
    margin = table.sections[3]
    assert [column.text for column in margin.columns] == ["PGD un 20", "PGD un 20", "PGD tar 20"]
    assert margin.sizes == [("ε = 0.02", 1), ("ε = 0.04", 2)]
    assert table.sections[1].columns[0].text == "DeepFool 50"


def test_values_are_means_over_seeds(table: AccuracyTable) -> None:
    sce, norm, isce = table.rows
    assert sce.estimates[names.ROBUST].mean == pytest.approx(0.5)
    assert sce.estimates[names.ROBUST].half_width == pytest.approx(0.24841, abs=1e-5)
    assert sce.estimates[MARGIN_RAW].mean == pytest.approx(0.6)
    assert norm.estimates[names.ROBUST].mean == pytest.approx(0.3)
    assert isce.estimates[names.ROBUST].mean == pytest.approx(0.5)


def test_rows_say_how_many_seeds_they_rest_on(table: AccuracyTable) -> None:
    assert [row.seeds for row in table.rows] == ["3", "2 of 3", "1"]
    assert [row.evidence for row in table.rows] == ["3 seeds", "2 seeds", names.EXPLORATORY]


def test_best_is_among_rows_of_several_seeds(table: AccuracyTable) -> None:
    sce, norm, isce = table.rows
    # isce has 0.6 here as sce has, and must not be bold: one seed.
    assert isce.estimates[MARGIN_RAW].mean == pytest.approx(0.6)
    assert [table.is_best(row, MARGIN_RAW) for row in (sce, norm, isce)] == [True, False, False]
    assert not any(table.is_best(row, names.CLEAN) for row in table.rows)  # all are equal


def test_ties_are_told_in_every_format(table: AccuracyTable) -> None:
    """Seeds 0 and 1 that sce and norm-sce share differ by 0.2 and 0.1: t = 3, p = 0.205."""
    sce, norm, isce = table.rows
    assert table.tied(sce, names.ROBUST) == "="
    assert table.tied(norm, names.ROBUST) == table.tied(isce, names.ROBUST) == ""
    assert "= where it is not significantly better than each other" in table.notes[0]
    read = table_frame([table]).set_index(["label", "metric"])
    assert read.loc[("sce", names.ROBUST), ["best", "not_significantly_better"]].all()
    assert not read.loc["norm-sce", ["best", "not_significantly_better"]].to_numpy().any()
    assert "*50.0 ± 24.8 ? =" in to_terminal(table)


def test_a_significant_lead_is_no_tie(small: Results, group: Group) -> None:
    """Differences of 0.2 and 0.21: t = 41, p = 0.016."""
    frame = small.frame.copy()
    frame.loc[frame["method"] == "sce", MARGIN_RAW] = [0.9, 0.91, 0.5]
    frame.loc[frame["method"] == "norm-sce", MARGIN_RAW] = [0.7, 0.7, float("nan")]
    found = accuracy_table(replace(small, frame=frame), group)
    assert found.is_best(found.rows[0], MARGIN_RAW)
    assert found.tied(found.rows[0], MARGIN_RAW) == ""
    assert "| **77.0 ± 58.1 ?** |" in to_markdown([found])


def test_notes_tell_choice_regret_and_what_is_missing(table: AccuracyTable) -> None:
    notes = " ".join(table.notes)
    assert "isce s=1.5 m=0.1 was chosen among 5 points of isce" in notes
    assert "ties: clean validation accuracy, then the smaller values" in notes
    assert "isce s=2 m=0.05 with 80.0 %: test regret 30.0 points" in notes
    assert "`study run small` computes them" in notes
    assert "† one seed: exploratory" in notes


def test_missing_cell_is_a_dash(flat: Results, group: Group) -> None:
    table = accuracy_table(flat, group)
    assert table.rows[0].estimates[DEEPFOOL].seeds == 1
    empty = Estimate(float("nan"), float("nan"), 0)
    assert percent(empty) == points(empty) == "—"


def test_percent_and_points() -> None:
    assert percent(Estimate(0.603, 0.035, 3)) == "60.3 ± 3.5"
    assert percent(Estimate(0.58, float("nan"), 1)) == "58.0 †"
    assert points(Estimate(-0.025, 0.031, 3)) == "\N{MINUS SIGN}2.5 ± 3.1"
    assert points(Estimate(0.1, float("nan"), 1)) == "+10.0 †"


def test_markdown(table: AccuracyTable) -> None:
    text = to_markdown([table])
    assert "| sce | 3 | 3 seeds | unaudited | 90.0 ± 0.0 | **50.0 ± 24.8 ?** = |" in text
    assert "| isce s=1.5 m=0.1 | 1 | exploratory | unaudited | 90.0 † | 50.0 † ? |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    tables = re.split(r"\n\n", "\n".join(rows))
    assert all(line.count("|") > 2 for block in tables for line in block.splitlines())
    assert "PGD un 20, ε = 0.02" in text


def test_latex_is_balanced(table: AccuracyTable) -> None:
    text = to_latex([table])
    bodies = re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}\n(.*?)\\end\{tabular\}", text, re.S)
    assert len(bodies) == text.count(r"\begin{table}") == text.count(r"\end{table}") == 5
    assert text.count(r"\begin{minipage}") == text.count(r"\end{minipage}") == 1
    assert max(map(len, re.findall(r"\\caption\{(.*)\}", text))) < 120  # notes stand below
    for columns, body in bodies:
        assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1] * 3
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        for line in lines:
            spans = sum(int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert line.replace(r"\&", "").count("&") + 1 + spans == len(columns)
    assert text.count("{") == text.count("}")
    assert r"\textbf{50.0 $\pm$ 24.8$^{?}$}$^{=}$" in text
    assert r"50.0$^{\dagger ?}$" in text
    assert r"90.0$^{\dagger}$ &" in text  # clean: nothing attacks
    assert r"$\circ$ no threat model" in text
    assert r"\texttt{audit: \{\}}" in text
    assert r"\texttt{study run small}" in text
    assert not re.search(r"(?<!\\)[%_](?![{])(?! Needs)", text.replace("$_{", ""))


@pytest.fixture(scope="module")
def believed(audited: Results, group: Group) -> AccuracyTable:
    """The table of `audited`, with its marks."""
    return accuracy_table(audited, group, read_audits(audited))


def row_of(table: AccuracyTable, label: str) -> Row:
    return next(row for row in table.rows if row.label == label)


def test_every_attack_has_the_gravest_mark_of_its_seeds(believed: AccuracyTable) -> None:
    sce, mmc = row_of(believed, "sce"), row_of(believed, "mmc")
    assert (sce.mark(names.ROBUST), sce.attack_mark) == (names.WEAK, "weak attack (1 of 3)")
    assert sce.mark(OWN["margin_raw"].name) == names.WEAK
    assert mmc.mark(OWN["margin_raw"].name) == mmc.attack_mark == names.TRUSTED
    assert mmc.mark(OWN["ce_raw"].name) == names.MASKED
    assert mmc.mark(SMALLER["margin_raw"].name) == names.UNAUDITED
    assert mmc.mark(SMALLER["ce_deployed"].name) == names.MASKED  # 2.5 points above its setting
    assert mmc.mark(PATH.name) == names.NO_THREAT_MODEL
    assert mmc.mark(names.CLEAN) == mmc.mark(names.WORST_CASE) == ""


def test_runs_without_an_audit_are_unaudited(believed: AccuracyTable, table: AccuracyTable) -> None:
    older = row_of(believed, "older")
    assert older.mark(names.ROBUST) == older.mark(SMALLER["ce_deployed"].name) == names.UNAUDITED
    assert older.mark(PATH.name) == names.NO_THREAT_MODEL
    assert table.rows[0].mark(MARGIN_RAW) == names.UNAUDITED
    assert table.rows[0].mark(DEEPFOOL) == names.NO_THREAT_MODEL


def test_masked_or_weak_never_leads(believed: AccuracyTable) -> None:
    quantised, at = row_of(believed, "quantised"), row_of(believed, "at")
    own = OWN["margin_raw"].name
    for metric in (own, names.ROBUST, names.WORST_CASE):
        assert quantised.estimates[metric].mean > at.estimates[metric].mean
        assert not believed.is_best(quantised, metric)
    assert believed.is_best(at, OWN["ce_deployed"].name) is False  # all others are masked or weak


def test_best_of_those_that_stand_leads(
    audited: Results, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric, frame = OWN["ce_raw"].name, audited.frame.copy()
    marks = {"mmc": names.MASKED, "quantised": names.WEAK, "at": names.UNAUDITED}
    for method, accuracy in (("mmc", 0.9), ("quantised", 0.8), ("at", 0.6), ("sce", 0.5)):
        frame.loc[frame["method"] == method, metric] = accuracy
    monkeypatch.setattr(
        "analysis.tables.accuracy.cell_marks",
        lambda arm, *_: {metric: marks.get(arm.label, names.TRUSTED)},
    )
    found = accuracy_table(replace(audited, frame=frame), group)
    assert [row.label for row in found.rows if found.is_best(row, metric)] == ["at"]


def test_equal_rows_of_several_counts_of_seeds_are_equal(believed: AccuracyTable) -> None:
    """0.95 three times and five times: their means differ in the last bit."""
    sce, at = row_of(believed, "sce"), row_of(believed, "at")
    assert sce.estimates[names.CLEAN].mean != at.estimates[names.CLEAN].mean
    assert not any(believed.is_best(row, names.CLEAN) for row in believed.rows)


def test_notes_tell_marks_sizes_and_what_does_not_apply(believed: AccuracyTable) -> None:
    notes = " ".join(believed.notes)
    for sign in "✓↓✗?○":
        assert f"{sign} " in notes
    assert "`audit: {}` in the study file" in notes
    assert "random: 50 images, not 200 (clean, PGD)." in notes
    assert "over the first images that all of them saw" in notes
    assert "not planned" not in notes  # what isce lacks is the audit's
    assert "still to come" not in notes


def test_lacking_cell_is_told_apart_from_a_missing_one(audited: Results, group: Group) -> None:
    """The first seed of sce lacks the path; no command would compute it."""
    raw = json.loads(json.dumps(audited.plan.raw))
    for trial in raw["trials"]:
        if trial["methods"] == ["mmc"]:
            trial["lacks"] = [PATH.name]
    frame = audited.frame.copy()
    frame.loc[frame["method"] == "mmc", PATH.name] = float("nan")
    results = replace(audited, plan=Plan(raw), frame=frame)
    notes = " ".join(accuracy_table(results, group).notes)
    assert "— mmc, PGD: not planned, it does not apply there." in notes
    assert "still to come" not in notes
    emptier = frame.assign(
        **{PATH.name: frame[PATH.name].where(frame["method"] != "at", float("nan"))}
    )
    table = accuracy_table(replace(results, frame=emptier), group)
    assert "still to come" in " ".join(table.notes)


def test_spread_over_passes_is_told(audited: Results, group: Group) -> None:
    own = OWN["margin_raw"].name
    frame = audited.frame.assign(**{own + names.SPREAD: float("nan")})
    frame.loc[frame["method"] == "random", own + names.SPREAD] = 0.014
    table = accuracy_table(replace(audited, frame=frame), group)
    notes = " ".join(table.notes)
    assert "random draws at random at every pass" in notes
    assert "whose SD is 1.4 points at most" in notes
    assert notes.count("at every pass") == 1
    read = table_frame([table]).set_index(["label", "metric"])["spread_percent"]
    assert read["random", own] == 1.4
    assert pd.isna(read["sce", own])


def test_row_of_a_failed_run_has_no_mark(audited: Results, group: Group) -> None:
    rows = audited.rows(group, "at").assign(state="failed")
    row = table_row(
        Arm("at", "at", rows), [names.ROBUST], audited.plan, audited.plan.protocol(group)
    )
    assert (row.attack_mark, row.mark(names.ROBUST), row.mark(PATH.name)) == ("", "", "")


def test_marks_stand_beside_numbers() -> None:
    value = Estimate(0.603, 0.035, 3)
    assert marked(value, names.TRUSTED) == "60.3 ± 3.5 ✓"
    assert marked(value, "") == "60.3 ± 3.5"
    assert marked(Estimate(float("nan"), float("nan"), 0), names.MASKED) == "—"


def test_formats_carry_every_mark(believed: AccuracyTable) -> None:
    latex, markdown = to_latex([believed]), to_markdown([believed])
    for symbol in (r"\surd", r"\downarrow", r"\times", "?", r"\circ"):
        assert f"$^{{{symbol}}}$" in latex
    assert "| 95.0 ± 0.0 | 50.0 ± 0.0 ✓ |" in markdown
    assert "| weak attack (1 of 3) |" in markdown
    read = table_frame([believed])
    assert set(read["attack_mark"]) == {
        "",
        *(mark for row in believed.rows for mark in row.marks.values()),
    }
    assert "50.0 ± 0.0 ↓" in to_terminal(believed)


def test_csv_is_long_and_in_percent(table: AccuracyTable) -> None:
    read = pd.read_csv(StringIO(table_frame([table]).to_csv(index=False)))
    found = read[(read["method"] == "sce") & (read["metric"] == WEAK)]
    assert found["accuracy_percent"].tolist() == [70.0]
    assert found["seeds"].tolist() == [3]
    assert len(read) == 3 * (3 + 7)


def test_terminal_table_is_aligned(table: AccuracyTable) -> None:
    lines = to_terminal(table).splitlines()
    assert lines[0] == "lenet5/mnist5k"
    assert len({len(line) for line in lines[1:6]}) == 1
    assert lines[3].split()[:2] == ["sce", "3"]
