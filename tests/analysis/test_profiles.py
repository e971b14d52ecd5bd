"""All that is known of one method, on one page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lxml import html

from analysis.figures.exhibits import Gallery, gallery
from analysis.figures.files import Album
from analysis.plan import Group
from analysis.profiles import anchor, profiles
from analysis.report import write_report
from analysis.runs import Results, load
from analysis.tables.accuracy import accuracy_table
from analysis.tables.audit import audit_table, read_audits
from trainables import names

from .tracked_study import MARGIN_RAW


@pytest.fixture
def album(small: Results, tmp_path: Path) -> Album:
    """Where the images go; nothing of it is drawn."""
    return Album(tmp_path, small.client.cache)


def test_every_method_has_one_at_its_shown_configuration(
    small: Results, group: Group, album: Album
) -> None:
    audits = read_audits(small)
    table = accuracy_table(small, group, audits)
    found = profiles(small, table, audit_table(small, group, audits), album)
    assert [profile.row.label for profile in found] == ["sce", "norm-sce", "isce s=1.5 m=0.1"]
    assert [profile.baseline for profile in found] == ["", "sce", "sce"]
    assert "was chosen among 5 points" in found[2].facts["hyper-parameters"]
    assert found[0].facts["seeds"] == "0, 1, 2"


def test_lines_are_the_tables_with_the_baseline_at_equal_seeds(
    small: Results, group: Group, album: Album
) -> None:
    audits = read_audits(small)
    table = accuracy_table(small, group, audits)
    _, norm, _ = profiles(small, table, audit_table(small, group, audits), album)
    wanted = {column.metric for section in table.sections for column in section.columns}
    assert {line.column.metric for line in norm.lines} == wanted
    (headline,) = (line for line in norm.lines if line.column.metric == names.ROBUST)
    assert headline.less_baseline.mean == pytest.approx((-0.2 - 0.1) / 2)
    (margin,) = (line for line in norm.lines if line.column.metric == MARGIN_RAW)
    assert margin.mark == names.UNAUDITED


def test_a_profile_holds_its_own_images_alone(store: str, tmp_path: Path) -> None:
    report = write_report(store, "looked", tmp_path, "study report looked")
    page = html.document_fromstring(report.page.read_text(encoding="utf-8"))
    shown = {
        details.find("summary/strong").text: len(list(details.iter("img")))
        for details in page.find_class("profile")
    }
    assert shown == {"sce": 1, "isce s=2 m=0.1": 1, "<b>loud</b>": 1, "none yet": 0}


def test_a_model_that_gets_nothing_right_has_no_images_to_show(
    store: str, group: Group, album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load(store, "looked")

    def emptied(results: Results, group: Group, label: str) -> Gallery | None:
        found = gallery(results, group, label)
        assert found
        first, *others = found.exhibits
        nothing = replace(
            first, frame=first.frame.iloc[:0], clean=first.clean[:0], attacked=first.attacked[:0]
        )
        return replace(found, exhibits=(nothing, *others))

    monkeypatch.setattr("analysis.profiles.gallery", emptied)
    table = accuracy_table(results, group)
    first, second, *_ = profiles(results, table, audit_table(results, group, {}), album)
    assert (len(first.images), len(second.images)) == (0, 1)


def test_links_of_the_first_page_lead_to_profiles(store: str, tmp_path: Path) -> None:
    report = write_report(store, "double", tmp_path, "study report double")
    page = html.document_fromstring(report.page.read_text(encoding="utf-8"))
    links = {link.get("href") for link in page.get_element_by_id("answer").iter("a")}
    anchors = {f"#{details.get('id')}" for details in page.find_class("profile")}
    assert links == anchors
    assert len(anchors) == 4  # two methods on two data sets


def test_configuration_is_told_part_by_part(small: Results, group: Group, album: Album) -> None:
    raw = {
        **small.plan.raw,
        "trials": [
            {
                **trial,
                "params": {
                    "loss": "isce", "loss.s": "1", "loss.m": "0.1", "regime": "standard",
                    "training.epochs": "3", "seed": "0",
                },
            }
            for trial in small.plan.trials
        ],
    }  # fmt: skip
    results = Results(type(small.plan)(raw), small.frame, "", small.report_run, small.client)
    table = accuracy_table(results, group)
    (first, *_) = profiles(results, table, audit_table(results, group, {}), album)
    assert first.facts["loss"] == "isce (s 1, m 0.1)"
    assert first.facts["regime"] == "standard"
    assert first.facts["training"] == "epochs 3"
    assert "transform" not in first.facts
    assert first.anchor == anchor(group, "sce", results.plan)
