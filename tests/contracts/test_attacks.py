"""What every registered attack must keep to; a new one is found and tried without an edit here."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import random as python_random
import typing
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainables import registry
from trainables.attacks import autoattack
from trainables.attacks.base import NO_GRADIENT, PASSES, UNBROKEN, Attack, craft
from trainables.execution import Execution
from trainables.training import load_weights, new_classifier, weights_of

BUDGETS = (*registry.names("budget"), {"name": "path_l2", "kappa": 0.5})
# What parameters are tried; those of `Literal` and `bool` need not stand here, and others that
# do not stay at their default.
PARAMETERS = {
    "eps": st.floats(0.01, 3.0),
    "overshoot": st.floats(0, 0.5),
    "budget": st.sampled_from(BUDGETS),
    "alpha": st.none() | st.floats(0.01, 1.0),
    "alpha_for": st.none() | st.integers(1, 9),
    "rivals": st.integers(0, 3),
    "restarts": st.integers(1, 2),
    "step": st.floats(0.05, 0.5),
    "p_init": st.floats(0.1, 1.0),
}
# How much is done: always drawn, because the defaults are for a study and not for a test.
AMOUNTS = {
    "steps": st.integers(1, 4),
    "queries": st.integers(1, 9),
    "tries": st.integers(1, 3),
    "eot": st.integers(1, 2),
}
BATCHES = st.tuples(st.integers(0, 490), st.integers(1, 8))
SEEDS = st.integers(0, 2**31 - 1)
OUTCOME = {
    "correct_before": torch.int64,
    "correct_after": torch.int64,
    "l2": torch.float32,
    "linf": torch.float32,
    "queries": torch.int64,
    "gradient": torch.float64,
    "targets": torch.int64,
    "hit": torch.int64,
    "broken_by": torch.int64,
}


def required(cls):
    return {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }


def strategies(cls):
    """What is tried of each of an attack's parameters, by name."""
    hints, known = typing.get_type_hints(cls), {**PARAMETERS, **AMOUNTS}
    found = {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if get_origin(hint) is Literal:
            found[field.name] = st.sampled_from(get_args(hint))
        elif hint is bool:
            found[field.name] = st.booleans()
        elif field.name in known:
            found[field.name] = known[field.name]
    return found


EVERY = list(registry.every("attack"))
# Attacks with a parameter that is required and cannot be drawn: ids of other trained models.
ATTACKS = [cls for cls in EVERY if required(cls) <= set(strategies(cls))]
every_attack = pytest.mark.parametrize("cls", ATTACKS, ids=lambda cls: cls.name)


def test_only_attacks_that_need_other_models_are_left_out():
    left_out = [cls for cls in EVERY if cls not in ATTACKS]
    assert all(cls.sources is not Attack.sources for cls in left_out), (
        f"PARAMETERS lacks one of {[(cls.name, required(cls)) for cls in left_out]}"
    )


def made(cls, parameters):
    """The attack, None where its validators refuse the combination."""
    with contextlib.suppress(ValidationError):
        return cls(**parameters)
    return None


def drawn(data, cls):
    """An attack with some of its parameters drawn, fewer where their combination is refused."""
    tried = strategies(cls)
    fixed = {name: data.draw(tried[name], label=name) for name in sorted(required(cls))}
    fixed |= {name: data.draw(tried[name], label=name) for name in AMOUNTS if name in tried}
    free = data.draw(st.permutations(sorted(set(tried) - set(fixed))), label="order")
    some = {
        name: data.draw(tried[name], label=name)
        for name in free[: data.draw(st.integers(0, len(free)), label="how many")]
    }
    while (attack := made(cls, {**fixed, **some})) is None:
        assume(some)
        some.popitem()
    return attack


def images_of(splits, batch):
    start, n = batch
    index = torch.arange(start, start + n)
    return splits.test.images[index], splits.test.labels[index], index


def broken_by(outcome):
    """The name of the stage that broke each image."""
    return [None if index == UNBROKEN else outcome.stages[index] for index in outcome.broken_by]


def assert_same(one, other, inexact=()):
    assert broken_by(one) == broken_by(other)
    for field in dataclasses.fields(one):
        if field.name in ("stages", "broken_by"):  # numbers of names
            continue
        value, wanted = getattr(one, field.name), getattr(other, field.name)
        if field.name in inexact:
            assert torch.allclose(value, wanted, rtol=1e-6, atol=1e-9), field.name
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, wanted), field.name
        else:
            assert value == wanted, field.name


@pytest.fixture(scope="module", autouse=True)
def short_autoattack():
    """Its amount of work is no parameter: there is nothing to tune about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoattack, "STEPS", 3)
        patch.setattr(autoattack, "RIVALS", 2)
        yield


@pytest.fixture(scope="module")
def models(sce, isce, model_config):
    """Of either loss, and one that draws at random."""
    random = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(random, weights_of(sce))
    return {"sce": sce, "isce": isce, "random": random.eval()}


@pytest.fixture(scope="module")
def precise(sce):
    """In float64, where no image lies on a boundary to within rounding."""
    return copy.deepcopy(sce).double()


@every_attack
@settings(max_examples=24)
@given(data=st.data(), model=st.sampled_from(["sce", "isce", "random"]), batch=BATCHES, seed=SEEDS)
def test_outcome_keeps_to_budget_range_and_form(models, splits, cls, data, model, batch, seed):
    attack, classifier = drawn(data, cls), models[model]
    images, labels, index = images_of(splits, batch)
    adversarial, outcome = attack.craft(classifier, images, labels, indices=index, seed=seed)
    for name, dtype in OUTCOME.items():
        value = getattr(outcome, name)
        assert value.dtype == dtype, name
        assert value.shape == labels.shape, name
        assert value.device.type == "cpu", name
        assert value.isfinite().all(), name
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    radius = attack.radius(images)
    assert (radius is None) == (attack.norm is None)
    if radius is not None:
        achieved = outcome.l2 if attack.norm == "l2" else outcome.linf
        assert (achieved <= radius.flatten() * (1 + 1e-5)).all()
    before, after = outcome.correct_before, outcome.correct_after
    assert outcome.passes == (PASSES if model == "random" else 1)
    assert ((after >= 0) & (after <= before) & (before <= outcome.passes)).all()
    assert outcome.by_pass.dtype == torch.uint8
    assert outcome.by_pass.shape == (len(labels), outcome.passes)
    assert torch.equal(outcome.by_pass.sum(dim=1), after)
    assert outcome.stages == attack.stages
    assert len(set(outcome.stages)) == len(outcome.stages) > 0
    broken = (before > 0) & (after == 0)
    assert torch.equal(outcome.broken_by >= 0, broken)
    assert (outcome.broken_by < len(outcome.stages)).all()
    assert (outcome.broken_by[~broken] == UNBROKEN).all()
    assert ((outcome.gradient >= 0) | (outcome.gradient == NO_GRADIENT)).all()
    assert ((outcome.hit >= 0) & (outcome.hit <= outcome.passes)).all()
    assert (outcome.queries >= 0).all()
    spared = before == 0
    assert (outcome.l2[spared] == 0).all()
    assert (outcome.queries[spared] == 0).all()
    assert (outcome.gradient[spared] == NO_GRADIENT).all()


@every_attack
@settings(max_examples=8)
@given(data=st.data(), model=st.sampled_from(["sce", "isce", "random"]), seed=SEEDS)
def test_eps_0_leaves_every_pass_as_it_was(models, splits, cls, data, model, seed):
    attack = drawn(data, cls)
    if attack.norm is None:
        return
    none = dataclasses.replace(attack, eps=0.0)
    images, labels, index = images_of(splits, (100, 8))
    outcome = none(models[model], images, labels, indices=index, seed=seed)
    assert torch.equal(outcome.correct_after, outcome.correct_before)
    assert outcome.l2.count_nonzero() == 0


@every_attack
@settings(max_examples=8)
@given(data=st.data(), model=st.sampled_from(["sce", "random"]), batch=BATCHES)
def test_leaves_the_model_and_all_random_states_as_they_were(
    models, splits, cls, data, model, batch
):
    attack, classifier = drawn(data, cls), copy.deepcopy(models[model]).train()
    classifier.head.eval()
    first, *others = classifier.parameters()
    first.requires_grad_(False)
    others[0].grad = torch.ones_like(others[0])
    modes = [module.training for module in classifier.modules()]
    weights = copy.deepcopy(classifier.state_dict())
    images, labels, index = images_of(splits, batch)
    given_images = images.clone()
    states = torch.get_rng_state(), np.random.get_state(), python_random.getstate()

    attack(classifier, images, labels, indices=index)

    assert torch.equal(torch.get_rng_state(), states[0])
    for now, then in zip(np.random.get_state(), states[1], strict=True):
        assert np.array_equal(now, then)
    assert python_random.getstate() == states[2]
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert [module.training for module in classifier.modules()] == modes
    assert all(torch.equal(weights[name], now) for name, now in classifier.state_dict().items())
    assert not first.requires_grad
    assert first.grad is None
    assert all(parameter.requires_grad for parameter in others)
    assert torch.equal(others[0].grad, torch.ones_like(others[0]))
    assert all(parameter.grad is None for parameter in others[1:])
    assert torch.equal(images, given_images)


@every_attack
@settings(max_examples=6)
@given(data=st.data(), seed=SEEDS)
def test_outcome_does_not_depend_on_batching(precise, splits, cls, data, seed):
    attack = drawn(data, cls)
    images, labels, index = images_of(splits, (200, 16))
    images = images.double()
    _, whole = attack.craft(precise, images, labels, indices=index, seed=seed)
    parts = [
        attack(precise, images[part], labels[part], indices=index[part], seed=seed)
        for part in torch.arange(16).split(7)
    ]
    joined = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in (*OUTCOME, "by_pass")
    }
    together = dataclasses.replace(whole, **joined)
    assert_same(together, whole, inexact=("l2", "linf", "gradient"))


@every_attack
@settings(max_examples=8)
@given(data=st.data(), batch=BATCHES, seed=SEEDS)
def test_outcome_is_the_same_on_repetition(splits, sce, cls, data, batch, seed):
    attack = drawn(data, cls)
    images, labels, index = images_of(splits, batch)
    one = attack(sce, images, labels, indices=index, seed=seed)
    torch.manual_seed(seed)  # of no consequence
    assert_same(attack(sce, images, labels, indices=index, seed=seed), one)


def peers_of(data, attack):
    """Attacks that one run answers together with this one: one parameter of it is another."""
    peers = [attack]
    for name, strategy in strategies(type(attack)).items():
        parameters = {each: getattr(attack, each) for each in fields_of(attack)}
        peer = made(type(attack), {**parameters, name: data.draw(strategy, label=f"other {name}")})
        if peer is not None and peer.alike() == attack.alike():
            assert hash(peer.alike()) == hash(attack.alike())
            peers.append(peer)
    return peers


def fields_of(component):
    return {field.name for field in dataclasses.fields(component)}


@every_attack
@settings(max_examples=6)
@given(data=st.data(), model=st.sampled_from(["sce", "random"]), seed=SEEDS)
def test_attacks_of_one_run_give_the_same_as_one_by_one(models, splits, cls, data, model, seed):
    peers, classifier = peers_of(data, drawn(data, cls)), models[model]
    images, labels, index = images_of(splits, (300, 6))
    together = craft(peers, classifier, images, labels, indices=index, seed=seed)
    for peer, (adversarial, outcome) in zip(peers, together, strict=True):
        alone, own = peer.craft(classifier, images, labels, indices=index, seed=seed)
        assert torch.equal(adversarial, alone), peer
        assert_same(outcome, own)


@every_attack
@settings(max_examples=6)
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
@settings(max_examples=8)
@given(data=st.data(), loss=st.sampled_from(["sce", "isce"]), seed=SEEDS)
def test_settled_form_gives_the_same(models, splits, cls, data, loss, seed):
    attack = drawn(data, cls)
    settled = attack.settled(registry.build("loss", loss), stochastic=False)
    assert settled.settled(registry.build("loss", loss), stochastic=False) == settled
    images, labels, index = images_of(splits, (50, 8))
    one, other = (
        each(models[loss], images, labels, indices=index, seed=seed) for each in (attack, settled)
    )
    assert_same(one, other, inexact=("l2", "linf", "gradient"))


@every_attack
@settings(max_examples=20)
@given(data=st.data())
def test_listing_tells_what_is_not_at_its_default(cls, data):
    attack = drawn(data, cls)
    columns = attack.columns()
    if columns is None:
        return
    assert columns.targeted == attack.targeted
    assert columns.norm in (None, attack.norm)
    budget = getattr(attack, "budget", None)
    if columns.norm is not None:  # a threat model: a ball, and its size
        assert budget is None or budget.threat
        assert columns.eps == getattr(attack, "eps", columns.eps)
    elif budget is not None:
        assert not budget.threat
    assert set(columns.extra) <= fields_of(attack) | (fields_of(budget) if budget else set())


@every_attack
@settings(max_examples=30)
@given(one=st.data(), other=st.data())
def test_attacks_that_differ_are_listed_differently(cls, one, other):
    # As they are planned: a mean over draws is nothing to a model without any.
    loss = registry.build("loss", "isce")
    attacks = [drawn(data, cls).settled(loss, stochastic=False) for data in (one, other)]
    if attacks[0] != attacks[1]:
        assert attacks[0].columns() != attacks[1].columns()
        assert attacks[0].identity() != attacks[1].identity()


def on(cls, budget, eps, **amount):
    """The attack in a ball; None if it has none, or none in that norm."""
    wanted = {"budget": budget, "eps": eps, **amount}
    return made(cls, wanted) if set(wanted) <= fields_of(cls) else None


IN_BALLS = [
    pytest.param(cls, budget, id=f"{cls.name}-{budget}")
    for cls in ATTACKS
    for budget in ("l2_abs", "linf")
    if on(cls, budget, 1.0) or on(cls, budget, 1.0, steps=1)
]


DISTANCE = 1.0  # in L2, as of real digits


@pytest.fixture(scope="module")
def linear(affine):
    """Two classes on either side of a plane, two that are nobody's, and images beside the plane.

    The images lie well inside the box, all at one distance, half of them of either class.
    """
    generator = torch.Generator().manual_seed(3)
    normal = torch.randn(784, dtype=torch.float64, generator=generator)
    normal *= 4 / normal.norm()
    middle = float(normal.sum()) / 4  # of grey images, 0.5 everywhere
    nobody = torch.zeros(2, 784, dtype=torch.float64)
    weight = torch.cat([torch.stack([-normal / 2, normal / 2]), nobody])
    classifier = affine(weight, torch.tensor([middle, -middle, -30.0, -31.0]).double())

    noise = 0.1 * torch.rand(8, 784, dtype=torch.float64, generator=generator) - 0.05
    noise -= (noise @ normal / 16).unsqueeze(1) * normal
    labels = torch.arange(8) % 2
    side = torch.where(labels == 1, DISTANCE, -DISTANCE).double().unsqueeze(1)
    images = (0.5 + noise + side * normal / 4).view(8, 1, 28, 28)
    return classifier, normal, images, labels


@pytest.mark.parametrize(("cls", "budget"), IN_BALLS)
def test_breaks_a_linear_model_from_the_distance_of_its_plane_on(linear, cls, budget):
    classifier, normal, images, labels = linear
    dual = normal.norm() if budget == "l2_abs" else normal.abs().sum()
    distance = float(DISTANCE * normal.norm() / dual)

    def run(share, **amount):
        outcome = on(cls, budget, share * distance, **amount)(classifier, images, labels)
        assert outcome.correct_before.all()
        return outcome

    near = run(0.999, **dict.fromkeys(fields_of(cls) & {"steps", "queries"}, 20))
    assert near.correct_after.all()  # nothing can: it is closer than the plane
    if (near.gradient != NO_GRADIENT).all():  # others need luck
        work = dict.fromkeys(required(cls) & {"steps"}, 40)
        assert not run(1.05, **work).correct_after.any()
