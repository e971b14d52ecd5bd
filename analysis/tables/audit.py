"""The audit's table: one row a method, one column a check; and the marks of its cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from mlflow.exceptions import MlflowException

from analysis.audit import Audit
from analysis.checks import CHECKS, FAIL, NOT_APPLICABLE, PASS, Check
from analysis.choice import Arm, shown_arms
from analysis.plan import Group, Plan, Protocol
from analysis.runs import DONE, INCOMPLETE, Results
from analysis.statistics import Estimate, estimate
from analysis.tables.text import share
from trainables import names

Audits = Mapping[str, Audit]  # run id -> what its audit found
NONE: Audits = {}

TITLES = {
    "autoattack": "AutoAttack",
    "square": "Square",
    "simba": "SimBA",
    "transfer": "Transfer",
    "targets": "Nine targets",
    "noise": "Noise",
    "single": "Single step",
    "unbounded": "No bound",
    "rescale": "Unit logits",
    "gradients": "Gradients",
    "surfaces": "Surfaces",
    "steps": "More steps",
    "restarts": "Restarts",
    "eps": "Sizes",
    "eot": "More draws",
}
_GRAVEST = (names.MASKED, names.WEAK, names.UNAUDITED, names.NO_THREAT_MODEL, names.TRUSTED)
_SIGNS = {PASS: "✓", FAIL: "✗", NOT_APPLICABLE: "–"}
_TEXTS = {PASS: "pass", FAIL: "fail", NOT_APPLICABLE: "n.a."}


@dataclass(frozen=True)
class Tally:
    """What one check says of a method's headline, seed by seed."""

    verdicts: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """A failure with any seed is one; what applies to no seed is not applicable."""
        return next((v for v in (FAIL, PASS) if v in self.verdicts), NOT_APPLICABLE)

    @property
    def failed(self) -> bool:
        """Whether any seed fails."""
        return self.verdict == FAIL

    @property
    def sign(self) -> str:
        """The verdict for eyes that see no colour."""
        return _SIGNS[self.verdict] if self.verdicts else ""

    @property
    def text(self) -> str:
        """`pass`, or `2 of 3 pass` where seeds differ."""
        if not self.verdicts:
            return "—"
        if len(set(self.verdicts)) == 1:
            return _TEXTS[self.verdict]
        return f"{self.verdicts.count(PASS)} of {len(self.verdicts)} pass"


@dataclass(frozen=True)
class Failure:
    """A check that a method fails, with the numbers of every seed and subject that fail it.

    Attributes:
        title: The check's.
        rule: What would have to hold.
        meaning: What the failure means.
        subjects: What fails it: `the headline`, surfaces.
        lines: Seed, subject and numbers, in words.
    """

    title: str
    rule: str
    meaning: str
    subjects: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class AuditRow:
    """One configuration.

    Attributes:
        label: What readers see.
        audited: Runs that have an audit, of `runs` that are done.
        runs: See above.
        mark: The headline's gravest.
        mark_text: The same; with its share of the seeds where they differ.
        gap: Masking gap, over seeds; a fraction.
        surfaces: Each surface of the headline's setting -> its gravest mark.
        tallies: Check -> what it says of the headline.
        failures: What failed, in the order of the checks.
    """

    label: str
    audited: int
    runs: int
    mark: str
    mark_text: str
    gap: Estimate
    surfaces: Mapping[str, str]
    tallies: Mapping[str, Tally]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class AuditTable:
    """The verdicts on one data set and backbone.

    Attributes:
        group: Data set and backbone.
        checks: The columns: those that apply to any row.
        rows: In the order of the accuracy table.
        notes: Why checks do not apply, and what is not there.
    """

    group: Group
    checks: tuple[str, ...]
    rows: tuple[AuditRow, ...]
    notes: tuple[str, ...]


def read_audits(results: Results) -> Audits:
    """The audits of all runs that tables show, one download each; some may have none."""
    wanted = dict.fromkeys(
        run_id
        for group in results.plan.groups
        for arm in shown_arms(results, group)
        for run_id in _done(arm)["run_id"]
    )
    found = {run_id: _read(results, run_id) for run_id in wanted}
    return {run_id: audit for run_id, audit in found.items() if audit is not None}


def _read(results: Results, run_id: str) -> Audit | None:
    """None for a run of a time before audits."""
    try:
        return Audit.from_json(results.client.artifact(run_id, names.AUDIT_FILE).decode())
    except (MlflowException, OSError):
        return None


def gravest(marks: Iterable[str]) -> str:
    """The mark of several seeds: the one that says most against them; empty for none."""
    return min(marks, key=_GRAVEST.index, default="")


def headline_marks(arm: Arm) -> list[str]:
    """The mark of each run's headline, from its tag."""
    return [mark for mark in _done(arm)["attack_mark"] if mark]


def mark_text(marks: Sequence[str]) -> str:
    """The gravest; where seeds differ with how many have it: `masked (1 of 3)`."""
    found = gravest(marks)
    same = marks.count(found)
    return found if same == len(marks) else f"{found} ({same} of {len(marks)})"


def cell_marks(arm: Arm, protocol: Protocol, audits: Audits) -> dict[str, str]:
    """The gravest mark over seeds of each test cell with an attack, and of the headline."""
    runs = list(_done(arm)["run_id"])
    marks = {names.ROBUST: gravest(headline_marks(arm))}
    for cell in protocol.test_attacks:
        default = names.UNAUDITED if cell.has_threat_model else names.NO_THREAT_MODEL
        found = [audits[run].marks.get(cell.metric, default) for run in runs if run in audits]
        unread = [default] * (len(runs) - len(found))
        marks[cell.metric] = gravest([*found, *unread])
    return marks


def audit_table(results: Results, group: Group, audits: Audits) -> AuditTable:
    """The verdicts on every method that the accuracy table shows."""
    arms = shown_arms(results, group)
    protocol = results.plan.protocol(group)
    rows = tuple(_row(arm, protocol, audits) for arm in arms)
    columns = tuple(check for check in CHECKS if any(_applies(row, check) for row in rows))
    notes = (*_reasons(arms, audits), *_without(results.plan, rows))
    return AuditTable(group, columns, rows, notes)


def audit_frame(results: Results, audits: Audits) -> pd.DataFrame:
    """Every check of every run that tables show, one row each, for CSV; numbers are fractions."""
    records = [
        {
            "dataset": group.dataset,
            "backbone": group.backbone,
            "method": arm.method,
            "label": arm.label,
            "seed": row["seed"],
            "check": check.name,
            "subject": check.about or "headline",
            "verdict": check.verdict,
            "a_failure_means": check.meaning,
            "images": check.n,
            "numbers": "; ".join(f"{key} {value:.6g}" for key, value in check.numbers.items()),
            "rule": check.rule,
            "reason": check.reason,
        }
        for group in results.plan.groups
        for arm in shown_arms(results, group)
        for _, row in _done(arm).iterrows()
        if row["run_id"] in audits
        for check in audits[row["run_id"]].checks
    ]
    return pd.DataFrame(records)


def _done(arm: Arm) -> pd.DataFrame:
    """The rows of an arm whose runs have finished."""
    return arm.rows[arm.rows["state"].isin((DONE, INCOMPLETE))]


def _row(arm: Arm, protocol: Protocol, audits: Audits) -> AuditRow:
    done = _done(arm)
    found = {row["seed"]: audits.get(row["run_id"]) for _, row in done.iterrows()}
    known = {seed: audit for seed, audit in found.items() if audit is not None}
    surfaces = _surfaces(protocol)
    marks = cell_marks(arm, protocol, audits)
    of_headline = headline_marks(arm)
    return AuditRow(
        label=arm.label,
        audited=len(known),
        runs=len(done),
        mark=gravest(of_headline),
        mark_text=mark_text(of_headline),
        gap=estimate(arm.values(names.MASKING_GAP)),
        surfaces={surface: marks[metric] for metric, surface in surfaces.items()} if known else {},
        tallies={check: _tally(check, known.values()) for check in CHECKS},
        failures=tuple(_failures(known, surfaces)),
    )


def _surfaces(protocol: Protocol) -> dict[str, str]:
    """Metric -> surface of every cell in the headline's setting."""
    attacks, leading = protocol.test_attacks, protocol.headline_metrics
    settings = {cell.setting for cell in attacks if cell.metric in leading}
    return {cell.metric: cell.surface for cell in attacks if cell.setting in settings}


def _tally(name: str, audits: Iterable[Audit]) -> Tally:
    checks = (check for audit in audits for check in audit.checks if not check.about)
    return Tally(tuple(check.verdict for check in checks if check.name == name))


def _failures(audits: Mapping[int, Audit], surfaces: Mapping[str, str]) -> Iterator[Failure]:
    """The checks that the headline or a surface of its setting fails; alike ones once."""
    subjects = {"": "the headline", **surfaces}
    for name in CHECKS:
        failed = [
            (seed, check)
            for seed, audit in audits.items()
            for check in audit.checks
            if check.name == name and check.failed and check.about in subjects
        ]
        if not failed:
            continue
        first = failed[0][1]
        yield Failure(
            title=TITLES[name],
            rule=first.rule,
            meaning=first.meaning,
            subjects=tuple(dict.fromkeys(subjects[check.about] for _, check in failed)),
            lines=tuple(_line(seed, subjects[check.about], check) for seed, check in failed),
        )


def _line(seed: int, subject: str, check: Check) -> str:
    numbers = ", ".join(f"{key} {share(value)}" for key, value in check.numbers.items())
    return f"Seed {seed}, {subject}: {numbers} ({check.n} images)."


def _applies(row: AuditRow, check: str) -> bool:
    return any(verdict != NOT_APPLICABLE for verdict in row.tallies[check].verdicts)


def _reasons(arms: Sequence[Arm], audits: Audits) -> Iterator[str]:
    """Why checks of headlines do not apply: each reason once, with its checks and methods."""
    audited = [
        (arm.label, audits[run]) for arm in arms for run in _done(arm)["run_id"] if run in audits
    ]
    whose: dict[tuple[str, str], dict[str, None]] = {}
    for label, audit in audited:
        for check in audit.checks:
            if check.reason and not check.about:
                whose.setdefault((check.reason, check.name), {})[label] = None
    told: dict[tuple[str, str], list[str]] = {}
    for (reason, name), labels in whose.items():
        everyone = len(labels) == len(dict(audited))
        who = "" if everyone else f" of {', '.join(labels)}"
        told.setdefault((reason, who), []).append(TITLES[name])
    for (reason, who), titles in told.items():
        yield f"n.a.: {', '.join(titles)}{who}: {reason}."


def _without(plan: Plan, rows: Sequence[AuditRow]) -> Iterator[str]:
    lacking = [row.label for row in rows if row.audited < row.runs]
    if lacking:
        yield (
            f"— runs of {', '.join(lacking)} that were tracked before there were checks: "
            f"`{plan.command}` makes them."
        )
