"""What is measured of every model in one place: the study's attacks and its audit's, by metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import cast

from study.audit import audit_attacks
from study.check import headline_attacks
from study.settle import settle_labelled
from study.spec import Study
from trainables import names
from trainables.attacks.base import Attack, Columns
from trainables.attacks.clean import Clean
from trainables.config import SplitName
from trainables.errors import Mistake

LONGEST_NAME = 250 - len(names.LINF_MEDIAN)  # of a metric: MLflow's limit, less our suffixes


@dataclass(frozen=True, kw_only=True)
class NamedCell:
    """A cell before it is a model's.

    Attributes:
        name: its metric.
        label: the study's for the attack; the check's for an audit's.
        attack: as the study file has it, not yet settled for a loss.
        split: which images.
        n: how many, of most methods.
        most: how many at most, whatever the method; None for as many as the method attacks.
        headline: whether it is one of the headline's surfaces.
        check: which check of the audit it is for, empty for the study's own.
        thorough: whether points of a grid are spared it, but for corners, centre and what
            validation chooses.
        draws: whether it is for models that draw at random alone.
    """

    name: str
    label: str
    attack: Attack
    split: SplitName
    n: int
    most: int | None = None
    headline: bool = False
    check: str = ""
    thorough: bool = False
    draws: bool = False

    @property
    def columns(self) -> Columns | None:
        """How it is listed; None for a clean cell."""
        return self.attack.columns()


@dataclass(frozen=True)
class Protocol:
    """How the models of one data set and backbone are evaluated.

    Attributes:
        cells: what is measured, in the order of the file, the audit last.
        rebuilds: the paper's tables that it stands beside; empty for those that fit.
    """

    cells: tuple[NamedCell, ...]
    rebuilds: tuple[int, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, NamedCell]:
        """Cells by their metric."""
        return {cell.name: cell for cell in self.cells}

    def columns(self, name: str) -> Columns | None:
        """How a cell is listed; None for a clean one."""
        return self.by_name[name].columns

    @cached_property
    def headline(self) -> dict[str, tuple[str, ...]]:
        """Metric names of the headline's cells, by split."""
        return {
            split: tuple(cell.name for cell in self.cells if cell.headline and cell.split == split)
            for split in (names.TEST, names.VALIDATION)
        }

    @cached_property
    def worst_raw(self) -> dict[str, tuple[str, ...]]:
        """Metric of each attack's worst over its raw surfaces -> its test cells, if several."""
        settings: dict[str, list[str]] = {}
        for cell in self.cells:
            own = cell.split == names.TEST and not cell.check
            if own and cell.columns is not None and names.is_raw(cell.columns.surface):
                columns = replace(cell.columns, surface=names.WORST_RAW)
                name = metric_name(f"{names.CELL}{cell.split}/", cell.label, columns)
                settings.setdefault(name, []).append(cell.name)
        return {name: tuple(cells) for name, cells in settings.items() if len(cells) > 1}

    @property
    def leading(self) -> Columns:
        """How the headline's attack is listed."""
        columns = self.columns(self.headline[names.TEST][0])
        assert columns is not None  # `check` lets none lead that attacks nothing
        return columns

    @property
    def title(self) -> str:
        """The headline's attack in words."""
        columns, label = self.leading, self.by_name[self.headline[names.TEST][0]].label
        direction = "targeted" if columns.targeted else "untargeted"
        eps = f"{columns.budget} eps {names.number(columns.eps)}"
        return f"{label} {direction}, {eps}, {columns.steps} steps"

    def joined(self, other: Protocol, where: str, mistakes: list[Mistake]) -> Protocol:
        """The cells of two studies of one union, which must measure alike what both measure.

        Args:
            other: the later study's.
            where: the place, for messages.
            mistakes: what they do not agree on is added here.
        """
        if self.headline != other.headline:
            what = f"expected one headline, found {self.title} and {other.title}"
            mistakes.append(Mistake(f"union: headline of {where}", what))
        for name, cell in other.by_name.items():
            if self.by_name.get(name, cell) != cell:
                what = "two of its studies measure it differently (another n, or other parameters)"
                mistakes.append(Mistake(f"union: {name} of {where}", what))
        cells = {**self.by_name, **other.by_name}.values()
        rebuilds = tuple(dict.fromkeys([*self.rebuilds, *other.rebuilds]))
        return Protocol((*_of(cells, audit=False), *_of(cells, audit=True)), rebuilds)


def _of(cells: Iterable[NamedCell], *, audit: bool) -> Iterator[NamedCell]:
    return (cell for cell in cells if bool(cell.check) == audit)


def protocol(study: Study, mistakes: list[Mistake]) -> Protocol:
    """Every attack on test images, clean and headline on validation images too, and the audit."""
    found = Protocol((*_own(study, mistakes), *_audit(study, mistakes)), tuple(study.rebuilds))
    seen = set(found.worst_raw)
    for cell in found.cells:
        where = "audit" if cell.check else f"attacks.{cell.label}"
        if cell.name in seen:
            mistakes.append(Mistake(where, f"two of its cells would both be named {cell.name}"))
        if len(cell.name) > LONGEST_NAME:
            mistakes.append(Mistake(where, f"too long for a metric: {cell.name}"))
        seen.add(cell.name)
    return found


def _own(study: Study, mistakes: list[Mistake]) -> Iterator[NamedCell]:
    """The study's attacks."""
    named = [
        (label, cast(Attack, point.value))
        for label, node in study.attacks.items()
        for point in settle_labelled("attack", label, node, mistakes)
    ]
    leading = _headline(study)
    splits: tuple[SplitName, ...] = ("test", "validation")
    for split in splits:
        n: int = getattr(study.evaluate, split)
        name = names.clean_name(split)
        yield NamedCell(name=name, label="clean", attack=Clean(), split=split, n=n)
        for label, attack in named:
            leads = attack in leading and label == study.headline["attack"]
            if split == names.VALIDATION and not leads:
                continue
            most = (study.attacks[label] or {}).get("n")
            yield NamedCell(
                name=metric_name(f"{names.CELL}{split}/", label, attack.columns()),
                label=label,
                attack=attack,
                split=split,
                n=min(n, most or n),
                most=most,
                headline=leads,
            )


def _audit(study: Study, mistakes: list[Mistake]) -> Iterator[NamedCell]:
    """The attacks that say whether to believe the headline."""
    if study.audit is None:
        return
    label = study.headline["attack"]
    settings = [
        cast(Attack, point.value)
        for point in settle_labelled("attack", label, study.attacks.get(label), [])
    ]
    for planned in audit_attacks(study, settings, mistakes):
        yield NamedCell(
            name=metric_name(names.AUDIT, planned.check, planned.attack.columns()),
            label=planned.check,
            attack=planned.attack,
            split="test",
            n=min(study.evaluate.test, study.audit.n),
            most=study.audit.n,
            check=planned.check,
            thorough=planned.thorough,
            draws=planned.draws,
        )


def _headline(study: Study) -> list[Attack]:
    label = study.headline["attack"]
    points = settle_labelled("attack", label, study.attacks[label], [])
    return headline_attacks(study.headline, [cast(Attack, point.value) for point in points])


def metric_name(prefix: str, label: str, columns: Columns | None) -> str:
    """What a cell is called, as `names.cell_name` has it; a clean one by its label."""
    if columns is None:
        return f"{prefix}{label}"
    listed = {key: value for key, value in asdict(columns).items() if key != "norm"}
    return names.cell_name(prefix=prefix, attack=label, **listed)
