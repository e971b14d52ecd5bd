"""The study's question, answered in a paragraph, with what keeps it from being a claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis.checks import ABOVE, FEWEST_IMAGES
from analysis.choice import Arm, shown_arms
from analysis.plan import Cell, Group, Plan, Protocol
from analysis.runs import Results
from analysis.statistics import SEEDS_FOR_A_CLAIM, Estimate, estimate, paired_difference
from analysis.tables.audit import gravest, headline_marks
from analysis.tables.text import percent, share
from trainables import names

_SURFACE = "ce_deployed"  # what naive code attacks


@dataclass(frozen=True)
class Comparison:
    """One method's headline beside what it is to be read against; fractions.

    Attributes:
        label: The method, at validation's choice if it was tuned.
        mark: Of the headline, the gravest over seeds; empty without a result.
        headline: Accuracy under the headline attack on test images.
        deployed: The same attack on the deployed scores alone; empty where not planned.
        gap: `deployed - headline`, seed by seed: how much the deployed scores mask.
        differences: Method -> headline less that method's, seed by seed.
    """

    label: str
    mark: str
    headline: Estimate
    deployed: Estimate
    gap: Estimate
    differences: Mapping[str, Estimate]


@dataclass(frozen=True)
class Answer:
    """What can be said of one data set and backbone."""

    group: Group
    sentences: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    against: tuple[str, ...]


def first_answer(results: Results, group: Group) -> Answer:
    """Compares every method's headline with the baseline's and the controls'.

    Differences are paired by seed. Methods are those of the table, each at validation's
    choice if it was tuned.
    """
    arms = shown_arms(results, group)
    against = _references(results.plan, arms)
    deployed = _deployed_cell(results.plan.protocol(group))
    comparisons = {arm.label: _comparison(arm, deployed, against) for arm in arms}
    sentences = _sentences(results.plan, group, arms, comparisons)
    return Answer(group, tuple(sentences), tuple(comparisons.values()), tuple(against))


def _references(plan: Plan, arms: Sequence[Arm]) -> dict[str, Arm]:
    """The baseline and all control arms that stand in one row each."""
    wanted = [plan.baseline, *(name for method in plan.methods for name in plan.controls(method))]
    of_method = {arm.method: arm for arm in arms}
    return {name: of_method[name] for name in dict.fromkeys(wanted) if name in of_method}


def _deployed_cell(protocol: Protocol) -> Cell | None:
    """The headline's attack on the deployed scores, if the plan has it."""
    leading = protocol.headline_metrics
    settings = {cell.setting for cell in protocol.cells if cell.metric in leading}
    for cell in protocol.test_attacks:
        if cell.setting in settings and cell.surface == _SURFACE:
            return cell
    return None


def _comparison(arm: Arm, deployed: Cell | None, against: Mapping[str, Arm]) -> Comparison:
    headline = arm.values(names.ROBUST)
    apparent = arm.values(deployed.metric) if deployed else headline.iloc[:0]
    return Comparison(
        label=arm.label,
        mark=gravest(headline_marks(arm)),
        headline=estimate(headline),
        deployed=estimate(apparent),
        gap=paired_difference(apparent, headline),
        differences={
            name: paired_difference(headline, other.values(names.ROBUST))
            for name, other in against.items()
            if name != arm.method
        },
    )


def _sentences(
    plan: Plan,
    group: Group,
    arms: Sequence[Arm],
    comparisons: Mapping[str, Comparison],
) -> Iterator[str]:
    marks = {arm.method: comparisons[arm.label].mark for arm in arms}
    headline = plan.protocol(group).headline_label
    yield (
        f"On {group} the headline is accuracy on test images under {headline}, for each image "
        "against the worst of the raw surfaces."
    )
    for arm in arms:
        if arm.method == plan.baseline:
            yield f"The baseline {arm.label} keeps {_kept(comparisons[arm.label].headline)}."
    for arm in arms:
        if arm.method in plan.chosen_methods or plan.controls(arm.method):
            yield from _subject(plan, arm, comparisons, marks)
    yield from _trust([comparison for comparison in comparisons.values() if comparison.mark])


_TRUST = {
    names.MASKED: "the attack misses what there is to find, which says nothing of robustness and "
    "supports no claim",
    names.WEAK: "a stronger one leaves less, so this supports no claim",
    names.NO_THREAT_MODEL: "the attack keeps to no ball, so this supports no claim",
    names.UNAUDITED: "a stronger attack may leave less, so this is an upper bound on robustness "
    "and supports no claim; `audit: {}` in the study file audits it, on "
    f"{FEWEST_IMAGES} images or more",
    names.TRUSTED: "AutoAttack takes at most 2 points more, and no check fails",
}


def _trust(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """How far each headline is to be believed."""
    for mark, meaning in _TRUST.items():
        marked = [comparison.label for comparison in comparisons if comparison.mark == mark]
        if marked:
            whose = "All headlines" if len(marked) == len(comparisons) else _of(marked)
            yield f"{whose}: {mark}, {meaning}."


def _of(labels: Sequence[str]) -> str:
    return f"The headline{'s' if len(labels) > 1 else ''} of {', '.join(labels)}"


def _subject(
    plan: Plan, arm: Arm, comparisons: Mapping[str, Comparison], marks: Mapping[str, str]
) -> Iterator[str]:
    """One method that the study is about: headline, differences, masking, what it is worth."""
    mine = comparisons[arm.label]
    if mine.headline.is_missing:
        yield f"{arm.label} has no headline result yet: `{plan.command}` computes it."
        return
    how = " (validation's choice)" if arm.choice else ""
    yield f"{arm.label}{how} keeps {_kept(mine.headline)}."
    controls = [name for name in plan.controls(arm.method) if name in comparisons]
    kept = [f"{name} {_kept(comparisons[name].headline)}" for name in controls]
    if kept:
        yield f"Control arms: {', '.join(kept)}."
    named = [
        _difference(mine.differences[name], name)
        for name in dict.fromkeys([plan.baseline or "", *controls])
        if name in mine.differences and not mine.differences[name].is_missing
    ]
    if named:
        yield f"At equal seeds that is {', '.join(named)}."
    if not mine.gap.is_missing:
        yield _masking(mine)
    yield _worth(arm, mine, marks)


def _difference(value: Estimate, name: str) -> str:
    side = "above" if value.mean > 0 else "below"
    spread = "" if value.is_exploratory else f" ± {100 * value.half_width:.1f}"
    return f"{100 * abs(value.mean):.1f}{spread} points {side} {name}"


def _masking(mine: Comparison) -> str:
    masked = mine.gap.mean > ABOVE
    meaning = "masking, not robustness" if masked else "no sign of masking"
    return (
        f"Attacked through its deployed scores ({_SURFACE}) alone it keeps "
        f"{_kept(mine.deployed)}, {_difference(mine.gap, 'the headline')}: {meaning}."
    )


def _kept(value: Estimate) -> str:
    if value.is_missing:
        return "— (missing)"
    if value.is_exploratory:
        return f"{share(value.mean)} (one seed)"
    return f"{percent(value)} % ({value.seeds} seeds)"


def _worth(arm: Arm, mine: Comparison, marks: Mapping[str, str]) -> str:
    """How far the evidence carries: the fewest seeds of any difference, and both sides' marks."""
    pairs = [value for value in mine.differences.values() if not value.is_missing]
    seeds = min([mine.headline.seeds, *(value.seeds for value in pairs)])
    if seeds == 1:
        return f"{arm.label} is exploratory: one seed, no claim."
    if seeds < SEEDS_FOR_A_CLAIM:
        return (
            f"{seeds} seeds are fewer than the {SEEDS_FOR_A_CLAIM} that a claim needs: "
            "an indication, no claim."
        )
    decided = [name for name, value in mine.differences.items() if value.excludes_zero]
    if not decided:
        return "No difference is distinguishable from zero at the 95 % level."
    told = f"Distinguishable from zero at the 95 % level: the difference to {', '.join(decided)}"
    sides = {mine.label: mine.mark, **{name: marks[name] for name in decided}}
    doubted = [name for name, mark in sides.items() if mark != names.TRUSTED]
    return f"{told}; no claim, since not trusted: {', '.join(doubted)}." if doubted else f"{told}."
