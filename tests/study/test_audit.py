"""Which attacks an audit plans, of which models."""

import pytest

from study.describe import describe
from trainables import names
from trainables.errors import InvalidStudy

PGD = {"budget": "l2_abs", "eps": 1.0, "steps": 3}
SURFACES = ["ce_deployed", "ce_raw", "margin_raw"]
METHODS = {
    "sce": {"loss": "sce"},
    "isce": {"loss": {"name": "isce", "s": 1.5}},
    "random": {"loss": "sce", "transform": "random_resize_pad", "evaluate": {"test": 30}},
}


@pytest.fixture
def plan(plan_of):
    return plan_of(
        seeds=2,
        methods=METHODS,
        attacks={"pgd": {**PGD, "surface": SURFACES}},
        audit={"n": 40, "transfer": "sce", "queries": 100},
    )


def of(plan, label, check, seed=0):
    """The audit's cells of one check, by name."""
    (trial,) = (t for t in plan.trials if label in t.methods and t.model.seed == seed)
    cells = plan.protocol(trial).cells
    wanted = {cell.name for cell in cells if cell.check == check}
    return {name: cell for name, cell in trial.cells.items() if name in wanted}


def test_every_check_of_the_headline_is_planned(plan, protocol_of):
    counts = {
        "noise": 1,
        "autoattack": 1,
        "square": 1,
        "targets": 1,
        "simba": 1,
        "transfer": 1,
        "single": 3,
        "unbounded": 3,
        "eps": 6,
        "rescale": 2,
        "eot": 3,
        "steps": 6,
        "restarts": 3,
    }
    assert {check: len(of(plan, "random", check)) for check in counts} == counts
    cells = protocol_of(plan).cells
    assert {cell.check for cell in cells} - {""} == set(counts)
    assert all(cell.name.startswith(names.AUDIT) for cell in cells if cell.check)


def test_nothing_is_audited_unasked(plan_of, protocol_of):
    assert not any(cell.check for cell in protocol_of(plan_of()).cells)


def test_audit_has_images_of_its_own_and_no_more_than_the_method(plan):
    assert {cell.n for cell in of(plan, "isce", "noise").values()} == {40}
    assert {cell.n for cell in of(plan, "random", "noise").values()} == {30}


def test_numbers_of_steps_share_a_step_length_and_a_run(plan):
    cells = of(plan, "isce", "steps").values()
    assert {cell.probe.steps for cell in cells} == {50, 200}
    assert len({cell.group for cell in cells}) == 3
    assert {cell.probe.alpha_for for cell in cells} == {50}


def test_only_models_that_draw_are_looked_at_twice_as_often(plan):
    assert of(plan, "isce", "eot") == {}
    assert {cell.probe.eot for cell in of(plan, "random", "eot").values()} == {40}
    headline = "cell/test/pgd-l2_abs-un-margin_raw-eps1-n3"
    looks = {trial.methods[0]: trial.cells[headline].probe.eot for trial in plan.trials}
    assert looks == {"sce": 1, "isce": 1, "random": 20}


def test_a_transfer_is_from_the_same_seed_and_of_the_source_from_another(plan):
    ids = {(t.label, t.model.seed): t.id for t in plan.trials}
    for seed in (0, 1):
        (cell,) = of(plan, "isce", "transfer", seed).values()
        assert cell.sources == (ids["sce", seed],)
        (own,) = of(plan, "sce", "transfer", seed).values()
        assert own.sources == (ids["sce", 1 - seed],)


def test_a_transfer_that_has_no_source_does_not_apply(plan_of):
    plan = plan_of(methods=METHODS, attacks={"pgd": PGD}, audit={"transfer": "sce"})
    sce, isce, _ = plan.trials
    assert not any("transfer" in name for name in sce.cells)
    assert any("transfer" in name for name in isce.cells)
    described = describe(plan, "study run")
    lacks = [trial["lacks"] for trial in described["trials"]]
    assert [sum("transfer" in name for name in lacking) for lacking in lacks] == [1, 0, 0]
    assert all("transfer" in name or "eot" in name for lacking in lacks for name in lacking)
    assert described["trials"][2]["n"][names.clean_name("test")] == 30


def test_the_baseline_is_the_source_unless_another_is_named(plan_of, protocol_of):
    plan = plan_of(methods=METHODS, attacks={"pgd": PGD}, audit={}, compare={"baseline": "isce"})
    assert any("transfer" in name and "source:isce" in name for name in plan.trials[0].cells)
    plan = plan_of(methods=METHODS, attacks={"pgd": PGD}, audit={})
    assert not any("transfer" in cell.name for cell in protocol_of(plan).cells)


def test_a_grid_is_audited_thoroughly_at_corners_and_centre(plan_of):
    grid = {"name": "isce", "s": {"linspace": [1, 2, 3]}, "m": {"linspace": [0.02, 0.1, 3]}}
    methods = {"sce": {"loss": "sce"}, "isce": {"loss": grid}}
    plan = plan_of(methods=methods, attacks={"pgd": PGD}, audit={})
    thorough = [t.label for t in plan.trials if any("autoattack" in name for name in t.cells)]
    assert thorough == [
        "sce",
        *("isce s=1 m=0.02", "isce s=1 m=0.1", "isce s=1.5 m=0.06"),
        *("isce s=2 m=0.02", "isce s=2 m=0.1"),
    ]
    assert all(any("unbounded" in name for name in trial.cells) for trial in plan.trials)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"attacks": {"pgd": {**PGD, "budget": "path_l2"}}}, "untargeted pgd in a ball"),
        ({"attacks": {"pgd": {**PGD, "targeted": True}}}, "untargeted pgd in a ball"),
        ({"attacks": {"deepfool": {}}, "headline": {"attack": "deepfool"}}, "pgd in a ball"),
        ({"audit": {"transfer": "sec"}}, "did you mean 'sce'"),
        ({"audit": {"n": 0}}, "audit.n"),
        ({"audit": {"query": 3}}, "did you mean 'queries'"),
        ({"attacks": {"pgd": {**PGD, "n": 0}}}, "attacks.pgd.n"),
        ({"methods": {"sce": {"loss": "sce", "evaluate": {"tests": 3}}}}, "did you mean 'test'"),
    ],
)
def test_mistakes_are_told(plan_of, keys, message):
    with pytest.raises(InvalidStudy, match=message):
        plan_of(**{"attacks": {"pgd": PGD}, "audit": {}, **keys})


def test_a_swept_source_is_a_mistake(plan_of):
    methods = {"isce": {"loss": {"name": "isce", "s": [1, 2]}}, "sce": {"loss": "sce"}}
    with pytest.raises(InvalidStudy, match=r"audit\.transfer.*one configuration"):
        plan_of(methods=methods, attacks={"pgd": PGD}, audit={"transfer": "isce"})


def test_transfer_as_an_attack_of_the_study(plan_of):
    transfer = {"source": ["sce", "isce"], "using": {"name": "pgd", **PGD, "stop": "last"}}
    plan = plan_of(methods=METHODS, attacks={"pgd": PGD, "transfer": transfer}, seeds=2)
    ids = {(t.methods[0], t.model.seed): t.id for t in plan.trials}
    random = next(t for t in plan.trials if t.methods == ("random",))
    assert random.sources == {ids["sce", 0], ids["isce", 0]}
    with pytest.raises(InvalidStudy, match=r"attacks\.transfer\.source"):
        plan_of(attacks={"pgd": PGD, "transfer": {**transfer, "source": "mmc"}})


def test_an_attack_may_have_images_of_its_own(plan_of):
    plan = plan_of(attacks={"pgd": PGD, "few": {"attack": "pgd", **PGD, "n": 7}})
    sizes = {name: cell.n for name, cell in plan.trials[0].cells.items()}
    few = "cell/test/few-l2_abs-un-margin_raw-eps1-n3"
    assert sizes.pop(few) == 7
    assert set(sizes.values()) == {50, 20}
    assert describe(plan, "study run")["protocols"]["lenet5/mnist5k"]["cells"][few]["n"] == 7


def test_what_is_measured_of_a_trial_depends_on_nothing_beside_it(plan_of):
    """Trials alike have their cells worked out once: of equal loss, transform, size and place."""
    methods = {
        **METHODS,
        "few": {"loss": "sce", "training": {"epochs": 3}, "evaluate": {"test": 20}},
        "mixed": {
            "loss": ["sce", {"name": "isce", "s": 2.0}],
            "transform": ["none", "random_resize_pad"],
            "training": {"epochs": 4},
        },
    }
    keys = {
        "attacks": {"pgd": {**PGD, "surface": [*SURFACES, "train_loss"], "eot": 4}},
        "headline": {"attack": "pgd", "surface": "margin_raw"},
        "audit": {"n": 40, "queries": 100, "transfer": None},
    }
    whole = plan_of(seeds=2, methods=methods, **keys)
    alone = [
        {**method, "loss": loss, "transform": transform}
        for method in methods.values()
        for loss in as_list(method["loss"])
        for transform in as_list(method.get("transform", "none"))
    ]
    seen = set()
    for method in alone:
        for trial in plan_of(seeds=2, methods={"alone": method}, **keys).trials:
            assert trial.cells == whole.by_id[trial.id].cells, method
            seen.add(trial.id)
    assert seen == set(whole.by_id)


def as_list(value):
    return value if isinstance(value, list) else [value]


def test_corners_of_a_grid_of_trainings_are_corners_too(plan_of):
    methods = {"sce": {"loss": "sce", "training": {"lr": [0.01, 0.02, 0.03, 0.04]}}}
    plan = plan_of(methods=methods, attacks={"pgd": PGD}, audit={})
    thorough = [any("autoattack" in name for name in trial.cells) for trial in plan.trials]
    assert thorough == [True, False, True, True]
