from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from trainables.datasets.base import Split, Splits
from trainables.errors import NonFiniteLoss
from trainables.evaluation import accuracy
from trainables.execution import Execution
from trainables.seeding import generator
from trainables.training import Trainer, load_weights, new_classifier, weights_of

CPU = Execution()
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

    def training_pass(self, classifier, images, labels, draws):
        seen.append((images.clone(), labels.clone()))
        return classifier.training_pass(images, labels, draws)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trainer.config.regime), "training_pass", training_pass)
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
    reference.training_pass(few.train.images[:20], few.train.labels[:20]).losses.mean().backward()
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
    real = part.classifier.training_pass

    def spied(images, labels, draws):
        passed = real(images, labels, draws)
        seen.append((passed.losses.detach(), passed.logits.argmax(dim=1) == labels))
        return passed

    part.classifier.training_pass = spied
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


def spent(trainer):
    """Each step's learning rates, by group."""
    rates, real = [], trainer.optimizer.step

    def step(*args, **kwargs):
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        return real(*args, **kwargs)

    trainer.optimizer.step = step
    return rates


def test_schedule_sets_the_rate_of_every_step(trainer):
    part = trainer(schedule="cosine", lr=0.01)
    rates = spent(part)
    finish(part)
    assert [rate for (rate,) in rates] == pytest.approx(
        [0.01 * part.config.training.schedule.factor(step, 9) for step in range(9)]
    )
    assert rates[0][0] == 0.01
    assert rates[-1][0] < 0.001


def test_parameters_with_a_rate_of_their_own_follow_the_schedule_at_its_multiple(trainer):
    part = trainer("lgm", schedule="cosine", lr=0.01)
    rates = spent(part)
    finish(part)
    assert part.classifier.head.rates
    assert sorted(part.rates) == [1.0, 2.0]
    for row in rates:
        by_rate = dict(zip(part.rates, row, strict=True))
        assert by_rate[2.0] == pytest.approx(2 * by_rate[1.0])
    grouped = [p for group in part.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in part.classifier.parameters()}
    assert [id(p) for p in part.rates[2.0]] == [
        id(part.classifier.head.get_parameter(name)) for name in part.classifier.head.rates
    ]


def test_weight_decay_is_adams(model_config, few):
    decay, lr = 0.1, 0.01
    small = dataclasses.replace(few, train=few.train.first(20))
    config = model_config("sce", epochs=1, lr=lr, weight_decay=decay)
    trainer = Trainer(config, small, CPU)
    reference = new_classifier(config, CPU)
    optimizer = torch.optim.Adam(reference.parameters(), lr=lr, weight_decay=decay)
    trainer.epoch()
    order = torch.randperm(20, generator=generator(0, "batches", 1))
    reference.training_pass(*few.train.batch(order)).losses.mean().backward()
    optimizer.step()
    for found, expected in zip(
        trainer.classifier.parameters(), reference.parameters(), strict=True
    ):
        assert torch.equal(found, expected)


def test_gradient_is_clipped_to_the_norm_asked_for(trainer):
    norms = {}
    for limit in (None, 1e-3):
        part, seen = trainer(epochs=1, clip_norm=limit), []
        real = part.optimizer.step

        def step(part=part, seen=seen, real=real):
            gradients = [p.grad.flatten() for p in part.classifier.parameters()]
            seen.append(float(torch.cat(gradients).norm()))
            real()

        part.optimizer.step = step
        part.epoch()
        norms[limit] = seen
    assert min(norms[None]) > 1e-2
    assert norms[1e-3] == pytest.approx([1e-3] * 3, rel=1e-3)


def test_augmented_views_differ_by_epoch_and_keep_their_labels(trainer, few):
    part = trainer(augment="crop", epochs=2)
    seen = batches_seen(part)
    plain = batches_seen(trainer(epochs=2))
    for (images, labels), (originals, same) in zip(seen, plain, strict=True):
        assert torch.equal(labels, same)
        assert images.shape == originals.shape
        assert not torch.equal(images, originals)
    pixels = [torch.cat([x for x, _ in seen[i : i + 3]]).sum(dim=(1, 2, 3)) for i in (0, 3)]
    assert not torch.allclose(*(p.sort().values for p in pixels))


def test_models_that_differ_in_the_loss_see_the_same_augmented_views(trainer):
    options = {"augment": "crop_flip", "epochs": 1}
    for (one, _), (other, _) in zip(
        batches_seen(trainer("sce", **options)), batches_seen(trainer(ISCE, **options)), strict=True
    ):
        assert torch.equal(one, other)


def test_bfloat16_trains_the_backbone_in_it_and_nothing_else(trainer, few):
    part = trainer(precision="bfloat16")
    types = {}
    layers = {"backbone": part.classifier.backbone[0], "head": part.classifier.head.linear}

    def note(name):
        def hook(module, inputs, output):
            types[name, part.classifier.training] = output.dtype

        return hook

    for name, layer in layers.items():
        layer.register_forward_hook(note(name))
    part.epoch()
    assert types == {
        ("backbone", True): torch.bfloat16,
        ("head", True): torch.float32,
        ("backbone", False): torch.float32,
        ("head", False): torch.float32,
    }
    assert all(p.dtype == torch.float32 for p in part.classifier.parameters())
    other = trainer()
    other.epoch()
    assert part.history[0].train_loss == pytest.approx(other.history[0].train_loss, rel=0.02)
    assert part.history[0].train_loss != other.history[0].train_loss


@pytest.mark.parametrize("layout", [True, False])
def test_channels_last_is_the_executions_choice(model_config, layout):
    execution = Execution(channels_last=layout)
    first = new_classifier(model_config(backbone="cnn8"), execution).backbone[2].weight
    assert first.is_contiguous(memory_format=torch.channels_last) == layout


def test_layout_changes_rounding_alone(model_config, few):
    curves = [
        curve(finish(Trainer(model_config(epochs=2), few, Execution(channels_last=layout))))
        for layout in (True, False)
    ]
    for one, other in zip(*curves, strict=True):
        assert one == pytest.approx(other, abs=0.01)


EVERYTHING = {
    "schedule": {"name": "one_cycle"},
    "weight_decay": 1e-4,
    "clip_norm": 1.0,
    "augment": "crop_flip",
    "precision": "bfloat16",
}


@pytest.mark.parametrize("loss", ["center", "lgm", "arcface", "mmc"])
def test_resumed_training_equals_uninterrupted_training_whatever_the_options(
    model_config, few, loss
):
    config = model_config(
        loss,
        epochs=3,
        regime={"name": "adversarial", "budget": "l2_abs", "eps": 0.5, "steps": 1},
        transform={"name": "random_resize_pad", "apply": "both"},
        **EVERYTHING,
    )
    whole = finish(Trainer(config, few, CPU))
    part, resumed = Trainer(config, few, CPU), Trainer(config, few, CPU)
    part.epoch()
    resumed.load(part.save())
    finish(resumed)
    assert weights_of(resumed.classifier) == weights_of(whole.classifier)
    assert curve(resumed) == curve(whole)
    assert resumed.save()["optimizer.safetensors"] == whole.save()["optimizer.safetensors"]


def test_centers_move_by_their_own_rule_after_every_step(trainer):
    part = trainer("center", epochs=1)
    seen, real = [], part.classifier.head.update

    def update(features, labels):
        assert not features.requires_grad
        seen.append(len(labels))
        real(features, labels)

    part.classifier.head.update = update
    before = {name: value.clone() for name, value in part.classifier.named_buffers()}
    part.epoch()
    assert seen == [128, 128, 44]
    moved = [
        name
        for name, value in part.classifier.named_buffers()
        if not torch.equal(value, before[name])
    ]
    assert moved == ["head.centers"]


def test_options_reach_the_id_and_their_absence_leaves_it(model_config):
    plain = model_config().id
    for key, value in EVERYTHING.items():
        assert model_config(**{key: value}).id != plain
    assert model_config(schedule="constant", weight_decay=0.0, clip_norm=None).id == plain


def test_a_rate_for_a_parameter_that_there_is_not_is_a_bug(model_config, few, monkeypatch):
    config = model_config("lgm")
    head = type(config.loss.head(84, 10))
    monkeypatch.setattr(head, "rates", {"centres": 2.0})
    with pytest.raises(ValueError, match=r"there are not: head\.centres"):
        Trainer(config, few, CPU)


def test_state_that_is_not_descended_must_be_finite_too(trainer):
    part = trainer("center", epochs=1)
    part.classifier.head.update = lambda features, labels: (
        part.classifier.head.centers.fill_(float("inf")) if len(labels) == 44 else None
    )
    with pytest.raises(NonFiniteLoss, match="weights are not finite after epoch 1's last step"):
        part.epoch()
