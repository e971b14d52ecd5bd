from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainables.seeding import Draws, derive, generator, initialise, wrong_classes

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
    draws = Draws((0, "start"), torch.arange(10))
    for kind in (Draws.uniform, Draws.normal):
        whole = kind(draws, 4)
        assert torch.equal(kind(draws[torch.tensor([7, 2])], 4), whole[[7, 2]])
        assert torch.equal(kind(Draws((0, "start"), torch.tensor([7, 2])), 4), whole[[7, 2]])
        assert len(whole.unique(dim=0)) == 10


@given(one=KEYS, other=KEYS)
def test_draws_depend_on_the_whole_key(one, other):
    draws = [Draws(key, torch.arange(3)).uniform(2) for key in (one, other)]
    assert torch.equal(*draws) == (one == other)
    assert torch.equal(Draws(one, torch.arange(3)).at("x").uniform(2), draws[0]) is False


def splitmix64(state, count):
    """The published generator, on Python's integers: the reference."""
    wrapped = 2**64 - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & wrapped
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & wrapped
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & wrapped
        yield z ^ (z >> 31)


def test_uniform_draws_are_splitmix64s_seeded_by_it():
    key = (3, "purpose")
    found = Draws(key, torch.tensor([0, 5, 10**6])).uniform(4)
    for row, index in zip(found, (0, 5, 10**6), strict=True):
        jump = derive(*key) + index * 0x9E3779B97F4A7C15
        (seed,) = splitmix64(jump % 2**64, 1)
        expected = [(value >> 11) * 2.0**-53 for value in splitmix64(seed, 4)]
        assert row.tolist() == expected


def test_splitmix64_is_the_published_one():
    assert list(splitmix64(1234567, 3)) == [
        6457827717110365317, 3203168211198807973, 9817491932198370423
    ]  # fmt: skip


def test_draws_are_uniform_normal_and_unrelated():
    draws = Draws((0, "many"), torch.arange(20_000))
    u, n = draws.uniform(3), draws.normal(3)
    assert u.min() >= 0
    assert u.max() < 1
    assert torch.allclose(u.mean(0), torch.full((3,), 0.5).double(), atol=0.01)
    assert torch.allclose(u.var(0), torch.full((3,), 1 / 12).double(), atol=0.003)
    assert torch.allclose(n.mean(0), torch.zeros(3).double(), atol=0.03)
    assert torch.allclose(n.var(0), torch.ones(3).double(), atol=0.04)
    assert (n.abs() > 1.96).double().mean() == pytest.approx(0.05, abs=0.004)
    shifted = torch.cat([u[1:], u[:-1]], dim=1)
    sizes = torch.cat([draws.uniform(6), n, n.abs()], dim=1)  # a shared draw shows in the size
    for values in (u, n, shifted, sizes):
        correlation = torch.corrcoef(values.T) - torch.eye(values.shape[1])
        assert correlation.abs().max() < 0.03


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
