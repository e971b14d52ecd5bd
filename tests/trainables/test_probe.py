"""What is measured is the work of a trial, and no image gets out of it early."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from trainables import probe, registry
from trainables.attacks.base import craft
from trainables.config import Cell
from trainables.execution import Execution
from trainables.training import new_classifier

CPU = Execution()
SMALL = {"steps": 3, "queries": 5, "eps": 0.1, "eot": 2}


def attack(name, **parameters):
    if name == "transfer":
        parameters = {"source": "0" * 16, "using": attack("pgd"), **parameters}
    fields = {field.name for field in dataclasses.fields(registry.find("attack", name))}
    given = {**SMALL, **parameters}
    if name == "deepfool":  # free, as in most studies
        given.pop("eps")
    return registry.find("attack", name)(**{k: v for k, v in given.items() if k in fields})


def cell_of(probed, n=8):
    return Cell(probe=probed, split="test", n=n)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(probe, "STEPS", 2)
    monkeypatch.setattr(probe, "ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr("trainables.attacks.autoattack.RIVALS", 2)


@pytest.mark.parametrize("name", registry.names("attack"))
def test_every_attack_can_be_measured(model_config, name):
    assert probe.attack_rate(model_config(), cell_of(attack(name)), CPU) > 0


def test_every_diagnostic_can_be_measured(model_config):
    config = model_config()
    for cls in registry.every("diagnostic"):
        made = cls().filled(config.loss, attack("pgd"), stochastic=False)
        assert probe.attack_rate(config, cell_of(made), CPU) > 0


@pytest.mark.parametrize("transform", ["none", "random_resize_pad"])
@pytest.mark.parametrize("regime", registry.names("regime"))
def test_every_regime_can_be_measured(model_config, regime, transform):
    adversarial = {"name": regime, "budget": "linf", "eps": 0.1, "steps": 3}
    regime = adversarial if regime == "adversarial" else regime
    config = model_config(regime=regime, transform=transform, batch_size=8)
    assert probe.training_rate(config, CPU) > 0
    assert probe.attack_rate(config, cell_of(attack("pgd")), CPU) > 0


@pytest.mark.parametrize("name", ["pgd", "square", "simba", "apgd"])
def test_images_survive_to_the_last_step(model_config, name):
    config = model_config()
    classifier = new_classifier(config, CPU).eval()
    made, factor = probe.shortened(attack(name, steps=6))
    splits = probe.as_seen(probe.noise(config, 1, 16, CPU).test, classifier)
    images, labels = splits.test.batch(torch.arange(len(splits.test)))
    ((_, outcome),) = craft([made], classifier, images, labels)
    assert factor == 3
    assert bool((outcome.correct_after == 1).all())
    assert int(outcome.queries.min()) >= 2


def test_steps_that_are_not_run_are_counted():
    whole = attack("transfer", using=attack("pgd", steps=40))
    short, factor = probe.shortened(whole)
    assert (short.using.steps, short.using.eps, factor) == (2, 0.0, 20)
    few = attack("pgd", steps=1)
    assert probe.shortened(few)[1] == 1


def test_an_ensemble_is_the_sum_of_its_stages():
    ensemble = attack("autoattack", version="standard", queries=50)
    assert [part.name for part in ensemble.parts] == ["apgd", "apgd", "fab", "square"]
    assert probe.shortened(ensemble.parts[-1])[1] == 25
    assert attack("pgd").parts == (attack("pgd"),)
