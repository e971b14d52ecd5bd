"""What is measured of every model: the study's attacks and its audit's, by metric name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
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
        n: how many at most; None for as many as the study attacks.
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
    n: int | None = None
    headline: bool = False
    check: str = ""
    thorough: bool = False
    draws: bool = False

    @property
    def columns(self) -> Columns | None:
        """How it is listed; None for a clean cell."""
        return self.attack.columns()


def named_cells(study: Study, mistakes: list[Mistake]) -> list[NamedCell]:
    """Every attack on test images, clean and headline on validation images too, and the audit."""
    cells = [*_own(study, mistakes), *_audit(study, mistakes)]
    seen: set[str] = set()
    for cell in cells:
        where = "audit" if cell.check else f"attacks.{cell.label}"
        if cell.name in seen:
            mistakes.append(Mistake(where, f"two of its cells would both be named {cell.name}"))
        if len(cell.name) > LONGEST_NAME:
            mistakes.append(Mistake(where, f"too long for a metric: {cell.name}"))
        seen.add(cell.name)
    return cells


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
        yield NamedCell(name=names.clean_name(split), label="clean", attack=Clean(), split=split)
        for label, attack in named:
            leads = attack in leading and label == study.headline["attack"]
            if split == names.VALIDATION and not leads:
                continue
            yield NamedCell(
                name=_name(f"{names.CELL}{split}/", label, attack),
                label=label,
                attack=attack,
                split=split,
                n=(study.attacks[label] or {}).get("n"),
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
            name=_name(names.AUDIT, planned.check, planned.attack),
            label=planned.check,
            attack=planned.attack,
            split="test",
            n=study.audit.n,
            check=planned.check,
            thorough=planned.thorough,
            draws=planned.draws,
        )


def _headline(study: Study) -> list[Attack]:
    label = study.headline["attack"]
    points = settle_labelled("attack", label, study.attacks[label], [])
    return headline_attacks(study.headline, [cast(Attack, point.value) for point in points])


def _name(prefix: str, label: str, attack: Attack) -> str:
    columns = attack.columns()
    if columns is None:
        return f"{prefix}{label}"
    listed = {key: value for key, value in asdict(columns).items() if key != "norm"}
    return names.cell_name(prefix=prefix, attack=label, **listed)
