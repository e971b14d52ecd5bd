"""What the study's searches have tried, as the driver tracked it with the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.plan import Group, Plan, axis_label
from analysis.tables.text import share
from trainables import names

SAMPLERS = {"tpe": "TPE", "gp": "GP", "cmaes": "CMA-ES", "nsga2": "NSGA-II", "random": "random"}
RULES = {"asha": "ASHA", "median": "median stopping"}


@dataclass(frozen=True)
class SearchView:
    """One search: its settings in words, and a row a suggestion.

    Attributes:
        group: Data set and backbone.
        method: Whose hyper-parameters were looked for.
        objectives: What was to be large on validation images: `robust`, `clean` or both.
        sampler: What suggested.
        rule: When trainings were given up; empty for never.
        budget: How many suggestions there were to be.
        frame: Columns `number, state, robust, clean` (fractions), `epoch, reason, best` (whether
            it is trained with every seed), and one for each axis, by dotted key.
        axes: The axes' dotted keys.
    """

    group: Group
    method: str
    objectives: tuple[str, ...]
    sampler: str
    rule: str
    budget: int
    frame: pd.DataFrame
    axes: tuple[str, ...]

    @property
    def stem(self) -> str:
        """What tells its files from those of other searches."""
        return f"{self.method}-{self.group.stem}"

    @property
    def title(self) -> str:
        """`isce on lenet5/mnist5k`."""
        return f"{self.method} on {self.group}"

    @property
    def numeric(self) -> tuple[str, ...]:
        """The axes that are numbers."""
        return tuple(axis for axis in self.axes if pd.api.types.is_numeric_dtype(self.frame[axis]))

    @property
    def counts(self) -> str:
        """`31 complete, 8 stopped, 1 failed`."""
        found = self.frame["state"].value_counts()
        return ", ".join(f"{found[name]} {name}" for name in names.SUGGESTED if found.get(name))

    @property
    def best(self) -> list[dict[str, str]]:
        """The suggestions that are trained with every seed, the very best first."""
        rows = self.frame[self.frame["best"] > 0].sort_values("best")
        return [
            {
                "number": str(row["number"] + 1),
                "point": ", ".join(
                    f"{axis_label(axis)} = {names.short(row[axis])}"
                    for axis in self.axes
                    if not pd.isna(row[axis])
                ),
                "robust": share(row["robust"]),
                "clean": share(row["clean"]),
            }
            for row in rows.to_dict("records")
        ]


def search_views(plan: Plan) -> list[SearchView]:
    """Every search of a plan that has suggested anything."""
    return [_view(raw) for raw in plan.raw.get("searches") or () if raw["suggestions"]]


def searches_frame(views: Sequence[SearchView]) -> pd.DataFrame:
    """All suggestions of all searches, a row each."""
    frames = []
    for view in views:
        frame = view.frame.copy()
        frame.insert(0, "method", view.method)
        frame.insert(0, "backbone", view.group.backbone)
        frame.insert(0, "dataset", view.group.dataset)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _view(raw: Mapping[str, Any]) -> SearchView:
    suggestions = raw["suggestions"]
    axes = tuple(dict.fromkeys(key for item in suggestions for key in item["axes"]))
    rank = {number: place for place, number in enumerate(raw["best"], start=1)}
    frame = pd.DataFrame(
        {
            "number": item["number"],
            "state": item["state"],
            "robust": np.nan if item["robust"] is None else item["robust"],
            "clean": np.nan if item["clean"] is None else item["clean"],
            "epoch": np.nan if item["epoch"] is None else item["epoch"],
            "reason": item["reason"],
            "best": rank.get(item["number"], 0),
            **{axis: item["axes"].get(axis) for axis in axes},
        }
        for item in suggestions
    )
    stop = raw["stop"]
    return SearchView(
        group=Group(raw["dataset"], raw["backbone"]),
        method=raw["method"],
        objectives=tuple(raw["objective"]),
        sampler=SAMPLERS[raw["sampler"]],
        rule="" if stop is None else f"{RULES[stop['rule']]} by {stop['by']} accuracy",
        budget=raw["budget"],
        frame=frame,
        axes=axes,
    )
