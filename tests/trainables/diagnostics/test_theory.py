from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.attacks.deepfool import DeepFool
from trainables.attacks.pgd import PGD
from trainables.diagnostics.theory import Theory
from trainables.losses.isce import ISCE
from trainables.losses.sce import SCE
from trainables.theory import condition, inference_interval, interval

N = 60
HEADLINE = PGD(eps=0.1, steps=2)


def filled(loss, stochastic=False, **own):
    return Theory(**own).filled(loss, HEADLINE, stochastic=stochastic)


@pytest.fixture(scope="module")
def found(isce, splits):
    theory = filled(ISCE(s=2.0, m=0.1))
    return theory.examine(isce, splits.test.first(N), seed=0)


def test_arrays_are_the_equations_on_the_models_own_logits(found, isce, splits):
    part, index = splits.test.first(N), found.arrays["index"]
    attacked, outcome = DeepFool().craft(isce, part.images, part.labels, indices=torch.arange(N))
    broken = outcome.correct_before.bool() & ~outcome.correct_after.bool()
    assert index.tolist() == broken.nonzero().flatten().tolist()
    with torch.no_grad():
        f, f_adv = (isce(x[index]).double().numpy() for x in (part.images, attacked))
    labels = part.labels[index].numpy()
    rows = np.arange(len(labels))
    others = np.exp(f).sum(1) - np.exp(f[rows, labels])
    expected = {
        "f_i": f[rows, labels],
        "others": others,
        "z": condition(f[rows, labels], others, 2.0, 0.1),
        "L": interval(f, f_adv, labels),
        "L_I": inference_interval(f, f_adv, labels, 2.0, 0.1),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found.arrays[name], value, atol=1e-6, err_msg=name)


def test_numbers_are_shares_of_the_broken_images(found):
    arrays, numbers = found.arrays, found.numbers
    assert numbers["broken"] == len(arrays["index"]) > 40
    assert numbers["holds"] == pytest.approx(float((arrays["z"] > 0).double().mean()))
    larger = (arrays["L_I"] > arrays["L"]).double().mean()
    assert numbers["larger"] == pytest.approx(float(larger), abs=0.02)
    assert numbers["f_i"] == pytest.approx(float(arrays["f_i"].mean()))
    assert 0.8 < numbers["f_i"] < 1
    assert 8 < numbers["others"] < 10


def test_s_and_m_are_the_models_own_or_the_papers():
    own = filled(ISCE(s=1.5, m=0.05))
    assert (own.s, own.m) == (1.5, 0.05)
    papers = filled(SCE())
    assert (papers.s, papers.m) == (1.0, 0.1)
    given = filled(ISCE(s=1.5, m=0.05), s=3.0)
    assert (given.s, given.m) == (3.0, 0.05)


def test_a_model_that_nothing_breaks_has_no_shares(isce, splits):
    idle = filled(ISCE(), attack=PGD(eps=0.0, steps=1))
    assert idle.examine(isce, splits.test.first(10), seed=0).numbers == {"broken": 0.0}


def test_large_raw_logits_give_finite_numbers(sce, splits):
    theory = filled(SCE())
    numbers = theory.examine(sce, splits.test.first(30), seed=0).numbers
    assert all(np.isfinite(value) for value in numbers.values())
