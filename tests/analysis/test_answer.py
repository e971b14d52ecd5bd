"""The first answer says what was measured and does not claim what was not."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.answer import first_answer
from analysis.plan import Group, Plan
from analysis.runs import Results
from trainables import names


def test_answer_of_one_seed_is_exploratory(small: Results, group: Group) -> None:
    text = " ".join(first_answer(small, group).sentences)
    assert "The baseline sce keeps 50.0 ± 24.8 % (3 seeds)." in text
    assert "isce s=1.5 m=0.1 (validation's choice) keeps 50.0 % (one seed)." in text
    assert "Control arms: norm-sce 30.0 ± 127.1 % (2 seeds)." in text
    assert "At equal seeds that is 10.0 points above sce, 30.0 points above norm-sce." in text
    assert "keeps 90.0 % (one seed), 40.0 points above the headline: masking" in text
    assert "exploratory: one seed, no claim" in text
    assert "All headlines: unaudited, a stronger attack may leave less" in text
    assert "supports no claim; `audit: {}` in the study file audits it" in text


def test_differences_are_paired_by_seed(small: Results, group: Group) -> None:
    answer = first_answer(small, group)
    assert answer.against == ("sce", "norm-sce")
    _, norm, isce = answer.comparisons
    assert norm.differences["sce"].mean == pytest.approx((-0.2 - 0.1) / 2)
    assert isce.differences["sce"].mean == pytest.approx(0.1)
    assert isce.gap.mean == pytest.approx(0.4)


def seeded(small: Results, group: Group, gains: list[float], **marks: str) -> str:
    """What isce is worth that differs from norm-sce by `gains`, seed by seed."""
    base = small.rows(group, "sce").iloc[0]
    records = [
        {
            **base,
            "method": method,
            "arm": method,
            "label": method,
            "seed": seed,
            names.ROBUST: value,
            "attack_mark": marks.get(method, names.TRUSTED),
        }
        for seed, gain in enumerate(gains)
        for method, value in (("sce", 0.5), ("norm-sce", 0.5), ("isce", 0.5 + gain))
    ]
    results = Results(small.plan, pd.DataFrame(records), "", small.report_run, small.client)
    sentences = first_answer(results, group).sentences
    return sentences[-1 - len({names.TRUSTED, *marks.values()})]


def test_few_seeds_are_an_indication(small: Results, group: Group) -> None:
    assert seeded(small, group, [0.1, 0.1, 0.11]).startswith("3 seeds are fewer than the 5")


def test_enough_seeds_decide(small: Results, group: Group) -> None:
    decided = seeded(small, group, [0.1, 0.1, 0.11, 0.1, 0.1])
    assert decided.endswith("the difference to sce, norm-sce.")
    open_question = seeded(small, group, [0.1, -0.1, 0.11, 0.1, -0.1])
    assert open_question.startswith("No difference is distinguishable")


def test_untrusted_headline_on_either_side_supports_no_claim(small: Results, group: Group) -> None:
    gains = [0.1, 0.1, 0.11, 0.1, 0.1]
    mine = seeded(small, group, gains, isce=names.MASKED)
    assert mine.endswith("the difference to sce, norm-sce; no claim, since not trusted: isce.")
    theirs = seeded(small, group, gains, sce=names.WEAK)
    assert theirs.endswith("no claim, since not trusted: sce.")


def test_answer_says_how_far_each_headline_is_to_be_believed(
    audited: Results, group: Group
) -> None:
    sentences = first_answer(audited, group).sentences
    assert "The headline of quantised: masked, the attack misses what there is" in sentences[-4]
    assert "supports no claim" in sentences[-4]
    assert sentences[-3].startswith("The headlines of sce, random: weak attack, a stronger one")
    assert sentences[-2].startswith("The headlines of isce, older: unaudited")
    assert sentences[-1].startswith("The headlines of at, mmc: trusted, AutoAttack takes at most 2")
    marks = {found.label: found.mark for found in first_answer(audited, group).comparisons}
    assert marks["quantised"] == names.MASKED


def test_answer_before_any_result(small: Results, group: Group) -> None:
    """Validation has not chosen: the method is named, with the command that helps."""
    frame = small.frame.assign(**{names.ROBUST_VAL: float("nan")})
    results = Results(Plan(small.plan.raw), frame, "", small.report_run, small.client)
    text = " ".join(first_answer(results, group).sentences)
    assert "isce has no headline result yet: `study run small` computes it." in text
