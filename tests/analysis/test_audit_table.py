"""The audit's table: what it reads, what it makes of several seeds, and why checks do not apply."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.audit import Audit
from analysis.checks import CHECKS, FAIL, NOT_APPLICABLE, PASS
from analysis.plan import Group, Plan
from analysis.runs import Results
from analysis.tables.audit import (
    TITLES,
    AuditRow,
    Audits,
    AuditTable,
    Tally,
    audit_frame,
    audit_table,
    gravest,
    mark_text,
    read_audits,
)
from trainables import names

from .audited import OWN
from .audited_study import SMALLER, TRIALS


@pytest.fixture(scope="module")
def audits(audited: Results) -> Audits:
    """All that were tracked."""
    return read_audits(audited)


@pytest.fixture(scope="module")
def table(audited: Results, group: Group, audits: Audits) -> AuditTable:
    """The table of `audited`."""
    return audit_table(audited, group, audits)


def row_of(table: AuditTable, label: str) -> AuditRow:
    return next(row for row in table.rows if row.label == label)


def test_audits_are_those_that_were_tracked(audited: Results, audits: Audits) -> None:
    runs = audited.frame.set_index("trial_id")["run_id"]
    assert audits == {
        runs[trial.trial_id]: trial.case().audit() for trial in TRIALS if trial.tracked
    }


def test_each_run_is_read_once(audited: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sce` under two names is one run."""
    read = []
    fetch = audited.client.artifact
    monkeypatch.setattr(
        audited.client, "artifact", lambda run, path: (read.append(run), fetch(run, path))[1]
    )
    raw = dict(audited.plan.raw, methods=[*audited.plan.methods, "twin"])
    twin = audited.rows(audited.plan.groups[0], "sce").assign(method="twin")
    results = replace(
        audited,
        plan=Plan(raw),
        frame=type(twin)([*audited.frame.to_dict("records"), *twin.to_dict("records")]),
    )
    assert len(read_audits(results)) == len(TRIALS) - 1
    assert len(read) == len(set(read)) == len(TRIALS)


def test_unfinished_runs_are_not_read(audited: Results) -> None:
    results = replace(audited, frame=audited.frame.assign(state="failed"))
    assert read_audits(results) == {}


def test_rows_are_the_methods_in_order(table: AuditTable, audited: Results) -> None:
    assert [row.label for row in table.rows] == list(audited.plan.methods)
    counts = {row.label: (row.audited, row.runs) for row in table.rows}
    assert counts["at"] == (5, 5)
    assert counts["older"] == (0, 1)


def test_columns_are_the_checks_that_apply_to_any_headline(table: AuditTable) -> None:
    assert set(CHECKS) - set(table.checks) == {"surfaces", "rescale"}
    assert list(table.checks) == [name for name in CHECKS if name in table.checks]
    assert set(TITLES) == set(CHECKS)


def test_row_of_one_seed_that_fails(table: AuditTable) -> None:
    sce = row_of(table, "sce")
    assert (sce.mark, sce.mark_text) == (names.WEAK, "weak attack (1 of 3)")
    assert sce.tallies["autoattack"].verdicts == (PASS, PASS, FAIL)
    assert sce.gap.mean == pytest.approx(0.01)
    (failure,) = sce.failures
    assert failure.subjects == ("the headline", "ce_deployed", "ce_raw", "margin_raw")
    assert len(failure.lines) == 4
    assert failure.lines[0] == (
        "Seed 2, the headline: headline 50.0 %, AutoAttack 45.0 % (200 images)."
    )


def test_failures_are_those_of_the_headlines_setting(table: AuditTable) -> None:
    """The deployed surface at half the size is masked in every row: the data tells of it."""
    assert row_of(table, "at").failures == ()
    titles = {failure.title: failure.subjects for failure in row_of(table, "mmc").failures}
    assert titles["Gradients"] == titles["No bound"] == ("ce_deployed", "ce_raw")
    assert row_of(table, "mmc").surfaces == {
        "ce_deployed": names.MASKED,
        "ce_raw": names.MASKED,
        "margin_raw": names.TRUSTED,
    }


def test_notes_say_why_checks_do_not_apply_and_to_whom(table: AuditTable) -> None:
    assert "n.a.: Unit logits: margin_raw is free of scale." in table.notes
    notes = [note for note in table.notes if note.startswith("n.a.: More draws")]
    assert notes == [
        "n.a.: More draws of sce, at, mmc, quantised, isce: the model draws nothing at random."
    ]
    assert any(
        note.startswith("n.a.: AutoAttack of random: fewer than 150") for note in table.notes
    )
    assert any(
        "More steps, Restarts of isce: not run on this model" in note for note in table.notes
    )
    assert table.notes[-1] == (
        "— runs of older that were tracked before there were checks: "
        "`study run audited` makes them."
    )


def test_notes_are_about_headlines_alone(audited: Results, group: Group, audits: Audits) -> None:
    """`surfaces` speaks of surfaces only, so it is in no column."""
    changed = {
        run: replace(
            audit,
            checks=tuple(
                replace(check, reason="of a surface" if check.about else check.reason)
                for check in audit.checks
            ),
        )
        for run, audit in audits.items()
    }
    notes = audit_table(audited, group, changed).notes
    assert notes == audit_table(audited, group, audits).notes


def test_table_without_any_audit(small: Results, group: Group) -> None:
    table = audit_table(small, group, read_audits(small))
    assert table.checks == ()
    assert {row.mark for row in table.rows} == {names.UNAUDITED}
    assert {row.audited for row in table.rows} == {0}
    assert table.rows[0].surfaces == {}
    assert audit_frame(small, {}).empty


def test_tally_of_several_seeds() -> None:
    told = {
        (PASS, PASS): ("✓", "pass"),
        (FAIL,): ("✗", "fail"),
        (PASS, FAIL, PASS): ("✗", "2 of 3 pass"),
        (NOT_APPLICABLE, PASS): ("✓", "1 of 2 pass"),
        (NOT_APPLICABLE, FAIL): ("✗", "0 of 2 pass"),
        (NOT_APPLICABLE,): ("–", "n.a."),
        (): ("", "—"),
    }
    for verdicts, (sign, text) in told.items():
        assert (Tally(verdicts).sign, Tally(verdicts).text) == (sign, text)
    assert [Tally(v).failed for v in ((PASS,), (PASS, FAIL), (NOT_APPLICABLE,))] == [
        False,
        True,
        False,
    ]


def test_gravest_mark() -> None:
    order = [names.MASKED, names.WEAK, names.UNAUDITED, names.NO_THREAT_MODEL, names.TRUSTED]
    for place in range(len(order)):
        assert gravest(reversed(order[place:])) == order[place]
    assert gravest([]) == mark_text([]) == ""
    assert mark_text([names.TRUSTED] * 3) == names.TRUSTED
    assert mark_text([names.TRUSTED, names.MASKED]) == "masked (1 of 2)"


def test_csv_has_every_check_of_every_run(audited: Results, audits: Audits) -> None:
    frame = audit_frame(audited, audits)
    assert len(frame) == sum(len(audit.checks) for audit in audits.values())
    chosen = frame[(frame["label"] == "sce") & (frame["seed"] == 2) & (frame["verdict"] == FAIL)]
    smaller = SMALLER["ce_deployed"].name
    assert list(chosen["subject"]) == ["headline", *(own.name for own in OWN.values()), smaller]
    assert list(chosen["check"]) == ["autoattack"] * 4 + ["surfaces"]
    assert chosen["numbers"].iloc[0] == "headline 0.5; AutoAttack 0.45"
    assert list(chosen["images"]) == [200] * 5


def test_order_of_marks_knows_every_mark() -> None:
    marks = {names.TRUSTED, names.WEAK, names.MASKED, names.UNAUDITED, names.NO_THREAT_MODEL}
    for trial in TRIALS:
        audit: Audit = trial.case().audit()
        assert set(audit.marks.values()) <= marks
