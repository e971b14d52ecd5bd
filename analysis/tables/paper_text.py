"""The paper's tables, ours beside the published numbers, as Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.tables.latex import Body, document, escape, leading, number
from analysis.tables.markdown import table_lines
from analysis.tables.paper import Entry, PaperTable, Row, column_title, notes
from analysis.tables.text import MISSING, percent, signed


def to_markdown(tables: Sequence[PaperTable]) -> str:
    """All tables, each with its notes."""
    return "\n".join(_document(table) for table in tables)


def to_latex(tables: Sequence[PaperTable]) -> str:
    r"""All tables, one `table*` float each or more; needs `\usepackage{booktabs}`."""
    bodies = [
        Body(
            environment="table*",
            caption=f"{table.title} ({table.group}).",
            section=table.section,
            rows=[_lines(table, row) for row in table.rows],
            notes=list(notes(table)),
        )
        for table in tables
    ]
    return document(bodies)


def row_title(row: Row) -> str:
    """The paper's name and ours, where they are not the same word."""
    if not row.published:
        return f"{row.label} (control)"
    same = row.label.lower() in ("", row.published.lower().replace("-", ""))
    return row.published if same else f"{row.published} ({row.label})"


def printed(entry: Entry) -> str:
    """The published number and ours less it: `64.38, −0.2`."""
    if entry.published is None:
        return MISSING
    text = f"{entry.published:.2f}"
    return text if math.isnan(entry.difference) else f"{text}, {difference(entry)}"


def difference(entry: Entry) -> str:
    """Ours less the published number, with its sign."""
    return signed(f"{entry.difference:+.1f}")


def _document(table: PaperTable) -> str:
    head = ["Method", *map(column_title, table.columns)]
    rows = [
        [row_title(row), *(_entry(row.entries[column]) for column in table.columns)]
        for row in table.rows
    ]
    lines = table_lines(head, rows, leading=1)
    title = f"## {table.title} ({table.group})"
    return "\n".join([title, "", *lines, "", *(f"- {note}" for note in notes(table)), ""])


def _entry(entry: Entry) -> str:
    text = f"{percent(entry.ours)} {entry.sign}".rstrip()
    text = f"**{text}**" if entry.is_best else text
    return f"{f'{text} {entry.tied}'.rstrip()} ({printed(entry)})"


def _lines(table: PaperTable, row: Row) -> list[list[str]]:
    """Ours, and below it the published numbers and differences."""
    entries = [row.entries[column] for column in table.columns]
    theirs = [f"{{\\tiny {escape(printed(entry))}}}" for entry in entries]
    return [[escape(row_title(row)), *map(_number, entries)], ["", *theirs]]


def _number(entry: Entry) -> str:
    return leading(number(entry.ours, entry.sign), entry.is_best, entry.tied)
