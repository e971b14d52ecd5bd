"""LaTeX compiles with booktabs alone, in article's width, whatever stands in labels and notes."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.plan import Group
from analysis.runs import Results
from analysis.tables import latex, paper_text
from analysis.tables.accuracy import Column, Section, accuracy_table
from analysis.tables.audit import read_audits
from analysis.tables.latex import Body, _parts, escape
from analysis.tables.paper import PaperTable

from .test_paper_table import UN, tables

ODD = (
    r"\input{x} & 50 % of $y$ #1 ^~_ {z} < > | \"quoted\" “so” ‘so’ – — … ≤ ≥ × → "
    "✓ ↓ ✗ ○ ± † · − ε τ é ß Ł ² 方法 \N{GRINNING FACE} `code_with {braces} --and-dashes`"
)


def compiled(text: str, folder: Path) -> str:
    """What pdflatex says of a document of the class article that reads the text."""
    pdflatex = shutil.which("pdflatex")
    if not pdflatex:  # CI allows no skip
        pytest.skip("no pdflatex: `make ci-deps` installs it, as root")
    (folder / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        f"{text}\\end{{document}}\n",
        encoding="utf-8",
    )
    halting = ["-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    made = subprocess.run(
        [pdflatex, *halting], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stdout[-2000:]
    assert (folder / "all.pdf").read_bytes().startswith(b"%PDF")
    return made.stdout


def overfull(log: str) -> list[float]:
    """By how many points lines stick out."""
    return [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]


def test_the_accuracy_tables_compile(audited: Results, group: Group, tmp_path: Path) -> None:
    table = accuracy_table(audited, group, read_audits(audited))
    row = replace(table.rows[0], label=ODD[:40])
    odd = replace(table, notes=(*table.notes, ODD), rows=(*table.rows, row))
    log = compiled(latex.to_latex([odd]), tmp_path)
    assert not overfull(log) and "Float too large" not in log


def test_the_papers_tables_compile(tmp_path: Path) -> None:
    """With every mark, missing cells, numbers of one seed, ties, and slips in the notes."""
    path, ball = tables()
    text = paper_text.to_latex([_all_marked(path), ball])
    for sign in (r"\surd", r"\downarrow", r"\times", "?", r"\circ", r"\dagger", "---", "$^{=}$"):
        assert sign in text
    log = compiled(text, tmp_path)
    assert not overfull(log) and "Float too large" not in log


def _all_marked(table: PaperTable) -> PaperTable:
    marks = ("trusted", "weak attack", "masked", "unaudited", "no threat model")
    rows = list(table.rows)
    shown = [place for place, row in enumerate(rows) if row.label]
    for place, mark in zip(shown, marks, strict=True):
        row = rows[place]
        entry = replace(row.entries[UN], mark=mark, is_doubted=mark == "unaudited", notes=(ODD,))
        rows[place] = replace(row, label=row.label + ODD[:12], entries={**row.entries, UN: entry})
    return replace(table, rows=tuple(rows))


def test_odd_characters_become_the_nearest_that_there_is() -> None:
    assert escape(r"a_b & 5% {x} \y") == r"a\_b \& 5\% \{x\} \textbackslash{}y"
    assert escape("a < b | “c” – é² 方") == r"a $<$ b $|$ ``c'' -- e2 ?"
    assert escape("~[]:;=+*/()!?.,'`@") == r"\textasciitilde{}[]:;=+*/()!?.,'`@"


def body(*spans: tuple[str, int], cell: str = "60.3 $\\pm$ 3.5", title: str = "sce") -> Body:
    """Columns of equal cells under attack sizes."""
    columns = tuple(Column("", "PGD", size, 10, "un") for size, span in spans for _ in range(span))
    return Body("table", "", Section("", columns), [[[title, *[cell] * len(columns)]]])


def parts(whole: Body) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in _parts(whole)]


def test_wide_tables_are_cut_between_attack_sizes() -> None:
    """A cell takes 10 characters of 3.9 pt and 5 pt, `Method` 28.4: seven fit into 345 pt."""
    assert parts(body(("a", 3), ("b", 4))) == [(0, 7)]
    assert parts(body(("a", 4), ("b", 3), ("c", 2))) == [(0, 7), (7, 9)]
    assert parts(body(("", 1), ("a", 4), ("b", 4))) == [(0, 5), (5, 9)]
    assert parts(body(("a", 1), ("b", 10))) == [(0, 1), (1, 8), (8, 11)]  # nowhere else to cut
    assert parts(body(("a", 3), ("b", 3), title="x" * 50)) == [(0, 3), (3, 6)]
    assert parts(body(("a", 2), cell="x" * 200)) == [(0, 1), (1, 2)]  # wider than any page


def test_every_column_stands_in_one_part() -> None:
    text = paper_text.to_latex([tables()[0]] * 2)
    assert text.count("Part 1 of 2.") == text.count("Part 2 of 2.") == 2
    assert text.count("\\begin{minipage}") == 2  # notes, once a table
    rows = [line for line in text.splitlines() if line.startswith("I-SCE &")]
    assert [line.count(" & ") for line in rows] == [5, 4] * 2
