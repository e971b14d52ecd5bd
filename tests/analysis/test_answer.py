"""The first page says what was measured and does not claim what was not."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from analysis.answer import first_answer
from analysis.plan import Group
from analysis.runs import Results
from trainables import names


def test_the_headline_is_told(small: Results, group: Group) -> None:
    told = first_answer(small, group).headline
    assert "under PGD untargeted, l2_rms eps 0.04, 20 steps, for each image" in told


def test_choice_is_told_with_regret_and_flatness(small: Results, group: Group) -> None:
    chosen = first_answer(small, group).sentences[0]
    assert chosen.startswith("isce s=1.5 m=0.1 was chosen among 5 points of isce by the validation")
    assert "test regret 30.0 points. Whether the surface is flat one seed cannot tell." in chosen


def test_flatness_is_asked_of_more_than_one_seed(small: Results, group: Group) -> None:
    """A second seed, a tenth better throughout, leaves no noise: the points do differ."""
    points = small.frame[small.frame["method"] == "isce"]
    second = points.assign(seed=1, **{names.ROBUST: points[names.ROBUST] + 0.1})
    results = replace(small, frame=pd.concat([small.frame, second]))
    told = first_answer(results, group).sentences[0]
    assert "The points do differ: their means have SD 23.9 points, and would have 0.0" in told
    assert "noise of 2 seeds alone (F test over 5 points, p = 0)" in told
    mixed = second.assign(**{names.ROBUST: [0.6, 0.8, 0.2, float("nan"), 0.3, 0.5]})
    results = replace(small, frame=pd.concat([small.frame, mixed]))
    assert "No difference between points is seen" in first_answer(results, group).sentences[0]


def test_marks_are_counted_and_the_largest_gap_named(small: Results, group: Group) -> None:
    """Ten trials are done; those that failed, or never ran, have no mark."""
    counts, gap = first_answer(small, group).sentences[1:3]
    assert counts == (
        "Marks of 10 headlines. Attack: unaudited (10). Evidence: 3 seeds (5), exploratory (5)."
    )
    assert gap.startswith("Largest masking gap: norm-sce, whose most flattering surface leaves")
    assert "leaves +60.0 ± 127.1 points on its headline." in gap


def test_what_is_missing_is_told_with_the_command(small: Results, group: Group) -> None:
    last = first_answer(small, group).sentences[-1]
    assert last == "2 planned trials lack results (missing (1), failed (1)): `study run small` " \
        "computes them."  # fmt: skip


def test_differences_are_paired_by_seed(small: Results, group: Group) -> None:
    answer = first_answer(small, group)
    assert answer.against == ("sce", "norm-sce")
    _, norm, isce = answer.comparisons
    assert norm.differences["sce"].mean == pytest.approx((-0.2 - 0.1) / 2)
    assert isce.differences["sce"].mean == pytest.approx(0.1)
    assert isce.gap.mean == pytest.approx(0.4)


def test_answer_says_how_far_each_headline_is_to_be_believed(
    audited: Results, group: Group
) -> None:
    answer = first_answer(audited, group)
    told = [sentence for sentence in answer.sentences if "headline" in sentence]
    masked, weak, unaudited, trusted = told[-4:]
    assert "The headline of quantised: masked, the attack misses what there is" in masked
    assert "supports no claim" in masked
    assert weak.startswith("The headlines of sce, random: weak attack, a stronger one")
    assert unaudited.startswith("The headlines of isce, older: unaudited")
    assert trusted.startswith("The headlines of at, mmc: trusted, AutoAttack takes at most 2")
    marks = {found.label: found.mark for found in answer.comparisons}
    assert marks["quantised"] == names.MASKED


def test_answer_before_any_result(small: Results, group: Group) -> None:
    """Validation has not chosen: the method is named, with the command that helps."""
    frame = small.frame.assign(**{names.ROBUST_VAL: float("nan")})
    told = first_answer(replace(small, frame=frame), group).sentences
    assert told[0].startswith("Of isce validation has no headline yet to choose by: `study run")
