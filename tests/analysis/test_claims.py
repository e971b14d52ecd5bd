"""Claims: what reproduces, contradicts and leaves them undecided, and what is no claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.claims import (
    CONTRADICTED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    Claim,
    claims_frame,
    judge_claims,
    read_claims,
)
from analysis.plan import Plan
from analysis.runs import DONE, Results
from trainables import names
from trainables.errors import InvalidStudy

from .test_paper_table import client

SCE = {"loss": "sce", "regime": "standard", "transform": "none"}
HIGH, LOW = [0.71, 0.72, 0.70, 0.72, 0.71], [0.61, 0.60, 0.61, 0.62, 0.60]
BETTER = {"id": "a", "claim": "a", "arm": "isce", "better_than": ["sce"]}
EQUAL = {"id": "a", "claim": "a", "arm": "isce", "as_good_as": ["sce"]}
UNMASKED = {"id": "a", "claim": "a", "arm": "isce", "unmasked": True}


def study(
    arms: dict[str, list[float]],
    marks: dict[str, str] | None = None,
    scale: str = "full",
    dataset: str = "mnist",
) -> Results:
    """Headlines by method and seed; trusted unless said otherwise."""
    trials, rows = [], []
    for method, values in arms.items():
        for seed, value in enumerate(values):
            about = {"trial_id": f"{method}-{seed}", "dataset": dataset, "backbone": "lenet5"}
            params = {**SCE, "loss": {"sce": "sce", "mmc": "mmc"}.get(method, "other")}
            trials.append({**about, "methods": [method], "axes": {}, "params": params})
            mark = (marks or {}).get(method, names.TRUSTED)
            row = {**about, "method": method, "label": method, "arm": method, "seed": seed}
            values_of = {"robust": value, "clean": value, "attack_mark": mark}
            rows.append({**row, "state": DONE, "run_id": "", **values_of})
    protocol = {"headline": {"label": "", "test": [], "validation": []}, "cells": {}}
    plan = {
        "study": "t",
        "command": "study run t",
        "scale": scale,
        "methods": list(arms),
        "choose": [],
        "axes": {},
        "protocols": {f"lenet5/{dataset}": protocol},
        "trials": trials,
    }
    return Results(Plan(plan), pd.DataFrame(rows), "", "", client())


def judged(results: Results, claim: dict[str, Any]) -> tuple[str, str]:
    (finding,) = judge_claims(results, [Claim.model_validate(claim)])
    return finding.verdict, finding.reason


def test_better_than_all_others_by_trusted_numbers_is_reproduced() -> None:
    results = study({"isce": HIGH, "sce": LOW, "mmc": LOW})
    both = {**BETTER, "better_than": ["sce", "MMC"]}  # a method, and a row of the paper
    assert judged(results, both) == (REPRODUCED, "better than each")
    (finding,) = judge_claims(results, [Claim.model_validate(both)])
    assert [c.other for c in finding.comparisons] == ["sce", "mmc"]
    assert finding.comparisons[0].difference.estimate.mean == pytest.approx(0.104)


def test_worse_than_one_is_contradicted() -> None:
    results = study({"isce": LOW, "sce": HIGH, "mmc": [0.1] * 5})
    verdict, reason = judged(results, {**BETTER, "better_than": ["sce", "mmc"]})
    assert (verdict, reason) == (CONTRADICTED, "worse than sce")


def test_a_difference_is_certain_if_its_larger_side_is_trusted() -> None:
    """Robust accuracy is an upper bound: a weak attack on the smaller side changes nothing."""
    for isce, sce, verdict in ((HIGH, LOW, REPRODUCED), (LOW, HIGH, CONTRADICTED)):
        arms = {"isce": isce, "sce": sce}
        larger, smaller = ("isce", "sce") if isce is HIGH else ("sce", "isce")
        assert judged(study(arms, {smaller: names.WEAK}), BETTER)[0] == verdict
        found = judged(study(arms, {larger: names.WEAK}), BETTER)
        assert found[0] == UNDECIDED
        assert f"not trusted: {larger} weak attack" in found[1]


def test_few_seeds_or_a_reduced_scale_decide_nothing() -> None:
    four = {"isce": HIGH[:4], "sce": LOW[:4]}
    assert judged(study(four), BETTER) == (
        UNDECIDED,
        "4 seeds of the 5 that a claim needs; better than each",
    )
    small = study({"isce": HIGH, "sce": LOW}, scale="small")
    assert judged(small, BETTER) == (UNDECIDED, "scale small; better than each")
    assert judged(small, UNMASKED)[0] == UNDECIDED
    subset = study({"isce": HIGH, "sce": LOW}, dataset="mnist5k")
    of_mnist = {"where": {"dataset": "mnist"}}
    told = "mnist5k stands for mnist; better than each"
    assert judged(subset, {**BETTER, **of_mnist}) == (UNDECIDED, told)
    assert judged(subset, {**UNMASKED, **of_mnist})[0] == UNDECIDED
    assert judged(subset, BETTER)[0] == REPRODUCED


def test_what_is_not_seen_is_undecided_with_what_would_be() -> None:
    verdict, reason = judged(study({"isce": LOW, "sce": LOW[::-1]}), BETTER)
    assert verdict == UNDECIDED
    assert "no difference seen to sce (smallest detectable" in reason


def test_holm_is_over_the_claims_comparisons() -> None:
    """Alone p = 0.026, as the smaller of two 0.051."""
    barely = [0.615, 0.605, 0.625, 0.645, 0.615]
    one = study({"isce": barely, "sce": LOW})
    assert judged(one, BETTER)[0] == REPRODUCED
    two = study({"isce": barely, "sce": LOW, "mmc": barely[::-1]})
    assert judged(two, {**BETTER, "better_than": ["sce", "mmc"]})[0] == UNDECIDED


def test_claims_need_all_whom_they_name() -> None:
    verdict, reason = judged(
        study({"isce": HIGH, "sce": LOW}), {**BETTER, "better_than": ["sce", "ArcFace"]}
    )
    assert (verdict, reason) == (UNDECIDED, "not compared with ArcFace; better than each")
    worse = study({"isce": LOW, "sce": HIGH})  # one that is better is enough
    assert judged(worse, {**BETTER, "better_than": ["sce", "ArcFace"]})[0] == CONTRADICTED


@pytest.mark.parametrize(
    ("isce", "verdict"),
    [
        ([0.611, 0.601, 0.612, 0.621, 0.601], REPRODUCED),
        (HIGH, CONTRADICTED),
        ([0.60, 0.62, 0.60, 0.63, 0.61], UNDECIDED),
    ],
)
def test_as_good_as_is_an_equivalence_test(isce: list[float], verdict: str) -> None:
    assert judged(study({"isce": isce, "sce": LOW}), EQUAL)[0] == verdict
    assert judged(study({"isce": isce, "sce": LOW}, {"sce": names.WEAK}), EQUAL)[0] == UNDECIDED
    clean = {**EQUAL, "under": "clean"}
    assert judged(study({"isce": isce, "sce": LOW}, {"sce": names.WEAK}), clean)[0] == verdict


@pytest.mark.parametrize(
    ("mark", "verdict"),
    [
        (names.TRUSTED, REPRODUCED),
        (names.MASKED, CONTRADICTED),
        (names.WEAK, UNDECIDED),
        (names.UNAUDITED, UNDECIDED),
    ],
)
def test_no_masking_is_the_audits_to_say(mark: str, verdict: str) -> None:
    assert judged(study({"isce": HIGH}, {"isce": mark}), UNMASKED)[0] == verdict


def test_what_nothing_speaks_of_is_not_run() -> None:
    results = study({"isce": HIGH, "sce": LOW})
    assert judged(results, {**BETTER, "where": {"dataset": "cifar10"}})[0] == NOT_RUN
    assert judged(results, {**BETTER, "where": {"backbone": "cnn8"}})[0] == NOT_RUN
    assert judged(results, {**BETTER, "where": {"dataset": "mnist"}})[0] == REPRODUCED
    assert judged(results, {**BETTER, "arm": "lgm"}) == (NOT_RUN, "no result of lgm there")
    assert judged(results, {**BETTER, "better_than": ["isce"]})[0] == NOT_RUN


def test_the_papers_claims_are_claims() -> None:
    claims = read_claims()
    assert len({claim.id for claim in claims}) == len(claims) >= 8
    assert all(claim.source for claim in claims)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "expected YAML with a list of claims"),
        ("claims: []", "expected YAML with a list of claims"),
        ("claims: [{id: a, claim: b, arm: c}]", "expected one of better_than"),
        ("claims: [{id: a, claim: b, arm: c, better_than: [d], x: 1}]", "claims.0.x: "),
        ("claims: [{claim: b, arm: c, unmasked: true}]", "claims.0.id: Field required"),
        (
            "claims: [{id: a, claim: b, arm: c, unmasked: true},"
            " {id: a, claim: b, arm: c, unmasked: true}]",
            "claims.a: stands twice",
        ),
    ],
)
def test_files_that_hold_no_claims_are_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(InvalidStudy) as error:
        read_claims(path)
    assert told in str(error.value)


def test_csv_has_a_row_a_comparison() -> None:
    results = study({"isce": HIGH, "sce": LOW, "mmc": LOW})
    claims = [
        Claim.model_validate({**BETTER, "better_than": ["sce", "mmc"]}),
        Claim.model_validate({**BETTER, "id": "b", "arm": "lgm"}),
    ]
    frame = claims_frame(judge_claims(results, claims))
    assert frame["other"].tolist()[:2] == ["sce", "mmc"]
    assert frame["difference_points"].tolist()[0] == pytest.approx(10.4)
    assert frame["verdict"].tolist() == [REPRODUCED, REPRODUCED, NOT_RUN]
