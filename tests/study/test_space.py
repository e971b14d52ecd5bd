"""Axes as a space to search, and what is wrong with a search."""

import pytest

from study.files import read_study
from study.plan import make_plan
from study.space import Range, at, axes_of, searched
from trainables.errors import InvalidStudy

ISCE = {"name": "isce", "s": {"loguniform": [1, 8]}, "m": {"uniform": [0, 0.3]}}


@pytest.fixture
def study_of(plan_of):
    """The checked content of a study file."""
    return lambda **keys: plan_of(**keys).studies[0]


def test_every_kind_of_axis(study_of):
    study = study_of(
        methods={
            "isce": {
                "loss": ISCE,
                "training": {
                    "lr": {"logspace": [1e-4, 1e-2, 3]},
                    "epochs": {"integers": [1, 4]},
                    "batch_size": {"const": 64},
                },
            }
        },
        search={"trials": 3},
    )
    assert axes_of(study, "isce") == {
        "loss.s": Range(1, 8, log=True),
        "loss.m": Range(0, 0.3),
        "training.lr": (0.0001, 0.001, 0.01),
        "training.epochs": Range(1, 4, whole=True),
    }


def test_components_to_choose_from_bring_their_own_axes(study_of):
    losses = ["sce", {"name": "isce", "s": {"uniform": [1, 2]}}, {"name": "arcface", "m": [0, 0.5]}]
    study = study_of(methods={"any": {"loss": losses}}, search={"trials": 3})
    assert axes_of(study, "any") == {
        "loss": ("sce", "isce", "arcface"),
        "loss.s": Range(1, 2),
        "loss.m": (0, 0.5),
    }
    assert at(study, "any", {"loss": "sce"}).loss == ["sce"]
    chosen = at(study, "any", {"loss": "isce", "loss.s": 1.5}).loss
    assert chosen == [{"name": "isce", "s": [1.5]}]


def test_a_point_off_the_grid_is_planned_like_one_on_it(plan_of):
    plan = plan_of(methods={"isce": {"loss": {"name": "isce", "s": [1, 2], "m": 0.1}}})
    method = at(plan.studies[0], "isce", {"loss.s": 1.25})
    assert method.loss == {"name": "isce", "s": [1.25], "m": 0.1}


def test_axes_that_went_hand_in_hand_are_axes_of_a_point(plan_of):
    loss = {"name": "isce", "zip": {"s": [1, 2], "m": [0, 0.1]}}
    study = plan_of(methods={"isce": {"loss": loss}}).studies[0]
    method = at(study, "isce", {"loss.s": 2, "loss.m": 0.1})
    assert method.loss == {"name": "isce", "s": [2], "m": [0.1]}


def test_by_default_every_method_with_axes_is_searched(study_of):
    methods = {"sce": {"loss": "sce"}, "isce": {"loss": ISCE}}
    assert searched(study_of(methods=methods, search={"trials": 3})) == ["isce"]


METHODS = {
    "sce": {"loss": "sce"},
    "isce": {"loss": ISCE},
    "grid": {"loss": {"name": "arcface", "m": [0.1, 0.2]}},
}
PGD = {"eps": 0.04, "steps": 3}
SEARCH = {"methods": ["isce"], "trials": 3}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"search": None}, "methods.isce.loss.s: a range has no points of its own"),
        ({"search": {**SEARCH, "methods": ["grid"]}}, "methods.isce.loss.m: a range has no"),
        ({"search": {**SEARCH, "methods": ["sce", "isce"]}}, "methods.sce: is to be searched, but"),
        ({"search": {**SEARCH, "methods": ["icse"]}}, "no method 'icse'"),
        ({"search": {**SEARCH, "trials": "isce"}}, "'isce' is searched itself"),
        ({"search": {**SEARCH, "trials": "sce"}}, "'sce' has no axes"),
        ({"search": {**SEARCH, "trials": 0}}, "search.trials"),
        ({"search": {**SEARCH, "sampler": "tpr"}}, "did you mean 'tpe'?"),
        ({"search": {**SEARCH, "sampler": "nsga2"}}, "nsga2' is for `objective"),
        ({"search": {**SEARCH, "sampler": "gp", "objective": ["clean", "robust"]}}, "nsga2 takes"),
        ({"search": {**SEARCH, "stop": {"rule": "asha", "by": "pdg"}}}, "no attack 'pdg'"),
        ({"search": {**SEARCH, "stop": {"rule": "asha", "by": "many"}}}, "'many' has 2"),
        ({"search": {**SEARCH, "stop": {"rule": "asha", "factor": 1}}}, "search.stop.factor"),
        (
            {"methods": {"isce": {"loss": {"name": "isce", "s": {"uniform": [2, 1]}}}}},
            "methods.isce.loss.s: expected from < to",
        ),
        (
            {"methods": {"isce": {"loss": {"name": "isce", "m": {"loguniform": [0, 1]}}}}},
            "methods.isce.loss.m: expected ends > 0",
        ),
        (
            {"methods": {"isce": {"loss": {"name": "isce", "s": {"uniform": [0.5, 2]}}}}},
            "methods.isce.loss.s: expected a number greater than or equal to 1, found 0.5",
        ),
        (
            {"methods": {"isce": {"loss": ISCE, "exclude": {"loss.s": 1}}}},
            "methods.isce.exclude: is for grids",
        ),
        (
            {"attacks": {"pgd": PGD, "wide": {"attack": "fgsm", "eps": {"uniform": [0.1, 0.2]}}}},
            "attacks.wide.eps: a range has",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_of_a_search(plan_of, keys, told):
    attacks = {"pgd": PGD, "many": {"attack": "fgsm", "eps": [0.1, 0.2]}}
    whole = {"methods": METHODS, "attacks": attacks, "search": SEARCH, **keys}
    with pytest.raises(InvalidStudy) as raised:
        plan_of(**{key: value for key, value in whole.items() if value is not None})
    assert told in str(raised.value)


def test_a_search_of_what_a_preset_sweeps_needs_no_other_axes():
    sets = ["search={methods: isce, trials: 4}"]
    plan = make_plan(read_study("quickstart", sets))
    assert "isce" not in {name for trial in plan.trials for name in trial.methods}
    assert axes_of(plan.studies[0], "isce")["loss.s"] == (1, 1.25, 1.5, 1.75, 2)
