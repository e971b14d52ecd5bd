from __future__ import annotations

import pytest
import torch

from trainables.attacks.pgd import PGD
from trainables.diagnostics.exhibits import Exhibits
from trainables.losses.isce import ISCE
from trainables.losses.sce import SCE

ATTACK = PGD(budget="l2_abs", eps=1.2, steps=5)
N = 120


@pytest.fixture(scope="module")
def found(sce, splits):
    return Exhibits(attack=ATTACK).examine(sce, splits.test.first(N), seed=0)


@pytest.fixture(scope="module")
def outcome(sce, splits):
    part = splits.test.first(N)
    return ATTACK(sce, part.images, part.labels, indices=torch.arange(N), seed=0)


def test_rescoring_the_exhibits_gives_the_same(found, sce, splits, outcome):
    arrays, index = found.arrays, found.arrays["index"]
    with torch.no_grad():
        assert torch.equal(sce(arrays["attacked"]).argmax(dim=1), arrays["after"])
        assert torch.equal(sce(arrays["clean"]).argmax(dim=1), arrays["before"])
        logits = sce.raw(arrays["attacked"])
    own = logits.gather(1, arrays["label"][:, None]).squeeze(1)
    others = logits.scatter(1, arrays["label"][:, None], -torch.inf).amax(dim=1)
    assert torch.allclose(own - others, arrays["margin"], atol=1e-4)
    assert torch.equal(arrays["clean"], splits.test.images[index])
    assert torch.equal(arrays["label"], splits.test.labels[index])
    right = (arrays["after"] == arrays["label"]) & (arrays["before"] == arrays["label"])
    assert torch.equal(right, outcome.correct_after[index].bool())
    delta = (arrays["attacked"] - arrays["clean"]).flatten(1)
    assert torch.allclose(delta.norm(dim=1), arrays["l2"], atol=1e-5)
    assert torch.allclose(arrays["l2"], outcome.l2[index], atol=1e-5)


def test_accuracy_is_the_attacks(found, outcome):
    assert found.numbers == {"accuracy": pytest.approx(float(outcome.correct_after.float().mean()))}


def test_the_first_32_and_the_8_at_either_end_are_kept(found, sce, splits):
    arrays = found.arrays
    assert arrays["index"][arrays["first"]].tolist() == list(range(32))
    assert len(arrays["worst"]) == len(arrays["best"]) == 8
    part = splits.test.first(N)
    attacked, outcome = ATTACK.craft(sce, part.images, part.labels, indices=torch.arange(N))
    with torch.no_grad():
        logits = sce.raw(attacked)
    own = logits.gather(1, part.labels[:, None])
    margin = (own - logits.scatter(1, part.labels[:, None], -torch.inf).amax(1, True)).squeeze(1)
    ranked = margin[outcome.correct_before.bool()].sort().values
    assert torch.allclose(arrays["margin"][arrays["worst"]], ranked[:8], atol=1e-4)
    assert torch.allclose(arrays["margin"][arrays["best"]], ranked.flip(0)[:8], atol=1e-4)
    assert len(arrays["index"]) == len(arrays["index"].unique()) <= 48


def test_takes_the_studys_leading_attack_in_the_models_own_form():
    deployed = PGD(eps=0.1, steps=2, surface="margin_deployed")

    def filled(loss, stochastic=True, **own):
        return Exhibits(**own).filled(loss, deployed, stochastic=stochastic).attack

    assert filled(SCE()) == PGD(eps=0.1, steps=2, surface="margin_raw")
    assert filled(SCE(), stochastic=False) == PGD(eps=0.1, steps=2, surface="margin_raw", eot=1)
    assert filled(ISCE()) == deployed
    assert filled(SCE(), attack=ATTACK) == ATTACK


def test_few_images_are_all_shown(sce, splits):
    arrays = Exhibits(attack=ATTACK).examine(sce, splits.test.first(5), seed=0).arrays
    assert arrays["first"].tolist() == [0, 1, 2, 3, 4]
