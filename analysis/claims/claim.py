"""What a claims file may hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from analysis.plan import Cell, Group
from analysis.published import Column, published
from analysis.published.match import STANDS_FOR
from trainables import names

HEADLINE: Literal["headline"] = "headline"
CLEAN: Literal["clean"] = "clean"
CHOSEN = "chosen"  # in place of an arm: validation's choice among the points of a grid
_DATASETS = ("mnist", "cifar10")  # the paper's
_TESTS = ("better_than", "no_worse_than", "as_good_as", "unmasked", "within", "positive")
_PAIRED = _TESTS[:3]
# A key -> the keys of which one must stand beside it, lest it be ignored.
_BESIDE = {
    "by": ("better_than",),
    "margin": ("no_worse_than", "as_good_as"),
    "cases": _PAIRED,
    "within": ("measure",),
    "measure": (*_PAIRED, "within"),
    "positive": ("over",),
    "over": ("positive",),
}


def _listed(value: Any) -> Any:
    """One thing as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def _number(value: Any) -> Any:
    """`8/255`, which YAML reads as text."""
    try:
        return float(Fraction(value)) if isinstance(value, str) else value
    except (ValueError, ZeroDivisionError):
        return value


_Number = Annotated[float, BeforeValidator(_number)]
_Points = Annotated[float, Field(gt=0, le=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Where(_Strict):
    """Which data set, or backbone, a claim is about; all where it does not say."""

    dataset: str | None = None
    backbone: str | None = None

    def fits(self, group: Group) -> bool:
        """Whether a group's results speak of the claim; a small data set stands for its whole."""
        dataset = STANDS_FOR.get(group.dataset, group.dataset)
        return self.dataset in (None, dataset, group.dataset) and self.backbone in (
            None,
            group.backbone,
        )


class Cells(_Strict):
    """Columns of accuracies, by what attacks; whatever is not said may be anything.

    Attributes:
        table: One of the paper's, 1 to 7: the columns that it prints.
        attack: The study's label for it; its own name where none is called so.
        goal: `un` or `tar`.
        budget: How eps is read.
        surface: What is differentiated.
        eps: Sizes, as the study or the paper writes them.
        steps: Steps, or queries.
    """

    table: Annotated[int, Field(ge=1, le=7)] | None = None
    attack: str | None = None
    goal: Literal["un", "tar"] | None = None
    budget: str | None = None
    surface: str | None = None
    eps: Annotated[tuple[_Number, ...], BeforeValidator(_listed)] = ()
    steps: Annotated[tuple[int, ...], BeforeValidator(_listed)] = ()

    @model_validator(mode="after")
    def _says_which(self) -> Cells:
        if self.table is None and self.attack is None:
            raise ValueError("expected table or attack")
        return self

    def among(self, cells: Sequence[Cell]) -> list[Cell]:
        """Which of the study's cells are meant."""
        labelled = any(cell.attack == self.attack for cell in cells)
        return [
            cell
            for cell in cells
            if self.attack in (None, cell.attack if labelled else cell.algorithm)
            and self.budget in (None, cell.budget)
            and self.surface in (None, cell.surface)
            and self._measures(cell.goal, cell.eps, cell.steps)
        ]

    def printed(self, dataset: str) -> tuple[Column, ...]:
        """The columns of the paper's table that are meant, of one data set."""
        columns = published(self.table).columns if self.table else ()
        return tuple(
            column
            for column in columns
            if column.dataset == dataset
            and not column.is_clean
            and self._measures(column.goal, column.eps, column.steps)
        )

    def _measures(self, goal: str, eps: float, steps: int) -> bool:
        return (
            self.goal in (None, goal)
            and (not self.eps or any(math.isclose(eps, wanted) for wanted in self.eps))
            and (not self.steps or steps in self.steps)
        )

    def __str__(self) -> str:
        """`Table 2, eps 0.04`."""
        said = self.model_dump(exclude_defaults=True)
        table = [f"Table {said.pop('table')}"] if self.table else []
        return ", ".join([*table, *(f"{key} {_text(value)}" for key, value in said.items())])


def _text(value: Any) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return " or ".join(names.text(each) for each in values)


class Measure(_Strict):
    """A number that a diagnostic left: `theory` and `violations`, `embedding` and `fisher`."""

    diagnostic: str
    number: str


class Region(_Strict):
    """Where a formula is to be above zero: each a number, or its ends; symbols as in the paper.

    Attributes:
        s, m: Of I-SCE, the lower end excluded as in "s > 1 and m > 0".
        f: The logit of the true class, or of the largest.
        S: The sum of e^f over the other classes.
    """

    s: Annotated[tuple[_Number, ...], BeforeValidator(_listed)]
    m: Annotated[tuple[_Number, ...], BeforeValidator(_listed)]
    f: Annotated[tuple[_Number, ...], BeforeValidator(_listed)]
    S: Annotated[tuple[_Number, ...], BeforeValidator(_listed)] = (8.0,)

    @model_validator(mode="after")
    def _has_ends(self) -> Region:
        for axis, ends in self.model_dump().items():
            if len(ends) > 2 or list(ends) != sorted(ends) or not all(map(math.isfinite, ends)):
                raise ValueError(f"{axis}: expected a number or [low, high], found {list(ends)}")
        if self.s[0] < 1 or self.m[0] < 0 or self.S[0] <= 0:
            raise ValueError("expected s from 1, m from 0 and S above 0")
        return self


def _kind(value: Any) -> str:
    return "word" if isinstance(value, str) else "cells"


Item = Annotated[
    Annotated[Literal["headline", "clean"], Tag("word")] | Annotated[Cells, Tag("cells")],
    Discriminator(_kind),
]
TAGS = ("word", "cells")  # of `Item`, in pydantic's places of mistakes


class Claim(_Strict):
    """One claim: who (`arm`), under what (`under`), and one test.

    The tests:

    - `better_than: [...]`: each difference of accuracies exceeds `by` points (0). Both the t test
      over seeds (Holm over the finding's comparisons) and the crossed bootstrap over seeds and
      images must say so.
    - `no_worse_than: [...]`: the same, `margin` points (1) below the other.
    - `as_good_as: [...]`: within `margin` points, by two one-sided t tests (Holm likewise).
    - `unmasked: true`: the audit finds that the headline hides no gradients.
    - `within: [low, high]`: the t interval of `measure`, over seeds, lies between.
    - `positive: z` (or `advantage`: P_I - P, `shift`: (s - 1) f + m), above zero `over` a region.
      Nothing is trained for it.

    An arm is a method of the study, which stands for validation's choice where it is tuned; a
    row's name in the paper's tables (`I-SCE`, `AT`, `L-GM` …), `norm-sce` (I-SCE at s = 1, m = 0)
    or `isce-raw` (not normalised), wherever such a configuration is; or `chosen`, validation's
    choice among the points of a grid of the arm's loss.

    Whatever is compared takes five seeds. At the headline the larger side must be `trusted`, in
    other cells not `masked` or `weak attack`, for accuracy under attack is an upper bound. Cells
    without a threat model contradict nothing.

    Attributes:
        id: Names it.
        claim: In words.
        source: Who makes it, and where.
        note: What is to be known of it.
        where: `dataset` and `backbone` whose results decide it; all by default.
        scale: `full`: a reduced scale, a data `subset` or a stand-in for data set or backbone
            decides nothing. `any`: it speaks of the study as it is. By default `full` where it
            names MNIST, CIFAR-10 or a table of the paper, else `any`.
        arm: Whom it is about.
        under: `headline` (the default), `clean`, or `Cells`, such as `{table: 2, steps: 50}` or
            `{attack: pgd, eps: 1.0}`, judged once in each reading of eps and surface that the
            study has; or a list of these.
        measure: A diagnostic's number, larger being better, in place of accuracies; `by` and
            `margin` are in its unit.
        cases: Of all comparisons (cells x others), how many have to come out so: `all` or `most`.
    """

    id: str
    claim: str
    source: str = ""
    note: str = ""
    where: Where = Where()
    scale: Literal["full", "any"] | None = None
    arm: str = ""
    under: Annotated[tuple[Item, ...], BeforeValidator(_listed), Field(min_length=1)] = (HEADLINE,)
    measure: Measure | None = None
    cases: Literal["all", "most"] = "all"
    better_than: tuple[str, ...] = ()
    by: Annotated[float, Field(ge=0, le=100)] = 0.0
    no_worse_than: tuple[str, ...] = ()
    as_good_as: tuple[str, ...] = ()
    margin: _Points = 1.0
    unmasked: bool = False
    within: tuple[_Number, _Number] | None = None
    positive: Literal["z", "advantage", "shift"] | None = None
    over: Region | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Claim:
        wrong = list(self._wrong())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _wrong(self) -> Iterable[str]:
        tests = [test for test in _TESTS if getattr(self, test)]
        if len(tests) != 1:
            found = ", ".join(tests) or "none"
            yield f"expected one of {', '.join(_TESTS[:-1])} and {_TESTS[-1]}, found {found}"
        for key, partners in _BESIDE.items():
            if key in self.model_fields_set and not any(getattr(self, one) for one in partners):
                yield f"{key} says nothing without {' or '.join(partners)}"
        if not self.arm and not self.positive:
            yield "arm: missing"
        if self.unmasked and self.under != (HEADLINE,):
            yield "unmasked is said of the headline alone"
        if self.within and self.within[0] > self.within[1]:
            yield f"within: expected [low, high], found {list(self.within)}"

    @property
    def others(self) -> tuple[str, ...]:
        """Whom the arm is compared with."""
        return self.better_than or self.no_worse_than or self.as_good_as

    @property
    def threshold(self) -> float:
        """What a difference has to exceed, in the unit of `by` and `margin`."""
        return -self.margin if self.no_worse_than else self.by

    @property
    def needs_all(self) -> bool:
        """Whether a reduced setting decides nothing of it."""
        if self.scale is not None:
            return self.scale == "full"
        of_table = any(isinstance(item, Cells) and item.table for item in self.under)
        return of_table or self.where.dataset in _DATASETS


def keys_at(where: Sequence[int | str]) -> Mapping[str, Any] | None:
    """The keys that may stand at a place inside a claim; None where there are none."""
    inner: Mapping[str, type[BaseModel]] = {
        "where": Where,
        "measure": Measure,
        "over": Region,
        "under": Cells,
    }
    keys = [key for key in where if isinstance(key, str)]
    model = Claim if not keys else inner.get(keys[0])
    return model.model_fields if model else None
