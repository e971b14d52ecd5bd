"""What the paper's own numbers and text contradict each other in, on the cells it touches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache

from analysis.published import TABLES, Cell, published

MASKED_BY = 10.0  # points that untargeted accuracy may lie above targeted (METHODS 6, 11)
LONG = 50  # steps at which that is looked at


@cache
def slips() -> Mapping[Cell, tuple[str, ...]]:
    """Notes by cell; a cell that nothing is odd about has none."""
    found: dict[Cell, list[str]] = {}
    for cells in map(lambda number: published(number).cells, TABLES):
        for cell in cells:
            for rule in _RULES:
                found.setdefault(cell, []).extend(rule(cell))
    return {cell: tuple(notes) for cell, notes in found.items() if notes}


def _clean_differs(cell: Cell) -> Iterator[str]:
    """One model has one clean accuracy."""
    if not cell.column.is_clean:
        return
    others = {
        number: other.accuracy
        for number in TABLES
        for other in published(number).cells
        if (other.method, other.column) == (cell.method, cell.column)
    }
    differing = [
        f"{accuracy:.2f} in Table {number}"
        for number, accuracy in others.items()
        if accuracy != cell.accuracy
    ]
    if differing:
        yield f"The same model's clean accuracy is {' and '.join(differing)}."


def _above_clean(cell: Cell) -> Iterator[str]:
    """An attack cannot mend what the model gets wrong, for mistakes count as broken."""
    clean = _peer(cell, attack="clean", eps=0.0, steps=0, goal="")
    if clean is not None and cell.accuracy > clean.accuracy:
        yield f"Above the clean accuracy, {clean.accuracy:.2f}."


def _rises_with_eps(cell: Cell) -> Iterator[str]:
    """A larger attack of the same kind cannot be weaker, were it one that finds its optimum."""
    for other in _weaker(cell, "eps"):
        yield f"Above the smaller eps {other.column.eps:g}, {other.accuracy:.2f}."


def _rises_with_steps(cell: Cell) -> Iterator[str]:
    """Nor can a longer one."""
    for other in _weaker(cell, "steps"):
        yield f"Above the {other.column.steps} steps, {other.accuracy:.2f}."


def _weaker(cell: Cell, key: str) -> Iterator[Cell]:
    """The row's lower numbers in columns that differ in a smaller `key` alone."""
    value = getattr(cell.column, key)
    for other in published(cell.table).cells:
        alike = replace(other.column, **{key: value}) == cell.column
        is_smaller = getattr(other.column, key) < value
        if other.method == cell.method and alike and is_smaller and cell.accuracy > other.accuracy:
            yield other


def _weaker_untargeted(cell: Cell) -> Iterator[str]:
    """Whoever reaches a given wrong class has left the right one."""
    if cell.column.goal != "un" or cell.column.steps != LONG:
        return
    targeted = _peer(cell, goal="tar")
    if targeted is not None and cell.accuracy - targeted.accuracy > MASKED_BY:
        yield (
            f"More than {MASKED_BY:g} points above the targeted attack, {targeted.accuracy:.2f}: "
            "the untargeted one followed masked gradients."
        )


def _other_images(cell: Cell) -> Iterator[str]:
    if cell.table != 4 or cell.column.is_clean:
        return
    for images, methods in ((3000, ("SCE", "I-SCE")), (5000, ("Random", "AT"))):
        if cell.method in methods:
            yield f"A multiple of 1/{images}: not every row of the table saw the same images."


def _text_differs(cell: Cell) -> Iterator[str]:
    """What the text says of the tables and they do not."""
    column, where = cell.column, (cell.table, cell.method)
    better = ", ".join(other.method for other in _rivals(cell) if other.accuracy > cell.accuracy)
    if where == (2, "I-SCE") and (column.eps, column.steps, column.goal) == (0.04, 50, "un"):
        yield f"The text has I-SCE better in most cases; here {better} are above it."
    if where == (7, "MMC") and not column.is_clean:
        yield f"The text calls MMC best under attack; here {better} are above it."
    if where == (3, "ArcFace") and not column.is_clean:
        gap = published(3).cell("I-SCE", column).accuracy - cell.accuracy
        yield f"The text claims 50 % for I-SCE in most cases; over ArcFace it gains {gap:.2f}."


def _rivals(cell: Cell) -> Iterator[Cell]:
    """The other rows' numbers in the column."""
    for other in published(cell.table).cells:
        if other.column == cell.column and other != cell:
            yield other


def _peer(cell: Cell, **changed: object) -> Cell | None:
    """The number of the same row in a column that differs so."""
    column = replace(cell.column, **changed)  # type: ignore[arg-type]
    if column == cell.column:
        return None
    found = (other for other in published(cell.table).cells if other.method == cell.method)
    return next((other for other in found if other.column == column), None)


_Rule = Callable[[Cell], Iterator[str]]
_RULES: tuple[_Rule, ...] = (
    _clean_differs,
    _above_clean,
    _rises_with_eps,
    _rises_with_steps,
    _weaker_untargeted,
    _other_images,
    _text_differs,
)

# What no cell shows, by table.
ABSENT = {
    4: "The paper prints no rows for L-GM, ArcFace and LS.",
    5: "The paper prints no rows for ArcFace and LS.",
    6: "The paper prints no rows for ArcFace and LS.",
    7: "The paper prints no rows for ArcFace and LS.",
}

# What touches no number: where it stands in the paper, and what is odd about it (METHODS 6).
TEXT = {
    "Eq. 3": "The indicator y_i is redundant for one-hot labels and undefined for soft ones.",
    "Eq. 9": "It compares two losses on one network, whose decision regions are the same under "
    "both: it says nothing of robustness.",
    "Eq. 10": "Its second line needs −P(i|x) + P(i|x + δ).",
    "Eq. 12": "s > (f − m) / f needs f > 0.",
    "Eq. 15": "It treats f_j as independent of f_i, which normalisation couples: there are logits "
    "of unit norm with z > 0 and yet L_I <= L.",
    "Figure 5": "z > 0 at f = 0.97 and S = 8; at f = 2 it fails on a sixth of the region, from "
    "f = 3 on all of it, where the logits of ordinary networks lie.",
    "Section 3.1": "The label smoothing described there has targets that sum to 0.99 for ten "
    "classes.",
    "Section 4": "A ResNet-32 has three stages of five blocks, not five stages, and the paper "
    "cited for it has another. s = 1, m = 0.1 is a corner of Figure 3's grid; how it was chosen is "
    "not said.",
}
