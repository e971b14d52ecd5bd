"""Claims as tests on tracked results: each reproduced, contradicted, undecided or not run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from analysis.choice import Arm, shown_arms
from analysis.plan import FULL, Group
from analysis.published.match import STANDS_FOR, row_of
from analysis.runs import Results
from analysis.statistics import (
    CONFIDENCE,
    SEEDS_FOR_A_CLAIM,
    Difference,
    compare,
    equivalence,
    holm,
)
from analysis.tables.audit import gravest, headline_marks
from trainables import names
from trainables.errors import InvalidStudy, Mistake

PAPER = Path(__file__).parent / "published" / "claims.yaml"

REPRODUCED, CONTRADICTED, UNDECIDED, NOT_RUN = (
    "reproduced",
    "contradicted",
    "undecided",
    "not run",
)
_ALPHA = 1 - CONFIDENCE


class Where(BaseModel):
    """Which data set, or backbone, a claim is about; all where it does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str | None = None
    backbone: str | None = None

    def fits(self, group: Group) -> bool:
        """Whether a group's results speak of the claim; a small data set stands for its whole."""
        dataset = STANDS_FOR.get(group.dataset, group.dataset)
        return self.dataset in (None, dataset, group.dataset) and self.backbone in (
            None,
            group.backbone,
        )


class Claim(BaseModel):
    """One claim.

    Attributes:
        id: Names it.
        claim: In words.
        source: Who makes it, and where.
        where: Which results decide it.
        arm: Whom it is about: a method of the study, or a row of the paper's tables.
        better_than: Whom it is to exceed, all of them.
        as_good_as: Whom it is to equal within the margin.
        margin: Points within which accuracies are as good as each other.
        under: The headline's attack, or none.
        unmasked: Whether it claims that its headline hides no gradients.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    claim: str
    source: str = ""
    where: Where = Where()
    arm: str
    better_than: list[str] = []
    as_good_as: list[str] = []
    margin: Annotated[float, Field(gt=0, le=100)] = 1.0
    under: Literal["headline", "clean"] = "headline"
    unmasked: bool = False

    @model_validator(mode="after")
    def _one_test(self) -> Claim:
        tests = [bool(self.better_than), bool(self.as_good_as), self.unmasked]
        if sum(tests) != 1:
            raise ValueError("expected one of better_than, as_good_as and unmasked")
        return self

    @property
    def metric(self) -> str:
        """The frame's column that it is about."""
        return names.CLEAN if self.under == "clean" else names.ROBUST


@dataclass(frozen=True)
class Comparison:
    """The arm against one other.

    Attributes:
        other: Whom it is compared with.
        difference: The arm's accuracy less the other's, seed by seed; a fraction.
        p: Adjusted by Holm over the claim's comparisons; of an equivalence its own.
    """

    other: str
    difference: Difference
    p: float


@dataclass(frozen=True)
class Finding:
    """What was found of a claim in one place.

    Attributes:
        claim: The claim.
        group: Data set and backbone; None where no result speaks of it.
        verdict: `REPRODUCED`, `CONTRADICTED`, `UNDECIDED` or `NOT_RUN`.
        reason: Why, in words.
        comparisons: What decides it.
    """

    claim: Claim
    group: Group | None
    verdict: str
    reason: str
    comparisons: tuple[Comparison, ...] = ()


def read_claims(path: Path = PAPER) -> list[Claim]:
    """The claims of a file: `claims:`, a list of `Claim`.

    Raises:
        InvalidStudy: All mistakes of the file.
    """
    data: Any = None
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
        items = data["claims"]
        if not isinstance(items, list) or not items:
            raise TypeError
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        what = f"expected YAML with a list of claims ({type(error).__name__})"
        raise InvalidStudy(str(path), [Mistake("claims", what)]) from None
    claims, mistakes = list[Claim](), list[Mistake]()
    for number, item in enumerate(items):
        try:
            claims.append(Claim.model_validate(item))
        except ValidationError as error:
            mistakes += [
                Mistake(".".join(["claims", str(number), *map(str, told["loc"])]), told["msg"])
                for told in error.errors()
            ]
    ids = [claim.id for claim in claims]
    mistakes += [
        Mistake(f"claims.{id}", "stands twice") for id in dict.fromkeys(ids) if ids.count(id) > 1
    ]
    if mistakes:
        raise InvalidStudy(str(path), mistakes)
    return claims


def claims_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """A row a claim, place and comparison, differences in points, for CSV."""
    records = []
    for finding in findings:
        about = {
            "claim": finding.claim.id,
            "text": finding.claim.claim,
            "source": finding.claim.source,
            "place": str(finding.group or ""),
            "verdict": finding.verdict,
            "reason": finding.reason,
        }
        compared = [_record(comparison) for comparison in finding.comparisons]
        records += [{**about, **record} for record in compared or [{}]]
    return pd.DataFrame(records)


def _record(comparison: Comparison) -> dict[str, float | str]:
    value = comparison.difference.estimate
    return {
        "other": comparison.other,
        "difference_points": round(100 * value.mean, 6),
        "half_width_points": round(100 * value.half_width, 6),
        "seeds": value.seeds,
        "p_adjusted": comparison.p,
        "smallest_detectable_points": round(100 * comparison.difference.detectable, 6),
    }


def judge_claims(results: Results, claims: Sequence[Claim]) -> list[Finding]:
    """Every claim in every place that speaks of it, and once where none does."""
    return [finding for claim in claims for finding in _findings(results, claim)]


def _findings(results: Results, claim: Claim) -> Iterator[Finding]:
    groups = [group for group in results.plan.groups if claim.where.fits(group)]
    if not groups:
        yield Finding(claim, None, NOT_RUN, "the study has no such data set and backbone")
    for group in groups:
        yield _judge(results, group, claim)


def _judge(results: Results, group: Group, claim: Claim) -> Finding:
    arms = shown_arms(results, group)
    subject = next(iter(_named(results, arms, claim.arm)), None)
    if subject is None or not _has(subject, claim):
        return Finding(claim, group, NOT_RUN, f"no result of {claim.arm} there")
    if claim.unmasked:
        return _judge_masking(results, group, claim, subject)
    wanted = {name: _named(results, arms, name) for name in claim.better_than or claim.as_good_as}
    others = {
        arm.label: arm
        for found in wanted.values()
        for arm in found
        if arm.label != subject.label and _has(arm, claim)
    }
    if not others:
        return Finding(claim, group, NOT_RUN, "nothing there to compare with")
    comparisons = _compared(claim, subject, others)
    decide = _better if claim.better_than else _as_good
    verdict, reason, deciding = decide(claim, comparisons)
    relied_on = {REPRODUCED: [subject], CONTRADICTED: [others[name] for name in deciding]}
    trusted = relied_on.get(verdict, []) if claim.better_than else [subject, *others.values()]
    doubt = _reduced(results, group, claim) or _doubt(claim, trusted, comparisons)
    lacking = [name for name, found in wanted.items() if not found]
    if verdict == REPRODUCED and lacking and not doubt:
        doubt = f"not compared with {', '.join(lacking)}"
    if doubt:
        verdict, reason = UNDECIDED, f"{doubt}; {reason}"
    return Finding(claim, group, verdict, reason, comparisons)


def _has(arm: Arm, claim: Claim) -> bool:
    return bool(arm.values(claim.metric).notna().any())


def _named(results: Results, arms: Sequence[Arm], name: str) -> list[Arm]:
    """The arms that a name stands for: a method, a label, or a row of the paper."""
    params = results.plan.params

    def fits(arm: Arm) -> bool:
        ids = list(arm.rows["trial_id"])
        row = row_of(params[ids[0]]) if ids else None
        return name in (arm.method, arm.label, row)

    return [arm for arm in arms if fits(arm)]


def _compared(claim: Claim, subject: Arm, others: dict[str, Arm]) -> tuple[Comparison, ...]:
    own = subject.values(claim.metric)
    differences = {label: compare(own, arm.values(claim.metric)) for label, arm in others.items()}
    if claim.better_than:
        ps = holm([difference.p for difference in differences.values()])
    else:
        margin = claim.margin / 100
        ps = [equivalence(own, arm.values(claim.metric), margin) for arm in others.values()]
    return tuple(
        Comparison(label, difference, p)
        for (label, difference), p in zip(differences.items(), ps, strict=True)
    )


# A verdict, why, and those of the others that decide it.
_Decision = tuple[str, str, list[str]]


def _better(claim: Claim, comparisons: Sequence[Comparison]) -> _Decision:
    """Every difference above zero reproduces, one below contradicts, by Holm."""
    certain = [c for c in comparisons if not math.isnan(c.p) and c.p < _ALPHA]
    below = [c.other for c in certain if c.difference.estimate.mean < 0]
    if below:
        return CONTRADICTED, f"worse than {', '.join(below)}", below
    if len(certain) == len(comparisons):
        return REPRODUCED, "better than each", []
    open_ = [c for c in comparisons if c not in certain]
    return UNDECIDED, f"no difference seen to {', '.join(map(_detectable, open_))}", []


def _as_good(claim: Claim, comparisons: Sequence[Comparison]) -> _Decision:
    """Every difference within the margin reproduces, one that is certainly beyond contradicts."""
    margin = claim.margin / 100
    beyond = [
        c.other
        for c in comparisons
        if c.difference.estimate.seeds > 1
        and abs(c.difference.estimate.mean) - c.difference.estimate.half_width > margin
    ]
    if beyond:
        return CONTRADICTED, f"more than {claim.margin:g} points from {', '.join(beyond)}", beyond
    if all(not math.isnan(c.p) and c.p < _ALPHA for c in comparisons):
        return REPRODUCED, f"within {claim.margin:g} points of each", []
    open_ = [c for c in comparisons if math.isnan(c.p) or c.p >= _ALPHA]
    return UNDECIDED, f"may differ from {', '.join(map(_detectable, open_))}", []


def _judge_masking(results: Results, group: Group, claim: Claim, subject: Arm) -> Finding:
    """The audit's mark of the headline decides: trusted reproduces, masked contradicts."""
    mark = gravest(headline_marks(subject))
    verdict = {names.TRUSTED: REPRODUCED, names.MASKED: CONTRADICTED}.get(mark, UNDECIDED)
    reason = f"its headline is {mark or 'not there'}"
    reduced = _reduced(results, group, claim)
    if reduced:
        verdict, reason = UNDECIDED, f"{reduced}; {reason}"
    return Finding(claim, group, verdict, reason)


def _reduced(results: Results, group: Group, claim: Claim) -> str:
    """What is smaller than what the claim is about; empty for nothing."""
    if results.plan.scale != FULL:
        return f"scale {results.plan.scale}"
    if claim.where.dataset not in (None, group.dataset):
        return f"{group.dataset} stands for {claim.where.dataset}"
    return ""


def _doubt(claim: Claim, trusted: Sequence[Arm], comparisons: Sequence[Comparison]) -> str:
    """What keeps results from deciding anything; empty for nothing.

    Robust accuracy is an upper bound, so a difference is certain if its larger side is trusted:
    the arm's where it is better, the other's where it is worse.

    Args:
        claim: The claim.
        trusted: Whose headlines have to be.
        comparisons: All of the claim's.
    """
    seeds = min(comparison.difference.estimate.seeds for comparison in comparisons)
    if seeds < SEEDS_FOR_A_CLAIM:
        return f"{seeds} seeds of the {SEEDS_FOR_A_CLAIM} that a claim needs"
    if claim.under != "headline":
        return ""
    marks = {arm.label: gravest(headline_marks(arm)) for arm in trusted}
    doubted = [
        f"{label} {mark or 'has no headline'}"
        for label, mark in marks.items()
        if mark != names.TRUSTED
    ]
    return f"not trusted: {', '.join(doubted)}" if doubted else ""


def _detectable(comparison: Comparison) -> str:
    smallest = comparison.difference.detectable
    if math.isnan(smallest):
        return comparison.other
    return f"{comparison.other} (smallest detectable {100 * smallest:.1f} points)"
