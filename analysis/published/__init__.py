"""The paper's Tables 1 to 7 as printed, and what is odd about their numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

TABLES = range(1, 8)
CAPTIONS = {
    1: "Classification accuracy (%) under PGD attack on MNIST.",
    2: "Classification accuracy (%) under PGD attack on CIFAR10.",
    3: "Classification accuracy (%) under Deepfool attack.",
    4: "Classification accuracy (%) under SimBA attack.",
    5: "Performance (%) of shallow neural networks under PGD attack on MNIST.",
    6: "Performance (%) of shallow neural networks under PGD attack on CIFAR10.",
    7: "Performance (%) of shallow neural networks under Deepfool attack.",
}


@dataclass(frozen=True)
class Column:
    """What a number was measured under.

    Attributes:
        dataset: `mnist` or `cifar10`.
        backbone: `resnet32`, `lenet5` or `cnn8`, the paper's "8-layer neural network".
        attack: `clean`, `pgd`, `deepfool` or `simba`.
        eps: As printed, in whatever reading the paper had; 0 of the clean column.
        steps: Iterations; of SimBA the queries that the text states. 0 of the clean column.
        goal: `un` or `tar` of PGD, empty otherwise.
    """

    dataset: str
    backbone: str
    attack: str
    eps: float
    steps: int
    goal: str

    @property
    def is_clean(self) -> bool:
        """Whether nothing attacks."""
        return self.attack == "clean"


@dataclass(frozen=True)
class Cell:
    """One printed number.

    Attributes:
        table: Its table, 1 to 7.
        method: The row, by the paper's name.
        column: What it was measured under.
        accuracy: In %.
        line: Where it stands in the paper's text, from 1.
    """

    table: int
    method: str
    column: Column
    accuracy: float
    line: int


@dataclass(frozen=True)
class Table:
    """One of the paper's tables; rows and columns in the order printed."""

    number: int
    cells: tuple[Cell, ...]

    @property
    def caption(self) -> str:
        """As printed."""
        return CAPTIONS[self.number]

    @property
    def methods(self) -> tuple[str, ...]:
        """The rows."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, clean ones first of their data set."""
        return tuple(dict.fromkeys(cell.column for cell in self.cells))

    def cell(self, method: str, column: Column) -> Cell:
        """The number in a row and a column.

        Raises:
            KeyError: the table has no such row or column.
        """
        for cell in self.cells:
            if (cell.method, cell.column) == (method, column):
                return cell
        raise KeyError((method, column))


@cache
def published(number: int) -> Table:
    """One of the paper's tables.

    Raises:
        ValueError: there is no such table.
    """
    if number not in TABLES:
        raise ValueError(f"expected a table of the paper, 1 to 7, found {number!r}")
    return Table(number, tuple(_read(number)))


def _read(number: int) -> Iterator[Cell]:
    text = files("analysis.published").joinpath(f"table{number}.csv").read_text("utf-8")
    for row in csv.DictReader(text.splitlines()):
        column = Column(
            dataset=row["dataset"],
            backbone=row["backbone"],
            attack=row["attack"],
            eps=float(row["eps"] or 0),
            steps=int(row["steps"] or 0),
            goal=row["goal"],
        )
        yield Cell(number, row["method"], column, float(row["accuracy"]), int(row["line"]))
