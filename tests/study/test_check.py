"""Every mistake of a study file, all at once."""

import pytest

from trainables.errors import InvalidStudy

PGD = {"eps": 0.04, "steps": 3}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"seeds": 0},
            "seeds: expected a number of seeds from 1 to 1000 or a list of seeds, found 0",
        ),
        ({"seeds": []}, "seeds: expected a number of seeds"),
        ({"seeds": [-1]}, "seeds.0: expected a number greater than or equal to 0, found -1"),
        ({"evaluate": {"test": 501}}, "evaluate.test: expected at most 500, all test images"),
        ({"evaluate": {"tset": 5}}, "evaluate.tset: unknown key; did you mean 'test'?"),
        ({"training": {"epochs": 0}}, "training.epochs: expected a number greater than or equal"),
        ({"training": {"lr": float("inf")}}, "training.lr: expected a finite number"),
        ({"training": {"epoch": 1}}, "training.epoch: unknown key; did you mean 'epochs'?"),
        ({"methods": {}}, "methods: expected at least one"),
        ({"methods": {"a/b": {"loss": "sce"}}}, "expected a name of letters, digits"),
        ({"seeds": 10**12}, "seeds: expected a number of seeds from 1 to 1000"),
        ({"training": {"const": 5}}, "training: expected keys, found 5"),
        ({"training": 5}, "training: expected a mapping of keys, found 5"),
        ({"evaluate": 5}, "evaluate: expected a mapping of keys, found 5"),
        (
            {"resources": {"gpu": 1.5}},
            "resources.gpu: expected a share from 0 to 1 or 'auto', found 1.5",
        ),
        (
            {"resources": {"gpu": True}},
            "resources.gpu: expected a share from 0 to 1 or 'auto', found True",
        ),
        ({"attacks": {"pgd": {**PGD, "name": "x"}}}, "did you mean 'attack'?"),
        ({"attacks": {"pgd": {**PGD, "budget": 3}}}, "expected the name of a budget"),
        ({"methods": {"a": {}}}, "methods.a.loss: missing"),
        ({"methods": {"a": {"loss": {"s": 1}}}}, "methods.a.loss: expected the name of a loss"),
        ({"methods": {"a": {"loss": 3}}}, "methods.a.loss: expected the name of a loss"),
        ({"methods": {"a": {"loss": "sce", "sedes": 2}}}, "did you mean 'seeds'?"),
        ({"methods": {"a": {"loss": "sce", "regime": "standart"}}}, "did you mean 'standard'?"),
        ({"methods": {"a": {"loss": {"name": "isce", "s": [1, 0.9]}}}}, "found 0.9"),
        ({"methods": {"a": {"loss": {"name": "isce", "s": True}}}}, "found True"),
        ({"attacks": {"pgd": {"eps": 0.1}}}, "attacks.pgd.steps: missing"),
        ({"attacks": {"pgd": {**PGD, "budget": "l2"}}}, "attacks.pgd.budget: unknown budget 'l2'"),
        ({"attacks": {"pgd": 3}}, "attacks.pgd: expected a mapping of keys, found 3"),
        ({"headline": {}}, "headline.attack: missing"),
        ({"headline": {"attack": "pgdd"}}, "headline.attack: no attack 'pgdd'"),
        ({"headline": {"attack": "pgd", "eps": 1}}, "found 0 settings for {'eps': 1}"),
        ({"headline": {"attack": "pgd", "epz": 1}}, "headline.epz: unknown key; did you mean"),
        (
            {"attacks": {"pgd": {**PGD, "steps": [3, 4]}}},
            "headline: expected keys that name one setting of 'pgd', found 2 settings",
        ),
        ({"compare": {"controls": {"isce": ["sce"]}}}, "compare.controls.isce: no method 'isce'"),
        ({"choose": {"method": "scee"}}, "choose.method: no method 'scee'"),
        ({"choose": {"method": "sce", "split": "test"}}, "choose.split: expected 'validation'"),
        ({"resources": {"cpu": 0}}, "resources.cpu: expected"),
        (
            {"resources": {"pack": 0}},
            "resources.pack: expected a number of models from 1 or 'auto', found 0",
        ),
        ({"resources": {"pack": True}}, "from 1 or 'auto', found True"),
        ({"resources": {"gpus": 1}}, "resources.gpus: unknown key; did you mean 'gpu'?"),
        ({"resources": {"channels_last": 1}}, "resources.channels_last: expected a valid boolean"),
        (
            {"data": {"name": "mnist5k", "subset": {"trian": 9}}},
            "data.subset.trian: unknown key; did you mean 'train'? (valid: train, validation,",
        ),
        (
            {"data": {"name": "mnist5k", "subset": {"train": 4001}}},
            "data: subset.train: expected at most 4000, all that mnist5k has, found 4001",
        ),
        (
            {"data": {"name": "mnist5k", "subset": {"test": 40}}},
            "evaluate.test: expected at most 40, all test images of mnist5k, found 50",
        ),
        (
            {"data": {"name": "mnist5k", "subset": {"validation": 40}}, "evaluate": {"test": 5}},
            "evaluate.validation: expected at most 40, all validation images of mnist5k, found 200",
        ),
        ({"data": {"name": "mnist5k", "subset": 5}}, "data.subset: expected a mapping of keys"),
        (
            {"training": {"schedule": {"name": "cosine", "flor": 0}}},
            "training.schedule.flor: unknown key; did you mean 'floor'?",
        ),
        (
            {"training": {"schedule": {"name": "step", "milestones": [0.5]}}},
            "milestones: expected {const: [0.5, 0.75]} (a list is an axis), found 0.5",
        ),
        (
            {"methods": {"a": {"loss": "mmc", "backbone": {"name": "lenet5", "embedding": 3}}}},
            "methods.a: mmc needs at least K - 1 = 9 features, found 3",
        ),
        (
            {
                "methods": {
                    "a": {"loss": "sce", "transform": {"name": "random_resize_pad", "pad": 9}}
                }
            },
            "methods.a: random_resize_pad needs pad >= 30",
        ),
        (
            {
                "methods": {
                    "a": {"loss": "sce", "regime": {"name": "adversarial", "eps": 1, "steps": 1}}
                }
            },
            "methods.a.regime.budget: missing",
        ),
        (
            {"training": {"schedule": "cosin"}},
            "training.schedule: unknown schedule 'cosin'; did you mean 'cosine'?",
        ),
        (
            {"diagnostics": {"exhibits": {"attack": {"name": "pgd", **PGD, "stepz": 1}}}},
            "diagnostics.exhibits.attack.stepz: unknown key; did you mean 'steps'?",
        ),
        ({"diagnostics": {"embeding": {}}}, "unknown diagnostic 'embeding'; did you mean"),
        ({"diagnostics": {"theory": {"s": 0}}}, "diagnostics.theory.s: expected a number"),
        ({"diagnostics": {"theory": {"name": "x"}}}, "did you mean 'diagnostic'?"),
        (
            {"diagnostics": {"theory": {"s": [1, 2]}}},
            "diagnostics.theory: expected one setting, found 2",
        ),
        ({"plugins": ["no_such_package"]}, "plugins.0: cannot import plugin 'no_such_package'"),
        ({"plugins": 3}, "plugins: expected a valid list, found 3"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_its_key(plan_of, keys, told):
    with pytest.raises(InvalidStudy) as error:
        plan_of(**keys)
    assert told in str(error.value)
    assert len(error.value.mistakes) == 1


def test_a_broken_outline_hides_no_other_mistake(plan_of):
    with pytest.raises(InvalidStudy) as error:
        plan_of(
            seeds="many",
            data="minst",
            methods={"a": {"loss": "scee"}, "b": 3},
            headline={"attack": "pgdd"},
            compare={"baseline": "c"},
        )
    places = {mistake.where for mistake in error.value.mistakes}
    assert places >= {"seeds", "data", "methods.a.loss", "methods.b", "headline.attack"}
    assert "compare.baseline" in places


def test_chosen_methods_may_be_one_or_many(plan_of):
    for key in ("method", "methods"):
        for value in ("sce", ["sce"]):
            assert plan_of(choose={key: value}).choose == ["sce"]
