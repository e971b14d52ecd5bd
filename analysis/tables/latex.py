r"""Accuracy tables as LaTeX; needs `\usepackage{booktabs}` and a UTF-8 document."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
    "ε": r"$\epsilon$",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "·": r"$\cdot$",
    "—": "---",
    "−": "$-$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
_CODE = re.compile("`([^`]*)`")
_SPECIAL_PATTERN = re.compile("|".join(map(re.escape, _SPECIAL)))


def to_latex(tables: Sequence[AccuracyTable]) -> str:
    """All tables, one `table` environment a section, the notes in the caption of the first."""
    floats = [
        _float(table, section, notes=table.notes if section is table.sections[0] else ())
        for table in tables
        for section in table.sections
    ]
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(floats)


def escape(text: str) -> str:
    """Text in which LaTeX reads nothing but itself."""
    return _SPECIAL_PATTERN.sub(lambda match: _SPECIAL[match.group()], text)


def coded(text: str) -> str:
    """Escaped text in which what stands in backticks is code."""
    return _CODE.sub(r"\\texttt{\1}", text)


def _float(table: AccuracyTable, section: Section, *, notes: Sequence[str]) -> str:
    title = f"{section.title}: accuracy on {table.group}."
    caption = coded(escape(" ".join([title, *notes])))
    return "\n".join(
        [
            "\\begin{table}[tbp]",
            "\\centering\\small",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{l{'r' * len(section.columns)}}}",
            "\\toprule",
            *headings(section),
            "\\midrule",
            *(
                line([escape(row.label), *(_entry(table, row, c) for c in section.columns)])
                for row in table.rows
            ),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


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
    beside = "" if dagger else f" {{\\scriptsize$\\pm$ {100 * value.half_width:.1f}}}"
    return f"{100 * value.mean:.1f}{beside}" + (f"$^{{{above}}}$" if above else "")


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return " & ".join(cells) + " \\\\"
