"""What the diagnostics measured: one row a method, one column a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from analysis.choice import shown_arms
from analysis.plan import Group
from analysis.runs import Results
from analysis.specimens import metric, numbers
from analysis.statistics import Estimate
from analysis.tables.accuracy import Row, table_row
from analysis.tables.text import percent, plain


@dataclass(frozen=True)
class Quantity:
    """One column.

    Attributes:
        number: What the diagnostic calls it.
        title: What stands over it, on the page.
        show: An estimate's text.
    """

    number: str
    title: str
    show: Callable[[Estimate], str] = plain


# The first says which seeds were examined. Exhibits are looked at, not tabled.
_QUANTITIES = {
    "exhibits": (),
    "theory": (
        Quantity("broken", "Images broken"),
        Quantity("holds", "z > 0 at x (%)", percent),
        Quantity("holds_on_path", "z > 0 on the whole path (%)", percent),
        Quantity("larger", Markup("L<sub>I</sub> &gt; L (%)"), percent),
        Quantity("violations", "Violations (%)", percent),
        Quantity("f_i", Markup("Mean f<sub>i</sub>")),
        Quantity("others", "Mean sum of the others"),
    ),
    "embedding": (
        Quantity("fisher", "Fisher ratio"),
        Quantity("nearest_mean", "Nearest to their own class mean (%)", percent),
    ),
}


@dataclass(frozen=True)
class FindingsTable:
    """A diagnostic's numbers on one data set and backbone."""

    group: Group
    label: str
    quantities: tuple[Quantity, ...]
    rows: tuple[Row, ...]

    def entry(self, row: Row, quantity: Quantity) -> str:
        """One cell's text."""
        return quantity.show(self.estimate(row, quantity))

    def estimate(self, row: Row, quantity: Quantity) -> Estimate:
        """Mean over seeds and its interval, in the diagnostic's unit."""
        return row.estimates[metric(self.label, quantity.number)]


def findings_tables(results: Results, label: str) -> list[FindingsTable]:
    """Averages a diagnostic's numbers over seeds: one table a data set and backbone.

    Rows are those of the accuracy table. A diagnostic that is not known here has a column for
    every number that it left.
    """
    known = _QUANTITIES.get(results.plan.diagnostics[label])
    found = (Quantity(number, number) for number in numbers(results.frame, label))
    quantities = tuple(found) if known is None else known
    metrics = [metric(label, quantity.number) for quantity in quantities]
    return [
        FindingsTable(
            group=group,
            label=label,
            quantities=quantities,
            rows=tuple(
                table_row(arm, metrics, results.plan, results.plan.protocol(group))
                for arm in shown_arms(results, group)
            ),
        )
        for group in results.plan.groups
        if metrics
    ]


def findings_frame(tables: Sequence[FindingsTable]) -> pd.DataFrame:
    """All tables as one long frame, shares as fractions, for CSV."""
    return pd.DataFrame(
        {
            "dataset": table.group.dataset,
            "backbone": table.group.backbone,
            "diagnostic": table.label,
            "method": row.method,
            "label": row.label,
            "number": quantity.number,
            "mean": value.mean,
            "half_width": value.half_width,
            "seeds": value.seeds,
            "seeds_planned": row.seeds_planned,
        }
        for table in tables
        for row in table.rows
        for quantity in table.quantities
        for value in [table.estimate(row, quantity)]
    )
