"""Accuracy tables as Markdown, and the short one for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.tables.accuracy import AccuracyTable, Column, Row, Section
from analysis.tables.text import marked

_SUMMARY_HEAD = ("Method", "Seeds", "Evidence", "Attack mark")


def to_markdown(tables: Sequence[AccuracyTable]) -> str:
    """All tables in full, each with its notes."""
    return "\n".join(_document(table) for table in tables)


def to_terminal(table: AccuracyTable) -> str:
    """The summary alone, its columns aligned, with the notes below."""
    summary = table.sections[0]
    head = ["Method", "Seeds", *(column.title for column in summary.columns)]
    lines = [head] + [
        [row.label, row.seeds, *(_plain_entry(table, row, column) for column in summary.columns)]
        for row in table.rows
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    aligned = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    rule = "-" * len(aligned[0])
    return "\n".join([f"{table.group}", aligned[0], rule, *aligned[1:], "", *table.notes])


def _document(table: AccuracyTable) -> str:
    parts = [f"## Accuracy on {table.group}", ""]
    for section in table.sections:
        parts += [f"### {section.title}", "", *_section(table, section), ""]
    return "\n".join([*parts, *(f"- {note}" for note in table.notes), ""])


def _section(table: AccuracyTable, section: Section) -> list[str]:
    is_summary = section is table.sections[0]
    lead = _SUMMARY_HEAD if is_summary else _SUMMARY_HEAD[:1]
    titles = [*lead, *(_title(column) for column in section.columns)]
    rows = [
        [
            *([row.label, row.seeds, row.evidence, row.attack_mark] if is_summary else [row.label]),
            *(_entry(table, row, column) for column in section.columns),
        ]
        for row in table.rows
    ]
    return table_lines(titles, rows, leading=len(lead))


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]], leading: int) -> list[str]:
    """A Markdown table, its first columns to the left, numbers to the right."""
    rule = [":--"] * leading + ["--:"] * (len(head) - leading)
    return [_line(head), _line(rule), *map(_line, rows)]


def _title(column: Column) -> str:
    return f"{column.text}, {column.size}" if column.size else column.text


def _entry(table: AccuracyTable, row: Row, column: Column) -> str:
    text = _text(row, column)
    text = f"**{text}**" if table.is_best(row, column.metric) else text
    return f"{text} {table.tied(row, column.metric)}".rstrip()


def _plain_entry(table: AccuracyTable, row: Row, column: Column) -> str:
    """Without bold letters."""
    star = "*" if table.is_best(row, column.metric) else ""
    return f"{star}{_text(row, column)} {table.tied(row, column.metric)}".rstrip()


def _text(row: Row, column: Column) -> str:
    return marked(row.estimates[column.metric], row.mark(column.metric))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
