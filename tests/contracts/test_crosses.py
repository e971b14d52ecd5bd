"""Every cross of loss x regime x transform trains on every backbone, or is refused by name."""

from __future__ import annotations

import itertools

import pytest
import torch

from trainables import registry
from trainables.config import ModelConfig, Training
from trainables.datasets.base import Split, Splits
from trainables.execution import Execution
from trainables.training import Trainer

REGIMES = [
    {"name": "standard"},
    {"name": "adversarial", "budget": "linf", "eps": 0.1, "steps": 2},
    {"name": "adversarial", "budget": "l2_abs", "eps": 0.5, "steps": 1},
]
TRANSFORMS = [
    {"name": "none"},
    {"name": "random_resize_pad"},
    {"name": "random_resize_pad", "apply": "both"},
]
CROSSES = list(
    itertools.product(
        registry.names("loss"), REGIMES, TRANSFORMS, registry.names("backbone"), ["mnist5k"]
    )
) + list(
    itertools.product(registry.names("loss"), REGIMES[:1], TRANSFORMS[-1:], ["cnn8"], ["cifar10"])
)


def named(cross):
    loss, regime, transform, backbone, dataset = cross
    options = [value for part in (regime, transform) for value in part.values()]
    return "-".join(map(str, [loss, *options, backbone, dataset]))


def few(dataset, n):
    """n images of the data set's shape, every class among them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, *dataset.shape, generator=generator)
    part = Split(images, torch.arange(n) % dataset.classes)
    return Splits(train=part, validation=part, test=part)


def configured(loss, regime, transform, backbone, dataset):
    parts = {"loss": loss, "regime": regime, "transform": transform, "backbone": backbone}
    built = {kind: registry.build(kind, spec) for kind, spec in parts.items()}
    made = registry.build("dataset", dataset)
    return ModelConfig(dataset=made, **built, training=Training(epochs=1, batch_size=10), seed=0)


def test_every_component_stands_in_the_crosses():
    used = {kind: {spec["name"] for spec in specs} for kind, specs in
            (("regime", REGIMES), ("transform", TRANSFORMS))}  # fmt: skip
    assert used == {kind: set(registry.names(kind)) for kind in used}


@pytest.mark.parametrize("cross", CROSSES, ids=named)
def test_one_step_moves_the_weights(cross):
    config = configured(*cross)
    trainer = Trainer(config, few(config.dataset, 10), Execution())
    before = {name: p.detach().clone() for name, p in trainer.classifier.named_parameters()}
    epoch = trainer.epoch()
    assert torch.tensor(epoch.train_loss).isfinite()
    still = [
        name
        for name, parameter in trainer.classifier.named_parameters()
        if torch.equal(parameter, before[name])
    ]
    assert not still, f"never moved: {still}"
    assert all(value.isfinite().all() for value in trainer.classifier.state_dict().values())


@pytest.mark.parametrize("cls", list(registry.every("loss")), ids=lambda cls: cls.name)
@pytest.mark.parametrize("backbone", registry.names("backbone"))
def test_an_embedding_of_three_trains_or_is_refused(cls, backbone):
    config = configured(cls.name, *REGIMES[:1], *TRANSFORMS[:1],
                        {"name": backbone, "embedding": 3}, "mnist5k")  # fmt: skip
    if cls().refuses(3, 10) is None:
        assert Trainer(config, few(config.dataset, 10), Execution()).epoch().train_loss >= 0
    else:
        with pytest.raises(ValueError, match=cls.name):
            Trainer(config, few(config.dataset, 10), Execution())


def test_mmc_alone_refuses_an_embedding_of_three_and_a_hundred_classes_on_64_features():
    losses = {cls.name: cls() for cls in registry.every("loss")}
    for width, classes in ((3, 10), (64, 100)):
        refusing = [name for name, loss in losses.items() if loss.refuses(width, classes)]
        assert refusing == ["mmc"]
    assert losses["mmc"].refuses(9, 10) is None
