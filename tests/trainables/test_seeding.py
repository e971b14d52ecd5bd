from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainables.seeding import derive, generator, initialise, per_image, wrong_classes

KEYS = st.lists(st.integers(0, 2**31) | st.text(max_size=5), min_size=1, max_size=4).map(tuple)


def draw(source):
    return torch.rand(3, generator=source)


@given(one=KEYS, other=KEYS)
def test_keys_that_differ_derive_different_seeds(one, other):
    assert (derive(*one) == derive(*other)) == (one == other)
    assert 0 <= derive(*one) < 2**63


def test_seeds_are_the_same_on_every_machine():
    assert derive(0, "batches", 1) == 6392985063691280952
    assert derive("0", "batches", 1) != derive(0, "batches", 1)


def test_draws_repeat_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    assert torch.equal(draw(generator(0, "a")), draw(generator(0, "a")))
    assert not torch.equal(draw(generator(0, "a")), draw(generator(1, "a")))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_images_draw_depends_on_its_index_not_on_its_company():
    whole = per_image(draw, torch.arange(10), 0, "start")
    some = per_image(draw, torch.tensor([7, 2]), 0, "start")
    assert torch.equal(some, whole[[7, 2]])
    assert len(whole.unique(dim=0)) == 10


@given(
    labels=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    seed=st.integers(0, 2**31),
    classes=st.integers(10, 20),
)
def test_target_is_never_the_true_class(labels, seed, classes):
    labels = torch.tensor(labels)
    targets = wrong_classes(labels, torch.arange(len(labels)), classes, seed)
    assert (targets != labels).all()
    assert ((targets >= 0) & (targets < classes)).all()
    assert targets.dtype == torch.int64


def test_two_classes_leave_one_target():
    assert wrong_classes(torch.tensor([0, 1]), torch.arange(2), 2, 0).tolist() == [1, 0]


@pytest.mark.parametrize("label", [0, 4, 9])
def test_targets_are_uniform_over_the_wrong_classes(label):
    n = 9000
    targets = wrong_classes(torch.full((n,), label), torch.arange(n), 10, 0)
    counts = targets.bincount(minlength=10)
    assert counts[label] == 0
    chi2 = float(((counts[counts > 0] - n / 9) ** 2 / (n / 9)).sum())
    assert chi2 < 26.1  # the 99.9 % point with 8 degrees of freedom


def test_target_is_fixed_by_image_index_and_seed():
    labels = torch.arange(100) % 10
    whole = wrong_classes(labels, torch.arange(100), 10, 0)
    assert torch.equal(wrong_classes(labels[60:], torch.arange(60, 100), 10, 0), whole[60:])
    assert not torch.equal(wrong_classes(labels, torch.arange(100), 10, 1), whole)


def layers(extra=False):
    named = {"first": nn.Linear(4, 4), "second": nn.Linear(4, 4)}
    if extra:
        named = {"zeroth": nn.Linear(9, 2), **named}
    return nn.ModuleDict(named)


def test_initialisation_is_keyed_by_layer_name_and_seed():
    one, same, other = layers(), layers(extra=True), layers()
    for module, seed in ((one, 0), (same, 0), (other, 1)):
        initialise(module, seed)
    for name in ("first", "second"):  # another layer before them changes nothing
        assert torch.equal(one[name].weight, same[name].weight)
        assert torch.equal(one[name].bias, same[name].bias)
        assert not torch.equal(one[name].weight, other[name].weight)
    assert not torch.equal(one["first"].weight, one["second"].weight)


def test_initialisation_keeps_the_distribution_of_the_layer():
    layer = nn.Sequential(nn.Linear(400, 400))
    initialise(layer, 0)
    bound = 1 / 20
    assert layer[0].weight.abs().max() <= bound
    assert float(layer[0].weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.01)


def test_initialisation_leaves_the_random_state_of_torch_alone():
    module = layers()
    before = torch.get_rng_state()
    initialise(module, 0)
    assert torch.equal(torch.get_rng_state(), before)
