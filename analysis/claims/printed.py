"""Whether the paper's own tables say what its text does."""

from __future__ import annotations

from analysis.claims.claim import Cells, Claim
from analysis.published import Column, published
from analysis.tables.paper import column_title

_TOLD = 3  # exceptions that are told in full


def printed_note(claim: Claim, item: Cells, dataset: str) -> str:
    """In how many of a table's own comparisons a claim holds; empty where it has none."""
    if item.table is None:
        return ""
    table = published(item.table)
    columns = item.printed(dataset)
    others = [name for name in claim.others if name in table.methods]
    if claim.arm not in table.methods or not columns or not others:
        return ""
    pairs = [
        (other, column, table.cell(claim.arm, column).accuracy, table.cell(other, column).accuracy)
        for column in columns
        for other in others
    ]
    failing = [pair for pair in pairs if not _holds(claim, pair[2] - pair[3])]
    held = len(pairs) - len(failing)
    text = f"As printed in Table {item.table}: so in {held} of {len(pairs)} comparisons"
    if not failing:
        return f"{text}."
    told = [_exception(*pair) for pair in failing[:_TOLD]]
    more = f" and {len(failing) - _TOLD} more" if len(failing) > _TOLD else ""
    return f"{text}, not against {', '.join(told)}{more}."


def _holds(claim: Claim, difference: float) -> bool:
    if claim.as_good_as:
        return abs(difference) <= claim.margin
    return difference > claim.threshold


def _exception(other: str, column: Column, own: float, theirs: float) -> str:
    return f"{other} ({column_title(column)}: {own:.2f} and {theirs:.2f})"
