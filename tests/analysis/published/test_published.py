"""The transcription, cell by cell against the paper's text, and the slips by recomputing them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from analysis.published import TABLES, Cell, Column, published
from analysis.published.slips import ABSENT, TEXT, slips

PAPER = Path(__file__).parents[3] / "../shared/paper/i-sce.txt"
SHAPES = {1: (9, 9), 2: (9, 9), 3: (9, 10), 4: (6, 8), 5: (7, 9), 6: (7, 9), 7: (7, 10)}
PLACES = {
    1: ("mnist", "resnet32"),
    2: ("cifar10", "resnet32"),
    5: ("mnist", "lenet5"),
    6: ("cifar10", "cnn8"),
}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """The paper's text; it is not ours to give away, so it need not be here."""
    if not PAPER.exists():
        pytest.skip("the paper's text is not here")
    return PAPER.read_text("utf-8").splitlines()


@pytest.mark.parametrize("number", TABLES)
def test_every_number_stands_where_the_text_has_it(lines: list[str], number: int) -> None:
    table = published(number)
    above = lines[: next(i for i, line in enumerate(lines) if line.startswith(f"Table {number}:"))]
    assert lines[len(above)] == f"Table {number}: {table.caption}"
    for method in table.methods:
        cells = [cell for cell in table.cells if cell.method == method]
        (line,) = {cell.line for cell in cells}
        name, *values = lines[line - 1].split("\t")
        assert name == method
        assert line > len(above)
        assert [f"{cell.accuracy:.2f}" for cell in cells] == values


@pytest.mark.parametrize("number", TABLES)
def test_columns_are_those_of_the_heading(lines: list[str], number: int) -> None:
    top = next(i for i, line in enumerate(lines) if line.startswith(f"Table {number}:"))
    heading = "".join(itertools.takewhile(lambda line: not line.startswith("SCE"), lines[top:]))
    columns = published(number).columns
    attacked = [column for column in columns if not column.is_clean]
    sizes = [float(eps) for eps in re.findall(r"epsilon = ([\d.]+)", heading)]
    found = dict.fromkeys((column.dataset, column.eps) for column in attacked)
    assert [eps for _, eps in found] == sizes
    named = [(column.steps, column.goal) for column in attacked]
    if number == 4:
        asked = re.search(r"(\d+) times per image on MNIST and (\d+) times", "".join(lines))
        assert named == [(int(queries), "") for queries in asked.groups() for _ in range(3)]
    else:
        attacks = re.findall(r"(?:PGD_|DF )\W?(\w+?)\}?(?:\^\{(un|tar)\}|\t|DF|$)", heading)
        assert named == [(int(steps.translate(_SUBSCRIPTS)), goal) for steps, goal in attacks]


_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


@pytest.mark.parametrize("number", TABLES)
def test_no_row_or_column_is_short(number: int) -> None:
    table = published(number)
    rows, columns = SHAPES[number]
    assert (len(table.methods), len(table.columns)) == (rows, columns)
    assert len(table.cells) == rows * columns
    assert all(0 <= cell.accuracy <= 100 for cell in table.cells)
    if number in PLACES:
        assert {(c.dataset, c.backbone) for c in table.columns} == {PLACES[number]}


def test_there_is_no_other_table() -> None:
    with pytest.raises(ValueError, match="1 to 7, found 8"):
        published(8)
    with pytest.raises(KeyError):
        published(5).cell("ArcFace", published(5).columns[0])


def noted(text: str) -> set[tuple[int, str, float, int, str]]:
    """(table, method, eps, steps, goal) of the cells with such a note."""
    return {
        (cell.table, cell.method, cell.column.eps, cell.column.steps, cell.column.goal)
        for cell, notes in slips().items()
        if any(text in note for note in notes)
    }


def test_masked_untargeted_attacks_are_noted() -> None:
    """METHODS 6, 11, which lists the rows; no other is so."""
    rows = {(table, method) for table, method, *_ in noted("masked gradients")}
    assert rows == {
        *((1, method) for method in ("ArcFace", "MMC", "I-SCE")),
        *((5, method) for method in ("L-GM", "MMC")),
        *((6, method) for method in ("SCE", "Center", "L-GM")),
    }
    assert (1, "I-SCE", 0.02, 50, "un") in noted("targeted attack, 12.74")


def test_accuracies_above_clean_are_noted() -> None:
    assert noted("Above the clean accuracy") == {
        (5, "I-SCE", 0.02, 10, "un"),
        (5, "I-SCE", 0.02, 50, "un"),
        (5, "I-SCE", 0.04, 10, "un"),
    }


def test_clean_accuracies_that_differ_are_noted() -> None:
    differing = noted("clean accuracy is")
    assert {cell[1] for cell in differing if cell[0] == 4} == set(published(4).methods)
    assert {(1, "I-SCE"), (2, "Random"), (3, "I-SCE"), (3, "Random")} < {c[:2] for c in differing}
    assert not {c for c in differing if c[0] > 4}  # tables of the shallow networks agree


def test_what_rises_is_noted() -> None:
    assert noted("Above the smaller eps") == {
        (2, "ArcFace", 0.04, 50, "tar"),
        (3, "SCE", 0.04, 3, ""),
        (3, "Random", 0.04, 10, ""),
        (6, "Random", 0.04, 50, "un"),
        (7, "Random", 0.04, 10, ""),
        (7, "Random", 0.04, 50, ""),
    }
    assert noted("Above the 10 steps") == {(3, "MMC", 0.01, 50, ""), (3, "MMC", 0.04, 50, "")}


def test_rows_of_table_4_saw_other_images() -> None:
    """What is a multiple of 1/3000 is none of 1/5000, taken over a row."""
    for images, methods in ((3000, {"SCE", "I-SCE"}), (5000, {"Random", "AT"})):
        assert {method for _, method, *_ in noted(f"1/{images}")} == methods
        for cell in published(4).cells:
            if cell.method in methods and not cell.column.is_clean:
                count = round(cell.accuracy / 100 * images)
                assert f"{100 * count / images:.2f}" == f"{cell.accuracy:.2f}"
    at = [c.accuracy for c in published(4).cells if c.method == "AT" and not c.column.is_clean]
    assert any(f"{100 * round(a / 100 * 3000) / 3000:.2f}" != f"{a:.2f}" for a in at)


def test_what_the_text_says_and_the_table_does_not_is_noted() -> None:
    assert noted("I-SCE better in most cases; here SCE, Random, LS, AT") == {
        (2, "I-SCE", 0.04, 50, "un")
    }
    assert {cell[:2] for cell in noted("MMC best")} == {(7, "MMC")}
    assert len(noted("MMC best")) == 4  # of either data set
    assert {cell[:2] for cell in noted("over ArcFace")} == {(3, "ArcFace")}


def test_rows_that_are_not_there_are_told() -> None:
    everyone = set(published(1).methods)
    for number in TABLES:
        lacking = everyone - set(published(number).methods)
        text = ABSENT.get(number, "")
        assert lacking == {
            method for method in everyone if method in re.split(r"\W*[ ,.]\W*", text)
        }


def test_notes_belong_to_cells_of_the_tables() -> None:
    every = {cell for number in TABLES for cell in published(number).cells}
    assert set(slips()) < every
    assert all(isinstance(cell, Cell) and isinstance(cell.column, Column) for cell in slips())


def test_what_is_said_of_formulas_and_sections_is_said_of_some(lines: list[str]) -> None:
    text = "\n".join(lines)
    forms = {
        "Eq.": r"(?:\\tag\{%s\}|\(%s\)\$\$)",
        "Figure": "Figure %s:",
        "Section": "(?m)^%s [A-Z ]+$",
    }
    for where in TEXT:
        kind, number = where.split()
        pattern = forms[kind].replace("%s", re.escape(number))
        assert re.search(pattern, text), where
