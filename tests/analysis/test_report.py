"""The report as a whole: files, page, and what it must never do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from lxml import html
from mlflow import MlflowClient

from analysis.report import Report, write_report
from analysis.runs import Results
from trainables import names

OVERVIEWS = {
    f"{figure}.{kind}"
    for figure in ("curves", "tradeoff", "training")
    for kind in ("png", "pdf", "svg", "csv")
}
FILES = {
    "index.html",
    "verdicts.csv",
    "table.md",
    "table.tex",
    "table.csv",
    *(
        f"{stem}.{kind}"
        for stem in ("figure3", "heatmaps")
        for kind in ("png", "pdf", "svg", "csv")
    ),
}


@pytest.fixture(scope="module")
def report(store: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of `small`."""
    folder = tmp_path_factory.mktemp("report") / "made" / "by" / "need"
    return write_report(store, "small", folder, "study report small --out here")


@pytest.fixture(scope="module")
def page(report: Report) -> html.HtmlElement:
    """Its page, parsed."""
    return html.document_fromstring(report.page.read_text(encoding="utf-8"))


def test_all_files_are_written(report: Report) -> None:
    assert {path.name for path in report.files} == FILES | OVERVIEWS
    assert all(path.stat().st_size > 0 for path in report.files)
    assert report.missing == 2
    assert "isce s=1.5 m=0.1" in report.table


def test_files_are_logged_to_the_report_run(report: Report, small: Results) -> None:
    logged = small.client.list_artifacts(small.report_run, names.REPORT_FOLDER)
    assert {Path(item.path).name for item in logged} == {path.name for path in report.files}


def test_page_fetches_nothing(page: html.HtmlElement) -> None:
    fetched = [
        value
        for element in page.iter()
        if isinstance(element.tag, str) and element.tag != "a"
        for name, value in element.attrib.items()
        if name in {"src", "href", "srcset", "data", "poster", "action"}
    ]
    assert fetched
    assert all(value.startswith("data:image/svg+xml;base64,") for value in fetched)
    styles = " ".join(style.text_content() for style in page.iter("style"))
    assert "url(" not in styles
    assert "@import" not in styles
    links = [link.get("href") for link in page.iter("a")]
    assert all(page.get_element_by_id(link.removeprefix("#")) is not None for link in links)


def test_page_escapes_what_people_wrote(page: html.HtmlElement) -> None:
    assert "<script>alert(1)</script>" in page.find_class("question")[0].text_content()
    scripts = [script.text or "" for script in page.iter("script")]
    assert not any(script.strip() == "alert(1)" for script in scripts)
    assert "<i>nan</i>" in page.get_element_by_id("missing").text_content()
    assert "# <b>bold</b>" in page.get_element_by_id("provenance").text_content()


def test_page_has_one_copy_of_the_library(page: html.HtmlElement) -> None:
    large = [script for script in page.iter("script") if len(script.text or "") > 1_000_000]
    assert len(large) == 1
    identifiers = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))


def test_page_can_be_read_without_seeing_it(page: html.HtmlElement) -> None:
    assert page.get("lang") == "en"
    assert all(image.get("alt") for image in page.iter("img"))
    tables = list(page.iter("table"))
    assert tables
    for table in tables:
        assert table.find("caption") is not None
        assert all(head.get("scope") for head in table.iter("th"))
    assert "prefers-color-scheme: dark" in page.find(".//style").text


def test_page_tells_what_is_missing_and_where_it_came_from(page: html.HtmlElement) -> None:
    missing = page.get_element_by_id("missing")
    rows = [[cell.text_content() for cell in row] for row in missing.iter("tr")]
    assert rows[1:] == [
        ["norm-sce · lenet5/mnist5k · seed 2", "missing", "not run yet"],
        ["isce s=1 m=0.1 · lenet5/mnist5k · seed 0", "failed", "NonFiniteLoss: <i>nan</i>"],
    ]
    assert "study run small" in missing.text_content()
    provenance = page.get_element_by_id("provenance").text_content()
    for expected in ("study report small --out here", "2.15.0", "abc123", "d1ge57", "0, 1, 2"):
        assert expected in provenance


def test_report_is_reproducible(store: str, report: Report, tmp_path: Path) -> None:
    """Drawn anew, not copied from what was kept."""
    again = write_report(store, "small", tmp_path, "study report small --out here", fresh=True)
    for one, other in zip(report.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_study_without_a_surface(store: str, tmp_path: Path) -> None:
    report = write_report(store, "flat", tmp_path, "study report flat")
    assert {path.name for path in report.files} == {
        "index.html",
        "verdicts.csv",
        "table.md",
        "table.tex",
        "table.csv",
        *OVERVIEWS,
    }
    assert "Accuracy surface" not in report.page.read_text(encoding="utf-8")
    assert report.missing == 1


def test_two_data_sets_have_a_surface_and_a_table_each(store: str, tmp_path: Path) -> None:
    report = write_report(store, "double", tmp_path, "study report double")
    stems = {path.stem for path in report.files if path.suffix == ".svg"}
    kinds = ("figure3-isce", "heatmaps-isce", "curves", "tradeoff", "training")
    each = {f"{kind}-lenet5-{data}" for kind in kinds for data in ("mnist5k", "mnist")}
    assert stems == {*each, "effects-methods"}
    text = report.page.read_text(encoding="utf-8")
    assert len(re.findall(r"<caption>Summary", text)) == 2
    assert text.count("PlotlyConfig") == 1
    assert report.table.count("lenet5/mnist") == 2


@pytest.fixture(scope="module")
def verdicts(store: str, tmp_path_factory: pytest.TempPathFactory) -> html.HtmlElement:
    """The section of `audited` that says whether to believe it."""
    folder = tmp_path_factory.mktemp("verdicts")
    report = write_report(store, "audited", folder, "study report audited")
    assert "audit.csv" in {path.name for path in report.files}
    page = html.document_fromstring(report.page.read_text(encoding="utf-8"))
    found = page.get_element_by_id("audit")
    order = [section.get("id") for section in page.iter("section")]
    assert order.index("answer") < order.index("audit") < order.index("accuracy")
    return found


def words(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def test_page_has_a_verdict_for_every_method_and_check(verdicts: html.HtmlElement) -> None:
    rows = [[words(cell) for cell in row] for row in verdicts.iter("tr")]
    head = rows[0]
    table = {row[0]: dict(zip(head, row, strict=True)) for row in rows[1:]}
    assert table["sce"]["AutoAttack"] == "✗ 2 of 3 pass"
    assert table["sce"]["Headline"] == "↓ weak attack (1 of 3)"
    assert table["at"]["AutoAttack"] == table["at"]["Square"] == "✓ pass"
    assert table["mmc"]["Surfaces"] == "✗ ce_deployed ✗ ce_raw ✓ margin_raw"
    assert table["mmc"]["Largest masking gap"] == "+40.0 ± 0.0"
    assert table["random"]["AutoAttack"] == "– n.a."
    assert table["random"]["More draws"] == "✗ fail"
    assert (table["older"]["Runs"], table["older"]["AutoAttack"]) == ("0 of 1", "—")
    assert "Unit logits" not in head  # applies to no headline


def test_page_tells_rule_and_numbers_of_what_failed(verdicts: html.HtmlElement) -> None:
    details = [words(block) for block in verdicts.iter("details")]
    (found,) = [text for text in details if text.startswith("✗ sce: AutoAttack")]
    assert "✗ AutoAttack (weak attack): the headline" in found
    assert "takes at most 2 points more, on 150 images or more" in found
    assert "Seed 2, the headline: headline 50.0 %, AutoAttack 45.0 % (200 images)." in found
    assert "Seed 0" not in found
    text = words(verdicts)
    assert "? unaudited: a stronger one may leave less; audit: {} in the study file" in text
    assert "n.a.: Unit logits: margin_raw is free of scale." in text
    assert "— runs of older that were tracked before there were checks: study run audited" in text


def test_signs_can_be_read_without_seeing_them(verdicts: html.HtmlElement) -> None:
    signs = verdicts.find_class("mark")
    assert {(sign.text, sign.get("aria-label")) for sign in signs} >= {
        ("✗", names.MASKED),
        ("✓", names.TRUSTED),
    }
    assert {sign.get("role") for sign in signs} == {"img"}


def test_study_without_an_audit_says_how_to_have_one(page: html.HtmlElement) -> None:
    text = words(page.get_element_by_id("audit"))
    assert "— runs of sce, norm-sce, isce s=1.5 m=0.1 that were tracked before" in text
    assert "audit: {} in the study file" in text
    assert "audit.csv" not in text


def test_a_later_report_replaces_the_earlier(store: str, report: Report, small: Results) -> None:
    client = MlflowClient(tracking_uri=store)
    assert len(client.list_artifacts(small.report_run, names.REPORT_FOLDER)) == len(report.files)


def test_analysis_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, analysis.report\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'ray', 'study')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
