"""What `Attack.__call__` owns: modes, gradients, range, budget, judgement, survivors."""

from __future__ import annotations

import copy

import pytest
import torch

from trainables.attacks.base import Attack
from trainables.attacks.deepfool import DeepFool
from trainables.attacks.pgd import PGD
from trainables.errors import BrokenInvariant


class Scripted(Attack):
    """Does to its batch what a test says, and remembers what it was given."""

    name, revision = "scripted", 1  # never registered

    def __init__(self, change=lambda images: images, norm=None, radius=None):
        self.change, self._norm, self._radius = change, norm, radius
        self.batches = []

    @property
    def norm(self):
        return self._norm

    def radius(self, images):
        if self._radius is None:
            return None
        return images.new_full((len(images), 1, 1, 1), self._radius)

    def columns(self):
        return None

    def perturb(self, classifier, batch):
        self.batches.append(batch)
        self.modes = [module.training for module in classifier.modules()]
        self.wanted = [parameter.requires_grad for parameter in classifier.parameters()]
        return self.change(batch.images), torch.full((len(batch.images),), 7)


ATTACKS = [
    PGD(budget="l2_abs", eps=1.0, steps=2, targeted=True, random_start=True),
    DeepFool(steps=2),
]


@pytest.fixture
def model(sce):
    return copy.deepcopy(sce)


@pytest.fixture(scope="module")
def mixed(sce, splits):
    """Twelve images whose labels are right, except the 2nd, the 5th and the last."""
    images = splits.test.images[:12]
    with torch.no_grad():
        labels = sce(images).argmax(dim=1)
    wrong = torch.tensor([1, 4, 11])
    labels[wrong] = (labels[wrong] + 1) % 10
    return images, labels


def push(eps):
    """Every pixel towards the middle of its range, by eps."""
    return lambda images: images + eps * torch.where(images < 0.5, 1.0, -1.0)


@pytest.mark.parametrize("attack", [*ATTACKS, Scripted()], ids=lambda a: a.name)
def test_modes_flags_and_gradients_are_left_as_they_were(model, mixed, attack):
    model.train()
    model.backbone[3].eval()
    first, *others = model.parameters()
    first.requires_grad_(False)
    others[0].grad = torch.ones_like(others[0])
    modes = [module.training for module in model.modules()]
    attack(model, *mixed)
    assert [module.training for module in model.modules()] == modes
    assert not first.requires_grad
    assert all(parameter.requires_grad for parameter in others)
    assert torch.equal(others[0].grad, torch.ones_like(others[0]))
    assert first.grad is None
    assert all(parameter.grad is None for parameter in others[1:])


def test_modes_and_flags_are_restored_after_an_error(model, mixed):
    def fail(images):
        raise RuntimeError("out of luck")

    model.train()
    with pytest.raises(RuntimeError, match="out of luck"):
        Scripted(fail)(model, *mixed)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_attack_sees_eval_mode_and_frozen_parameters(model, mixed):
    model.train()
    attack = Scripted()
    attack(model, *mixed)
    assert not any(attack.modes)
    assert not any(attack.wanted)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_weights_are_left_as_they_were(model, mixed, attack):
    before = copy.deepcopy(model.state_dict())
    attack(model, *mixed)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_random_state_of_torch_is_untouched(model, mixed, attack):
    before = torch.get_rng_state()
    attack(model, *mixed)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_survivors_are_attacked(model, mixed):
    images, labels = mixed
    attack = Scripted(push(0.1))
    outcome = attack(model, images, labels, indices=torch.arange(100, 112), seed=5)
    alive = torch.tensor([0, 2, 3, 5, 6, 7, 8, 9, 10])
    (batch,) = attack.batches
    assert torch.equal(batch.images, images[alive])
    assert torch.equal(batch.labels, labels[alive])
    assert torch.equal(batch.draws.indices, 100 + alive)
    assert batch.draws.key[0] == 5
    assert batch.targets is None
    assert outcome.correct_before.nonzero().flatten().tolist() == alive.tolist()
    assert (outcome.linf > 0).nonzero().flatten().tolist() == alive.tolist()
    assert (outcome.queries == 7).nonzero().flatten().tolist() == alive.tolist()
    assert outcome.correct_after[[1, 4, 11]].tolist() == [0, 0, 0]


def test_attack_is_not_called_without_survivors(model, mixed):
    images, labels = mixed
    attack = Scripted()
    outcome = attack(model, images[[1, 4]], labels[[1, 4]])
    assert attack.batches == []
    assert outcome.correct_after.tolist() == [0, 0]


def test_images_given_are_not_changed(model, mixed):
    images, labels = mixed
    before = images.clone()
    Scripted(lambda batch: batch.mul_(0.0))(model, images, labels)
    assert torch.equal(images, before)


def test_success_is_judged_by_the_model_on_the_clipped_result(model, mixed):
    images, labels = mixed
    black = Scripted(lambda batch: torch.full_like(batch, -9.0))
    outcome = black(model, images, labels)
    with torch.no_grad():
        seen = model(torch.zeros_like(images[:1])).argmax()
    expected = outcome.correct_before.bool() & (labels == seen)
    assert torch.equal(outcome.correct_after.bool(), expected)
    alive = outcome.correct_before.bool()
    length = images.flatten(1).norm(dim=1)
    assert torch.allclose(outcome.l2[alive], length[alive], rtol=1e-5)
    assert torch.allclose(outcome.linf[alive], images.flatten(1).amax(dim=1)[alive])


def test_attack_that_does_nothing_leaves_the_clean_accuracy(model, mixed):
    outcome = Scripted()(model, *mixed)
    assert torch.equal(outcome.correct_after, outcome.correct_before)


class Fickle(torch.nn.Module):
    """Says class 0 when first asked and class 1 ever after."""

    asked = 0
    stochastic = False

    def forward(self, images, draws):
        self.asked += 1
        return torch.eye(2)[[min(self.asked - 1, 1)]].expand(len(images), 2)


def test_clean_mistake_counts_as_broken_whatever_is_said_later():
    outcome = Scripted()(Fickle(), torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    assert outcome.correct_before.tolist() == [1, 0]
    assert outcome.correct_after.tolist() == [0, 0]


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_perturbation_within_its_budget_passes(model, mixed, norm):
    radius = 0.1 if norm == "linf" else 0.1 * 28 * (1 + 1e-6)
    Scripted(push(0.1), norm, radius)(model, *mixed)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_perturbation_outside_its_budget_is_a_bug(model, mixed, norm):
    radius = 0.1 if norm == "linf" else 0.1 * 28
    cheat = Scripted(push(0.1 * (1 + 1e-4)), norm, radius)
    with pytest.raises(BrokenInvariant, match="budget"):
        cheat(model, *mixed)


def test_one_cheated_image_is_enough(model, mixed):
    def change(images):
        images = images.clone()
        images[3, 0, 0, 0] = 0.5
        return images

    with pytest.raises(BrokenInvariant, match="budget"):
        Scripted(change, "linf", 0.1)(model, *mixed)


def test_budget_is_judged_after_clipping(model, mixed):
    images, labels = mixed
    Scripted(lambda batch: batch - 9.0 * (batch == 0), "linf", 0.01)(model, images, labels)


@pytest.mark.parametrize("budget", [("l2", 1.0), ("linf", 0.1), (None, None)], ids=str)
def test_result_that_is_not_a_number_is_a_bug(model, mixed, budget):
    # Otherwise argmax takes NaN for class 0 and nine tenths of the images count as broken.
    with pytest.raises(BrokenInvariant):
        Scripted(lambda batch: batch * float("nan"), *budget)(model, *mixed)


@pytest.mark.parametrize("value", [-1e-3, 1.001, 255.0, float("inf"), float("nan")])
def test_images_outside_the_range_are_refused(model, mixed, value):
    images, labels = mixed[0].clone(), mixed[1]
    images[2, 0, 5, 5] = value
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Scripted()(model, images, labels)


def test_no_images_give_an_empty_outcome(model, mixed):
    outcome = PGD(eps=0.1, steps=2, targeted=True)(model, mixed[0][:0], mixed[1][:0])
    assert all(len(getattr(outcome, name)) == 0 for name in ("correct_before", "l2", "targets"))


def test_call_cannot_be_overridden_unnoticed():
    assert getattr(Attack.__call__, "__final__", False)
