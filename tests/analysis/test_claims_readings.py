"""Claims on the paper's own columns, once in each reading, on diagnostics and on formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.audit import Audit
from analysis.checks import FAIL, Check
from analysis.claims.claim import Cells, Claim, Region
from analysis.claims.file import read_claims
from analysis.claims.formula import evaluate
from analysis.claims.judge import (
    CONTRADICTED,
    FORMULA,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    judge_claims,
)
from analysis.claims.printed import printed_note
from analysis.claims.tell import claims_frame, tally
from analysis.runs import Results
from trainables import names, theory

from . import claimed_study
from .claimed_study import CELLS, HEADLINE, cell, findings, study

HIGH, LOW = [0.71, 0.72, 0.70, 0.72, 0.71], [0.61, 0.60, 0.61, 0.62, 0.60]
PATH_READING = "ε as path_linf, surface ce_deployed"
RMS_READING = "ε as l2_rms, surface ce_deployed"
# Of Table 5 three cells stand on a path and one in a ball.
OWN = {"id": "a", "claim": "a", "arm": "I-SCE", "under": {"table": 5}, "better_than": ["SCE"]}
OF_PGD = {**OWN, "under": {"attack": "pgd"}}


@pytest.fixture(autouse=True)
def _images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.images.outcomes", lambda _, run: claimed_study.OUTCOMES[run])


def everywhere(values: list[float]) -> dict[str, list[float]]:
    return dict.fromkeys(CELLS, values)


def by_reading(results: Results, claim: dict[str, Any], audits: Any = None) -> dict[str, Any]:
    return {finding.reading: finding for finding in findings(results, claim, audits or {})}


def test_each_reading_is_judged_by_itself() -> None:
    better_on_the_path = {**everywhere(LOW), "path": HIGH, "path-10": HIGH, "path-tar": HIGH}
    results = study({"isce": better_on_the_path, "sce": everywhere([0.66] * 5)})
    found = by_reading(results, OF_PGD)
    assert list(found) == [PATH_READING, RMS_READING]
    assert found[PATH_READING].verdict == REPRODUCED
    assert found[PATH_READING].reason == (
        "better than sce (3 of 3 comparisons), under this reading: it has no threat model"
    )
    assert found[RMS_READING].verdict == CONTRADICTED
    titles = [c.yardstick.title for c in found[PATH_READING].comparisons]
    assert titles == [
        "PGD untargeted 50, ε = 0.04",
        "PGD untargeted 10, ε = 0.04",
        "PGD targeted 50, ε = 0.04",
    ]


def test_the_headline_leads() -> None:
    results = study({"isce": everywhere(HIGH), "sce": everywhere(LOW)})
    both = {**OF_PGD, "under": ["headline", {"attack": "pgd"}]}
    assert list(by_reading(results, both)) == ["headline", PATH_READING, RMS_READING]


@pytest.mark.parametrize(
    ("wanted", "cells"),
    [
        ({"goal": "tar"}, {"path-tar"}),
        ({"goal": "un", "steps": 10}, {"path-10"}),
        ({"budget": "l2_rms"}, {"rms"}),
        ({"eps": "1/25", "steps": [10, 50]}, {"path", "path-10", "path-tar", "rms"}),
        ({"surface": "margin_raw"}, set()),
        ({"attack": "ball"}, {HEADLINE}),
        ({"attack": "deepfool", "eps": 0.01}, {"fool"}),
        ({"eps": 0.1 * 0.4, "steps": 10}, {"path-10"}),  # 0.04 and a bit
    ],
)
def test_a_claim_names_its_cells(wanted: dict[str, Any], cells: set[str]) -> None:
    results = study({"isce": everywhere(HIGH), "sce": everywhere(LOW)})
    found = findings(results, {**OWN, "under": {"attack": "pgd", **wanted}})
    decided = {c.yardstick.metric for finding in found for c in finding.comparisons}
    assert decided == cells
    nothing = (NOT_RUN, "the study measures nothing of the kind")
    assert bool(cells) or [(one.verdict, one.reason) for one in found] == [nothing]


def test_a_tables_missing_columns_keep_it_from_being_reproduced() -> None:
    """Of Table 5's four columns at eps 0.04 the ball has one."""
    results = study({"isce": everywhere(HIGH), "sce": everywhere(LOW)})
    at = {**OWN, "under": {"table": 5, "eps": 0.04}}
    found = by_reading(results, at)
    assert found[RMS_READING].verdict == UNDECIDED
    assert found[RMS_READING].reason == "3 of the paper's columns are not there"
    assert found[PATH_READING].reason == "1 of the paper's columns is not there"
    one = {**OWN, "under": {"table": 5, "eps": 0.04, "steps": 50, "goal": "un"}}
    assert {finding.verdict for finding in findings(results, one)} == {REPRODUCED}
    # Three of four are most, whatever the fourth is.
    assert by_reading(results, {**at, "cases": "most"})[PATH_READING].verdict == REPRODUCED
    assert by_reading(results, {**at, "cases": "most"})[RMS_READING].verdict == UNDECIDED


def test_a_path_contradicts_nothing_alone() -> None:
    results = study({"isce": everywhere(LOW), "sce": everywhere(HIGH)})
    found = by_reading(results, OF_PGD)
    assert found[PATH_READING].verdict == UNDECIDED
    assert found[PATH_READING].reason == (
        "no threat model: contradicts nothing alone: sce in 3 of 3 comparisons"
    )
    assert found[RMS_READING].verdict == CONTRADICTED
    (fool,) = findings(results, {**OWN, "under": {"attack": "deepfool"}})
    assert fool.verdict == UNDECIDED
    equal = {**OF_PGD, "better_than": [], "as_good_as": ["SCE"]}
    assert by_reading(results, equal)[PATH_READING].verdict == UNDECIDED
    assert by_reading(results, equal)[RMS_READING].verdict == CONTRADICTED


ACCURACIES = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=5, max_size=6)
TESTS = st.sampled_from(["better_than", "no_worse_than", "as_good_as"])


@settings(deadline=None, max_examples=40)
@given(ACCURACIES, ACCURACIES, TESTS, st.sampled_from(["all", "most"]))
def test_whatever_is_found_without_a_threat_model_is_no_contradiction(
    one: Any, other: Any, test: str, cases: str
) -> None:
    results = study({"isce": {"path": one, "path-10": one}, "sce": {"path": other}})
    claim = {"id": "a", "claim": "a", "arm": "isce", test: ["sce"], "cases": cases}
    for finding in findings(results, {**claim, "under": {"attack": "pgd"}}):
        assert finding.verdict != CONTRADICTED


def audits(metric: str, run: str, mark: str, *failing: Check) -> dict[str, Audit]:
    return {run: Audit(tuple(failing), {names.ROBUST: names.TRUSTED, metric: mark})}


@pytest.mark.parametrize("mark", [names.MASKED, names.WEAK])
def test_a_masked_or_weak_larger_side_supports_nothing(mark: str) -> None:
    arms = {"isce": everywhere(HIGH), "sce": everywhere(LOW)}
    found = by_reading(study(arms), OF_PGD, audits("rms", "isce-0", mark))
    assert found[RMS_READING].verdict == UNDECIDED
    assert found[RMS_READING].reason == f"not trusted: isce {mark}: sce"
    assert found[PATH_READING].verdict == REPRODUCED
    smaller = by_reading(study(arms), OF_PGD, audits("rms", "sce-0", mark))
    assert smaller[RMS_READING].verdict == REPRODUCED
    turned = study({"isce": everywhere(LOW), "sce": everywhere(HIGH)})
    found = by_reading(turned, OF_PGD, audits("rms", "sce-0", mark))
    assert found[RMS_READING].verdict == UNDECIDED


def test_a_failing_check_does_not_hide_that_a_cell_is_weak() -> None:
    check = Check("steps", "rms", "rule", names.WEAK, FAIL, {})
    results = study({"isce": everywhere(HIGH), "sce": everywhere(LOW)})
    found = by_reading(results, OF_PGD, audits("rms", "isce-0", names.WEAK, check))
    assert found[RMS_READING].reason == "not trusted: isce weak attack: sce"


def test_a_failing_check_of_a_paths_own_gradients_counts_though_its_mark_hides_it() -> None:
    check = Check("gradients", "path", "rule", names.MASKED, FAIL, {})
    doubted = audits("path", "isce-0", names.NO_THREAT_MODEL, check)
    results = study({"isce": everywhere(HIGH), "sce": everywhere(LOW)})
    found = by_reading(results, OF_PGD, doubted)
    assert found[PATH_READING].verdict == UNDECIDED
    assert found[PATH_READING].reason == "not trusted: isce masked: sce in 1 of 3 comparisons"


def test_a_table_is_rebuilt_in_a_smaller_place_and_decides_nothing_there() -> None:
    """Table 1 is ResNet-32's; its small scale trains LeNet-5 on 5,000 digits."""
    of_table_1 = {**OWN, "under": ["headline", {"table": 1, "eps": 0.04}]}
    arms = {"isce": everywhere(HIGH), "sce": everywhere(LOW)}
    small = study(arms, group=("mnist5k", "lenet5"), rebuilds=[1], scale="small")
    found = by_reading(small, of_table_1)
    assert list(found) == ["headline", PATH_READING, RMS_READING]
    told = "--scale small, mnist5k stands for mnist, lenet5 stands for resnet32"
    assert {finding.reduced for finding in found.values()} == {told}
    own = by_reading(small, {**of_table_1, "where": {"backbone": "lenet5"}})
    assert {one.reduced for one in own.values()} == {"--scale small, mnist5k stands for mnist"}
    for other in ({"under": {"table": 1}}, {"where": {"dataset": "cifar10"}}):
        (elsewhere,) = findings(study(arms), {**OWN, **other})
        assert (elsewhere.verdict, elsewhere.group) == (NOT_RUN, None)


def test_notes_say_what_the_papers_own_numbers_do() -> None:
    of = {"better_than": ["SCE", "Center", "L-GM", "ArcFace", "MMC", "LS"]}
    claim = Claim.model_validate({**OWN, **of, "under": {"table": 2}})
    note = printed_note(claim, Cells(table=2), "cifar10")
    assert note == (
        "As printed in Table 2: so in 46 of 48 comparisons, not against SCE (PGD untargeted 50, "
        "ε = 0.04: 5.51 and 5.56), LS (PGD untargeted 50, ε = 0.04: 5.51 and 5.99)."
    )
    fifty = Claim.model_validate({**OWN, "better_than": ["ArcFace"], "by": 50})
    held = printed_note(fifty, Cells(table=3), "mnist")
    assert held.startswith("As printed in Table 3: so in 0 of 4 comparisons, not against ArcFace")
    assert held.endswith(" and 1 more.")
    assert printed_note(claim, Cells(table=5), "cifar10") == ""
    near = Claim.model_validate({**OWN, "better_than": [], "as_good_as": ["ArcFace"]})
    assert "so in 3 of 8" in printed_note(near, Cells(table=1), "mnist")
    (finding, _) = findings(study({"isce": everywhere(HIGH), "sce": everywhere(LOW)}), OWN)
    assert finding.notes == ("As printed in Table 5: so in 8 of 8 comparisons.",)


def test_each_reading_is_told_of_its_own_table() -> None:
    arms = {"isce": everywhere(HIGH), "arcface": everywhere(LOW)}
    params = {"arcface": {**claimed_study.SCE, "loss": "arcface"}}
    results = study(arms, params=params, group=("mnist", "resnet32"))
    tables = {"under": [{"table": 1}, {"table": 3}], "better_than": ["ArcFace"]}
    found = by_reading(results, {**OWN, **tables})
    assert found[PATH_READING].notes[0].startswith("As printed in Table 1: so in 7 of 8")
    assert found["ε as overshoot"].notes == ("As printed in Table 3: so in 4 of 4 comparisons.",)


DIAGNOSED = {"id": "a", "claim": "a", "arm": "isce"}
NUMBER = {"diagnostic": "theory", "number": "larger"}


def diagnosed(isce: list[float], sce: list[float] | None = None) -> Results:
    metric = "diagnostic/looked/larger"
    return study(
        {"isce": {metric: isce}, "sce": {metric: sce or isce}}, diagnostics={"looked": "theory"}
    )


@pytest.mark.parametrize(
    ("values", "bounds", "verdict"),
    [
        ([1.0] * 5, [1, 1], REPRODUCED),
        ([1.0] * 4, [1, 1], UNDECIDED),  # four seeds
        ([1.0, 1.0, 1.0, 1.0, 0.9], [1, 1], UNDECIDED),  # 0.98 with half-width 0.056
        ([0.9, 0.91, 0.9, 0.92, 0.9], [1, 1], CONTRADICTED),  # 0.906, half-width 0.011
        ([0.9, 0.91, 0.9, 0.92, 0.9], [0.89, 0.92], REPRODUCED),
        ([0.9, 0.91, 0.9, 0.92, 0.9], [0, 0.89], CONTRADICTED),
        ([0.9, 0.91, 0.9, 0.92, 0.9], [0, 0.9], UNDECIDED),
    ],
)
def test_a_diagnostics_number_lies_within_bounds(
    values: list[float], bounds: list[float], verdict: str
) -> None:
    (finding,) = findings(diagnosed(values), {**DIAGNOSED, "measure": NUMBER, "within": bounds})
    assert (finding.verdict, finding.reading) == (verdict, "diagnostic looked")
    assert finding.comparisons[0].yardstick.title == "looked: larger"
    low, high = bounds
    wanted = f"exactly {low}" if low == high else f"{low} to {high}"
    assert finding.comparisons[0].other == wanted


def test_diagnostics_numbers_are_compared_by_seeds_alone_in_their_own_unit() -> None:
    claim = {**DIAGNOSED, "measure": NUMBER, "better_than": ["sce"]}
    (finding,) = findings(diagnosed([7.1, 7.2, 7.0, 7.2, 7.1], [6.1, 6.0, 6.1, 6.2, 6.0]), claim)
    assert finding.verdict == REPRODUCED
    (comparison,) = finding.comparisons
    assert (comparison.shown, comparison.crossed_shown) == ("1.04 ± 0.14", "")
    assert comparison.detectable_shown == "0.192"
    equal = findings(diagnosed([0.1 + 0.2] * 5, [0.3] * 5), claim)  # less a bit
    assert equal[0].verdict == UNDECIDED
    by = findings(diagnosed([7.1] * 5, [6.0] * 5), {**claim, "by": 1})
    assert by[0].verdict == REPRODUCED
    assert findings(diagnosed([7.1] * 5, [6.0] * 5), {**claim, "by": 2})[0].verdict == CONTRADICTED
    (lacking,) = findings(study({"isce": HIGH}), claim)
    assert lacking.verdict == NOT_RUN


def test_figure_5_is_above_zero_where_the_paper_drew_it() -> None:
    """METHODS 6: the largest z is 0.0391653 at (2, 0.1); 0 at the corner (1, 0), left out."""
    found = evaluate("z", Region(s=(1, 2), m=(0, 0.1), f=(0.97,), S=(8,)))
    assert (found.points, found.failing) == (250_000, 0)
    assert found.largest == pytest.approx(0.0391653, abs=1e-6)
    assert (found.largest_at["s"], found.largest_at["m"]) == (2, pytest.approx(0.1))
    assert found.least_at["s"] == pytest.approx(1.002)
    assert found.least_at["m"] == pytest.approx(0.0002)
    assert found.least == pytest.approx(float(theory.condition(0.97, 8, 1.002, 0.0002)))
    edge = evaluate("z", Region(s=(1,), m=(0.1,), f=(0.97,), S=(8,)))
    assert edge.least == pytest.approx(1.16e-3, abs=5e-6)


@pytest.mark.parametrize(
    ("formula", "region", "failing", "rel"),
    [
        ("z", {"s": (1, 2), "m": (0, 0.1), "f": (2,)}, 0.1655, 0.01),
        ("z", {"s": (1, 2), "m": (0, 0.1), "f": (3,)}, 1.0, 0),
        ("z", {"s": (5.43,), "m": (0.1,), "f": (0.97,)}, 0.0, 0),
        ("z", {"s": (5.45,), "m": (0.1,), "f": (0.97,)}, 1.0, 0),
        ("shift", {"s": (2,), "m": (0.1,), "f": (-0.316,)}, 1.0, 0),
        ("shift", {"s": (2,), "m": (0.1,), "f": (-0.09,)}, 0.0, 0),
        ("advantage", {"s": (2,), "m": (0.1,), "f": (-0.11, -0.09)}, 0.5, 0.05),
    ],
)
def test_formulas_fail_where_methods_6_says(
    formula: str, region: Any, failing: float, rel: float
) -> None:
    assert evaluate(formula, Region(**region)).failing == pytest.approx(failing, rel=rel)


@given(st.floats(-1, 1), st.floats(0.5, 50), st.floats(1, 3), st.floats(0.01, 1))
def test_advantage_is_p_i_less_p(f: float, S: float, s: float, m: float) -> None:
    found = evaluate("advantage", Region(s=(s,), m=(m,), f=(f,), S=(S,)))
    own, plain = np.exp(s * f + m), np.exp(f)
    assert found.least == pytest.approx(own / (own + S) - plain / (plain + S), abs=1e-12)


def test_a_formula_is_judged_with_its_numbers_and_nothing_trained() -> None:
    claim = {"id": "z", "claim": "z", "positive": "z", "note": "n"}
    figure = {**claim, "over": {"s": [1, 2], "m": [0, 0.1], "f": 0.97, "S": 8}}
    beyond = {**claim, "over": {"s": [1, 8], "m": 0.1, "f": 0.97}}
    (holds,), (fails,) = (findings(study({"sce": LOW}), each) for each in (figure, beyond))
    assert (holds.verdict, holds.reading, holds.group) == (REPRODUCED, FORMULA, None)
    assert holds.reason == (
        "z is above 0 at each of 250000 points; least 7.18e-05 at s = 1.002, m = 0.0002, f = 0.97, "
        "S = 8, largest 0.0391653 at s = 2, m = 0.1, f = 0.97, S = 8"
    )
    assert fails.verdict == CONTRADICTED
    assert fails.reason == (
        "z is not above 0 at 36.6 % of 500 points; counter-example: least -0.0202 at s = 8, "
        "m = 0.1, f = 0.97"
    )
    assert fails.notes == ("n",)
    assert fails.numbers["failing_share"] == pytest.approx(0.366)


def test_csv_has_a_formulas_numbers_and_a_diagnostics_unit() -> None:
    formula = {"id": "z", "claim": "z", "positive": "z", "over": {"s": 2, "m": 0.1, "f": 0.97}}
    measured = {**DIAGNOSED, "measure": NUMBER, "within": [0, 1]}
    claims = [Claim.model_validate(each) for each in (formula, measured)]
    found = judge_claims(diagnosed([0.5] * 5), claims)
    assert list(tally(found)) == ["diagnostic looked", FORMULA]  # which stands last
    of_formula, of_number = claims_frame(found).to_dict("records")
    assert of_formula["numbers"].startswith("points 1; failing_share 0; least 0.0391653;")
    assert (of_number["difference"], of_number["unit"]) == (0.5, "number")


def test_the_papers_claims_on_formulas_come_out_as_methods_6_says() -> None:
    claims = [claim for claim in read_claims() if claim.positive]
    found = {each.claim.id: each.verdict for each in judge_claims(study({"sce": LOW}), claims)}
    assert found.pop("z-positive") == REPRODUCED
    assert len(found) == 4
    assert set(found.values()) == {CONTRADICTED}


def test_deepfool_in_two_rules_is_two_readings() -> None:
    rule = {"overshoot_rule": "per_step"}
    cells = {**CELLS, "other": cell(claimed_study.DEEPFOOL, eps=0.01, surface="raw", extra=rule)}
    results = study({"isce": dict.fromkeys(cells, HIGH), "sce": dict.fromkeys(cells, LOW)})
    results.plan.raw["protocols"]["lenet5/mnist"]["cells"] = cells
    found = by_reading(results, {**OWN, "under": {"attack": "deepfool"}})
    assert list(found) == ["ε as overshoot", "ε as overshoot, overshoot_rule per_step"]
