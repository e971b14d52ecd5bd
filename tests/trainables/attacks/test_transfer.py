"""Transfer: what misleads one model is shown to another."""

from __future__ import annotations

import pytest
import torch

from trainables import registry
from trainables.attacks.base import SourceModel, craft
from trainables.attacks.pgd import PGD
from trainables.attacks.transfer import Transfer
from trainables.losses.isce import ISCE

USING = {"name": "pgd", "budget": "l2_abs", "eps": 2.0, "steps": 5, "stop": "last"}


def transfer(**using):
    return Transfer(source="abc", using={**USING, **using})


@pytest.fixture
def part(splits):
    return splits.test.first(60)


def test_images_are_made_on_the_source_and_judged_by_the_model(sce, isce, part, right):
    images, labels = right(isce, 40)
    adversarial, outcome = transfer().craft(isce, images, labels, models={"abc": sce})
    pgd = PGD(**{key: value for key, value in USING.items() if key != "name"})
    with torch.no_grad():
        known = sce(images).argmax(dim=1) == labels
        found = isce(adversarial).argmax(dim=1) == labels
    expected, _ = pgd.craft(sce, images[known], labels[known])
    assert torch.allclose(adversarial[known], expected, atol=1e-5)
    assert torch.equal(outcome.correct_after > 0, found)


def test_it_is_weaker_than_looking_into_the_model(sce, isce, part):
    pgd = registry.build("attack", USING)
    white = pgd(isce, part.images, part.labels).correct_after.sum()
    black = transfer()(isce, part.images, part.labels, models={"abc": sce}).correct_after.sum()
    clean = (isce(part.images).argmax(dim=1) == part.labels).sum()
    assert white < black < clean


def test_the_source_is_left_as_it_was(sce, isce, part, model_config):
    sce.train()
    try:
        transfer()(isce, part.images, part.labels, models={"abc": sce})
        assert all(module.training for module in sce.modules())
        assert all(parameter.requires_grad for parameter in sce.parameters())
    finally:
        sce.eval()


def test_size_direction_and_listing_are_those_of_the_attack_on_the_source(part):
    attack = transfer(targeted=True)
    assert attack.targeted
    assert attack.norm == "l2"
    assert torch.equal(attack.radius(part.images), attack.using.radius(part.images))
    columns = attack.columns()
    assert (columns.budget, columns.eps, columns.steps) == ("l2_abs", 2.0, 5)
    assert columns.extra == {"source": "abc", "using": "pgd", "stop": "last"}


def test_it_is_aimed_at_a_models_id_with_an_attack_that_suits_its_loss():
    sce = SourceModel(id="123", loss=registry.build("loss", "sce"), stochastic=False)
    aimed = transfer(surface="ce_deployed").aimed({"abc": sce}.get)
    assert aimed.sources == ("123",)
    assert (aimed.using.surface, aimed.using.eot) == ("ce_raw", 1)
    isce = SourceModel(id="123", loss=ISCE(), stochastic=True)
    aimed = transfer(surface="ce_deployed").aimed({"abc": isce}.get)
    assert (aimed.using.surface, aimed.using.eot) == ("ce_deployed", 20)
    assert transfer().aimed(lambda name: None) is None


def test_identity_is_the_sources_and_not_the_name_that_a_study_gives():
    ids = [
        transfer()
        .aimed(lambda name, id=id: SourceModel(id=id, loss=ISCE(), stochastic=False))
        .identity()
        for id in ("1", "2", "1")
    ]
    assert ids[0] == ids[2] != ids[1]


def test_several_numbers_of_steps_take_one_run_on_the_source(sce, isce, part):
    peers = [transfer(alpha_for=4, steps=steps) for steps in (2, 4)]
    assert peers[0].alike() == peers[1].alike() != transfer().alike()
    together = craft(peers, isce, part.images, part.labels, models={"abc": sce})
    for peer, (adversarial, _) in zip(peers, together, strict=True):
        alone, _ = peer.craft(isce, part.images, part.labels, models={"abc": sce})
        assert torch.equal(adversarial, alone)
