"""Whom a method resists better than, in each ball that the study attacks in: one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.choice import Arm, shown_arms
from analysis.images import Images
from analysis.plan import Cell, Group, Plan, Protocol
from analysis.runs import Results
from analysis.statistics import (
    CONFIDENCE,
    SEEDS_FOR_A_CLAIM,
    Difference,
    compare,
    equivalence,
    holm,
)
from analysis.tables.audit import NONE, Audits, cell_marks, gravest
from analysis.tables.text import signed
from trainables import names

MARGIN = 0.01  # within which accuracies are as good as each other (METHODS 4b)
BETTER, WORSE, UNCERTAIN, UNSEEN = "better", "worse", "uncertain", "no difference seen"
EQUAL = f"as good, within {100 * MARGIN:g} point"
_ALPHA = 1 - CONFIDENCE
# How a budget is called where its number is the ball's radius.
_BALLS = {"l2_abs": "L2", "linf": "L∞"}


@dataclass(frozen=True)
class Threat:
    """What an attacker may do.

    Attributes:
        title: The ball and its size: `L2 1.5`.
        cells: Metric names of the test cells, over the worst of which each image counts.
        leads: Whether it is the headline's.
    """

    title: str
    cells: tuple[str, ...]
    leads: bool


@dataclass(frozen=True)
class Versus:
    """One configuration against one other.

    Attributes:
        other: The other's label.
        difference: Less the other, seed by seed; a fraction.
        crossed: Interval over seeds and images both.
        p: Of the difference, by Holm over the verdict's comparisons.
        word: `BETTER` or `WORSE` where the t test and the crossed interval agree, `EQUAL` within
            `MARGIN`, `UNCERTAIN` where the t test alone, without Holm, sees a difference,
            `UNSEEN`, or why there is none of these.
        doubted: Marks of the side that stands higher, whose attack says no more than an upper
            bound; by label.
    """

    other: str
    difference: Difference
    crossed: tuple[float, float]
    p: float
    word: str
    doubted: Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """What a study says of one configuration under one threat."""

    threat: Threat
    subject: str
    against: tuple[Versus, ...]

    @property
    def text(self) -> str:
        """`isce against sce at L2 1.5: −14.1 points [−23.2, −5.0], 5 seeds: worse; against …`."""
        clauses = "; ".join(self._clause(index) for index in range(len(self.against)))
        return f"{self.subject} {clauses}.{self._reserve()}"

    def _clause(self, index: int) -> str:
        """One comparison; threat and seeds are told once."""
        versus, before = self.against[index], self.against[index - 1] if index else None
        value = versus.difference.estimate
        known = before is not None and before.difference.estimate.seeds == value.seeds
        seeds = "" if known or value.is_missing else f", {_seeds(value.seeds)}"
        where = "" if before else f" at {self.threat.title}"
        return f"against {versus.other}{where}{_measured(versus)}{seeds}: {versus.word}"

    def _reserve(self) -> str:
        """What keeps it from being a claim."""
        seeds = min(versus.difference.estimate.seeds for versus in self.against)
        reserves = []
        if 1 < seeds < SEEDS_FOR_A_CLAIM:
            reserves.append(f"{_seeds(seeds)}: an indication, a claim takes {SEEDS_FOR_A_CLAIM}")
        doubted = {label: mark for versus in self.against for label, mark in versus.doubted.items()}
        if doubted:
            marks = ", ".join(f"{label} ({mark})" for label, mark in doubted.items())
            reserves.append(f"not trusted: {marks}")
        told = "; ".join(reserves)
        return f" {told[0].upper()}{told[1:]}." if told else ""


def verdicts_frame(groups: Mapping[Group, Sequence[Verdict]]) -> pd.DataFrame:
    """A row a comparison, differences in points, for CSV."""
    return pd.DataFrame(
        {
            "dataset": group.dataset,
            "backbone": group.backbone,
            "threat": verdict.threat.title,
            "headline": verdict.threat.leads,
            "subject": verdict.subject,
            "other": versus.other,
            "difference_points": round(100 * versus.difference.estimate.mean, 6),
            "half_width_points": round(100 * versus.difference.estimate.half_width, 6),
            "seeds": versus.difference.estimate.seeds,
            "p_holm": versus.p,
            "smallest_detectable_points": round(100 * versus.difference.detectable, 6),
            "crossed_low_points": round(100 * versus.crossed[0], 6),
            "crossed_high_points": round(100 * versus.crossed[1], 6),
            "verdict": versus.word,
            "not_trusted": ", ".join(f"{k} ({mark})" for k, mark in versus.doubted.items()),
            "cells": " ".join(verdict.threat.cells),
        }
        for group, found in groups.items()
        for verdict in found
        for versus in verdict.against
    )


def threats(protocol: Protocol) -> list[Threat]:
    """The headline's threat, then every other ball that raw surfaces are attacked in.

    In such a ball each image counts by the worst of all attacks that saw as many images as any.
    """
    leading = [cell for cell in protocol.test_attacks if cell.metric in protocol.headline_metrics]
    found = [Threat(_title(cell), protocol.headline_metrics, leads=True) for cell in leading[:1]]
    balls: dict[tuple[str, float], list[Cell]] = {}
    for cell in protocol.test_attacks:
        if cell.has_threat_model and cell.is_raw:
            balls.setdefault((cell.budget, cell.eps), []).append(cell)
    for ball, cells in balls.items():
        if ball not in {(cell.budget, cell.eps) for cell in leading}:
            most = max(cell.n for cell in cells)
            metrics = tuple(cell.metric for cell in cells if cell.n == most)
            found.append(Threat(_title(cells[0]), metrics, leads=False))
    return found


def verdicts(results: Results, group: Group, audits: Audits = NONE) -> list[Verdict]:
    """Every configuration that the study is about, under each threat, the headline's first.

    Those are the methods that validation chose for or that have control arms; of a study that
    names neither, all but the baseline. Each is compared with the baseline and its controls.
    """
    images = Images(results)
    plan, arms = results.plan, shown_arms(results, group)
    protocol = plan.protocol(group)
    pairs = list(_pairs(plan, arms))
    involved = {arm.label: arm for subject, others in pairs for arm in (subject, *others)}
    marks = {label: cell_marks(arm, protocol, audits) for label, arm in involved.items()}
    return [
        Verdict(threat, subject.label, _against(images, threat, subject, others, marks))
        for threat in threats(protocol)
        for subject, others in pairs
    ]


def _pairs(plan: Plan, arms: Sequence[Arm]) -> Iterator[tuple[Arm, list[Arm]]]:
    """Each configuration in question, and what it is compared with; none of several a method."""
    methods = [arm.method for arm in arms]
    single = {arm.method: arm for arm in arms if methods.count(arm.method) == 1}
    named = [method for method in single if method in plan.chosen_methods or plan.controls(method)]
    for method in named or [method for method in single if method != plan.baseline]:
        others = dict.fromkeys([plan.baseline or "", *plan.controls(method)])
        found = [single[name] for name in others if name in single and name != method]
        if found:
            yield single[method], found


def _against(
    images: Images,
    threat: Threat,
    subject: Arm,
    others: Sequence[Arm],
    marks: Mapping[str, Mapping[str, str]],
) -> tuple[Versus, ...]:
    mine, *theirs = (_values(images, threat, arm) for arm in (subject, *others))
    differences = [compare(mine, values) for values in theirs]
    crossed = images.crossed_intervals([(subject, other, threat.cells) for other in others])
    found = []
    for other, values, difference, p, interval in zip(
        others, theirs, differences, holm([each.p for each in differences]), crossed, strict=True
    ):
        word = _word(difference, p, equivalence(mine, values, MARGIN), interval)
        higher = {BETTER: [subject], WORSE: [other], EQUAL: [subject, other]}.get(word, [])
        seen = {arm.label: _mark(threat, marks[arm.label]) for arm in higher}
        doubted = {label: mark for label, mark in seen.items() if mark != names.TRUSTED}
        found.append(Versus(other.label, difference, interval, p, word, doubted))
    return tuple(found)


def _word(difference: Difference, p: float, equal: float, crossed: tuple[float, float]) -> str:
    value = difference.estimate
    if value.is_missing:
        return "no result"
    if value.is_exploratory:
        return "no claim"
    is_above = value.mean > 0
    agree = crossed[0] > 0 if is_above else crossed[1] < 0
    if p < _ALPHA and agree:
        return BETTER if is_above else WORSE
    if equal < _ALPHA:
        return EQUAL
    return UNCERTAIN if difference.p < _ALPHA else UNSEEN


def _values(images: Images, threat: Threat, arm: Arm) -> pd.Series:
    """Accuracy by seed; the headline's is tracked."""
    return arm.values(names.ROBUST) if threat.leads else images.worst_by_seed(arm, threat.cells)


def _mark(threat: Threat, marks: Mapping[str, str]) -> str:
    """How far an accuracy is to be believed: a worst case as far as the best of its attacks."""
    if threat.leads:
        return marks[names.ROBUST]
    found = {marks[cell] for cell in threat.cells} - {""}  # of what has not run
    return gravest(found - {names.MASKED} or found)


def _measured(versus: Versus) -> str:
    value = versus.difference.estimate
    if value.is_missing:
        return ""
    mean = signed(f"{100 * value.mean:+.1f}")
    if value.is_exploratory:
        return f": {mean} points"
    ends = (100 * (value.mean + side * value.half_width) for side in (-1, 1))
    return f": {mean} points [{', '.join(signed(f'{end:+.1f}') for end in ends)}]"


def _title(cell: Cell) -> str:
    size = f"{_BALLS.get(cell.budget, cell.budget)} {names.number(cell.eps)}"
    return size if cell.has_threat_model else f"{size} ({names.NO_THREAT_MODEL})"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
