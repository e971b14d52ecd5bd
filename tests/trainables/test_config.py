"""Content ids: what they are, what changes them and what must not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trainables import config as config_module
from trainables import registry
from trainables.attacks.deepfool import DeepFool
from trainables.attacks.pgd import PGD
from trainables.config import (
    Cell,
    Training,
    TrialConfig,
    canonical,
    cell_from,
    content_id,
    model_from,
)
from trainables.datasets.mnist5k import MNIST5k
from trainables.errors import UnknownName

ISCE = {"name": "isce", "s": 1.0, "m": 0.1}
# As planned for a model that does not draw at random.
CELL = Cell(probe=PGD(budget="l2_rms", eps=0.04, steps=50, eot=1), split="test", n=200)
OTHER_CELL = Cell(probe=DeepFool(eot=1), split="validation", n=100, seed=1)

SCE_TEXT = (
    '{"component":"model","parameters":{"backbone":{"component":"backbone/lenet5",'
    '"parameters":{},"revision":1.0},"dataset":{"checksum":'
    '"809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d",'
    '"component":"dataset/mnist5k","parameters":{},"revision":1.0},"loss":{"component":'
    '"loss/sce","parameters":{},"revision":1.0},"precision":"float32","regime":{"component":'
    '"regime/standard","parameters":{},"revision":1.0},"training":{"batch_size":128.0,'
    '"epochs":12.0,"lr":0.001,"optimizer":"adam","weights":"last"},"transform":{"component":'
    '"transform/none","parameters":{},"revision":1.0}},"revision":1.0,"schema":1.0,"seed":0.0}'
)

numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | numbers | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


# Golden ids: a change here means that no stored result is found any more.
def test_golden_model_ids(model_config):
    assert model_config("sce").id == "fd04be6adf8147e6"
    assert model_config(ISCE).id == "d2d5aff3b6543f6d"
    assert model_config(ISCE, seed=1).id != "d2d5aff3b6543f6d"


def test_golden_arm_ids(model_config):
    assert model_config("sce").arm_id == "bbfd1bb228499034"
    assert model_config(ISCE).arm_id == "3c68311783543ad2"


def test_golden_cell_ids():
    assert CELL.id("fd04be6adf8147e6") == "b887108c17a5046c"
    assert OTHER_CELL.id("d2d5aff3b6543f6d") == "e0abad2576b078e9"


def anew(config):
    """A copy, which has not said its id yet: each says it once."""
    return dataclasses.replace(config)


def test_parameters_that_attacks_have_gained_reach_no_id_at_what_was_done_before(monkeypatch):
    # Ids from before outcomes had gradients and stages, which the revision alone has changed.
    monkeypatch.setattr(config_module, "EVALUATION_REVISION", 1)
    assert anew(CELL).id("fd04be6adf8147e6") == "182f5ff35b2ed63c"
    assert anew(OTHER_CELL).id("d2d5aff3b6543f6d") == "ee67454215b6e4f2"


def test_model_id_is_the_hash_of_canonical_json(model_config):
    assert hashlib.sha256(SCE_TEXT.encode()).hexdigest()[:16] == model_config("sce").id


def test_arm_is_the_configuration_less_the_seed(model_config):
    arms = {model_config(ISCE, seed=seed).arm_id for seed in range(5)}
    assert len(arms) == 1
    assert len({model_config(ISCE, seed=seed).id for seed in range(5)}) == 5
    assert model_config("sce").arm_id not in arms


@given(value=plain)
def test_canonical_text_does_not_depend_on_the_order_of_keys(value):
    def turned(value):
        if isinstance(value, dict):
            return {key: turned(item) for key, item in reversed(value.items())}
        return [turned(item) for item in value] if isinstance(value, list) else value

    assert canonical(turned(value)) == canonical(value)
    json.loads(canonical(value))


@given(value=st.integers(-(10**11), 10**11))
def test_whole_numbers_are_the_same_as_int_and_float(value):
    assert canonical({"a": value}) == canonical({"a": float(value)})


@given(digits=st.integers(10**11, 10**12 - 2), power=st.integers(-30, 10))
def test_numbers_count_to_12_significant_digits(digits, power):
    value, near = float(f"{digits}e{power}"), float(f"{digits + 1}e{power}")
    assert canonical(value * (1 + 1e-14)) == canonical(value)
    assert canonical(near) != canonical(value)


def test_minus_zero_is_zero(model_config):
    plus, minus = ({"name": "isce", "m": m} for m in (0.0, -0.0))
    assert model_config(plus) == model_config(minus)
    assert model_config(plus).id == model_config(minus).id


def test_true_is_not_one():
    assert canonical({"a": True}) != canonical({"a": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_has_no_id(value):
    with pytest.raises(ValueError):
        content_id({"a": value})


def test_ids_are_16_hex_digits(model_config):
    for found in (model_config().id, model_config().arm_id, CELL.id("x")):
        assert len(found) == 16
        assert set(found) <= set("0123456789abcdef")


def test_lists_and_tuples_are_the_same():
    assert canonical((1, 2)) == canonical([1, 2])


ARGUMENTS = st.fixed_dictionaries(
    {
        "loss": st.fixed_dictionaries(
            {
                "name": st.just("isce"),
                "s": st.floats(1, 5),
                "m": st.floats(0, 1).map(lambda m: m + 0.0),
                "normalize": st.sampled_from(["logits", "features", "none"]),
            }
        )
        | st.just({"name": "sce"}),
        "seed": st.integers(0, 2**31 - 1),
        "lr": st.floats(1e-5, 1e-1),
        "epochs": st.integers(1, 200),
        "batch_size": st.integers(1, 512),
    }
)


def rounded(value):
    """A configuration to the 12 digits that count."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.12g}") if isinstance(value, float | int) else value


@given(one=ARGUMENTS, other=ARGUMENTS)
def test_models_that_differ_have_different_ids(model_config, one, other):
    same = rounded(one) == rounded(other)
    assert (model_config(**one).id == model_config(**other).id) == same


@given(
    arguments=ARGUMENTS,
    changed=st.sampled_from(["seed", "lr", "epochs", "batch_size"]),
)
def test_change_of_one_parameter_changes_the_id(model_config, arguments, changed):
    other = {**arguments, changed: arguments[changed] * 2 + 1}
    assert model_config(**arguments).id != model_config(**other).id
    same_arm = model_config(**arguments).arm_id == model_config(**other).arm_id
    assert same_arm == (changed == "seed")


@given(arguments=ARGUMENTS, seed=st.integers(0, 2**31 - 1))
def test_another_seed_of_a_model_is_the_model_of_that_seed(model_config, arguments, seed):
    seeded, made = (
        model_config(**arguments).seeded(seed),
        model_config(**{**arguments, "seed": seed}),
    )
    assert seeded == made
    assert (seeded.id, seeded.arm_id) == (made.id, made.arm_id)


@pytest.mark.parametrize(
    "change",
    [
        {"eps": 0.05},
        {"steps": 51},
        {"alpha": 0.1},
        {"budget": "l2_abs"},
        {"budget": "linf"},
        {"targeted": True},
        {"surface": "ce_raw"},
        {"stop": "last"},
        {"random_start": True},
        {"alpha_for": 10},
        {"target": "least_likely"},
        {"rivals": 3},
        {"random_start": True, "restarts": 5},
        {"eot": 20},
        {"rescale": "unit"},
        {"budget": "path_l2"},
        {"budget": {"name": "path_l2", "kappa": 3.0}},
    ],
    ids=str,
)
def test_change_of_the_attack_changes_the_cell_id(change):
    attack = dataclasses.replace(CELL.probe, **change)
    assert dataclasses.replace(CELL, probe=attack).id("m") != CELL.id("m")


@pytest.mark.parametrize("change", [{"split": "validation"}, {"n": 199}, {"seed": 1}], ids=str)
def test_change_of_the_cell_changes_its_id(change):
    assert dataclasses.replace(CELL, **change).id("m") != CELL.id("m")


def test_cell_id_holds_the_models():
    assert CELL.id("one") != CELL.id("other")


@pytest.mark.parametrize("name", ["TRAINING_REVISION", "SCHEMA"])
def test_revision_of_training_and_schema_change_model_ids(model_config, monkeypatch, name):
    before = model_config().id
    monkeypatch.setattr(config_module, name, 2)
    assert model_config().id != before


def test_revision_of_the_evaluation_changes_cell_ids_alone(model_config, monkeypatch):
    before = model_config().id, CELL.id("m")
    monkeypatch.setattr(config_module, "EVALUATION_REVISION", config_module.EVALUATION_REVISION + 1)
    assert model_config().id == before[0]
    assert anew(CELL).id("m") != before[1]


@pytest.mark.parametrize("kind", ["dataset", "backbone", "loss", "regime", "transform"])
def test_revision_of_every_part_changes_the_model_id(model_config, monkeypatch, kind):
    model = model_config()
    before = model.id
    monkeypatch.setattr(type(getattr(model, kind)), "revision", 2)
    assert anew(model).id != before


@pytest.mark.parametrize("cls", [PGD, type(CELL.probe.budget)])
def test_revision_of_attack_and_budget_change_the_cell_id(monkeypatch, cls):
    before = CELL.id("m")
    monkeypatch.setattr(cls, "revision", cls.revision + 1)
    assert anew(CELL).id("m") != before


def test_checksum_of_the_data_changes_the_model_id(model_config, monkeypatch):
    before = model_config().id
    monkeypatch.setattr(MNIST5k, "checksum", "0" * 64)
    assert model_config().id != before


def test_group_of_a_cell_reaches_no_id():
    paths = [
        dataclasses.replace(CELL, probe=PGD(budget="path_l2", eps=0.04, steps=steps, eot=1))
        for steps in (10, 50)
    ]
    assert paths[0].group == paths[1].group != CELL.group
    assert paths[0].id("m") != paths[1].id("m")
    assert set(paths[0].spec()) == {"attack", "split", "n", "seed"}


def test_trial_config_round_trips(model_config):
    config = TrialConfig(model=model_config(ISCE, seed=3, epochs=2), cells=(CELL, OTHER_CELL))
    again = TrialConfig.parse(config.dump())
    assert again == config
    assert again.model.id == config.model.id
    assert [cell.id("m") for cell in again.cells] == [cell.id("m") for cell in config.cells]
    assert again.dump() == config.dump()


@given(arguments=ARGUMENTS)
def test_any_model_round_trips_to_the_same_id(model_config, arguments):
    model = model_config(**arguments)
    again = model_from(json.loads(json.dumps(model.spec())))
    assert again == model
    assert again.id == model.id


def test_unknown_part_of_a_specification_is_told(model_config):
    spec = {**model_config().spec(), "backbone": {"name": "lenet"}}
    with pytest.raises(UnknownName, match=r"did you mean 'lenet5'\?"):
        model_from(spec)


def test_unknown_attack_of_a_cell_is_told():
    with pytest.raises(UnknownName, match=r"did you mean 'pgd'\?"):
        cell_from({**CELL.spec(), "attack": {"name": "pdg", "eps": 0.1, "steps": 1}})


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="expected split 'test' or 'validation', found 'train'"):
        cell_from({**CELL.spec(), "split": "train"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"lr": math.inf},
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"optimizer": "sgd"},
        {"momentum": 0.9},
        {"weights": "best"},
    ],
    ids=str,
)
def test_training_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Training(**wrong)


def test_configurations_cannot_be_changed(model_config):
    for value, name in ((model_config(), "seed"), (CELL, "n"), (Training(), "lr")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)


def test_registry_holds_every_part_of_a_model(model_config):
    for kind in config_module.COMPONENTS:
        part = getattr(model_config(), kind)
        assert registry.find(kind, part.name) is type(part)
