"""Which runs a diagnostic has examined, and the one of each method that pictures show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pandas as pd

from analysis.choice import Arm, shown_arms
from analysis.plan import Group
from analysis.runs import Results, findings
from trainables import names

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Specimen:
    """One run, and the arrays that a diagnostic left in it.

    Attributes:
        arm: The configuration that it stands for.
        row: Its row of the results' frame.
        arrays: By name, as the diagnostic describes them.
    """

    arm: Arm
    row: pd.Series
    arrays: Mapping[str, Array]

    @property
    def caption(self) -> str:
        """Whose pictures these are: `sce, seed 0`."""
        return f"{self.arm.label}, seed {self.row['seed']}"

    def frame(self, columns: Mapping[str, object]) -> pd.DataFrame:
        """Columns of equal length, behind those that say whose they are."""
        whose = {name: self.row[name] for name in ("dataset", "backbone", "method")}
        whose |= {"configuration": self.arm.label, "seed": self.row["seed"]}
        return pd.DataFrame({**whose, **columns})


def metric(label: str, number: str) -> str:
    """The frame's column that holds a diagnostic's number."""
    return f"{names.DIAGNOSTIC}{label}/{number}"


def numbers(rows: pd.DataFrame, label: str) -> list[str]:
    """The numbers that a diagnostic left in any run of the results' frame."""
    prefix = metric(label, "")
    return [name.removeprefix(prefix) for name in map(str, rows) if name.startswith(prefix)]


def examined(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """The rows whose run a diagnostic has left numbers in."""
    columns = [metric(label, number) for number in numbers(rows, label)]
    return rows[rows[columns].notna().any(axis=1)]


def specimens(results: Results, group: Group, label: str) -> Iterator[Specimen]:
    """One run a method: the first seed that was examined of its first such configuration.

    Configurations are those of the tables, so a tuned method stands at validation's choice.
    """
    seen = set()
    for arm in shown_arms(results, group):
        rows = examined(arm.rows, label)
        if arm.method not in seen and not rows.empty:
            seen.add(arm.method)
            row = rows.iloc[0]
            yield Specimen(arm, row, findings(results.client, row["run_id"], label))
