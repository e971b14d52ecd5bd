r"""Accuracy tables as LaTeX; needs `\usepackage{booktabs}`, no class but article's."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from analysis.statistics import Estimate
from analysis.tables.accuracy import AccuracyTable, Column, Row, Section
from analysis.tables.text import MARK_SIGNS

# The marks' signs in mathematics, none of which needs a package.
_SIGNS = {"✓": r"\surd", "↓": r"\downarrow", "✗": r"\times", "?": "?", "○": r"\circ"}
_SPECIAL = {
    **{sign: f"${symbol}$" for sign, symbol in _SIGNS.items() if sign != "?"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"${sign}$" for sign in "<>|"},  # else OT1 prints other signs
    "ε": r"$\epsilon$",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "τ": r"$\tau$",
    "—": "---",
    "–": "--",
    **dict(zip("“”‘’", ("``", "''", "`", "'"), strict=True)),
    "−": "$-$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
_CODE = re.compile("`([^`]*)`")
_SPECIAL_PATTERN = re.compile("[^ -~]|" + "|".join(map(re.escape, _SPECIAL)))
# In points: article's text, and what a character and the space between columns take of it.
_WIDTH, _CHARACTER, _GAP = 345.0, 3.9, 5.0
_SYMBOL, _INVISIBLE = re.compile(r"\\[a-z]+"), re.compile("[{}$^_]")


@dataclass(frozen=True)
class Body:
    """What stands in a table's floats.

    Attributes:
        environment: `table`, or `table*` for one that runs across two columns of text.
        caption: What it is, in a line or two.
        section: Its columns.
        rows: Of one line or more; of each line the first cell, then one a column.
        notes: What must be said below the first float.
    """

    environment: str
    caption: str
    section: Section
    rows: Sequence[Sequence[Sequence[str]]]
    notes: Sequence[str] = ()


def to_latex(tables: Sequence[AccuracyTable]) -> str:
    """All tables, one float a section or more, the notes below the first of each table."""
    bodies = [
        Body(
            environment="table",
            caption=f"{section.title}: accuracy on {table.group}.",
            section=section,
            rows=[[_cells(table, section, row)] for row in table.rows],
            notes=table.notes if section is table.sections[0] else (),
        )
        for table in tables
        for section in table.sections
    ]
    return document(bodies)


def document(bodies: Sequence[Body]) -> str:
    """The floats of every body, to be read into a document."""
    floats = [text for body in bodies for text in _floats(body)]
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(floats)


def escape(text: str) -> str:
    """Text in which LaTeX reads nothing but itself; what it has no sign for becomes the nearest."""
    return _SPECIAL_PATTERN.sub(lambda match: _SPECIAL.get(match[0]) or _plain(match[0]), text)


def _plain(char: str) -> str:
    return unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() or "?"


def coded(text: str) -> str:
    """Escaped text in which what stands in backticks is code."""
    return _CODE.sub(r"\\texttt{\1}", text)


def _floats(body: Body) -> Iterator[str]:
    """A body's columns in as many floats as they need to fit the width."""
    parts = _parts(body)
    for place, part in enumerate(parts):
        section = Section(body.section.title, body.section.columns[part])
        which = f" Part {place + 1} of {len(parts)}." if len(parts) > 1 else ""
        yield "\n".join(
            [
                f"\\begin{{{body.environment}}}[tbp]",
                "\\centering\\scriptsize\\setlength{\\tabcolsep}{2.5pt}",
                f"\\caption{{{escape(body.caption + which)}}}\\smallskip",
                f"\\begin{{tabular}}{{l{'r' * len(section.columns)}}}",
                "\\toprule",
                *headings(section),
                "\\midrule",
                *(text for row in body.rows for text in _lines(row, part)),
                "\\bottomrule",
                "\\end{tabular}",
                *(_below(body.notes) if place == 0 else ()),
                f"\\end{{{body.environment}}}",
                "",
            ]
        )


def _below(notes: Sequence[str]) -> list[str]:
    """Notes below a table, in its width."""
    if not notes:
        return []
    lines = [f"{coded(escape(note))}\\par" for note in notes]
    return [
        "\\par\\smallskip",
        "\\begin{minipage}{\\linewidth}\\raggedright",
        *lines,
        "\\end{minipage}",
    ]


def _parts(body: Body) -> list[slice]:
    """The columns in parts that fit the width, cut between attack sizes where that can be."""
    title, *widths = (max(map(_width, cells)) for cells in zip(*_all_lines(body), strict=True))
    cuts, place, room = [0], 0, _WIDTH - title
    for _, span in body.section.sizes:
        if sum(widths[cuts[-1] : place + span]) > room and place > cuts[-1]:
            cuts.append(place)
        for column in range(place, place + span):
            if sum(widths[cuts[-1] : column + 1]) > room and column > cuts[-1]:
                cuts.append(column)
        place += span
    return [slice(start, end) for start, end in pairwise([*cuts, place])]


def _all_lines(body: Body) -> Iterator[Sequence[str]]:
    yield ["Method", *map(_title, body.section.columns)]
    for row in body.rows:
        yield from row


def _width(cell: str) -> float:
    """About how much room a cell needs, in points."""
    size = 0.75 if cell.startswith("{\\tiny") else 1.0
    return size * _CHARACTER * len(_INVISIBLE.sub("", _SYMBOL.sub("x", cell))) + _GAP


def _lines(row: Sequence[Sequence[str]], part: slice) -> list[str]:
    """A row's lines, a little apart from the next row's where they are several."""
    lines = [line([title, *cells[part]]) for title, *cells in row]
    return [*lines[:-1], f"{lines[-1]}[2pt]"] if len(lines) > 1 else lines


def _cells(table: AccuracyTable, section: Section, row: Row) -> list[str]:
    return [escape(row.label), *(_entry(table, row, column) for column in section.columns)]


def headings(section: Section) -> list[str]:
    """The columns' titles, above them the attack sizes with rules under them where there are."""
    titles = line(["Method", *map(_title, section.columns)])
    if not any(size for size, _ in section.sizes):
        return [titles]
    heads, rules, first = [""], [], 2
    for size, span in section.sizes:
        heads.append(f"\\multicolumn{{{span}}}{{c}}{{{escape(size)}}}")
        if size:
            rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    return [line(heads), " ".join(rules), titles]


def _title(column: Column) -> str:
    if not column.steps:
        return escape(column.title)
    goal = f"^{{\\mathrm{{{column.goal}}}}}" if column.goal else ""
    return f"{escape(column.title)}$_{{{column.steps}}}{goal}$"


def _entry(table: AccuracyTable, row: Row, column: Column) -> str:
    value = row.estimates[column.metric]
    text = number(value, MARK_SIGNS.get(row.mark(column.metric), ""))
    return leading(text, table.is_best(row, column.metric), table.tied(row, column.metric))


def leading(text: str, is_best: bool, tied: str) -> str:
    """An entry as it stands in its column: the best in bold, the sign of a tie above it."""
    text = f"\\textbf{{{text}}}" if is_best else text
    return f"{text}$^{{{tied}}}$" if tied else text


def number(value: Estimate, sign: str) -> str:
    """The mean, the interval, and what is to be said of both above them."""
    if value.is_missing:
        return "---"
    dagger = r"\dagger" if value.is_exploratory else ""
    above = " ".join(filter(None, [dagger, *(_SIGNS[part] for part in sign.split())]))
    beside = "" if dagger else f" $\\pm$ {100 * value.half_width:.1f}"
    return f"{100 * value.mean:.1f}{beside}" + (f"$^{{{above}}}$" if above else "")


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return " & ".join(cells) + " \\\\"
