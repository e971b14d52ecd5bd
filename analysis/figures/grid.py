"""Accuracy over a grid of two swept numbers: the data of the surfaces and heat maps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from analysis.choice import Arm, Choice, choices, shown_arms
from analysis.plan import Cell, Group, Plan, Protocol, Setting, worst_over_raw
from analysis.runs import Results
from analysis.statistics import Estimate, estimate, estimates
from analysis.tables.text import GOALS
from trainables import names


@dataclass(frozen=True)
class Measure:
    """One accuracy that is shown over the grid.

    Attributes:
        column: The frame's column.
        title: Short: the attack.
        detail: The attack's size, length and surface.
    """

    column: str
    title: str
    detail: str = ""


@dataclass(frozen=True)
class Grid:
    """A method's accuracies over its two swept numbers, and what they are seen against.

    Attributes:
        group: Data set and backbone.
        method: The method that was swept.
        x: The first swept number (a column of `frame`), `y` the second.
        frame: One row a measure and planned point, see `grid`.
        measures: What is shown, in order.
        baseline: The reference's method; empty without one.
        choice: Validation's choice, if it has made one.
    """

    group: Group
    method: str
    x: str
    y: str
    frame: pd.DataFrame
    measures: tuple[Measure, ...]
    baseline: str
    choice: Choice | None

    @property
    def stem(self) -> str:
        """What tells its files from those of other grids."""
        return f"{self.method}-{self.group.stem}"

    def values(self, measure: Measure, of: str = "accuracy") -> pd.DataFrame:
        """One of the frame's columns as a matrix, rows `y`, columns `x`, both rising."""
        rows = self.frame[(self.frame["column"] == measure.column) & ~self.frame["refined"]]
        return rows.pivot(index=self.y, columns=self.x, values=of)

    def beside(self, measure: Measure) -> npt.NDArray[np.float64]:
        """The points (x, y, accuracy) that a refinement has put beside the grid."""
        rows = self.frame[(self.frame["column"] == measure.column) & self.frame["refined"]]
        found = rows[[self.x, self.y, "accuracy"]].dropna().to_numpy(dtype=float)
        return found

    def reference(self, measure: Measure) -> Estimate:
        """The baseline's mean over its seeds."""
        row = self.frame[self.frame["column"] == measure.column].iloc[0]
        return Estimate(
            float(row["baseline"]), float(row["baseline_half_width"]), int(row["baseline_seeds"])
        )

    def chosen(self, measure: Measure) -> pd.DataFrame:
        """The row of validation's choice; none while there is no choice."""
        return self.frame[(self.frame["column"] == measure.column) & self.frame["chosen"]]

    @property
    def seeds(self) -> int:
        """The most seeds that any point has."""
        return int(self.frame["seeds"].max())

    @property
    def holes(self) -> int:
        """How many planned points lack a result."""
        return int((self.frame.groupby([self.x, self.y])["seeds"].min() == 0).sum())


def surfaces(plan: Plan) -> Iterator[tuple[Group, str]]:
    """The (data set and backbone, method) pairs that have a surface: two numbers swept.

    Where something else is swept too, a point would be several configurations: no surface.
    """
    for group in plan.groups:
        for method in plan.methods:
            axes = plan.axes(method)
            arms = plan.arms(group, method)
            points = {tuple(point.items()) for point in arms.values()}
            swept = len(axes) == 2 and all(len(values) > 1 for values in axes.values())
            if swept and len(points) == len(arms):
                yield group, method


def grid(results: Results, group: Group, method: str, measures: Sequence[Measure]) -> Grid:
    """Computes accuracies over a method's grid, and the baseline's beside them.

    The frame has one row a measure and planned point. Columns: `dataset, backbone, method,
    column, title, detail`, the two swept numbers, `accuracy` (mean over seeds, a fraction,
    NaN where missing), `half_width` (of its interval, NaN below two seeds), `seeds`,
    `chosen` (whether validation chose the point), `refined` (whether it lies beside the grid),
    `baseline, baseline_half_width,
    baseline_seeds`.

    Args:
        results: The study.
        group: Data set and backbone.
        method: A method with two swept numbers.
        measures: What to compute.
    """
    x, y = results.plan.axes(method)
    rows, reference = results.rows(group, method), _baseline_rows(results, group)
    choice = choices(results, group).get(method)
    points = rows.groupby([x, y])
    frame = pd.concat(
        [_measured(points, measure, reference, choice) for measure in measures],
        ignore_index=True,
    )
    axes = results.plan.axes(method)
    frame["refined"] = ~(frame[x].isin(axes[x]) & frame[y].isin(axes[y]))
    frame.insert(0, "method", method)
    frame.insert(0, "backbone", group.backbone)
    frame.insert(0, "dataset", group.dataset)
    baseline = results.plan.baseline or ""
    return Grid(group, method, x, y, frame, tuple(measures), baseline, choice)


def alone(values: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The points (x, y, z) that no face of a surface touches: their neighbours are not there."""
    known = values.notna().to_numpy()
    whole = known[:-1, :-1] & known[:-1, 1:] & known[1:, :-1] & known[1:, 1:]
    touched = np.zeros_like(known)
    for rows, columns in itertools.product((slice(-1), slice(1, None)), repeat=2):
        touched[rows, columns] |= whole
    row, column = np.nonzero(known & ~touched)
    found = (values.columns[column], values.index[row], values.to_numpy(dtype=float)[row, column])
    return np.column_stack(found).astype(float)


def figure3_measures(protocol: Protocol) -> list[Measure]:
    """A panel an attack at its strongest, as the paper's Figure 3, and clean accuracy.

    Strongest: the largest size, then the most steps, of each attack, budget and goal. What
    the raw surfaces leave is the measure of robustness; the deployed scores, which the paper
    attacked, stand beside it. An attack without raw surfaces has a panel for each it has.
    """
    measures = []
    for setting in _strongest(protocol.test_attacks):
        cells = [cell for cell in protocol.test_attacks if cell.setting == setting]
        raw = worst_over_raw(cells).get(setting, ())
        if raw:
            measures.append(_worst(protocol, raw))
        deployed = [cell for cell in cells if cell.surface.endswith("_deployed")]
        measures += [of_cell(cell) for cell in (deployed if raw else cells)]
    return [*measures, Measure(names.CLEAN, "Clean", "no attack")]


def all_measures(protocol: Protocol) -> list[Measure]:
    """Every test cell, the headline where it is more than one of them, and clean accuracy."""
    measures = [of_cell(cell) for cell in protocol.test_attacks]
    if len(protocol.headline_metrics) > 1:
        measures.append(Measure(names.ROBUST, "Headline", "worst of its raw surfaces"))
    return [*measures, Measure(names.CLEAN, "Clean", "no attack")]


def of_cell(cell: Cell) -> Measure:
    """The measure that is one cell."""
    return Measure(cell.metric, _title(cell), _detail(cell, f"surface {cell.surface}"))


def _strongest(cells: Sequence[Cell]) -> list[Setting]:
    best: dict[tuple[object, ...], Setting] = {}
    for setting in (cell.setting for cell in cells):
        family = (setting.attack, setting.budget, setting.targeted, setting.extra)
        held = best.setdefault(family, setting)
        if (setting.eps, setting.steps) > (held.eps, held.steps):
            best[family] = setting
    return list(best.values())


def _worst(protocol: Protocol, cells: Sequence[Cell]) -> Measure:
    """Per-image worst over the raw cells of one setting."""
    first = cells[0]
    if len(cells) == 1:
        return of_cell(first)
    metrics = {cell.metric for cell in cells}
    detail = _detail(first, f"worst of {len(cells)} raw surfaces")
    if metrics == set(protocol.headline_metrics):
        return Measure(names.ROBUST, _title(first), detail)
    column = next(name for name, of in protocol.worst_raw.items() if set(of) == metrics)
    return Measure(column, _title(first), detail)


def _title(cell: Cell) -> str:
    return f"{cell.attack_title} {GOALS[cell.goal]}".rstrip()


def _detail(cell: Cell, surface: str) -> str:
    budget = "" if cell.budget == "overshoot" else f" {cell.budget}"
    extra = "".join(f", {key} {value}" for key, value in cell.extra)
    return f"{cell.size}{budget}, {cell.steps} steps, {surface}{extra}"


def _baseline_rows(results: Results, group: Group) -> pd.DataFrame:
    """The rows of the baseline as tables show it; none without a baseline."""
    arms: list[Arm] = [
        arm for arm in shown_arms(results, group) if arm.method == results.plan.baseline
    ]
    return arms[0].rows if len(arms) == 1 else results.frame.iloc[:0]


def _measured(
    grouped: DataFrameGroupBy[Any, Any],
    measure: Measure,
    reference: pd.DataFrame,
    choice: Choice | None,
) -> pd.DataFrame:
    found, baseline = estimates(grouped[measure.column]), estimate(reference[measure.column])
    points = found.index.to_frame(index=False)
    points.insert(0, "detail", measure.detail)
    points.insert(0, "title", measure.title)
    points.insert(0, "column", measure.column)
    return points.assign(
        accuracy=found["mean"].to_numpy(),
        half_width=found["half_width"].to_numpy(),
        seeds=found["seeds"].to_numpy(),
        chosen=(grouped["arm"].first() == (choice.arm if choice else "")).to_numpy(),
        baseline=baseline.mean,
        baseline_half_width=baseline.half_width,
        baseline_seeds=baseline.seeds,
    )
