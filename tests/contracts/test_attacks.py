"""What every registered attack must keep to."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables import registry
from trainables.attacks.surfaces import SURFACES

# What parameters are tried where an attack has them; others stay at their default.
PARAMETERS = {
    "eps": st.floats(0.01, 3.0),
    "overshoot": st.floats(0, 0.5),
    "steps": st.integers(1, 4),
    "budget": st.sampled_from(registry.names("budget")),
    "alpha": st.none() | st.floats(0.01, 1.0),
    "targeted": st.booleans(),
    "surface": st.sampled_from(SURFACES),
    "stop": st.sampled_from(["first_success", "last"]),
    "random_start": st.booleans(),
    "overshoot_rule": st.sampled_from(["total", "per_step"]),
}
BATCHES = st.tuples(st.integers(0, 490), st.integers(1, 8))
SEEDS = st.integers(0, 2**31 - 1)
OUTCOME = {
    "correct_before": torch.int64,
    "correct_after": torch.int64,
    "l2": torch.float32,
    "linf": torch.float32,
    "queries": torch.int64,
    "targets": torch.int64,
    "hit": torch.int64,
}

ATTACKS = list(registry.every("attack"))
every_attack = pytest.mark.parametrize("cls", ATTACKS, ids=lambda cls: cls.name)
few = settings(max_examples=25)


def drawn(data, cls):
    fields = [field.name for field in dataclasses.fields(cls) if field.name in PARAMETERS]
    return cls(**{name: data.draw(PARAMETERS[name], label=name) for name in fields})


def images_of(splits, batch):
    start, n = batch
    index = torch.arange(start, start + n)
    return splits.test.images[index], splits.test.labels[index], index


@every_attack
@pytest.mark.parametrize("model", ["sce", "isce"])
@few
@given(data=st.data(), batch=BATCHES, seed=SEEDS)
def test_outcome_keeps_to_budget_range_and_form(request, splits, cls, model, data, batch, seed):
    classifier = request.getfixturevalue(model)
    attack = drawn(data, cls)
    images, labels, index = images_of(splits, batch)
    outcome = attack(classifier, images, labels, indices=index, seed=seed)
    for name, dtype in OUTCOME.items():
        value = getattr(outcome, name)
        assert value.dtype == dtype, name
        assert value.shape == labels.shape, name
        assert value.device.type == "cpu", name
        assert value.isfinite().all(), name
    radius = attack.radius(images)
    if radius is not None:
        achieved = outcome.l2 if attack.norm == "l2" else outcome.linf
        assert (achieved <= radius.flatten() * (1 + 1e-5)).all()
    assert (outcome.linf <= 1).all()
    assert (outcome.correct_after <= outcome.correct_before).all()
    assert (outcome.correct_before <= outcome.passes).all()
    assert (outcome.correct_after >= 0).all()
    assert (outcome.queries >= 0).all()
    spared = outcome.correct_before == 0
    assert (outcome.l2[spared] == 0).all()
    assert (outcome.queries[spared] == 0).all()


@every_attack
@settings(max_examples=8)
@given(data=st.data(), batch=BATCHES, seed=SEEDS)
def test_outcome_is_the_same_on_repetition(splits, sce, cls, data, batch, seed):
    attack = drawn(data, cls)
    images, labels, index = images_of(splits, batch)
    one = attack(sce, images, labels, indices=index, seed=seed)
    torch.manual_seed(seed)  # of no consequence
    other = attack(sce, images, labels, indices=index, seed=seed)
    for name in OUTCOME:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@every_attack
@settings(max_examples=8)
@given(data=st.data(), seed=SEEDS)
def test_targets_are_wrong_classes_or_absent(splits, sce, cls, data, seed):
    attack = drawn(data, cls)
    images, labels, index = images_of(splits, (0, 12))
    targets = attack(sce, images, labels, indices=index, seed=seed).targets
    if attack.targeted:
        assert ((targets >= 0) & (targets < 10) & (targets != labels)).all()
    else:
        assert (targets == -1).all()


@every_attack
@settings(max_examples=20)
@given(data=st.data())
def test_listing_tells_what_is_not_at_its_default(cls, data):
    attack = drawn(data, cls)
    columns = attack.columns()
    if columns is not None:
        assert columns.targeted == attack.targeted
        assert columns.norm == attack.norm
        assert set(columns.extra) <= {field.name for field in dataclasses.fields(cls)}


@every_attack
@settings(max_examples=20)
@given(one=st.data(), other=st.data())
def test_attacks_that_differ_are_listed_differently(cls, one, other):
    attacks = drawn(one, cls), drawn(other, cls)
    if attacks[0] != attacks[1]:
        assert attacks[0].columns() != attacks[1].columns()
        assert attacks[0].identity() != attacks[1].identity()
