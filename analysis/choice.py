"""Which hyper-parameters a method is shown at: validation decides, the test set never."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pandas as pd

from analysis.plan import Group
from analysis.runs import DONE, Results
from analysis.tables.text import share
from trainables import names

_VALIDATION_CLEAN = names.clean_name(names.VALIDATION)


@dataclass(frozen=True)
class Choice:
    """A point of a method's grid, chosen on validation images.

    Attributes:
        method: The method that was tuned.
        arm: The chosen configuration.
        label: The same for readers: `isce s=1 m=0.1`.
        point: Swept number -> its value there.
        validation: Headline on validation images, a fraction, as all below; mean over seeds.
        test: Headline on test images.
        best_test: The largest test headline on the grid.
        best_label: Where that is.
        points: How many points had a validation result.
    """

    method: str
    arm: str
    label: str
    point: dict[str, float]
    validation: float
    test: float
    best_test: float
    best_label: str
    points: int

    @property
    def regret(self) -> float:
        """What choosing on validation cost on the test images."""
        return self.best_test - self.test


def choose(rows: pd.DataFrame, *, axes: Sequence[str]) -> Choice | None:
    """Chooses among the configurations of one method.

    The largest headline on validation wins; ties go to the larger clean accuracy on
    validation, then to the smaller values of the axes, in their order.

    Args:
        rows: Rows of one method, data set and backbone.
        axes: The swept numbers.

    Returns:
        The choice, or None while no configuration has a validation result.
    """
    points = _points(rows, axes)
    decided = points.dropna(subset=[names.ROBUST_VAL])
    if decided.empty:
        return None
    keys = [names.ROBUST_VAL, _VALIDATION_CLEAN, *axes]
    best = decided.sort_values(keys, ascending=[False, False, *[True] * len(axes)]).iloc[0]
    tested = points.dropna(subset=[names.ROBUST])
    top = None if tested.empty else tested.sort_values(names.ROBUST, ascending=False).iloc[0]
    return Choice(
        method=str(rows["method"].iloc[0]),
        arm=str(best["arm"]),
        label=str(best["label"]),
        point={axis: float(best[axis]) for axis in axes},
        validation=float(best[names.ROBUST_VAL]),
        test=float(best[names.ROBUST]),
        best_test=math.nan if top is None else float(top[names.ROBUST]),
        best_label="" if top is None else str(top["label"]),
        points=len(decided),
    )


def choice_note(choice: Choice) -> str:
    """How a row was chosen, and what that cost on the test images."""
    test = (
        f"On test: {share(choice.test)}; the best point there is {choice.best_label} with "
        f"{share(choice.best_test)}: test regret {100 * choice.regret:.1f} points."
        if choice.regret >= 0
        else "Its test headline is missing, so its test regret is unknown."
    )
    return (
        f"{choice.label} was chosen among {choice.points} point{'' if choice.points == 1 else 's'} "
        f"of {choice.method} by the validation headline ({share(choice.validation)}; ties: clean "
        f"validation accuracy, then the smaller values). {test}"
    )


def choices(results: Results, group: Group) -> dict[str, Choice]:
    """The choice of every method that the plan lets validation choose for, where there is one.

    A method of one configuration leaves nothing to choose.
    """
    found = {}
    for method in results.plan.chosen_methods:
        rows = results.rows(group, method)
        choice = choose(rows, axes=list(results.plan.axes(method)))
        if choice is not None and rows["arm"].nunique() > 1:
            found[method] = choice
    return found


@dataclass(frozen=True)
class Arm:
    """One configuration as it is shown: its rows differ in the seed alone.

    Attributes:
        method: The study's name for it.
        label: What readers see; tells apart several arms of one method.
        rows: Its rows of the frame; empty while validation has not chosen.
        choice: How it was chosen, if it was.
    """

    method: str
    label: str
    rows: pd.DataFrame
    choice: Choice | None = None

    def values(self, metric: str) -> pd.Series:
        """One value a seed, indexed by seed; NaN throughout if no run has the metric."""
        if metric not in self.rows:
            return pd.Series(math.nan, index=self._seeds, name=metric)
        return pd.Series(self.rows[metric].to_numpy(), index=self._seeds, name=metric)

    @cached_property
    def by_seed(self) -> pd.DataFrame:
        """The rows, indexed by seed."""
        return self.rows.set_index("seed")

    @cached_property
    def runs(self) -> dict[int, str]:
        """The finished run of each seed."""
        done = self.rows[self.rows["state"] == DONE]
        return dict(zip(map(int, done["seed"]), done["run_id"], strict=True))

    @cached_property
    def _seeds(self) -> pd.Index:
        seeds: pd.Index = pd.Index(self.rows["seed"], name="seed")
        return seeds


def shown_arms(results: Results, group: Group) -> list[Arm]:
    """The configurations that tables show, in the plan's order.

    A method that validation chooses for has one, its choice; any other has all of its own.
    """
    return list(_shown(results, group))


@lru_cache(maxsize=16)
def _shown(results: Results, group: Group) -> tuple[Arm, ...]:
    """Every table and figure asks for them."""
    chosen = choices(results, group)
    return tuple(
        arm
        for method in results.plan.methods
        for arm in _arms(results.rows(group, method), method, chosen.get(method), results)
    )


def _arms(rows: pd.DataFrame, method: str, choice: Choice | None, results: Results) -> list[Arm]:
    arms = list(rows["arm"].unique())
    if choice is not None:
        return [Arm(method, choice.label, rows[rows["arm"] == choice.arm], choice)]
    if len(arms) > 1 and method in results.plan.chosen_methods:
        return [Arm(method, method, rows.iloc[:0])]
    if len(arms) == 1:
        return [Arm(method, method, rows)]
    kept = [rows[rows["arm"] == arm] for arm in arms]
    return [Arm(method, str(arm_rows["label"].iloc[0]), arm_rows) for arm_rows in kept]


def _points(rows: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """One row a configuration: means over its seeds.

    Rounded, so that equal counts of images tie whatever the order they were summed in.
    """
    values = [names.ROBUST_VAL, names.ROBUST, _VALIDATION_CLEAN]
    columns = rows.reindex(columns=["arm", "label", *axes, *values])
    means = columns.groupby(["arm", "label", *axes], sort=False, dropna=False)[values].mean()
    return means.round(12).reset_index()
