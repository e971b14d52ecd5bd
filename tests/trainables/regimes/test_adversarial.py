"""Madry et al.'s regime: what its inner attack does, and on what it trains."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from trainables import registry
from trainables.attacks.budgets import size
from trainables.attacks.pgd import PGD
from trainables.execution import Execution
from trainables.regimes.adversarial import Adversarial
from trainables.seeding import Draws
from trainables.training import new_classifier

ARMS = [
    Adversarial(budget="linf", eps=0.2, steps=5),
    Adversarial(budget="l2_abs", eps=1.5, steps=5),
    Adversarial(budget="l2_rel", eps=0.15, steps=5),
]
every_arm = pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.budget.name)


def draws(n, epoch=1):
    return Draws((0, "training", epoch), torch.arange(n))


class Spy:
    """Keeps the images that a classifier's training pass is given."""

    def __init__(self, classifier):
        self.classifier, self.seen, self.real = classifier, [], classifier.training_pass
        classifier.training_pass = self

    def __call__(self, images, labels, draws):
        self.seen.append((images, self.classifier.backbone.training))
        return self.real(images, labels, draws)


@pytest.fixture
def model(sce):
    return copy.deepcopy(sce).train()


@pytest.fixture
def batch(splits):
    return splits.train.images[:40], splits.train.labels[:40]


@every_arm
def test_trains_on_examples_within_the_ball_and_the_box(model, batch, arm):
    spy = Spy(model)
    arm.training_pass(model, *batch, draws(40))
    ((adversarial, training),) = spy.seen
    radius = arm.budget.radius(batch[0], arm.eps, arm.steps)
    assert (size(adversarial - batch[0], arm.budget.norm) <= radius * (1 + 1e-5)).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert training
    assert not adversarial.requires_grad


@every_arm
def test_its_examples_raise_the_inner_objective_above_the_balls_random_points(model, batch, arm):
    spy = Spy(model)
    arm.training_pass(model, *batch, draws(40))
    for steps in (0, 1):
        again = Spy(copy.deepcopy(model))
        Adversarial(
            budget=arm.budget, eps=arm.eps, steps=1, alpha=1e-9 if steps == 0 else None
        ).training_pass(again.classifier, *batch, draws(40))
        value, less = (
            model.head.inner(model.features(images), batch[1]).mean()
            for images in (spy.seen[0][0], again.seen[0][0])
        )
        assert value > less


def test_is_pgd_on_the_inner_objective(model, batch):
    # Without a start and with the last iterate kept it is the attack of that name.
    spy = Spy(model)
    regime = Adversarial(budget="l2_abs", eps=1.0, steps=4, random_start=False)
    regime.training_pass(model, *batch, draws(40))
    attack = PGD(budget="l2_abs", eps=1.0, steps=4, surface="ce_raw", stop="last")
    expected, outcome = attack.craft(model, *batch)
    right = outcome.correct_before.bool()
    assert right.sum() > 35
    assert torch.allclose(spy.seen[0][0][right], expected[right], atol=1e-6)


def test_start_is_keyed_by_image_and_epoch(model, batch):
    images, labels = batch
    spy = Spy(model)
    arm = ARMS[0]
    arm.training_pass(model, images, labels, draws(40))
    arm.training_pass(model, images, labels, draws(40, epoch=2))
    index = torch.tensor([7, 30])
    arm.training_pass(model, images[index], labels[index], draws(40)[index])
    one, other, some = (seen for seen, _ in spy.seen)
    assert not torch.equal(one, other)
    assert torch.allclose(some, one[index], atol=1e-6)


@pytest.mark.parametrize("backbone", ["resnet32"])
def test_batch_statistics_are_those_of_the_adversarial_batch_alone(model_config, batch, backbone):
    config = model_config(backbone=backbone)
    one, other = (new_classifier(config, Execution()).train() for _ in range(2))
    spy = Spy(one)
    images, labels = batch[0][:6], batch[1][:6]
    Adversarial(budget="linf", eps=0.1, steps=2).training_pass(one, images, labels, draws(6))
    other(spy.seen[0][0])
    norms = [module for module in one.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(int(module.num_batches_tracked) == 1 for module in norms)
    for name, value in one.state_dict().items():
        assert torch.allclose(value.float(), other.state_dict()[name].float()), name


def test_parameters_get_the_gradient_of_the_training_loss_alone(model, batch):
    passed = ARMS[0].training_pass(model, *batch, draws(40))
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert model.training
    assert model.backbone.training
    passed.losses.mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_no_steps_of_a_size_of_nothing_is_standard_training(model, batch):
    arm = Adversarial(budget="linf", eps=0.0, steps=1)
    standard = registry.build("regime", "standard")
    one = arm.training_pass(model, *batch, draws(40))
    other = standard.training_pass(model, *batch, draws(40))
    assert torch.equal(one.losses, other.losses)


def test_the_losss_own_objective_is_what_is_raised(model, batch, monkeypatch):
    asked = []
    real = type(model.head).inner
    monkeypatch.setattr(
        type(model.head), "inner", lambda head, h, y: asked.append(len(h)) or real(head, h, y)
    )
    Adversarial(budget="linf", eps=0.1, steps=3).training_pass(model, *batch, draws(40))
    assert asked == [40] * 3


@pytest.mark.parametrize(
    "wrong", [{"eps": -1}, {"steps": 0}, {"alpha": 0}, {"budget": "l3"}], ids=str
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Adversarial(**{"budget": "linf", "eps": 0.1, "steps": 1, **wrong})


def test_norm_and_size_have_no_default():
    for missing in ("budget", "eps", "steps"):
        keys = {"budget": "linf", "eps": 0.1, "steps": 1}
        del keys[missing]
        with pytest.raises(ValidationError, match=missing):
            Adversarial(**keys)
