"""The study's question, answered on the first page: who resists better, chosen how, how certain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis.checks import FEWEST_IMAGES
from analysis.choice import Arm, Choice, choice_note, shown_arms
from analysis.comparison import Verdict, verdicts
from analysis.plan import Cell, Group, Plan, Protocol
from analysis.runs import DONE, INCOMPLETE, Results
from analysis.statistics import Estimate, estimate, flatness, paired_difference
from analysis.tables.audit import NONE, Audits, gravest, headline_marks
from analysis.tables.text import points
from trainables import names

_SURFACE = "ce_deployed"  # what naive code attacks


@dataclass(frozen=True)
class Comparison:
    """One method's headline beside what it is to be read against; fractions.

    Attributes:
        method: The study's name for it.
        label: The same at validation's choice if it was tuned.
        mark: Of the headline, the gravest over seeds; empty without a result.
        headline: Accuracy under the headline attack on test images.
        deployed: The same attack on the deployed scores alone; empty where not planned.
        gap: `deployed - headline`, seed by seed: how much the deployed scores mask.
        differences: Method -> headline less that method's, seed by seed.
    """

    method: str
    label: str
    mark: str
    headline: Estimate
    deployed: Estimate
    gap: Estimate
    differences: Mapping[str, Estimate]


@dataclass(frozen=True)
class Answer:
    """What can be said of one data set and backbone.

    Attributes:
        group: Data set and backbone.
        headline: What the headline is, in a sentence.
        verdicts: Whom the methods in question resist better than, the headline's threat first.
        sentences: What validation chose, how far the numbers may be believed, what is missing.
        comparisons: Every method beside the references.
        against: The references' names.
    """

    group: Group
    headline: str
    verdicts: tuple[Verdict, ...]
    sentences: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    against: tuple[str, ...]


def first_answer(results: Results, group: Group, audits: Audits = NONE) -> Answer:
    """Compares every method with the baseline and the controls, paired by seed.

    Methods are those of the table, each at validation's choice if it was tuned.
    """
    arms = shown_arms(results, group)
    against = _references(results.plan, arms)
    protocol = results.plan.protocol(group)
    deployed = _deployed_cell(protocol)
    comparisons = tuple(_comparison(arm, deployed, against) for arm in arms)
    headline = (
        f"Headline: accuracy on test images under {protocol.headline_label}, for each image "
        "against the worst of the raw surfaces."
    )
    sentences = (
        *_choices(results, group, arms),
        *_counts(results, group, arms),
        *_trust([comparison for comparison in comparisons if comparison.mark]),
        *_missing(results, group),
    )
    found = tuple(verdicts(results, group, audits))
    return Answer(group, headline, found, sentences, comparisons, tuple(against))


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
        method=arm.method,
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


def _choices(results: Results, group: Group, arms: Sequence[Arm]) -> Iterator[str]:
    """What validation chose, its test result and regret, and whether there was a choice to make."""
    for arm in arms:
        if arm.choice:
            yield f"{choice_note(arm.choice)} {_flat(results, group, arm.choice)}"
        elif arm.method in results.plan.chosen_methods and arm.rows.empty:
            yield (
                f"Of {arm.method} validation has no headline yet to choose by: "
                f"`{results.plan.command}` computes it."
            )


def _flat(results: Results, group: Group, choice: Choice) -> str:
    rows = results.rows(group, choice.method)
    grid = rows.pivot_table(names.ROBUST, "arm", "seed")
    found = flatness(grid)
    if found is None:
        return "Whether the surface is flat one seed cannot tell."
    verdict = "No difference between points is seen" if found.is_flat else "The points do differ"
    return (
        f"{verdict}: their means have SD {100 * found.points_sd:.1f} points, and would have "
        f"{100 * found.noise_sd:.1f} by the noise of {found.seeds} seeds alone (F test over "
        f"{found.points} points, p = {found.p:.2g})."
    )


def _counts(results: Results, group: Group, arms: Sequence[Arm]) -> Iterator[str]:
    """Both marks of all runs, and the largest masking gap of a row."""
    trials = results.trials(group)
    runs = trials[trials["state"].isin((DONE, INCOMPLETE))]
    if runs.empty:
        return
    marks, evidence = (Counter(runs[column]) for column in ("attack_mark", "evidence"))
    yield (
        f"Marks of {len(runs)} headlines. Attack: {_counted(marks)}. Evidence: "
        f"{_counted(evidence)}."
    )
    gaps = {arm.label: estimate(arm.values(names.MASKING_GAP)) for arm in arms}
    known = {label: gap for label, gap in gaps.items() if not gap.is_missing}
    if known:
        label = max(known, key=lambda name: known[name].mean)
        yield (
            f"Largest masking gap: {label}, whose most flattering surface leaves "
            f"{points(known[label])} points on its headline."
        )


def _counted(marks: Counter[str]) -> str:
    return ", ".join(f"{mark} ({count})" for mark, count in marks.most_common())


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


def _missing(results: Results, group: Group) -> Iterator[str]:
    """How many trials lack results, by what became of them, and the command that helps."""
    trials = results.trials(group)
    left = trials[trials["state"] != DONE]
    if not left.empty:
        lack = "trial lacks" if len(left) == 1 else "trials lack"
        yield (
            f"{len(left)} planned {lack} results ({_counted(Counter(left['state']))}): "
            f"`{results.plan.command}` computes them."
        )
