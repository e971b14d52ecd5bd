"""The accuracy table's numbers: one row a method, one column a test cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.choice import Arm, choice_note, shown_arms
from analysis.plan import Cell, Group, Plan, Protocol
from analysis.runs import Results
from analysis.statistics import CONFIDENCE, Estimate, estimate
from analysis.tables.audit import NONE, Audits, cell_marks, headline_marks, mark_text
from analysis.tables.ranking import TIED_NOTE, TIED_SIGN, Lead, leads
from analysis.tables.text import EXPLORATORY_NOTE, MARK_MEANINGS, MARK_SIGNS
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
    """One configuration: its evidence, an estimate (of fractions) a metric, a mark an attack.

    Attributes:
        method: The study's name for it.
        label: What readers see.
        seeds_done: Seeds that have results.
        seeds_planned: Seeds that are to have some.
        attack_mark: The headline's gravest, with its share of the seeds where they differ.
        estimates: Metric -> mean over seeds.
        marks: Metric of an attack, or the headline's -> its gravest mark over seeds.
        spreads: Metric -> SD of the accuracy over passes, mean over seeds, of a model that draws
            at random.
    """

    method: str
    label: str
    seeds_done: int
    seeds_planned: int
    attack_mark: str
    estimates: Mapping[str, Estimate]
    marks: Mapping[str, str] = field(default_factory=dict)
    spreads: Mapping[str, float] = field(default_factory=dict)

    def mark(self, metric: str) -> str:
        """The mark of what a metric measured; empty without an attack."""
        return self.marks.get(metric, "")

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
    """The table of one data set and backbone, and what must be said below it.

    Attributes:
        group: Data set and backbone.
        sections: Its columns.
        rows: One a configuration.
        notes: What must be said below it.
        leads: Metric -> who leads its column among the rows that more than one seed backs and
            whose attack is neither masked nor weak; nothing where nobody does.
    """

    group: Group
    sections: tuple[Section, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    leads: Mapping[str, Lead] = field(default_factory=dict)

    def is_best(self, row: Row, metric: str) -> bool:
        """Whether the row leads its column."""
        return metric in self.leads and row.label in self.leads[metric].labels

    def tied(self, row: Row, metric: str) -> str:
        """The sign of a lead that is not significant; empty beside any other number."""
        return TIED_SIGN if self.is_best(row, metric) and self.leads[metric].is_tied else ""


def _stands(row: Row, metric: str) -> bool:
    """Whether no check says that the attack misses something; of the worst case the headline's."""
    mark = row.mark(names.ROBUST if metric == names.WORST_CASE else metric)
    return mark not in (names.MASKED, names.WEAK)


def accuracy_table(results: Results, group: Group, audits: Audits = NONE) -> AccuracyTable:
    """Computes the accuracy table of one data set and backbone.

    Rows are the methods in the plan's order; a tuned method stands at validation's choice.
    Values are means over seeds with t intervals, as fractions.

    Args:
        results: The study.
        group: Data set and backbone.
        audits: What marks the cells; those of runs without one are unaudited.
    """
    protocol = results.plan.protocol(group)
    sections = table_sections(protocol)
    metrics = [column.metric for section in sections for column in section.columns]
    arms = shown_arms(results, group)
    rows = tuple(table_row(arm, metrics, results.plan, protocol, audits) for arm in arms)
    may_lead = {metric: [row.label for row in rows if _stands(row, metric)] for metric in metrics}
    return AccuracyTable(
        group,
        sections,
        rows,
        tuple(_notes(results.plan, protocol, arms, rows)),
        leads({arm.label: arm.by_seed for arm in arms}, metrics, may_lead),
    )


def table_sections(protocol: Protocol) -> tuple[Section, ...]:
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
    for cell in protocol.test_attacks:
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
        "attack_mark": row.mark(column.metric),
        "best": table.is_best(row, column.metric),
        "not_significantly_better": bool(table.tied(row, column.metric)),
        "spread_percent": round(100 * row.spreads.get(column.metric, math.nan), 6),
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


def table_row(
    arm: Arm, metrics: Sequence[str], plan: Plan, protocol: Protocol, audits: Audits = NONE
) -> Row:
    """Averages a configuration's metrics; its seeds are those that have the first of them."""
    spreads = {metric: float(arm.values(metric + names.SPREAD).mean()) for metric in metrics}
    return Row(
        method=arm.method,
        label=arm.label,
        seeds_done=int(arm.values(metrics[0]).notna().sum()),
        seeds_planned=len(arm.rows) or len(plan.seeds.get(arm.method, ())),
        attack_mark=mark_text(headline_marks(arm)),
        estimates={metric: estimate(arm.values(metric)) for metric in metrics},
        marks=cell_marks(arm, protocol, audits),
        spreads={metric: spread for metric, spread in spreads.items() if not math.isnan(spread)},
    )


def _notes(
    plan: Plan, protocol: Protocol, arms: Sequence[Arm], rows: Sequence[Row]
) -> Iterator[str]:
    yield (
        f"Accuracy in %: mean ± half-width of the {100 * CONFIDENCE:.0f} % t interval over seeds. "
        "Bold (in a terminal *): the best among rows of two or more seeds whose attack is neither "
        f"masked nor weak; {TIED_NOTE}."
    )
    yield (
        f"Headline: {protocol.headline_label}; for each image the worst of the attack's raw "
        "surfaces. Worst case: for each image the worst of all attacks that have a budget, over "
        "the first images that all of them saw; it mixes sizes and has no mark."
    )
    yield from _marks_note(rows)
    yield from (choice_note(arm.choice) for arm in arms if arm.choice)
    if any(value.is_exploratory for row in rows for value in row.estimates.values()):
        yield EXPLORATORY_NOTE
    yield from _spread_notes(rows)
    yield from _image_notes(plan, protocol, arms)
    yield from _missing_notes(plan, protocol, arms, rows)


def _marks_note(rows: Sequence[Row]) -> Iterator[str]:
    """What the signs beside the numbers mean; only those that there are."""
    found = {mark for row in rows for mark in row.marks.values()}
    meanings = [
        f"{sign} {mark} ({MARK_MEANINGS[mark]})"
        for mark, sign in MARK_SIGNS.items()
        if mark in found
    ]
    if meanings:
        yield f"The attack's mark, of several seeds the gravest: {'; '.join(meanings)}."


def _spread_notes(rows: Sequence[Row]) -> Iterator[str]:
    """What the passes of models that draw at random add."""
    for row in rows:
        if row.spreads:
            largest = max(row.spreads.values())
            yield (
                f"{row.label} draws at random at every pass: its accuracies are means over "
                f"passes, whose SD is {100 * largest:.1f} points at most."
            )


def _image_notes(plan: Plan, protocol: Protocol, arms: Sequence[Arm]) -> Iterator[str]:
    """Which rows were measured on other numbers of images than the titles say."""
    cells = [cell for cell in protocol.cells if cell.split == names.TEST and not cell.check]
    titles = {cell.name: (cell.attack_title, cell.n) for cell in cells}
    for arm in arms:
        own: dict[tuple[int, int], dict[str, None]] = {}
        for trial in _trials(plan, arm):
            for name, n in trial.get("n", {}).items():
                if name in titles:
                    title, usual = titles[name]
                    own.setdefault((n, usual), {})[title] = None
        for (n, usual), attacks in own.items():
            yield f"{arm.label}: {n} images, not {usual} ({', '.join(attacks)})."


def _missing_notes(
    plan: Plan, protocol: Protocol, arms: Sequence[Arm], rows: Sequence[Row]
) -> Iterator[str]:
    """What has no number because none is planned, and what is still to come."""
    to_come = any(row.seeds_done < row.seeds_planned for row in rows)
    for arm, row in zip(arms, rows, strict=True):
        lacks = {name for trial in _trials(plan, arm) for name in trial.get("lacks", ())}
        titles = dict.fromkeys(
            cell.attack_title for cell in protocol.test_attacks if cell.name in lacks
        )
        if titles:
            yield f"— {row.label}, {', '.join(titles)}: not planned, it does not apply there."
        metrics = row.estimates.keys() - lacks
        to_come |= any(row.estimates[metric].is_missing for metric in metrics)
    if to_come:
        yield f"— missing, and seeds still to come: `{plan.command}` computes them."


def _trials(plan: Plan, arm: Arm) -> list[Mapping[str, Any]]:
    ids = set(arm.rows["trial_id"])
    return [trial for trial in plan.trials if trial["trial_id"] in ids]
