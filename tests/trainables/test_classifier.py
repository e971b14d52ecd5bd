from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables import registry
from trainables.classifier import Classifier, _misfit, build_classifier, refusal
from trainables.datasets.mnist5k import MNIST5k
from trainables.losses.sce import SCE
from trainables.transforms.base import Transformation
from trainables.transforms.random_resize_pad import RandomResizePad

LOSSES = ["sce", {"name": "isce", "s": 2.0, "m": 0.3}, {"name": "isce", "normalize": "features"}]


@pytest.fixture(scope="module")
def build():
    def make(loss="sce", seed=0):
        return build_classifier(
            dataset=registry.build("dataset", "mnist5k"),
            backbone=registry.build("backbone", "lenet5"),
            loss=registry.build("loss", loss),
            transform=registry.build("transform", "none"),
            seed=seed,
        )

    return make


def test_models_that_differ_in_the_loss_start_from_the_same_bits(build):
    torch.manual_seed(1)
    states = [build(loss).state_dict() for loss in LOSSES]
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_models_that_differ_in_the_seed_start_differently(build):
    one, other = build(seed=0).state_dict(), build(seed=1).state_dict()
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_weights_are_drawn_whatever_was_drawn_before(build):
    torch.manual_seed(1)
    one = build().state_dict()
    torch.manual_seed(2)
    torch.rand(7)
    same = build().state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_normalisation_and_transform_are_inside():
    seen = []

    class Spy(nn.Flatten):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    class Threshold(Transformation):
        def forward(self, images, draws):
            return torch.where(images > 0.5, images, 0.25)

    classifier = Classifier(
        transform=Threshold(),
        backbone=Spy(),
        head=registry.build("loss", "sce").head(8, 3),
        mean=(0.1, 0.2),
        std=(0.5, 2.0),
    )
    images = torch.rand(2, 2, 2, 2)
    classifier(images)
    kept = torch.where(images > 0.5, images, torch.tensor(0.25))
    expected = torch.stack([(kept[:, 0] - 0.1) / 0.5, (kept[:, 1] - 0.2) / 2.0], dim=1)
    assert torch.allclose(seen[0], expected)


def test_mnist_is_normalised_by_its_own_mean_and_deviation(build):
    classifier = build()
    assert classifier.mean.flatten().tolist() == pytest.approx([0.1307])
    assert classifier.std.flatten().tolist() == pytest.approx([0.3081])


def test_normalisation_follows_the_precision_and_is_no_weight(build):
    classifier = build().double()
    assert classifier.mean.dtype == torch.float64
    assert not {"mean", "std"} & set(classifier.state_dict())
    assert classifier(torch.rand(1, 1, 28, 28, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_logits_losses_and_features_belong_together(build, loss):
    classifier, images = build(loss), torch.rand(6, 1, 28, 28)
    labels = torch.arange(6)
    features = classifier.features(images)
    raw = classifier.raw(images)
    assert features.shape == (6, 84)
    assert torch.equal(raw, classifier.head(features))
    assert torch.equal(classifier(images), classifier.head.deployed(raw))
    passed = classifier.training_pass(images, labels)
    assert torch.equal(passed.losses, classifier.head.loss(features, labels))
    assert torch.equal(passed.logits, classifier(images))
    assert torch.equal(passed.features, features)
    assert passed.losses.requires_grad
    assert not passed.logits.requires_grad


class Tiny(MNIST5k):
    shape = (1, 8, 8)


@pytest.mark.parametrize("backbone", ["lenet5", "cnn8"])
def test_images_too_small_for_a_backbone_are_refused_before_anything_is_trained(backbone):
    parts = {kind: registry.build(kind, name) for kind, name in
             (("backbone", backbone), ("loss", "sce"), ("transform", "none"))}  # fmt: skip
    reason = refusal(dataset=Tiny(), **parts)
    assert reason.startswith(f"{backbone} cannot take images of 1 x 8 x 8 (none): ")
    with pytest.raises(ValueError, match="cannot take"):
        build_classifier(dataset=Tiny(), **parts, seed=0)


def test_an_averaging_backbone_takes_images_of_any_size():
    parts = {kind: registry.build(kind, name) for kind, name in
             (("backbone", "resnet32"), ("loss", "sce"), ("transform", "none"))}  # fmt: skip
    assert refusal(dataset=Tiny(), **parts) is None


def test_trying_an_image_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    _misfit.cache_clear()
    for name in registry.names("backbone"):
        parts = {"backbone": registry.build("backbone", name), "loss": SCE()}
        assert refusal(dataset=MNIST5k(), transform=RandomResizePad(), **parts) is None
    assert torch.equal(torch.get_rng_state(), before)
