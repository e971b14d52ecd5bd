"""May a headline be believed? The marks that the checks of a model give (METHODS 4).

A headline is accuracy under one attack, for each image against the worst of its raw surfaces: an
upper bound on robustness, and a poor one where gradients are masked (Athalye et al. 2018).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy.typing as npt

from analysis.checks import AUTOATTACK, PASS, Check, Evidence, Outcomes, Subject, checks_of
from analysis.plan import Cell
from trainables import names

# Cells may have been measured on two machines, where so large a share of outcomes may differ.
MACHINES = 0.005


@dataclass(frozen=True)
class Audit:
    """What the checks say of one model.

    Attributes:
        checks: Of the headline, then of each test cell.
        marks: Metric of each test cell with an attack, and `names.ROBUST` for the headline ->
            its mark.
        broken_invariants: What cannot be, in words: bugs of ours.
    """

    checks: tuple[Check, ...]
    marks: Mapping[str, str]
    broken_invariants: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """The headline's."""
        return self.marks[names.ROBUST]

    @property
    def failed(self) -> int:
        """How many checks of the headline as a whole failed."""
        return sum(check.failed for check in self.checks if not check.about)

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        raw = json.loads(text)
        checks = tuple(Check(**check) for check in raw["checks"])
        return cls(checks, raw["marks"], tuple(raw["broken_invariants"]))


def judge(cells: Sequence[Cell], headline: Sequence[str], outcomes: Outcomes) -> Audit:
    """Makes every check of a model, and marks its headline and its test cells.

    The headline is as good as the strongest of its raw surfaces, so its checks look at the
    per-image worst over them: one that hides its gradients, as cross entropy does where it
    saturates, masks itself alone as long as another finds what there is. Marks, the first
    that fits:

    - `no threat model`: the attack keeps to no ball (paths, DeepFool).
    - `masked`: a check failed that means it. What the headline fails speaks of each surface in
      its setting that leaves no less: whatever beats the headline beats that as well.
    - `weak attack`: a check failed that means it, likewise.
    - `trusted`: AutoAttack takes at most 2 points more, on enough images.
    - `unaudited`: none of these. Cells of other settings than the headline's have only the
      cheap checks, their gradients and their surfaces', so they are masked or this.

    Args:
        cells: The plan's.
        headline: Metrics of the headline's test cells.
        outcomes: Metric -> arrays, one value an image: `correct_before` and `correct_after`, in
            passes, `passes`, `gradient` (the smallest norm of those followed, 0 where one was
            zero or not finite, -1 where none was followed) and `labels`. Of two cells' images
            the fewer are the first of the more. A model may lack cells.
    """
    evidence = Evidence(cells, headline, outcomes)
    broken = tuple(_broken(cells, outcomes))
    if not evidence.headline.cells:
        return Audit((), {names.ROBUST: names.UNAUDITED}, broken)
    whole = tuple(checks_of(evidence, evidence.headline))
    failed = [check for check in whole if check.failed]
    checks, marks = [*whole], {names.ROBUST: _mark(evidence.headline, whole)}
    for subject in evidence.cells():
        own = tuple(checks_of(evidence, subject))
        checks += own
        shared = failed if evidence.leaves_no_less(subject) else []
        marks[subject.metric] = _mark(subject, [*own, *shared])
    return Audit(tuple(checks), marks, broken)


def _mark(subject: Subject, checks: Sequence[Check]) -> str:
    """The mark that checks give, see `judge`."""
    if not all(cell.has_threat_model for cell in subject.cells):
        return names.NO_THREAT_MODEL
    for meaning in (names.MASKED, names.WEAK):
        if any(check.failed and check.meaning == meaning for check in checks):
            return meaning
    certified = any(check.name == AUTOATTACK and check.verdict == PASS for check in checks)
    return names.TRUSTED if certified else names.UNAUDITED


def _broken(cells: Sequence[Cell], outcomes: Outcomes) -> Iterator[str]:
    """The invariants that outcomes break."""
    measured = [cell for cell in cells if cell.name in outcomes]
    first: dict[str, npt.NDArray[Any]] = {}
    for cell in measured:
        outcome = outcomes[cell.name]
        gained = int((outcome["correct_after"] > outcome["correct_before"]).sum())
        if gained:
            yield f"{cell.name}: {gained} images are right more often under attack than without"
        labels, known = outcome["labels"], first.setdefault(cell.split, outcome["labels"])
        n = min(len(labels), len(known))
        if (labels[:n] != known[:n]).any():
            yield f"{cell.name}: its images are not those of the other cells"
    if _repeats(measured, outcomes):
        yield from _rising([cell for cell in measured if _one_run(cell, outcomes)], outcomes)


def _repeats(cells: Sequence[Cell], outcomes: Outcomes) -> bool:
    """Whether every cell found the same clean images right.

    A model that draws at random without saying so does not repeat itself: what it does by luck
    breaks no invariant of ours.
    """
    first: dict[str, npt.NDArray[Any]] = {}
    for cell in cells:
        before = outcomes[cell.name]["correct_before"]
        known = first.setdefault(cell.split, before)
        n = min(len(before), len(known))
        if (before[:n] != known[:n]).mean() > MACHINES:
            return False
    return True


def _rising(cells: Sequence[Cell], outcomes: Outcomes) -> Iterator[str]:
    """Accuracies that rise with the steps of one run."""
    runs: dict[Cell, list[Cell]] = {}
    for cell in cells:
        runs.setdefault(replace(cell, name="", steps=0), []).append(cell)
    for run in runs.values():
        for fewer, more in itertools.pairwise(sorted(run, key=lambda cell: cell.steps)):
            before, after = (outcomes[cell.name]["correct_after"] for cell in (fewer, more))
            n = min(len(before), len(after))
            if after[:n].sum() - before[:n].sum() > MACHINES * n:
                yield f"{more.name}: leaves more than {fewer.name}, the same run after fewer steps"


def _one_run(cell: Cell, outcomes: Outcomes) -> bool:
    """Whether a cell's run only goes on where one of fewer steps ends, and undoes nothing.

    The step length must not depend on their number, and an image that is broken must be left
    alone: not so in a targeted run, which goes on until it is at its target, where the last
    iterate is kept, in several runs one after another, or on a model that draws at random.
    """
    extra = dict(cell.extra).keys()
    steady = cell.budget.startswith("path") or not extra.isdisjoint({"alpha", "alpha_for"})
    simple = extra.isdisjoint({"stop", "restarts", "rivals"}) and not cell.targeted
    certain = outcomes[cell.name]["passes"].max() == 1
    return cell.algorithm == "pgd" and steady and simple and bool(certain)
