from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from trainables.datasets.base import Split, Splits
from trainables.errors import NonFiniteLoss
from trainables.evaluation import accuracy
from trainables.seeding import generator
from trainables.training import Trainer, load_weights, new_classifier, weights_of

CPU = torch.device("cpu")
ISCE = {"name": "isce", "s": 1.0, "m": 0.1}


@pytest.fixture(scope="module")
def few(splits):
    """300 training images, so that an epoch is short."""
    return Splits(
        train=splits.train.first(300),
        validation=splits.validation.first(100),
        test=splits.test.first(100),
    )


@pytest.fixture
def trainer(model_config, few):
    def make(loss="sce", **training):
        return Trainer(model_config(loss, **{"epochs": 3, **training}), few, CPU)

    return make


def finish(trainer):
    while not trainer.done:
        trainer.epoch()
    return trainer


def curve(trainer):
    """The history without what the clock says."""
    return [
        {k: v for k, v in dataclasses.asdict(epoch).items() if k not in ("seconds", "time")}
        for epoch in trainer.history
    ]


def test_trains_to_a_useful_accuracy(sce, isce, splits):
    assert accuracy(sce, splits.test) > 0.94
    assert accuracy(isce, splits.test) > 0.94


def test_same_configuration_gives_the_same_bits(trainer):
    one = finish(trainer())
    torch.manual_seed(99)
    other = finish(trainer())
    assert weights_of(one.classifier) == weights_of(other.classifier)
    assert curve(one) == curve(other)


def test_seed_changes_the_weights(trainer):
    assert weights_of(finish(trainer(seed=0)).classifier) != weights_of(
        finish(trainer(seed=1)).classifier
    )


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resumed_training_equals_uninterrupted_training_bitwise(trainer, stop):
    whole = finish(trainer(ISCE))
    part = trainer(ISCE)
    for _ in range(stop):
        part.epoch()
    resumed = trainer(ISCE)
    resumed.load(part.save())
    assert resumed.history == part.history
    assert resumed.done == (stop == 3)
    finish(resumed)
    assert weights_of(resumed.classifier) == weights_of(whole.classifier)
    assert curve(resumed) == curve(whole)
    saved, expected = resumed.save(), whole.save()
    assert saved["optimizer.safetensors"] == expected["optimizer.safetensors"]


def test_saved_state_is_safetensors_and_json(trainer):
    part = trainer()
    part.epoch()
    saved = part.save()
    assert set(saved) == {"weights.safetensors", "optimizer.safetensors", "progress.json"}
    assert json.loads(saved["progress.json"])["history"][0]["epoch"] == 1
    assert not any(data.startswith(b"\x80") for data in saved.values())  # pickle's first byte


def batches_seen(trainer):
    seen = []

    def losses(self, classifier, images, labels):
        seen.append((images.clone(), labels.clone()))
        return classifier.training_losses(images, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trainer.config.regime), "losses", losses)
        finish(trainer)
    return seen


def test_models_that_differ_in_the_loss_start_alike_and_see_the_same_batches(trainer):
    one, other = trainer("sce"), trainer({"name": "isce", "s": 3.0, "m": 0.5})
    assert weights_of(one.classifier) == weights_of(other.classifier)
    pairs = list(zip(batches_seen(one), batches_seen(other), strict=True))
    assert len(pairs) == 9
    for (images, labels), (same_images, same_labels) in pairs:
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own(trainer, few):
    seen = batches_seen(trainer())
    assert [len(labels) for _, labels in seen] == [128, 128, 44] * 3
    epochs = [torch.cat([images for images, _ in seen[i : i + 3]]) for i in (0, 3, 6)]
    expected = few.train.images.flatten(1).sum(dim=1).sort().values
    for images in epochs:
        assert torch.allclose(images.flatten(1).sum(dim=1).sort().values, expected)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


def test_labels_stay_with_their_images(trainer, few):
    label_of = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(few.train.images, few.train.labels, strict=True)
    }
    for images, labels in batches_seen(trainer(epochs=1)):
        for image, label in zip(images, labels, strict=True):
            assert label_of[image.numpy().tobytes()] == int(label)


def test_one_step_is_adams(model_config, few):
    small = Splits(train=few.train.first(20), validation=few.validation, test=few.test)
    config = model_config(ISCE, epochs=1, lr=0.01)
    trainer = Trainer(config, small, CPU)
    reference = new_classifier(config, CPU)
    reference.training_losses(few.train.images[:20], few.train.labels[:20])[0].mean().backward()
    trainer.epoch()
    pairs = zip(reference.parameters(), trainer.classifier.parameters(), strict=True)
    for before, after in pairs:  # Adam's first step is lr g / (|g| + 1e-8)
        expected = before - 0.01 * before.grad / (before.grad.abs() + 1e-8)
        big = before.grad.abs() > 1e-5
        assert torch.allclose(after[big], expected[big], atol=1e-5)


def test_history_tells_loss_and_accuracies(trainer, few):
    done = finish(trainer())
    assert [epoch.epoch for epoch in done.history] == [1, 2, 3]
    assert done.history[-1].validation_accuracy == accuracy(done.classifier, few.validation)
    assert done.history[-1].train_loss < done.history[0].train_loss
    assert all(0 <= epoch.train_accuracy <= 1 for epoch in done.history)
    assert all(epoch.seconds > 0 for epoch in done.history)
    assert done.history[0].time < done.history[-1].time


def test_train_accuracy_counts_images_as_they_were_trained_on(trainer, few):
    part = trainer(epochs=1)
    seen = []
    real = part.classifier.training_losses

    def spied(images, labels):
        losses, logits = real(images, labels)
        seen.append((losses.detach(), logits.argmax(dim=1) == labels))
        return losses, logits

    part.classifier.training_losses = spied
    epoch = part.epoch()
    assert epoch.train_accuracy == pytest.approx(float(torch.cat([h for _, h in seen]).sum()) / 300)
    assert epoch.train_loss == pytest.approx(float(torch.stack([x.mean() for x, _ in seen]).mean()))


def test_train_loss_that_is_not_finite_says_where(trainer):
    part = trainer(lr=1e37)
    with pytest.raises(NonFiniteLoss, match=r"non-finite loss (nan|inf) at epoch 1, step [2-9]"):
        finish(part)
    assert part.history == []


def test_first_bad_step_is_named(trainer, few):
    part = trainer()
    images = few.train.images.clone()
    part.splits = dataclasses.replace(few, train=Split(images, few.train.labels))
    part.epoch()
    order = torch.randperm(300, generator=generator(0, "batches", 2))
    images[order[130]] = float("nan")
    with pytest.raises(NonFiniteLoss, match="non-finite loss nan at epoch 2, step 2"):
        part.epoch()


def test_weights_round_trip(sce, model_config):
    other = new_classifier(model_config(seed=5), CPU)
    load_weights(other, weights_of(sce))
    assert weights_of(other) == weights_of(sce)


def test_weights_of_another_network_are_refused(sce, affine):
    with pytest.raises(RuntimeError):
        load_weights(affine(torch.zeros(2, 4), torch.zeros(2)), weights_of(sce))
