"""One sentence a threat: who resists better, by how much, and what keeps it from being a claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from analysis.comparison import EQUAL, UNCERTAIN, UNSEEN, WORSE, threats, verdicts, verdicts_frame
from analysis.images import Images
from analysis.plan import Cell, Group, Plan, Protocol
from analysis.runs import Results
from trainables import names

from .tracked_study import CE_RAW, MARGIN_RAW, TARGETED, WEAK

GAINS = (-0.14, -0.15, -0.13, -0.14, -0.14)


def ball(name: str, *, eps: float = 1.5, n: int = 100, **more: Any) -> Cell:
    """A cell on raw logits."""
    given = {"budget": "l2_abs", "norm": "l2", "surface": "ce_raw", **more}
    return Cell(name=name, split="test", attack="pgd", n=n, algorithm="pgd", eps=eps, **given)


def test_threats_are_balls_the_headlines_first() -> None:
    cells = (
        ball("a", eps=0.5),
        ball("b"),
        ball("c", surface="margin_raw"),
        ball("d", eps=0.5, targeted=True),
        ball("fewer", eps=0.5, n=50),
        ball("deployed", eps=0.7, surface="ce_deployed"),
        ball("path", budget="path_l2", norm=""),
        ball("e", budget="linf", norm="linf", eps=0.3),
        ball("audited", eps=2, check="eps"),
    )
    found = threats(Protocol(cells, "", ("b", "c")))
    told = [(threat.title, threat.cells, threat.leads) for threat in found]
    assert told == [
        ("L2 1.5", ("b", "c"), True),
        ("L2 0.5", ("a", "d"), False),
        ("L∞ 0.3", ("e",), False),
    ]


def test_a_path_that_leads_is_no_threat_model() -> None:
    path = ball("path", budget="path_l2", norm="", eps=0.04)
    (found,) = threats(Protocol((path,), "", ("path",)))
    assert found.title == "path_l2 0.04 (no threat model)"


def test_balls_of_the_small_study(small: Results, group: Group) -> None:
    found = threats(small.plan.protocol(group))
    assert [threat.cells for threat in found] == [(CE_RAW, MARGIN_RAW), (WEAK,)]
    assert set(TARGETED).isdisjoint(found[0].cells)


def seeded(small: Results, group: Group, gains: tuple[float, ...], **marks: str) -> Results:
    """`isce` at its one point differs from `sce` by `gains`; `norm-sce` does not differ."""
    base = small.rows(group, "sce").iloc[0]
    records = [
        {
            **base,
            "method": method,
            "arm": method,
            "label": method,
            "seed": seed,
            names.ROBUST: value + 0.01 * seed,
            "attack_mark": marks.get(method, names.TRUSTED),
        }
        for seed, gain in enumerate(gains)
        for method, value in (("sce", 0.5), ("norm-sce", 0.5 + gain), ("isce", 0.5 + gain))
    ]
    return replace(small, frame=pd.DataFrame(records))


@pytest.fixture
def crossed(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, float]]:
    """What the bootstrap says against each other, in place of outcomes; below zero by default."""
    told: dict[str, tuple[float, float]] = {}

    def intervals(images: Images, pairs: list[Any]) -> list[tuple[float, float]]:
        return [told.get(other.label, (-0.2, -0.1)) for _, other, _ in pairs]

    monkeypatch.setattr(Images, "crossed_intervals", intervals)
    return told


def test_worse_is_said_with_its_interval(
    small: Results, group: Group, crossed: dict[str, tuple[float, float]]
) -> None:
    crossed["norm-sce"] = (0.0, 0.0)
    leading = verdicts(seeded(small, group, GAINS), group)[0]
    # SD 0.707 points over five seeds, t(0.975, 4) = 2.776: half-width 0.88.
    assert leading.text == (
        "isce against sce at l2_rms 0.04: −14.0 points [−14.9, −13.1], 5 seeds: worse; "
        f"against norm-sce: +0.0 points [+0.0, +0.0]: {EQUAL}."
    )
    assert leading.threat.leads


def test_both_intervals_have_to_agree(
    small: Results, group: Group, crossed: dict[str, tuple[float, float]]
) -> None:
    results = seeded(small, group, GAINS)
    assert verdicts(results, group)[0].against[0].word == WORSE
    crossed["sce"] = (-0.3, 0.01)
    assert verdicts(results, group)[0].against[0].word == UNCERTAIN
    crossed["sce"] = (0.1, 0.3)  # on the other side
    assert verdicts(results, group)[0].against[0].word == UNCERTAIN


def test_what_holm_does_not_let_pass_is_uncertain(
    small: Results, group: Group, crossed: dict[str, tuple[float, float]]
) -> None:
    """Alone p = 0.043; as the smaller of two 0.086."""
    gains = (0.0215, 0.0115, 0.0005, 0.0315, 0.0115)
    alone = -pd.Series(gains)
    versus = verdicts(seeded(small, group, tuple(alone)), group)[0].against[0]
    assert versus.difference.p < 0.05 <= versus.p
    assert versus.word == UNCERTAIN


def test_noise_decides_nothing(
    small: Results, group: Group, crossed: dict[str, tuple[float, float]]
) -> None:
    noisy = seeded(small, group, (-0.14, 0.13, -0.2, 0.1, 0.0))
    assert verdicts(noisy, group)[0].against[0].word == UNSEEN


def test_few_seeds_are_an_indication(
    small: Results, group: Group, crossed: dict[str, tuple[float, float]]
) -> None:
    three = verdicts(seeded(small, group, GAINS[:3]), group)[0]
    assert three.text.endswith("3 seeds: an indication, a claim takes 5.")
    one = verdicts(seeded(small, group, GAINS[:1]), group)[0]
    assert "−14.0 points, 1 seed: no claim" in one.text


def test_the_higher_side_has_to_be_trusted(
    small: Results, group: Group, crossed: dict[str, tuple[float, float]]
) -> None:
    """What is below is an upper bound already; what is above may be less than it seems."""
    higher = verdicts(seeded(small, group, GAINS, sce=names.WEAK), group)[0]
    assert higher.text.endswith("Not trusted: sce (weak attack).")
    lower = verdicts(seeded(small, group, GAINS, isce=names.WEAK), group)[0].against[0]
    assert (lower.word, lower.doubted) == (WORSE, {})


def test_other_balls_are_computed_from_cells(small: Results, group: Group) -> None:
    """At eps 0.02 `isce` s=1.5 m=0.1 leaves 6 images of ten, `sce` with seed 0 five."""
    other = verdicts(small, group)[1]
    assert not other.threat.leads
    against = other.against[0]
    assert against.difference.estimate.mean == pytest.approx(0.1)
    assert against.word == "no claim"


def test_without_a_question_all_are_compared_with_the_baseline(
    small: Results, group: Group
) -> None:
    plan = Plan({**small.plan.raw, "choose": [], "controls": {}, "axes": {}})
    subjects = [verdict.subject for verdict in verdicts(replace(small, plan=plan), group)]
    assert subjects == ["norm-sce", "norm-sce"]  # isce has several configurations


def test_csv_has_a_row_a_comparison(small: Results, group: Group) -> None:
    frame = verdicts_frame({group: verdicts(small, group)})
    assert frame["other"].tolist() == ["sce", "norm-sce"] * 2
    assert frame["difference_points"].tolist()[:2] == pytest.approx([10.0, 30.0])
    assert frame["headline"].tolist() == [True, True, False, False]
