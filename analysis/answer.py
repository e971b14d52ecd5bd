"""The study's question, answered in a paragraph, with what keeps it from being a claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis.choice import Arm, shown_arms
from analysis.plan import Cell, Group, Plan
from analysis.runs import Results
from analysis.statistics import SEEDS_FOR_A_CLAIM, Estimate, estimate, paired_difference
from analysis.tables.text import percent, share
from trainables import names

_SURFACE = "ce_deployed"  # what naive code attacks
MASKED = 0.02  # a surface so far above the headline hides gradients


@dataclass(frozen=True)
class Comparison:
    """One method's headline beside what it is to be read against; fractions.

    Attributes:
        label: The method, at validation's choice if it was tuned.
        headline: Accuracy under the headline attack on test images.
        deployed: The same attack on the deployed scores alone; empty where not planned.
        gap: `deployed - headline`, seed by seed: how much the deployed scores mask.
        differences: Method -> headline less that method's, seed by seed.
    """

    label: str
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
    deployed = _deployed_cell(results.plan)
    comparisons = {arm.label: _comparison(arm, deployed, against) for arm in arms}
    sentences = _sentences(results.plan, group, arms, comparisons)
    return Answer(group, tuple(sentences), tuple(comparisons.values()), tuple(against))


def _references(plan: Plan, arms: Sequence[Arm]) -> dict[str, Arm]:
    """The baseline and all control arms that stand in one row each."""
    wanted = [plan.baseline, *(name for method in plan.methods for name in plan.controls(method))]
    of_method = {arm.method: arm for arm in arms}
    return {name: of_method[name] for name in dict.fromkeys(wanted) if name in of_method}


def _deployed_cell(plan: Plan) -> Cell | None:
    """The headline's attack on the deployed scores, if the plan has it."""
    settings = {cell.setting for cell in plan.cells if cell.metric in plan.headline_metrics}
    for cell in plan.test_attacks:
        if cell.setting in settings and cell.surface == _SURFACE:
            return cell
    return None


def _comparison(arm: Arm, deployed: Cell | None, against: Mapping[str, Arm]) -> Comparison:
    headline = arm.values(names.ROBUST)
    apparent = arm.values(deployed.metric) if deployed else headline.iloc[:0]
    return Comparison(
        label=arm.label,
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
    yield (
        f"On {group} the headline is accuracy on test images under {plan.headline_label}, for "
        "each image against the worst of the raw surfaces."
    )
    for arm in arms:
        if arm.method == plan.baseline:
            yield f"The baseline {arm.label} keeps {_kept(comparisons[arm.label].headline)}."
    for arm in arms:
        if arm.method in plan.chosen_methods or plan.controls(arm.method):
            yield from _subject(plan, arm, comparisons)
    marks = {mark for arm in arms for mark in arm.rows["attack_mark"] if mark}
    if names.UNAUDITED in marks:
        yield (
            f"The attacks are {names.UNAUDITED}: a stronger one may leave less, so these are "
            "upper bounds on robustness."
        )


def _subject(plan: Plan, arm: Arm, comparisons: Mapping[str, Comparison]) -> Iterator[str]:
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
    yield _worth(arm, mine)


def _difference(value: Estimate, name: str) -> str:
    side = "above" if value.mean > 0 else "below"
    spread = "" if value.is_exploratory else f" ± {100 * value.half_width:.1f}"
    return f"{100 * abs(value.mean):.1f}{spread} points {side} {name}"


def _masking(mine: Comparison) -> str:
    masked = mine.gap.mean > MASKED
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


def _worth(arm: Arm, mine: Comparison) -> str:
    """How far the evidence carries, from the fewest seeds of any difference."""
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
    return f"Distinguishable from zero at the 95 % level: the difference to {', '.join(decided)}."
