"""The verdicts on claims, one in each place and reading that speaks of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from analysis.choice import Arm
from analysis.claims.claim import CHOSEN, Claim
from analysis.claims.compare import AGAINST, FOR, OPEN, Comparison, bounded, compared
from analysis.claims.formula import Evaluation, evaluate
from analysis.claims.place import Place, View
from analysis.claims.printed import printed_note
from analysis.images import Images
from analysis.plan import Group
from analysis.published.match import STANDS_FOR
from analysis.runs import Results
from analysis.statistics import SEEDS_FOR_A_CLAIM
from analysis.tables.audit import NONE, Audits, gravest, headline_marks
from trainables import names

REPRODUCED, CONTRADICTED, UNDECIDED, NOT_RUN = (
    "reproduced",
    "contradicted",
    "undecided",
    "not run",
)
FORMULA = "formula"  # in place of a reading
_NAMED = 4  # arms, or cells, that a reason names before it counts


@dataclass(frozen=True)
class Finding:
    """What was found of a claim in one place and one reading.

    Attributes:
        claim: The claim.
        group: Data set and backbone; None of a formula, and where no result speaks of it.
        reading: What it was judged under: `headline`, `clean`, a reading of eps, a diagnostic,
            `formula`; empty where it was not.
        verdict: `REPRODUCED`, `CONTRADICTED`, `UNDECIDED` or `NOT_RUN`.
        reason: Why, in words.
        comparisons: What decides it.
        reduced: What is smaller than what the claim is about, so that it is undecided.
        notes: What is to be known of it, as what the paper's own numbers say.
        numbers: Of a formula: share of points where it fails, extremes and where they are.
    """

    claim: Claim
    group: Group | None
    reading: str
    verdict: str
    reason: str
    comparisons: tuple[Comparison, ...] = ()
    reduced: str = ""
    notes: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """The verdict for readers: `undecided (scale)` of a reduced setting."""
        return f"{self.verdict} (scale)" if self.reduced else self.verdict


def judge_claims(results: Results, claims: Sequence[Claim], audits: Audits = NONE) -> list[Finding]:
    """Every claim in every place and reading that speaks of it, and once where none does.

    Args:
        results: The study.
        claims: As `read_claims` returns them.
        audits: What marks the cells.
    """
    images = Images(results)
    places = [Place(results, group, audits, images) for group in results.plan.groups]
    return [finding for claim in claims for finding in _findings(places, claim)]


def _findings(places: Sequence[Place], claim: Claim) -> Iterator[Finding]:
    if claim.positive:
        yield _judge_formula(claim)
        return
    speaking = [place for place in places if place.speaks_of(claim)]
    if not speaking:
        yield Finding(claim, None, "", NOT_RUN, "the study has no such data set and backbone")
    for place in speaking:
        found = [_judge(place, claim, view) for view in place.views(claim)]
        run = [finding for finding in found if finding.verdict != NOT_RUN]
        nothing = Finding(claim, place.group, "", NOT_RUN, "the study measures nothing of the kind")
        yield from run or [replace(found[0], reading="") if found else nothing]


def _judge(place: Place, claim: Claim, view: View) -> Finding:
    """One finding; what a reduced setting shows is told and decides nothing."""
    found = _judged(place, claim, view)
    dataset = STANDS_FOR.get(place.group.dataset, place.group.dataset)
    printed = printed_note(claim, view.cells, dataset) if view.cells else ""
    notes = tuple(filter(None, [claim.note, printed]))
    reduced = place.reduced(claim)
    if not reduced or found.verdict == NOT_RUN:
        return replace(found, notes=notes)
    reason = f"{reduced}: decides nothing of the claim; here {found.reason}"
    return replace(found, verdict=UNDECIDED, reason=reason, reduced=reduced, notes=notes)


def _judged(place: Place, claim: Claim, view: View) -> Finding:
    def not_run(reason: str) -> Finding:
        return Finding(claim, place.group, view.reading, NOT_RUN, reason)

    subjects = [arm for arm in place.named(claim.arm) if _has_any(arm, view)]
    if not subjects:
        return not_run(f"no result of {claim.arm} there{place.hint(claim.arm)}")
    if len(subjects) > 1:
        labels = ", ".join(arm.label for arm in subjects)
        return not_run(f"{claim.arm} stands for several: {labels}; name one of them")
    (subject,) = subjects
    if claim.unmasked:
        return _judge_masking(place, claim, view, subject)
    if claim.within:
        comparisons = bounded(claim, view, subject)
        return _finding(place, claim, view, comparisons, len(comparisons), ())
    others, lacking = _others(place, claim, view, subject)
    comparisons = compared(place, claim, view, subject, others)
    if not comparisons:
        whom = ", ".join(f"{name}{place.hint(name)}" for name in lacking)
        return not_run(f"no result of {whom}" if whom else "no seed in common")
    cells = len(view.yardsticks) + len(view.absent)
    return _finding(place, claim, view, comparisons, cells * (len(others) + len(lacking)), lacking)


def _has_any(arm: Arm, view: View) -> bool:
    return any(arm.values(yardstick.metric).notna().any() for yardstick in view.yardsticks)


def _others(
    place: Place, claim: Claim, view: View, subject: Arm
) -> tuple[list[Arm], tuple[str, ...]]:
    """Whom the subject is compared with, each once, and the names that have no result."""
    found: dict[str, Arm] = {}
    lacking = []
    for name in claim.others:
        arms = [arm for arm in place.named(name, subject) if _has_any(arm, view)]
        if not arms:
            lacking.append(name)
        if CHOSEN not in (name, claim.arm):  # validation may well choose the arm itself
            arms = [arm for arm in arms if not _same(arm, subject)]
        found |= {arm.label: arm for arm in arms}
    return list(found.values()), tuple(lacking)


def _same(one: Arm, other: Arm) -> bool:
    return set(one.rows["arm"]) == set(other.rows["arm"])


def _finding(
    place: Place,
    claim: Claim,
    view: View,
    comparisons: tuple[Comparison, ...],
    planned: int,
    lacking: Sequence[str],
) -> Finding:
    """The verdict on all comparisons: `planned` of them would be, were nothing missing."""
    sides = {side: [c for c in comparisons if c.outcome == side] for side in (FOR, AGAINST, OPEN)}
    won, lost = len(sides[FOR]), len(sides[AGAINST])
    if claim.cases == "most":
        verdict = REPRODUCED if 2 * won > planned else UNDECIDED
        verdict = CONTRADICTED if 2 * lost >= planned else verdict
    else:
        verdict = CONTRADICTED if lost else REPRODUCED if won == planned else UNDECIDED
    parts = {
        REPRODUCED: _told(_words(claim)[0], sides[FOR]),
        CONTRADICTED: _told(_words(claim)[1], sides[AGAINST]),
        UNDECIDED: "; ".join(_open(comparisons, planned, lacking, len(view.absent))),
    }
    reason = parts[verdict]
    if planned > 1 and verdict != UNDECIDED:
        count = won if verdict == REPRODUCED else lost
        reason += f" ({count} of {planned} comparisons)"
    if verdict == REPRODUCED and not all(one.has_threat_model for one in view.yardsticks):
        reason += ", under this reading: it has no threat model"
    return Finding(claim, place.group, view.reading, verdict, reason, comparisons)


def _words(claim: Claim) -> tuple[str, str]:
    """What is said of the others where the claim comes out, and where its opposite does."""
    if claim.within:
        return "its interval lies within", "its interval lies outside of"
    if claim.as_good_as:
        margin = _amount(claim, claim.margin)
        return f"within {margin} of", f"more than {margin} from"
    if claim.no_worse_than:
        margin = _amount(claim, claim.margin)
        return f"no more than {margin} worse than", f"more than {margin} worse than"
    if claim.by:
        by = _amount(claim, claim.by)
        return f"more than {by} better than", f"not {by} better than"
    return "better than", "worse than"


def _amount(claim: Claim, value: float) -> str:
    """`1 point`, or the number of a diagnostic."""
    unit = "" if claim.measure else " point" if value == 1 else " points"
    return f"{value:g}{unit}"


def _told(words: str, comparisons: Sequence[Comparison]) -> str:
    return f"{words} {_listed([comparison.other for comparison in comparisons])}"


def _listed(found: Sequence[str]) -> str:
    once = list(dict.fromkeys(found))
    more = f" and {len(once) - _NAMED} more" if len(once) > _NAMED else ""
    return f"{', '.join(once[:_NAMED])}{more}"


def _open(
    comparisons: Sequence[Comparison], planned: int, lacking: Sequence[str], absent: int
) -> Iterator[str]:
    """Why nothing is decided: each reason once, with whom and how often."""
    whys: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.why:
            whys.setdefault(comparison.why, []).append(comparison)
    for why, found in whys.items():
        times = f" in {len(found)} of {planned} comparisons" if planned > 1 else ""
        yield f"{why}: {_listed([comparison.other for comparison in found])}{times}"
    if lacking:
        yield f"not compared with {', '.join(lacking)}"
    if absent:
        yield f"{absent} of the paper's columns {'is' if absent == 1 else 'are'} not there"


def _judge_masking(place: Place, claim: Claim, view: View, subject: Arm) -> Finding:
    """The audit's mark of the headline decides: trusted reproduces, masked contradicts."""
    marks = headline_marks(subject)
    mark = gravest(marks)
    verdict = {names.TRUSTED: REPRODUCED, names.MASKED: CONTRADICTED}.get(mark, UNDECIDED)
    reason = f"its headline is {mark or 'not there'}"
    if len(marks) < SEEDS_FOR_A_CLAIM:
        verdict = UNDECIDED
        reason = f"{len(marks)} of the {SEEDS_FOR_A_CLAIM} seeds that a claim needs; {reason}"
    return Finding(claim, place.group, view.reading, verdict, reason)


def _judge_formula(claim: Claim) -> Finding:
    """Above zero at every point reproduces; one point that is not contradicts."""
    assert claim.positive and claim.over
    found = evaluate(claim.positive, claim.over)
    verdict = CONTRADICTED if found.failing else REPRODUCED
    notes = (claim.note,) if claim.note else ()
    reason = _formula_reason(claim.positive, found, claim.over.model_fields_set)
    return Finding(claim, None, FORMULA, verdict, reason, notes=notes, numbers=found.numbers)


def _formula_reason(formula: str, found: Evaluation, axes: Set[str]) -> str:
    """The numbers that decide it; points by the axes that the claim names."""

    def at(point: Mapping[str, float]) -> str:
        return ", ".join(f"{axis} = {point[axis]:.4g}" for axis in point if axis in axes)

    least = f"least {found.least:.3g} at {at(found.least_at)}"
    if found.failing:
        share = f"{100 * found.failing:.3g} % of {found.points} points"
        return f"{formula} is not above 0 at {share}; counter-example: {least}"
    largest = f"largest {found.largest:.6g} at {at(found.largest_at)}"
    return f"{formula} is above 0 at each of {found.points} points; {least}, {largest}"
