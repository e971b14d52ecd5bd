"""The audit: every rule from both sides of its tolerance, the marks, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.audit import Audit
from analysis.checks import CHECKS, FAIL, NOT_APPLICABLE, PASS
from analysis.plan import Cell
from trainables import names

from .audited import CLEAN, EACH, HEADLINE, HELD, ONCE, OWN, SURFACES, Case, N, cell


def test_model_to_believe() -> None:
    audit = Case().audit()
    assert audit.mark == names.TRUSTED
    assert {audit.marks[own.name] for own in OWN.values()} == {names.TRUSTED}
    assert (audit.failed, audit.broken_invariants) == (0, ())
    headline = {check.name: check.verdict for check in audit.checks if not check.about}
    assert list(headline) == [name for name in CHECKS if name != "surfaces"]
    assert {name for name, verdict in headline.items() if verdict != PASS} == {"eot", "rescale"}
    assert all(check.n == N for check in audit.checks if check.verdict == PASS)
    assert all(bool(check.reason) == (check.verdict == NOT_APPLICABLE) for check in audit.checks)
    assert all(not name.startswith("audit/") for name in audit.marks)


@pytest.mark.parametrize(
    ("name", "passes", "fails", "mark"),
    [
        ("autoattack", 96, 95, names.WEAK),
        ("square", 98, 97, names.MASKED),
        ("simba", 98, 97, names.MASKED),
        ("transfer", 98, 97, names.MASKED),
        ("targets", 98, 97, names.WEAK),
        ("noise", 98, 97, names.MASKED),
    ],
)
def test_rules_of_the_headline_alone(name: str, passes: int, fails: int, mark: str) -> None:
    fine = Case().set(ONCE[name], passes)
    assert (fine.verdict(name), fine.audit().mark) == (PASS, names.TRUSTED)
    broken = Case().set(ONCE[name], fails)
    assert (broken.verdict(name), broken.audit().mark) == (FAIL, mark)
    assert broken.check(name).meaning == mark
    assert broken.audit().failed == 1
    # What beats the headline beats every surface that leaves no less.
    assert {broken.audit().marks[own.name] for own in OWN.values()} == {mark}


@pytest.mark.parametrize(
    ("name", "cell_name", "passes", "fails", "mark"),
    [
        ("single", "single", 100, 99, names.MASKED),
        ("unbounded", "unbounded", 2, 3, names.MASKED),
        ("rescale", "rescale", 98, 97, names.MASKED),
        ("steps", "long", 102, 101, names.WEAK),
        ("restarts", "restarts", 102, 101, names.WEAK),
        ("eps", "half", 100, 99, names.WEAK),
        ("eps", "double", 104, 105, names.WEAK),
    ],
)
def test_rules_of_a_surface(name: str, cell_name: str, passes: int, fails: int, mark: str) -> None:
    """Cross entropy, of which 102 are left; the headline has a margin, too, and is not touched."""
    found, short = EACH["ce_raw"][cell_name], EACH["ce_raw"]["short"]
    assert Case().set(short, 104).set(found, passes).verdict(name, "ce_raw") == PASS
    broken = Case().set(short, 104).set(found, fails)
    audit = broken.audit()
    assert broken.verdict(name, "ce_raw") == FAIL
    assert audit.marks[OWN["ce_raw"].name] == mark
    assert audit.marks[OWN["margin_raw"].name] == names.TRUSTED
    assert (audit.mark, audit.failed) == (names.TRUSTED, 0)


@pytest.mark.parametrize(
    ("name", "cell_name", "passes", "fails", "mark"),
    [
        ("single", "single", 98, 97, names.MASKED),
        ("unbounded", "unbounded", 2, 3, names.MASKED),
        ("steps", "long", 98, 97, names.WEAK),
        ("restarts", "restarts", 98, 97, names.WEAK),
        ("eps", "half", 98, 97, names.WEAK),
        ("eps", "double", 102, 103, names.WEAK),
    ],
)
def test_headline_fails_where_all_raw_surfaces_do(
    name: str, cell_name: str, passes: int, fails: int, mark: str
) -> None:
    """The deployed surface, which is not raw, has no say. Above them it fails with them."""
    for kept, verdict in ((passes, PASS), (fails, FAIL)):
        case = Case()
        for surface in ("ce_raw", "margin_raw"):
            case.set(EACH[surface][cell_name], kept)
        audit = case.audit()
        assert case.verdict(name) == verdict
        assert case.verdict(name, "ce_deployed") == PASS
        expected = mark if verdict == FAIL else names.TRUSTED
        assert audit.mark == audit.marks[OWN["ce_deployed"].name] == expected


def test_nine_targets_far_below_the_headline_are_masking() -> None:
    """Up to 10 points the same gradients, followed in nine directions, only do better."""
    for kept, mark in ((80, names.WEAK), (79, names.MASKED)):
        case = Case().set(ONCE["targets"], kept)
        assert case.check("targets").meaning == case.audit().mark == mark


def test_rules_look_at_the_worst_of_each_image() -> None:
    """Each surface leaves 4 images unbounded, none of them both."""
    case = Case()
    case.set(EACH["ce_raw"]["unbounded"], 4)
    other = case.set(EACH["margin_raw"]["unbounded"], 8).outcomes[
        EACH["margin_raw"]["unbounded"].name
    ]
    other["correct_after"][:4] = 0
    assert case.verdict("unbounded", "ce_raw") == case.verdict("unbounded", "margin_raw") == FAIL
    assert case.check("unbounded").numbers == {"without a bound": 0.0}
    assert case.audit().mark == names.TRUSTED


def test_autoattack_on_few_images() -> None:
    few = Case()
    few.set(ONCE["autoattack"], HEADLINE, n=150)
    assert few.check("autoattack").n == 150
    assert few.verdict("autoattack") == PASS
    for n, kept, verdict in (
        (149, 100, NOT_APPLICABLE),
        (149, 97, NOT_APPLICABLE),
        (149, 96, FAIL),
    ):
        few.set(ONCE["autoattack"], kept, n=n)
        assert few.verdict("autoattack") == verdict
    few.set(ONCE["autoattack"], 100, n=149)
    assert few.check("autoattack").reason == "fewer than 150 images: 149 cannot certify 2 points"
    assert few.audit().mark == names.UNAUDITED


def test_each_surface_is_certified_by_its_own_gap() -> None:
    case = Case().set(OWN["ce_deployed"], 103).set(ONCE["autoattack"], 98)
    assert case.verdict("autoattack", "ce_deployed") == FAIL  # 5 images
    case = Case().set(OWN["ce_deployed"], 102).set(ONCE["autoattack"], 98)
    assert case.verdict("autoattack", "ce_deployed") == PASS


def test_comparisons_take_the_images_that_both_saw() -> None:
    """On all 200 images the headline leaves half, on the first 160 more: 62.5 %."""
    case = Case().set(ONCE["simba"], 99, n=160)
    check = case.check("simba")
    assert (check.verdict, check.n) == (PASS, 160)
    assert check.numbers == {"headline": 100 / 160, "SimBA": 99 / 160}
    assert case.set(ONCE["simba"], 98, n=160).verdict("simba") == FAIL  # 1.25 points


def test_no_tolerance_is_finer_than_an_image() -> None:
    """1 point of 40 images is less than one."""
    assert Case().set(ONCE["simba"], 39, n=40).verdict("simba") == PASS
    assert Case().set(ONCE["simba"], 38, n=40).verdict("simba") == FAIL
    assert Case().set(ONCE["square"], 39, n=40).verdict("square") == PASS
    assert Case().set(ONCE["square"], 38, n=40).verdict("square") == FAIL


def test_square_counts_what_it_alone_breaks() -> None:
    """It leaves more than the headline, and yet breaks 2 images that stand."""
    case = Case().set(ONCE["square"], 150)
    case.outcomes[ONCE["square"].name]["correct_after"][:1] = 0
    assert case.verdict("square") == PASS
    case.outcomes[ONCE["square"].name]["correct_after"][:2] = 0
    assert case.verdict("square") == FAIL
    assert case.check("square").numbers["broken by Square, by no gradient"] == 0.01


@pytest.mark.parametrize(
    "longer", [ONCE["targets"], EACH["ce_raw"]["long"], EACH["margin_raw"]["restarts"]]
)
def test_square_is_not_blamed_for_what_more_steps_starts_or_targets_break(longer: Cell) -> None:
    case = Case().set(ONCE["square"], 150)
    case.outcomes[ONCE["square"].name]["correct_after"][:5] = 0
    assert case.verdict("square") == FAIL
    case.outcomes[longer.name]["correct_after"][:4] = 0
    assert case.verdict("square") == PASS
    assert case.check("square").numbers["broken by Square, by no gradient"] == 1 / 200


def test_square_breaks_an_image_of_a_random_model_by_half_of_its_passes() -> None:
    case = Case(passes=10)
    after = case.outcomes[ONCE["square"].name]["correct_after"]
    after[:50] = 6
    assert case.check("square").numbers["broken by Square, by no gradient"] == 0
    assert case.verdict("square") == PASS
    for surface in ("ce_raw", "margin_raw"):
        case.outcomes[OWN[surface].name]["correct_after"][:50] = 7
    after[:2] = 2
    assert case.check("square").numbers["broken by Square, by no gradient"] == 0.01
    assert case.verdict("square") == FAIL


def test_eot_asks_random_models_alone_and_either_way() -> None:
    assert Case().check("eot").reason == "the model draws nothing at random"
    for kept, verdict in ((98, PASS), (97, FAIL), (102, PASS), (103, FAIL)):
        case = Case(passes=10)
        for surface in SURFACES:
            case.set(EACH[surface]["eot"], kept)
        assert case.verdict("eot") == verdict
        assert case.audit().mark == (names.WEAK if verdict == FAIL else names.TRUSTED)
    assert Case(passes=10).set(EACH["ce_raw"]["eot"], 99).verdict("eot", "ce_raw") == FAIL


def test_surface_above_the_headline_is_masked() -> None:
    case = Case().set(OWN["ce_deployed"], 104).set(ONCE["autoattack"], 100)
    assert case.verdict("surfaces", "ce_deployed") == PASS
    case.set(OWN["ce_deployed"], 105)
    assert case.verdict("surfaces", "ce_deployed") == FAIL
    assert case.check("surfaces", "ce_deployed").numbers["masking gap"] == pytest.approx(0.025)
    audit = case.audit()
    assert audit.marks[OWN["ce_deployed"].name] == names.MASKED
    assert audit.mark == names.TRUSTED
    assert case.check("surfaces", "margin_raw").verdict == PASS


def test_only_surface_of_its_setting_is_not_compared() -> None:
    case = Case(headline=(OWN["margin_raw"].name,))
    case.cells.remove(OWN["ce_deployed"])
    case.cells.remove(OWN["ce_raw"])
    assert case.check("surfaces", "margin_raw").reason == "it leads its setting alone"
    assert case.audit().mark == case.audit().marks[OWN["margin_raw"].name] == names.TRUSTED


@pytest.mark.parametrize(
    ("survivors", "without", "verdict"),
    [
        (100, 10, PASS),
        (100, 11, FAIL),
        (9, 1, PASS),  # one image alone never fails
        (9, 2, FAIL),
        (5, 2, FAIL),
        (4, 4, NOT_APPLICABLE),
    ],
)
def test_gradients_that_are_zero(survivors: int, without: int, verdict: str) -> None:
    """Zeros among the images that broke do not count."""
    case = Case().set(OWN["ce_raw"], survivors)
    gradient = case.outcomes[OWN["ce_raw"].name]["gradient"]
    gradient[:without] = 0
    gradient[survivors:] = 0
    assert case.verdict("gradients", "ce_raw") == verdict
    if verdict == FAIL:
        assert case.audit().marks[OWN["ce_raw"].name] == names.MASKED


def test_gradients_that_are_faint_are_told() -> None:
    case = Case()
    gradient = case.outcomes[OWN["margin_raw"].name]["gradient"]
    gradient[:30] = 9e-11
    gradient[30:60] = 1e-10
    check = case.check("gradients", "margin_raw")
    assert check.verdict == PASS
    assert check.numbers == {
        "survivors": 0.5,
        "of them without a gradient": 0.0,
        "of them below 1e-10": 0.3,
    }


def test_gradients_of_the_headline_are_the_largest_of_its_surfaces() -> None:
    case = Case().set(OWN["ce_raw"], 102, gradient=0.0)
    assert case.verdict("gradients", "ce_raw") == FAIL
    assert case.verdict("gradients") == PASS
    assert case.audit().mark == names.TRUSTED
    case.set(OWN["margin_raw"], HEADLINE, gradient=0.0)
    assert case.verdict("gradients") == FAIL
    assert case.audit().mark == names.MASKED


def test_attack_without_gradients_has_none_to_look_at() -> None:
    case = Case().set(OWN["ce_raw"], 102, gradient=-1.0)
    assert case.check("gradients", "ce_raw").reason == "no gradient was followed"
    assert case.verdict("gradients") == PASS


def test_ensemble_whose_one_attack_lacks_gradients_is_not_masked() -> None:
    own = cell("raw", algorithm="autoattack")
    case = Case()
    case.cells.append(own)
    case.set(own, 98, gradient=0.0)
    assert case.audit().marks[own.name] != names.MASKED


def test_rescale_is_for_cross_entropies() -> None:
    case = Case()
    assert case.check("rescale").reason == "margin_raw is free of scale"
    assert case.check("rescale", "margin_raw").reason == "margin_raw is free of scale"
    alone = Case(headline=(OWN["ce_raw"].name,))
    assert alone.verdict("rescale") == PASS
    alone.set(EACH["ce_raw"]["rescale"], 97)
    assert (alone.verdict("rescale"), alone.audit().mark) == (FAIL, names.MASKED)
    own = cell("train_loss")
    case.cells.append(own)
    case.set(own, 103)
    reasons = [c.reason for c in case.audit().checks if (c.name, c.about) == ("rescale", own.name)]
    assert reasons == ["train_loss is no cross entropy of logits"]


def test_masked_comes_before_weak() -> None:
    case = Case().set(ONCE["autoattack"], 50).set(ONCE["square"], 50)
    assert case.audit().mark == names.MASKED
    assert case.audit().failed == 2


def test_surface_below_a_masked_headline_is_not_masked_by_it() -> None:
    """Deployed scores may leave less than the raw ones: what beats those may not beat them."""
    case = Case().set(ONCE["simba"], 95).set(ONCE["autoattack"], 95)
    case.set(OWN["ce_deployed"], 95)
    for name in ("single", "rescale"):
        case.set(EACH["ce_deployed"][name], 99)
    audit = case.audit()
    assert audit.mark == names.MASKED
    assert audit.marks[OWN["ce_deployed"].name] == names.TRUSTED
    assert audit.marks[OWN["margin_raw"].name] == names.MASKED


def test_logits_of_a_huge_scale_mask_cross_entropy_alone() -> None:
    """1e4 times the logits: cross entropy saturates, its gradients underflow to zero."""
    case = Case()
    for surface in ("ce_deployed", "ce_raw"):
        case.set(OWN[surface], 180, gradient=0.0)
        for name in ("single", "unbounded", "half", "double", "short", "long", "restarts"):
            case.set(EACH[surface][name], 180, gradient=0.0)
        case.set(EACH[surface]["rescale"], 101)
    audit = case.audit()
    assert audit.marks[OWN["ce_raw"].name] == audit.marks[OWN["ce_deployed"].name] == names.MASKED
    assert audit.marks[OWN["margin_raw"].name] == audit.mark == names.TRUSTED
    failed = {check.name for check in audit.checks if check.failed}
    assert failed >= {"gradients", "unbounded", "rescale", "surfaces"}
    assert audit.failed == 0


def test_quantised_input_is_masked_everywhere() -> None:
    case = Case()
    for surface, own in OWN.items():
        case.set(own, 190, gradient=0.0)
        for found in EACH[surface].values():
            case.set(found, 190, gradient=0.0)
    audit = case.audit()
    assert {audit.mark, *audit.marks.values()} == {names.MASKED}


def test_without_an_audit_only_the_cheap_rules_speak() -> None:
    case = Case()
    case.cells = [CLEAN, *OWN.values()]
    audit = case.audit()
    assert {audit.mark, *audit.marks.values()} == {names.UNAUDITED}
    assert case.check("autoattack").reason.startswith("not planned: `audit: {}`")
    assert case.check("transfer").reason.startswith("not planned: `audit: {}`")
    case.set(OWN["ce_deployed"], 180)
    assert case.audit().marks[OWN["ce_deployed"].name] == names.MASKED
    assert case.audit().mark == names.UNAUDITED


def test_reasons_of_what_the_audit_leaves_out() -> None:
    case = Case()
    for name in ("simba", "transfer"):
        case.cells.remove(ONCE[name])
    assert "L2" in case.check("simba").reason
    assert "audit: {transfer" in case.check("transfer").reason
    case = Case()
    for found in (ONCE["transfer"], ONCE["autoattack"], EACH["ce_raw"]["long"]):
        del case.outcomes[found.name]
    assert "no other model" in case.check("transfer").reason
    assert "grid" in case.check("autoattack").reason
    assert "grid" in case.check("restarts", "ce_raw").reason
    assert case.verdict("steps", "margin_raw") == PASS
    assert case.audit().mark == names.UNAUDITED


def test_cells_of_other_settings_have_the_cheap_checks_alone() -> None:
    case = Case()
    near = [cell("ce_deployed", eps=0.5), cell("ce_raw", eps=0.5), cell("margin_raw", eps=0.5)]
    case.cells += near
    for other, kept in zip(near, (125, 121, 120), strict=True):
        case.set(other, kept)
    audit = case.audit()
    assert [audit.marks[other.name] for other in near] == [names.MASKED] + [names.UNAUDITED] * 2
    assert {c.name for c in audit.checks if c.about == near[0].name} == {"gradients", "surfaces"}
    case.set(near[1], 121, gradient=0.0)
    assert case.audit().marks[near[1].name] == names.MASKED
    case.set(ONCE["square"], 10)  # speaks of the headline's setting alone
    assert case.audit().marks[near[2].name] == names.UNAUDITED


def test_setting_without_raw_surfaces_is_led_by_all_of_them() -> None:
    case = Case()
    deployed = [cell("ce_deployed", eps=0.5), cell("margin_deployed", eps=0.5)]
    case.cells += deployed
    case.set(deployed[0], 105).set(deployed[1], 100)
    marks = case.audit().marks
    assert [marks[other.name] for other in deployed] == [names.MASKED, names.UNAUDITED]


def test_cells_outside_any_ball_have_no_threat_model() -> None:
    case = Case()
    path = cell("margin_raw", budget="path_l2", norm="")
    case.cells.append(path)
    case.set(path, 100, gradient=0.0)
    assert case.audit().marks[path.name] == names.NO_THREAT_MODEL
    alone = replace(OWN["margin_raw"], norm="")
    case.cells[case.cells.index(OWN["margin_raw"])] = alone
    assert case.audit().mark == names.NO_THREAT_MODEL


def test_validation_and_clean_cells_have_no_mark() -> None:
    case = Case()
    validation = replace(OWN["margin_raw"], name="cell/validation/pgd", split=names.VALIDATION)
    case.cells.append(validation)
    case.set(validation, 100)
    assert set(case.audit().marks) == {names.ROBUST, *(own.name for own in OWN.values())}


def test_model_without_the_headline_is_unaudited() -> None:
    case = Case()
    for name in case.headline:
        del case.outcomes[name]
    assert case.audit() == Audit((), {names.ROBUST: names.UNAUDITED})


def test_audit_survives_json() -> None:
    case = Case().set(ONCE["square"], 10)
    case.outcomes[OWN["ce_raw"].name]["correct_after"][-1] = 1
    audit = case.audit()
    assert audit.failed and audit.broken_invariants
    assert Audit.from_json(audit.to_json()) == audit


def test_attack_never_mends_an_image() -> None:
    case = Case()
    case.outcomes[ONCE["noise"].name]["correct_after"][-1] = 1  # wrong before
    (broken,) = case.audit().broken_invariants
    assert broken.startswith(f"{ONCE['noise'].name}: 1 images are right more often under attack")


def test_all_cells_of_a_split_are_on_the_same_images() -> None:
    case = Case().set(ONCE["noise"], 180, n=50)
    assert case.audit().broken_invariants == ()
    case.outcomes[ONCE["noise"].name]["labels"] = np.ones(50, dtype=int)
    (broken,) = case.audit().broken_invariants
    assert broken == f"{ONCE['noise'].name}: its images are not those of the other cells"
    other = replace(OWN["margin_raw"], name="cell/validation/pgd", split=names.VALIDATION)
    case = Case()
    case.cells.append(other)
    case.set(other, 100).outcomes[other.name]["labels"] = np.zeros(N, dtype=int)
    assert case.audit().broken_invariants == ()


def test_more_steps_of_one_run_leave_no_more() -> None:
    found = EACH["ce_raw"]
    assert Case().set(found["long"], 101).audit().broken_invariants == ()  # one machine or two
    (broken,) = Case().set(found["long"], 102).audit().broken_invariants
    assert broken.startswith(found["long"].name)
    assert Case().set(found["long"], 102, n=150).audit().broken_invariants


@pytest.mark.parametrize(
    ("extra", "more"),
    [
        ((), {}),  # alpha follows the number of steps
        ((*HELD, ("stop", "last")), {}),
        ((*HELD, ("restarts", "5")), {}),
        ((*HELD, ("rivals", "9")), {}),
        (HELD, {"targeted": True}),
        (HELD, {"algorithm": "transfer"}),
    ],
)
def test_other_runs_may_leave_more_after_more_steps(extra: Any, more: dict[str, Any]) -> None:
    case = Case()
    few, many = (cell("margin_raw", steps=n, eps=0.5, extra=extra, **more) for n in (10, 20))
    case.cells += [few, many]
    assert case.set(few, 100).set(many, 150).audit().broken_invariants == ()


def test_runs_that_must_not_leave_more_after_more_steps() -> None:
    for extra, budget, passes, count in (
        ((("alpha", "0.1"),), "l2_abs", 1, 1),
        ((), "path_l2", 1, 1),
        ((), "path_l2", 10, 0),  # what draws at random may be lucky
    ):
        few, many = (
            cell("margin_raw", steps=n, extra=extra, budget=budget, norm="") for n in (10, 20)
        )
        case = Case()
        case.cells += [few, many]
        case.set(few, 100, passes=passes).set(many, 150, passes=passes)
        assert len(case.audit().broken_invariants) == count


def test_model_that_does_not_repeat_itself_breaks_nothing_by_luck() -> None:
    """It draws at random and does not say so: images are right in one cell, not in another."""
    case = Case().set(EACH["ce_raw"]["long"], 150)
    before = case.outcomes[ONCE["noise"].name]["correct_before"]
    before[:1] = 0
    case.outcomes[ONCE["noise"].name]["correct_after"][:2] = 0
    assert case.audit().broken_invariants  # one image of 200: two machines
    before[:2] = 0
    assert case.audit().broken_invariants == ()
