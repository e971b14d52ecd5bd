"""From a study file to trials and cells."""

import json

import pytest

from analysis import runs
from study.describe import describe
from study.files import presets, read_study
from study.plan import make_plan
from trainables import names
from trainables.config import TrialConfig
from trainables.errors import InvalidStudy

GRID = {"name": "isce", "s": {"linspace": [1, 2, 3]}, "m": [0.05, 0.1]}


def test_one_trial_a_point_and_seed(plan_of):
    plan = plan_of(seeds=3, methods={"sce": {"loss": "sce"}, "isce": {"loss": GRID, "seeds": [7]}})
    assert len(plan.trials) == 3 + 6
    assert [trial.model.seed for trial in plan.trials] == [0, 1, 2, *[7] * 6]
    assert [trial.evidence for trial in plan.trials] == ["3 seeds"] * 3 + ["exploratory"] * 6
    assert plan.trials[-1].label == "isce s=2 m=0.1"


def test_identical_points_are_trained_once_under_all_their_names(plan_of):
    norm = {"name": "isce", "s": 1, "m": 0}
    plan = plan_of(
        seeds=2,
        methods={"norm-sce": {"loss": norm}, "isce": {"loss": {**GRID, "m": [0, 0.1]}, "seeds": 1}},
    )
    assert len(plan.trials) == 2 + 6 - 1
    shared = plan.trials[0]
    assert shared.labels == {"norm-sce": "norm-sce", "isce": "isce s=1 m=0"}
    assert shared.evidence == "2 seeds"


def test_ids_do_not_depend_on_names_infrastructure_or_writing(plan_of):
    first = plan_of(methods={"a": {"loss": {"name": "isce", "s": 1, "m": 0.1}}})
    other = plan_of(
        study="other",
        question="why?",
        methods={"b": {"loss": {"m": 0.1, "name": "isce", "s": 1.0}}},
        attacks={"x": {"steps": 3, "eps": "4e-2", "attack": "pgd"}},
        headline={"attack": "x"},
        resources={"cpu": 2, "gpu": 1},
    )
    assert other.trials[0].id == first.trials[0].id
    assert set(other.trials[0].cell_ids.values()) == set(first.trials[0].cell_ids.values())


def test_axes_that_are_no_numbers_name_arms_but_are_not_drawn_along(plan_of):
    loss = {**GRID, "normalize": ["logits", "none"]}
    plan = plan_of(data=["mnist5k"], methods={"isce": {"loss": loss}})
    assert plan.trials[0].label == "isce s=1 m=0.05 normalize=logits"
    described = describe(plan, "study run small.yaml")
    assert set(described["axes"]["isce"]) == {"loss.s", "loss.m"}
    assert described["trials"][0]["axes"] == {"loss.s": 1, "loss.m": 0.05}


def test_arms_are_the_same_over_seeds_and_differ_over_everything_else(plan_of):
    plan = plan_of(seeds=2, training={"epochs": [1, 2]}, methods={"isce": {"loss": GRID}})
    arms = {}
    for trial in plan.trials:
        arms.setdefault(trial.arm, set()).add(trial.model.seed)
    assert len(arms) == 12
    assert all(seeds == {0, 1} for seeds in arms.values())


def test_equal_surfaces_are_planned_once_but_keep_their_names(plan_of):
    surfaces = ["ce_deployed", "ce_raw", "margin_raw"]
    plan = plan_of(
        methods={"sce": {"loss": "sce"}, "isce": {"loss": "isce"}},
        attacks={"pgd": {"eps": 0.04, "steps": 3, "surface": surfaces}},
    )
    sce, isce = plan.trials
    assert sce.cells.keys() == isce.cells.keys()
    assert len(sce.job().cells) == len(isce.job().cells) - 1
    deployed, raw, _ = [name for name in sce.cells if "cell/test/pgd" in name]
    assert sce.cell_ids[deployed] == sce.cell_ids[raw]
    assert isce.cell_ids[deployed] != isce.cell_ids[raw]


def test_validation_sees_clean_and_the_headlines_raw_surfaces_only(plan_of):
    plan = plan_of(
        attacks={
            "pgd": {"eps": [0.02, 0.04], "steps": 3, "surface": ["ce_deployed", "margin_raw"]},
            "deepfool": {},
        },
        headline={"attack": "pgd", "eps": 0.04},
    )
    assert [name for name in plan.trials[0].cells if "/validation/" in name] == [
        "cell/validation/clean",
        "cell/validation/pgd-l2_rms-un-margin_raw-eps0.04-n3",
    ]
    assert plan.protocol(plan.trials[0]).headline[names.TEST] == (
        "cell/test/pgd-l2_rms-un-margin_raw-eps0.04-n3",
    )


def test_parameters_off_their_default_stand_in_a_cells_name(plan_of):
    plan = plan_of(
        attacks={
            "pgd": {"eps": 0.04, "steps": 3, "stop": ["first_success", "last"], "alpha": 0.1},
        },
        headline={"attack": "pgd", "stop": "last"},
    )
    assert [name for name in plan.trials[0].cells if "test/pgd" in name] == [
        "cell/test/pgd-l2_rms-un-margin_raw-eps0.04-n3-alpha:0.1",
        "cell/test/pgd-l2_rms-un-margin_raw-eps0.04-n3-alpha:0.1-stop:last",
    ]


def test_a_cell_named_as_a_worst_case_is_refused(plan_of):
    worst = "pgd-l2_rms-un-worst_raw-eps0.04-n3"
    pgd = {"eps": 0.04, "steps": 3, "surface": ["ce_raw", "margin_raw"]}
    with pytest.raises(InvalidStudy, match=f"would both be named cell/test/{worst}"):
        plan_of(attacks={"pgd": pgd, worst: {"attack": "clean"}})


def test_two_cells_of_one_name_are_refused(plan_of):
    with pytest.raises(InvalidStudy, match="would both be named cell/test/clean"):
        plan_of(attacks={"pgd": {"eps": 0.04, "steps": 3}, "clean": {}})


def test_an_unattacked_headline_is_refused(plan_of):
    with pytest.raises(InvalidStudy, match="'clean' leaves images as they are"):
        plan_of(attacks={"clean": None}, headline={"attack": "clean"})


def test_a_name_too_long_for_a_metric_is_refused(plan_of):
    label = "x" * 240
    with pytest.raises(InvalidStudy, match="too long for a metric"):
        plan_of(attacks={label: {"attack": "pgd", "eps": 0.04, "steps": 3}},
                headline={"attack": label})  # fmt: skip


def test_two_configurations_of_one_name_are_refused(plan_of):
    losses = [{"name": "isce", "s": 1}, {"name": "isce", "s": 2}]
    with pytest.raises(InvalidStudy, match="would both be called 'a loss=isce'"):
        plan_of(methods={"a": {"loss": losses}})


def test_a_list_of_losses_is_told_apart_by_their_names(plan_of):
    plan = plan_of(methods={"a": {"loss": ["sce", {"name": "isce", "s": [1, 2]}]}})
    labels = [trial.label for trial in plan.trials]
    assert labels == ["a loss=sce", "a loss=isce s=1", "a loss=isce s=2"]


def test_a_methods_keys_override_the_studys(plan_of):
    plan = plan_of(
        training={"epochs": 3, "lr": 0.01},
        methods={"a": {"loss": "sce"}, "b": {"loss": "sce", "training": {"epochs": 5}}},
    )
    assert [(t.model.training.epochs, t.model.training.lr) for t in plan.trials] == [
        (3, 0.01),
        (5, 0.01),
    ]


def test_jobs_travel_as_json(plan_of):
    for trial in plan_of(methods={"isce": {"loss": GRID}}).trials:
        job = TrialConfig.parse(trial.job().dump())
        assert job == trial.job()
        assert job.model.id == trial.id


def test_the_description_is_json_and_covers_every_cell(plan_of):
    plan = plan_of(methods={"isce": {"loss": GRID}})
    described = json.loads(json.dumps(describe(plan, "study run small.yaml"), allow_nan=False))
    assert described["axes"] == {"isce": {"loss.s": [1, 1.5, 2], "loss.m": [0.05, 0.1]}}
    measured = described["protocols"]["lenet5/mnist5k"]
    assert set(measured["cells"]) == set(plan.trials[0].cells)
    assert measured["headline"]["label"] == "pgd untargeted, l2_rms eps 0.04, 3 steps"
    assert [trial["trial_id"] for trial in described["trials"]] == list(plan.by_id)


@pytest.mark.parametrize("name", presets())
def test_presets_can_be_planned(name):
    plan = make_plan(read_study(name))
    assert plan.trials or plan.file.figures


def test_the_quickstart_is_what_it_promises():
    plan = make_plan(read_study("quickstart"))
    count = {name: 0 for name in plan.methods}
    for trial in plan.trials:
        count[trial.methods[0]] += 1
    assert count == {"sce": 3, "norm-sce": 3, "isce-raw": 3, "isce": 25}
    losses = [trial.model.loss for trial in plan.trials if trial.methods[0] == "isce"]
    assert {loss.s for loss in losses} == {1, 1.25, 1.5, 1.75, 2}
    assert {loss.m for loss in losses} == {0.02, 0.04, 0.06, 0.08, 0.1}
    test = [name for name in plan.trials[0].cells if name.startswith("cell/test/")]
    assert len(test) == 1 + 16 + 1
    assert all(cell.n == 200 for cell in plan.trials[0].cells.values())


@pytest.mark.parametrize(
    ("surfaces", "shown"),
    [
        (["ce_raw", "margin_raw"], "margin_raw"),
        (["margin_raw", "ce_raw"], "margin_raw"),
        (["ce_raw"], "ce_raw"),
    ],
)
def test_exhibits_are_of_the_headline_on_a_margin_where_there_is_one(plan_of, surfaces, shown):
    # MMC's cross entropy is blind: its exhibits would show images that nothing attacked.
    plan = plan_of(
        attacks={"margin": {"attack": "pgd", "eps": 0.1, "steps": 2, "surface": surfaces}},
        headline={"attack": "margin"},
        diagnostics={"exhibits": {}},
    )
    (trial,) = plan.trials
    assert trial.diagnostics["exhibits"].probe.attack.surface == shown


def test_the_parts_in_which_many_runs_are_read_have_every_trial():
    trials = make_plan(read_study("figure3")).trials
    assert {trial.id[0] for trial in trials} == set(runs._STARTS)
