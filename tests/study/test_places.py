"""Studies of several places, and unions of studies: one model serves all of them."""

import json

import pytest
import yaml

from study.describe import describe
from study.files import read_study
from study.plan import make_plan
from trainables import names
from trainables.errors import InvalidStudy

BASE = {
    "study": "small",
    "data": "mnist5k",
    "backbone": "lenet5",
    "evaluate": {"validation": 20, "test": 50},
    "methods": {"sce": {"loss": "sce"}},
    "attacks": {"pgd": {"eps": 0.04, "steps": 3}},
    "headline": {"attack": "pgd"},
}
BALL = {"attack": "pgd", "budget": "l2_abs", "eps": 1.0, "steps": 3}
HEADLINE = {"attack": "ball"}
SEARCH = {"attacks": {"ball": BALL, "simba": {"eps": 0.5, "steps": 9}}, "headline": HEADLINE}
FOOL = {"attacks": {"ball": BALL, "deepfool": {"steps": 3}}, "headline": HEADLINE}
SCE, MMC = {"loss": "sce"}, {"loss": {"name": "mmc", "radius": 10}}
GRID = {"loss": {"name": "isce", "s": [1, 2], "m": [0.05, 0.1]}}
ONE = {"loss": {"name": "isce", "s": 1, "m": 0.1}}


@pytest.fixture
def union_of(tmp_path):
    """Plans the union of studies, each a minimal one whose keys are replaced."""

    def make(**studies):
        for name, keys in studies.items():
            text = yaml.safe_dump({**BASE, "study": name, **keys}, sort_keys=False)
            (tmp_path / f"{name}.yaml").write_text(text)
        path = tmp_path / "all.yaml"
        parts = [f"{name}.yaml" for name in studies]
        path.write_text(yaml.safe_dump({"study": "all", "union": parts}))
        return make_plan(read_study(str(path)))

    return make


def test_rules_make_cells_and_training_differ_by_data_set(plan_of):
    plan = plan_of(
        data=["mnist", "cifar10"],
        training={"epochs": 2},
        when=[
            {"if": {"data": "cifar10"}, "set": {"backbone": "cnn8", "attacks.pgd.steps": 5}},
            {"if": {"backbone": "cnn8"}, "set": {"training.epochs": 4}},
        ],
    )
    shallow, deep = plan.trials
    assert (shallow.place, deep.place) == ("lenet5/mnist", "cnn8/cifar10")
    assert [trial.model.training.epochs for trial in plan.trials] == [2, 4]
    headlines = [plan.protocol(trial).headline[names.TEST] for trial in plan.trials]
    assert headlines == [
        ("cell/test/pgd-l2_rms-un-margin_raw-eps0.04-n3",),
        ("cell/test/pgd-l2_rms-un-margin_raw-eps0.04-n5",),
    ]
    described = describe(plan, "study run")
    assert [trial["lacks"] for trial in described["trials"]] == [[], []]
    assert list(described["protocols"]) == ["lenet5/mnist", "cnn8/cifar10"]


def test_a_rule_with_a_mistake_is_told_once_and_where(plan_of):
    rules = [{"if": {"data": "cifar10"}, "set": {"attacks.pgd.stepz": 5}}]
    with pytest.raises(InvalidStudy) as error:
        plan_of(data=["mnist", "cifar10"], when=rules)
    assert str(error.value).count("attacks.pgd.stepz") == 1
    with pytest.raises(InvalidStudy, match=r"when\.0\.if: matches no trial: data svhn"):
        plan_of(when=[{"if": {"data": "svhn"}, "set": {"seeds": 2}}])


def test_a_union_trains_every_model_of_its_parts_once(union_of):
    plan = union_of(
        one={"methods": {"sce": SCE, "mmc": MMC}, **SEARCH},
        two={"methods": {"mmc": MMC, "isce": ONE}, **FOOL, "diagnostics": {"embedding": {}}},
    )
    assert [set(trial.diagnostics) for trial in plan.trials] == [set(), *[{"embedding"}] * 2]
    assert plan.methods == ("sce", "mmc", "isce")
    assert [trial.methods for trial in plan.trials] == [("sce",), ("mmc",), ("isce",)]
    search, both, fool = (set(trial.cells) for trial in plan.trials)
    assert both == search | fool
    assert any("simba" in name for name in search - fool)
    assert any("deepfool" in name for name in fool - search)
    described = json.loads(json.dumps(describe(plan, "study run all")))
    lacking = [bool(trial["lacks"]) for trial in described["trials"]]
    assert lacking == [True, False, True]


def test_a_point_of_a_grid_is_the_method_of_another_study(union_of):
    plan = union_of(
        table={"methods": {"isce": ONE}, "seeds": 3},
        figure={"methods": {"grid": GRID}, "seeds": 1},
    )
    assert len(plan.trials) == 3 + 3
    (shared,) = (trial for trial in plan.trials if len(trial.methods) == 2)
    assert shared.labels == {"isce": "isce", "grid": "grid s=1 m=0.1"}
    assert shared.evidence == "3 seeds"
    described = describe(plan, "study run")
    assert described["axes"] == {"isce": {}, "grid": {"loss.s": [1, 2], "loss.m": [0.05, 0.1]}}


def test_seeds_of_two_studies_add_up(union_of):
    plan = union_of(a={"seeds": [0, 1]}, b={"seeds": [1, 2]})
    assert [(trial.model.seed, trial.seeds) for trial in plan.trials] == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"methods": {"isce": GRID}}, "make the two grids two methods"),
        ({"methods": {"isce": MMC}}, "two configurations would both be called 'isce'"),
        ({"evaluate": {"test": 40}}, "two of its studies measure it differently"),
        ({"headline": HEADLINE, "attacks": {"ball": BALL}}, "expected one headline, found pgd"),
        ({"attacks": {"pdg": {"eps": 1}}}, "b.yaml: attacks.pdg"),
        ({"when": [3]}, "b.yaml: when.0"),
    ],
)
def test_studies_that_do_not_agree_are_no_union(union_of, second, told):
    with pytest.raises(InvalidStudy) as error:
        union_of(a={"methods": {"isce": ONE}}, b={"methods": {"isce": ONE}, **second})
    assert told in str(error.value)


def test_a_union_has_no_keys_of_its_own(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "u.yaml").write_text("study: u!\nunion: [a.yaml]\nseeds: 3")
    with pytest.raises(InvalidStudy) as error:
        make_plan(read_study(str(tmp_path / "u.yaml")))
    assert "seeds: stands in a union" in str(error.value)
    assert "study: expected a name" in str(error.value)
    (tmp_path / "u.yaml").write_text("study: u\nunion: [a.yaml]")
    assert len(make_plan(read_study(str(tmp_path / "u.yaml"), ["seeds=4"])).trials) == 4


def test_baseline_controls_and_choices_are_those_of_all_parts(union_of):
    plan = union_of(
        a={"methods": {"sce": SCE, "mmc": MMC}, "compare": {"controls": {"mmc": ["sce"]}}},
        b={
            "methods": {"sce": SCE, "mmc": MMC, "isce": GRID},
            "compare": {"baseline": "sce", "controls": {"mmc": ["isce"], "isce": ["sce"]}},
            "choose": {"method": "isce"},
        },
    )
    assert plan.baseline == "sce"
    assert plan.controls == {"mmc": ["sce", "isce"], "isce": ["sce"]}
    assert plan.choose == ["isce"]


def test_figures_of_formulas_train_nothing(tmp_path):
    plan = make_plan(read_study("figure5"))
    assert plan.trials == () and plan.protocols == {}
    assert describe(plan, "study run figure5")["figures"] == ["property"]
    assert "property" in make_plan(read_study("paper")).file.figures
    (tmp_path / "f.yaml").write_text("study: f\nfigures: [propertie]\nseeds: 3")
    with pytest.raises(InvalidStudy) as error:
        make_plan(read_study(str(tmp_path / "f.yaml")))
    assert "did you mean 'property'" in str(error.value) or "expected 'property'" in str(
        error.value
    )
    assert "seeds: unknown key" in str(error.value)
