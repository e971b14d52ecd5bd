"""Outcomes of the store as metrics and as one frame."""

import numpy as np
import pytest

from study.results import Outcome, bounded_cells, frame, metrics, note
from trainables import names

ATTACKS = {
    "pgd": {"budget": "l2_abs", "eps": [0.5, 1.0], "steps": 3, "surface": ["ce_raw", "margin_raw"]},
    "path": {"attack": "pgd", "budget": "path_l2", "eps": 0.1, "steps": 3},
    "deepfool": {"steps": 3},
}
HEADLINE = {"attack": "pgd", "eps": 1.0}
CE, MARGIN = (f"cell/test/pgd-l2_abs-un-{surface}-eps1-n3" for surface in ("ce_raw", "margin_raw"))
PATH = "cell/test/path-path_l2-un-margin_raw-eps0.1-n3-kappa:1"


def outcome(after, passes=1, before=None, l2=1.0, stages=("pgd",), stage=0):
    """What is left right of each image, in passes."""
    after = np.array(after)
    before = np.full(len(after), passes) if before is None else np.array(before)
    broken = (after == 0) & (before > 0)
    arrays = {
        "labels": np.arange(len(after)),
        "correct_before": before,
        "correct_after": after,
        "passes": np.full(len(after), passes),
        "l2": np.where(broken, l2, 2.0).astype(np.float32),
        "linf": np.zeros(len(after), np.float32),
        "queries": np.full(len(after), 3),
        "gradient": np.ones(len(after)),
        "targets": np.full(len(after), -1),
        "hit": np.zeros(len(after), int),
        "broken_by": np.where(broken, stage, -1),
    }
    by_pass = np.arange(passes) < after[:, None]
    return Outcome(arrays, by_pass.astype(np.uint8), stages)


@pytest.fixture
def study(plan_of):
    """A planned study with an audit, its trial, and outcomes in which nothing breaks."""
    plan = plan_of(attacks=ATTACKS, headline=HEADLINE, audit={"n": 4}, seeds=1)
    (trial,) = plan.trials
    return plan.protocol(trial), trial, {name: outcome([1] * 6) for name in trial.cells}


def test_worst_case_is_over_attacks_with_a_budget_in_the_headlines_ball(study):
    protocol, trial, outcomes = study
    found = set(bounded_cells(protocol, outcomes))
    assert {CE, MARGIN} < found
    assert PATH not in found
    assert not any("deepfool" in name or "unbounded" in name or "clean" in name for name in found)
    assert not any("eps2" in name for name in found)  # the audit's larger balls
    assert any(name.startswith("audit/autoattack") for name in found)
    outcomes[CE] = outcome([0, 1, 1, 1, 1, 1])
    outcomes[MARGIN] = outcome([1, 0, 1, 1, 1, 1])
    outcomes[PATH] = outcome([0] * 6)
    values = {key: value for key, value, _ in metrics(protocol, trial, outcomes, {})}
    assert values[names.WORST_CASE] == values[names.ROBUST] == pytest.approx(4 / 6)
    assert values[names.MASKING_GAP] == pytest.approx(1 / 6)


WORST = f"cell/test/pgd-l2_abs-un-{names.WORST_RAW}-eps1-n3"


def test_each_attack_of_several_raw_surfaces_has_its_worst_of_each_image(study):
    protocol, trial, outcomes = study
    outcomes[CE] = outcome([0, 1, 1, 1, 1, 1])
    outcomes[MARGIN] = outcome([1, 0, 1, 1, 1, 1])
    assert protocol.worst_raw[WORST] == (CE, MARGIN)
    assert len(protocol.worst_raw) == 2  # one an eps; path and deepfool have one surface
    values = {key: value for key, value, _ in metrics(protocol, trial, outcomes, {})}
    assert values[WORST] == pytest.approx(4 / 6)
    del outcomes[CE]
    headline = {names.TEST: (MARGIN,), names.VALIDATION: protocol.headline[names.VALIDATION]}
    protocol.__dict__["headline"] = headline
    values = {key: value for key, value, _ in metrics(protocol, trial, outcomes, {})}
    assert WORST not in values


def test_fewer_images_make_the_worst_case_one_over_those_that_all_saw(study):
    protocol, trial, outcomes = study
    (strong,) = (name for name in outcomes if name.startswith("audit/autoattack"))
    outcomes[strong] = outcome([0, 0, 1])
    outcomes[MARGIN] = outcome([1, 1, 1, 0, 0, 0])
    values = {key: value for key, value, _ in metrics(protocol, trial, outcomes, {})}
    assert values[names.WORST_CASE] == pytest.approx(1 / 3)
    assert values[names.ROBUST] == pytest.approx(1 / 2)
    assert values[names.N] == 6


def test_frame_names_what_broke_an_image(study):
    protocol, _, outcomes = study
    (strong,) = (name for name in outcomes if name.startswith("audit/autoattack"))
    outcomes[CE] = outcome([0, 1, 1, 1, 1, 1], l2=0.5)
    outcomes[MARGIN] = outcome([0, 0, 1, 1, 1, 1], l2=0.25)
    outcomes[strong] = outcome([1, 1, 0, 1, 1, 1], stages=("apgd-ce", "square"), stage=1)
    found = frame(protocol, outcomes)
    assert len(found) == 6 * (len(outcomes) + 1)
    by = found.set_index(["cell", "index"])["broken_by"]
    assert by[strong].tolist() == ["", "", "square", "", "", ""]
    assert by[MARGIN].tolist() == ["pgd", "pgd", "", "", "", ""]
    assert by[names.WORST_CASE].tolist() == [MARGIN, MARGIN, strong, "", "", ""]


def test_a_clean_mistake_was_broken_by_nothing(study):
    protocol, _, outcomes = study
    wrong = {name: outcome([0, 1, 1, 1, 1, 1], before=[0, 1, 1, 1, 1, 1]) for name in outcomes}
    found = frame(protocol, wrong)
    assert set(found["broken_by"]) == {""}
    worst = found[found["cell"] == names.WORST_CASE]
    assert worst["correct_after"].tolist() == [0, 1, 1, 1, 1, 1]


def test_models_that_draw_have_a_spread_over_passes_and_others_none(study):
    protocol, trial, outcomes = study
    outcomes[CE] = outcome([4, 2, 0, 4, 4, 4], passes=4)
    values = {key: value for key, value, _ in metrics(protocol, trial, outcomes, {})}
    assert values[CE] == pytest.approx(18 / 24)
    by_pass = [5 / 6, 5 / 6, 4 / 6, 4 / 6]
    assert values[CE + names.SPREAD] == pytest.approx(np.std(by_pass, ddof=1))
    assert MARGIN + names.SPREAD not in values


def test_charts_are_of_the_studys_own_attacks(study):
    protocol, trial, outcomes = study
    charted = {key for key, *_ in metrics(protocol, trial, outcomes, {}) if key.startswith("by_")}
    assert charted
    assert not any("audit" in key or "unbounded" in key for key in charted)


def test_a_runs_note_lists_every_cell(study):
    _, _, outcomes = study
    _, _, *rows = note(outcomes).splitlines()
    assert len(rows) == len(outcomes)
    audits = [row.startswith(f"| {names.AUDIT}") for row in rows]
    assert audits == sorted(audits) and any(audits) and not all(audits)


def test_time_of_attacks_is_that_of_the_plans_own_cells(study):
    """Each once, though names may share a cell; the record may have cells of earlier plans."""
    protocol, trial, outcomes = study
    own = set(trial.cell_ids.values())
    record = {"cell_seconds": {**dict.fromkeys(own, 0.5), "of an earlier plan": 100.0}}
    values = {key: value for key, value, _ in metrics(protocol, trial, outcomes, record)}
    assert values[names.ATTACK_SECONDS] == pytest.approx(0.5 * len(own))
    assert dict((key, value) for key, value, _ in metrics(protocol, trial, outcomes, {}))[
        names.ATTACK_SECONDS
    ] == 0  # fmt: skip
