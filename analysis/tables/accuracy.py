"""The accuracy table's numbers: one row a method, one column a test cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.choice import Arm, Choice, shown_arms
from analysis.plan import Cell, Group, Plan
from analysis.runs import Results
from analysis.statistics import CONFIDENCE, Estimate, estimate
from analysis.tables.text import EXPLORATORY_NOTE, share
from trainables import names


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        metric: The frame's column that it averages.
        title: What stands over it: `Clean`, or the attack's name.
        size: The attack's size, shared by neighbouring columns; empty without an attack.
        steps: The attack's steps; 0 without an attack.
        goal: `un`, `tar` or empty.
    """

    metric: str
    title: str
    size: str = ""
    steps: int = 0
    goal: str = ""

    @property
    def text(self) -> str:
        """The title on one line, its size apart: `PGD un 20`."""
        return " ".join(str(part) for part in (self.title, self.goal, self.steps or "") if part)


@dataclass(frozen=True)
class Section:
    """Columns that are read side by side, as one table of the paper."""

    title: str
    columns: tuple[Column, ...]

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """The attack sizes over the columns, each with how many columns it spans."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.size:
                spans[-1] = (column.size, spans[-1][1] + 1)
            else:
                spans.append((column.size, 1))
        return spans


@dataclass(frozen=True)
class Row:
    """One configuration: its evidence and an estimate (of fractions) a metric."""

    method: str
    label: str
    seeds_done: int
    seeds_planned: int
    attack_mark: str
    estimates: Mapping[str, Estimate]

    @property
    def seeds(self) -> str:
        """`3`, or `2 of 3` while some are missing."""
        if self.seeds_done == self.seeds_planned:
            return str(self.seeds_done)
        return f"{self.seeds_done} of {self.seeds_planned}"

    @property
    def evidence(self) -> str:
        """What may be concluded from so many seeds."""
        if self.seeds_done == 0:
            return "missing"
        return names.EXPLORATORY if self.seeds_done == 1 else f"{self.seeds_done} seeds"


@dataclass(frozen=True)
class AccuracyTable:
    """The table of one data set and backbone, and what must be said below it."""

    group: Group
    sections: tuple[Section, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def is_best(self, row: Row, metric: str) -> bool:
        """Whether the row leads its column among the rows that more than one seed backs.

        A row of one seed, let alone one that was chosen among many, never leads; and where
        all are equal none does.
        """
        backed = [
            other.estimates[metric].mean for other in self.rows if other.estimates[metric].seeds > 1
        ]
        mine = row.estimates[metric]
        return mine.seeds > 1 and mine.mean == max(backed) > min(backed)


def accuracy_table(results: Results, group: Group) -> AccuracyTable:
    """Computes the accuracy table of one data set and backbone.

    Rows are the methods in the plan's order; a tuned method stands at validation's choice.
    Values are means over seeds with t intervals, as fractions.
    """
    sections = table_sections(results.plan)
    metrics = [column.metric for section in sections for column in section.columns]
    arms = shown_arms(results, group)
    rows = tuple(table_row(arm, metrics, results.plan) for arm in arms)
    return AccuracyTable(group, sections, rows, tuple(_notes(results.plan, arms, rows)))


def table_sections(plan: Plan) -> tuple[Section, ...]:
    """The summary, then one section an attack, budget and surface, sorted as in the paper."""
    summary = Section(
        "Summary",
        (
            Column(names.CLEAN, "Clean"),
            Column(names.ROBUST, "Headline"),
            Column(names.WORST_CASE, "Worst case"),
        ),
    )
    groups: dict[str, list[Cell]] = {}
    for cell in plan.test_attacks:
        groups.setdefault(_section_title(cell), []).append(cell)
    return (summary, *(Section(title, _columns(cells)) for title, cells in groups.items()))


def table_frame(tables: Sequence[AccuracyTable]) -> pd.DataFrame:
    """All tables as one long frame, accuracies in percent, for CSV."""
    records = [
        _record(table, row, column)
        for table in tables
        for section in table.sections
        for row in table.rows
        for column in section.columns
    ]
    return pd.DataFrame(records)


def _record(table: AccuracyTable, row: Row, column: Column) -> dict[str, object]:
    value = row.estimates[column.metric]
    return {
        "dataset": table.group.dataset,
        "backbone": table.group.backbone,
        "method": row.method,
        "label": row.label,
        "metric": column.metric,
        "accuracy_percent": round(100 * value.mean, 6),
        "half_width_percent": round(100 * value.half_width, 6),
        "seeds": value.seeds,
        "seeds_planned": row.seeds_planned,
        "evidence": row.evidence,
        "attack_mark": row.attack_mark,
    }


def _section_title(cell: Cell) -> str:
    budget = "" if cell.budget == "overshoot" else f", {cell.budget}"
    extra = "".join(f", {key} {value}" for key, value in cell.extra)
    threat = "" if cell.has_threat_model else f" ({names.NO_THREAT_MODEL})"
    return f"{cell.attack_title}{budget}, surface {cell.surface}{extra}, {cell.n} images{threat}"


def _columns(cells: Sequence[Cell]) -> tuple[Column, ...]:
    ordered = sorted(cells, key=lambda cell: (cell.eps, cell.steps, cell.targeted))
    return tuple(
        Column(cell.metric, cell.attack_title, cell.size, cell.steps, cell.goal) for cell in ordered
    )


def table_row(arm: Arm, metrics: Sequence[str], plan: Plan) -> Row:
    """Averages a configuration's metrics; its seeds are those that have the first of them."""
    marks = sorted({mark for mark in arm.rows["attack_mark"] if mark})
    return Row(
        method=arm.method,
        label=arm.label,
        seeds_done=int(arm.values(metrics[0]).notna().sum()),
        seeds_planned=len(arm.rows) or len(plan.seeds.get(arm.method, ())),
        attack_mark=", ".join(marks),
        estimates={metric: estimate(arm.values(metric)) for metric in metrics},
    )


def _notes(plan: Plan, arms: Sequence[Arm], rows: Sequence[Row]) -> list[str]:
    values = [value for row in rows for value in row.estimates.values()]
    notes = [
        f"Accuracy in %: mean ± half-width of the {100 * CONFIDENCE:.0f} % t interval over seeds. "
        "Bold: the best among rows of two or more seeds.",
        f"Headline: {plan.headline_label}; for each image the worst of the attack's raw "
        "surfaces. Worst case: for each image the worst of all attacks that have a budget.",
    ]
    notes += [choice_note(arm.choice) for arm in arms if arm.choice]
    if any(value.is_exploratory for value in values):
        notes.append(EXPLORATORY_NOTE)
    if any(row.seeds_done < row.seeds_planned for row in rows) or any(
        value.is_missing for value in values
    ):
        notes.append(f"— missing, and seeds still to come: `{plan.command}` computes them.")
    return notes


def choice_note(choice: Choice) -> str:
    """How a row was chosen, and what that cost on the test images."""
    test = (
        f"On test: {share(choice.test)}; the best point there is {choice.best_label} with "
        f"{share(choice.best_test)}: test regret {100 * choice.regret:.1f} points."
        if choice.regret >= 0
        else "Its test headline is missing, so its test regret is unknown."
    )
    return (
        f"{choice.label} was chosen among {choice.points} points of {choice.method} by the "
        f"validation headline ({share(choice.validation)}; ties: clean validation accuracy, then "
        f"the smaller values). {test}"
    )
