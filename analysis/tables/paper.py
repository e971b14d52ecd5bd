"""The paper's tables: our numbers beside the published ones, one table a reading of epsilon."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.choice import Arm, shown_arms
from analysis.plan import ATTACK_TITLES, FULL, Cell, Group, Plan
from analysis.published import TABLES, Column, Table, published
from analysis.published.match import STANDS_FOR, column_of, row_of
from analysis.published.slips import ABSENT, slips
from analysis.runs import Results
from analysis.statistics import CONFIDENCE, Estimate, estimate
from analysis.tables.accuracy import Column as Heading
from analysis.tables.accuracy import Section
from analysis.tables.audit import NONE, Audits, cell_marks
from analysis.tables.ranking import TIED_NOTE, TIED_SIGN, Lead, leads
from analysis.tables.text import EXPLORATORY_NOTE, GOALS, MARK_SIGNS
from trainables import names

_CALIBRATION_ROW = "SCE"  # the row that a reading is calibrated on (METHODS 3)


@dataclass(frozen=True)
class Reading:
    """One way to read what the paper left open: how epsilon is meant, what is attacked.

    Attributes:
        attack: The study's label for the attack.
        budget: How eps is read.
        surface: What is differentiated.
        extra: Parameters that are not at their default.
        cells: The study's cell in each of the paper's columns; the clean one among them.
    """

    attack: str
    budget: str
    surface: str
    extra: tuple[tuple[str, str], ...]
    cells: Mapping[Column, Cell]

    @property
    def title(self) -> str:
        """What distinguishes it, in words."""
        extra = "".join(f", {key} {value}" for key, value in self.extra)
        surface = "" if self.surface in ("none", "raw") else f", surface {self.surface}"
        return f"ε as {self.budget}{extra}{surface}"


@dataclass(frozen=True)
class Entry:
    """One cell: ours, the published number, and what is to be said of either.

    Attributes:
        ours: A fraction; nothing where the study has no such row or result.
        published: In %, None where the paper prints no such row.
        mark: How far our attack is to be believed; empty without a result.
        is_doubted: Whether a check of the cell itself fails, as of its gradients. On a path, which
            has no threat model and no other mark, nothing else would say so.
        notes: What is odd about the published number.
        is_best: Whether it leads its column.
        is_tied: Whether, being best, it is not significantly better than the second.
    """

    ours: Estimate
    published: float | None
    mark: str = ""
    is_doubted: bool = False
    notes: tuple[str, ...] = ()
    is_best: bool = False
    is_tied: bool = False

    @property
    def sign(self) -> str:
        """The mark's; beside it that of a masked attack where a check of the cell's own fails."""
        own = "" if self.ours.is_missing else MARK_SIGNS.get(self.mark, "")
        doubt = MARK_SIGNS[names.MASKED] if own and self.is_doubted else ""
        return " ".join(dict.fromkeys(filter(None, (own, doubt))))

    @property
    def tied(self) -> str:
        """The sign of a lead that is not significant; empty beside any other number."""
        return TIED_SIGN if self.is_tied else ""

    @property
    def difference(self) -> float:
        """Ours less the published number, in points; NaN where either is missing."""
        if self.published is None:
            return math.nan
        return 100 * self.ours.mean - self.published


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        published: The paper's name; empty for a control arm, which the paper does not have.
        label: Ours; empty where the study has no such model.
        seeds: How many stand behind it.
        evidence: What may be concluded from so many.
        entries: One a column.
    """

    published: str
    label: str
    seeds: int
    evidence: str
    entries: Mapping[Column, Entry]


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables, of one data set, in one reading.

    Attributes:
        table: As published.
        group: Where ours was measured.
        reading: How the paper was read.
        columns: The published columns of the data set.
        rows: The published rows in their order, control arms below.
        command: What computes whatever is missing.
        scale: The study's; anything but `full` decides nothing about the paper.
    """

    table: Table
    group: Group
    reading: Reading
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    command: str
    scale: str

    @property
    def title(self) -> str:
        """`Table 1: …`, where it was measured and how it was read."""
        return f"Table {self.table.number}: {self.table.caption} {self.reading.title}"

    @property
    def attacked(self) -> tuple[Column, ...]:
        """The columns that have an attack."""
        return tuple(column for column in self.columns if not column.is_clean)

    @property
    def section(self) -> Section:
        """Its columns as those of any table."""
        return Section(self.title, tuple(map(_heading, self.columns)))

    @cached_property
    def calibration(self) -> float:
        """Mean distance of the SCE row to the published one, in points; NaN without one."""
        return _distance([row for row in self.rows if row.published == _CALIBRATION_ROW], self)

    @cached_property
    def held_out(self) -> float:
        """The same of all other published rows, which no reading is calibrated on."""
        others = [row for row in self.rows if row.published not in ("", _CALIBRATION_ROW)]
        return _distance(others, self)

    @cached_property
    def agreement(self) -> float:
        """Kendall's tau between our and the published order of rows, mean over columns."""
        taus = [_tau(self.rows, column) for column in self.attacked]
        known = [tau for tau in taus if not math.isnan(tau)]
        return float(np.mean(known)) if known else math.nan

    @property
    def is_missing(self) -> bool:
        """Whether a number of ours is not there."""
        return any(entry.ours.is_missing for row in self.rows for entry in row.entries.values())


def paper_tables(results: Results, group: Group, audits: Audits = NONE) -> list[PaperTable]:
    """Every table of the paper that a group's cells fill a column of, in each reading.

    Args:
        results: The study.
        group: Data set and backbone.
        audits: What marks the cells.
    """
    return [
        _table(results, group, table, columns, reading, audits)
        for table, columns in rebuilt(results.plan, group)
        for reading in readings(results.plan, group, columns)
    ]


def paper_frame(tables: Sequence[PaperTable]) -> pd.DataFrame:
    """All of them as one long frame, in %, for CSV."""
    return pd.DataFrame(
        {
            "table": table.table.number,
            "reading": table.reading.title,
            "ours_on": str(table.group),
            "row": row.published,
            "method": row.label,
            "dataset": column.dataset,
            "backbone": column.backbone,
            "attack": column.attack,
            "goal": column.goal,
            "eps": column.eps,
            "steps": column.steps,
            "ours_percent": round(100 * entry.ours.mean, 6),
            "half_width_percent": round(100 * entry.ours.half_width, 6),
            "seeds": entry.ours.seeds,
            "published_percent": entry.published,
            "difference_points": round(entry.difference, 6),
            "attack_mark": entry.mark,
            "evidence": row.evidence,
            "best": entry.is_best,
            "not_significantly_better": entry.is_tied,
            "notes": " ".join(entry.notes),
            "scale": table.scale,
        }
        for table in tables
        for row in table.rows
        for column, entry in row.entries.items()
    )


def calibration_frame(tables: Sequence[PaperTable]) -> pd.DataFrame:
    """How near each reading comes to the published SCE row, the nearest of each table first.

    Columns: `table, ours_on, reading, sce_points, other_rows_points, kendall_tau`. Readings that
    lack the SCE row are left out.
    """
    frame = pd.DataFrame(
        {
            "table": table.table.number,
            "ours_on": str(table.group),
            "reading": table.reading.title,
            "sce_points": table.calibration,
            "other_rows_points": table.held_out,
            "kendall_tau": table.agreement,
        }
        for table in tables
        if not math.isnan(table.calibration)
    )
    keys = ["table", "ours_on", "sce_points"]
    return frame if frame.empty else frame.sort_values(keys, kind="stable", ignore_index=True)


def nearest_readings(frame: pd.DataFrame) -> Iterator[str]:
    """A sentence a table: which reading comes nearest, and that nearest is not what was meant.

    Args:
        frame: As `calibration_frame` makes it.
    """
    if frame.empty:
        return
    for (number, place), found in frame.groupby(["table", "ours_on"], sort=False):
        first = found.iloc[0]
        held_out = first["other_rows_points"]
        others = "" if math.isnan(held_out) else f"; other rows {held_out:.1f}"
        distance = f"{first['sce_points']:.1f} points off{others}"
        yield (
            f"Table {number} ({place}): of {len(found)} readings “{first['reading']}” comes "
            f"nearest to the published SCE row, {distance}. It is the best of those tried, not "
            "what the paper did."
        )


def notes(table: PaperTable) -> Iterator[str]:
    """What must be said below a table."""
    if table.scale != FULL:
        where = f"measured on {table.group} at scale {table.scale}"
        yield f"Ours: {where}, which decides nothing about the paper's numbers."
    yield (
        "A cell: ours, the published number, ours less published in points. Ours: mean ± "
        f"half-width of the {100 * CONFIDENCE:.0f} % t interval over seeds. Bold: our best among "
        f"rows of two or more seeds whose attack is neither masked nor weak; {TIED_NOTE}."
    )
    if any(value.ours.is_exploratory for row in table.rows for value in row.entries.values()):
        yield EXPLORATORY_NOTE
    if table.reading.budget.startswith("path"):
        yield "A path bounds no perturbation: it has no threat model and decides no claim alone."
    if any(entry.is_doubted for row in table.rows for entry in row.entries.values()):
        sign = MARK_SIGNS[names.MASKED]
        yield f"{sign} a check of the cell's own attack fails (audit.csv): it never leads."
    if not math.isnan(table.calibration):
        held_out = "" if math.isnan(table.held_out) else f", other rows by {table.held_out:.1f}"
        yield f"SCE's row lies {table.calibration:.1f} points off the published one{held_out}."
    if not math.isnan(table.agreement):
        yield f"Order of the rows, Kendall's tau with the published, mean: {table.agreement:+.2f}."
    if table.table.number in ABSENT:
        yield ABSENT[table.table.number]
    if table.is_missing:
        yield f"— missing: `{table.command}` computes it."
    for row in table.rows:
        for column, entry in row.entries.items():
            for note in entry.notes:
                yield f"Published {row.published}, {column_title(column)}: {note}"


def column_title(column: Column) -> str:
    """`PGD untargeted 50, ε = 0.02`, or `clean`."""
    if column.is_clean:
        return "clean"
    words = (ATTACK_TITLES[column.attack], GOALS[column.goal], str(column.steps))
    return f"{' '.join(filter(None, words))}, ε = {names.number(column.eps)}"


def _heading(column: Column) -> Heading:
    if column.is_clean:
        return Heading(names.CLEAN, "Clean")
    size = f"ε = {names.number(column.eps)}"
    return Heading("", ATTACK_TITLES[column.attack], size, column.steps, column.goal)


def rebuilt(plan: Plan, group: Group) -> Iterator[tuple[Table, tuple[Column, ...]]]:
    """The paper's tables that a group stands beside, with their columns of its data set."""
    declared = plan.protocol(group).rebuilds
    dataset = STANDS_FOR.get(group.dataset, group.dataset)
    for table in map(published, declared or TABLES):
        columns = tuple(column for column in table.columns if column.dataset == dataset)
        if declared:
            fits = bool(columns)
        else:
            fits = group.dataset == dataset and any(
                column.backbone == group.backbone for column in columns
            )
        if fits:
            yield table, columns


def readings(plan: Plan, group: Group, columns: Sequence[Column]) -> list[Reading]:
    """The readings under which the group's cells fill attacked columns."""
    backbone = columns[0].backbone
    found: dict[tuple[str, str, str, tuple[tuple[str, str], ...]], dict[Column, Cell]] = {}
    clean: dict[Column, Cell] = {}
    for cell in plan.protocol(group).cells:
        column = column_of(cell, group, backbone)
        if cell.split != names.TEST or cell.check or column is None or column not in columns:
            continue
        if cell.is_clean:
            clean[column] = cell
            continue
        key = (cell.attack, cell.budget, cell.surface, cell.extra)
        found.setdefault(key, {})[column] = cell
    return [Reading(*key, cells={**clean, **cells}) for key, cells in found.items()]


def _table(
    results: Results,
    group: Group,
    table: Table,
    columns: tuple[Column, ...],
    reading: Reading,
    audits: Audits,
) -> PaperTable:
    arms = shown_arms(results, group)
    of_row: dict[str, list[Arm]] = {}
    for arm in arms:
        of_row.setdefault(_row_of(results.plan, arm), []).append(arm)
    marks = {arm.label: cell_marks(arm, results.plan.protocol(group), audits) for arm in arms}
    doubted = {arm.label: _doubted(arm, audits) for arm in arms}
    rows = [
        _row(table, name, arm, columns, reading, marks, doubted)
        for name in (*table.methods, "")
        for arm in of_row.get(name, [None] if name else [])
    ]
    ranked = _ranked(rows, arms, reading)
    return PaperTable(
        table, group, reading, columns, ranked, results.plan.command, results.plan.scale
    )


def _row_of(plan: Plan, arm: Arm) -> str:
    """The paper's name for an arm; empty for none."""
    ids = list(arm.rows["trial_id"])
    params = plan.params.get(ids[0], {}) if ids else {}
    return (row_of(params) if params else None) or ""


def _row(
    table: Table,
    name: str,
    arm: Arm | None,
    columns: Sequence[Column],
    reading: Reading,
    marks: Mapping[str, Mapping[str, str]],
    doubted: Mapping[str, Collection[str]],
) -> Row:
    entries = {}
    for column in columns:
        printed = table.cell(name, column) if name else None
        cell = reading.cells.get(column)
        value = estimate(arm.values(cell.metric) if arm and cell else pd.Series(dtype=float))
        found = marks[arm.label].get(cell.metric, "") if arm and cell else ""
        entries[column] = Entry(
            ours=value,
            published=printed.accuracy if printed else None,
            mark="" if value.is_missing else found,
            is_doubted=bool(arm and cell and cell.metric in doubted[arm.label]),
            notes=slips().get(printed, ()) if printed else (),
        )
    seeds = max(entry.ours.seeds for entry in entries.values())
    evidence = names.EXPLORATORY if seeds == 1 else f"{seeds} seeds" if seeds else "missing"
    return Row(name, arm.label if arm else "", seeds, evidence, entries)


def _doubted(arm: Arm, audits: Audits) -> set[str]:
    """The metrics of an arm of which a check fails that speaks of them alone."""
    found = (audits[run] for run in arm.rows["run_id"] if run in audits)
    return {check.about for audit in found for check in audit.checks if check.failed}


def _ranked(rows: Sequence[Row], arms: Sequence[Arm], reading: Reading) -> tuple[Row, ...]:
    """The rows with the best of each column marked, and whether it leads for certain."""
    metrics = {column: cell.metric for column, cell in reading.cells.items()}
    may_lead = {
        metric: [row.label for row in rows if _stands(row.entries[column])]
        for column, metric in metrics.items()
    }
    values = {arm.label: arm.by_seed for arm in arms}
    found = leads(values, list(metrics.values()), may_lead)
    best = {column: found[metric] for column, metric in metrics.items() if metric in found}
    return tuple(_with_best(row, best) for row in rows)


def _with_best(row: Row, best: Mapping[Column, Lead]) -> Row:
    entries = dict(row.entries)
    for column, lead in best.items():
        if row.label in lead.labels:
            entries[column] = replace(entries[column], is_best=True, is_tied=lead.is_tied)
    return replace(row, entries=entries)


def _stands(entry: Entry) -> bool:
    """Whether no check says that the attack fell short."""
    return not entry.is_doubted and entry.mark not in (names.MASKED, names.WEAK)


def _distance(rows: Sequence[Row], table: PaperTable) -> float:
    """Mean absolute difference to the published numbers over attacked columns."""
    found = [abs(row.entries[column].difference) for row in rows for column in table.attacked]
    known = [distance for distance in found if not math.isnan(distance)]
    return float(np.mean(known)) if known else math.nan


def _tau(rows: Sequence[Row], column: Column) -> float:
    pairs = [
        (row.entries[column].ours.mean, row.entries[column].published)
        for row in rows
        if row.published and not row.entries[column].ours.is_missing
    ]
    if len(pairs) < 3:
        return math.nan
    from scipy.stats import kendalltau  # a second to import, where there is something to compare

    ours, printed = zip(*pairs, strict=True)
    return float(kendalltau(ours, printed).statistic)
