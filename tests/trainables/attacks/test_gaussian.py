"""Noise of the ball's size: its length, its distribution, its tries, and that it is weak."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from trainables.attacks.budgets import size
from trainables.attacks.gaussian import Gaussian
from trainables.attacks.pgd import PGD

BALLS = ["l2_abs", "l2_rms", "l2_rel", "linf"]


def grey(n):
    return torch.full((n, 1, 6, 6), 0.5), torch.zeros(n, dtype=torch.long)


@pytest.fixture(scope="module")
def stubborn(affine):
    """Says class 0, whatever it is shown."""
    return affine(torch.zeros(2, 36), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("name", BALLS)
def test_noise_has_exactly_the_balls_radius(stubborn, name):
    images, labels = grey(50)
    attack = Gaussian(budget=name, eps=0.01, tries=2)
    made, _ = attack.craft(stubborn, images, labels)
    assert torch.allclose(size(made - images, attack.norm), attack.radius(images), rtol=1e-5)


def test_noise_in_linf_moves_every_pixel_by_the_radius(stubborn):
    images, labels = grey(40)
    made, _ = Gaussian(budget="linf", eps=0.25, tries=1).craft(stubborn, images, labels)
    delta = (made - images).flatten()
    assert torch.allclose(delta.abs(), torch.tensor(0.25))
    assert abs(float(delta.sign().mean())) < 4 * len(delta) ** -0.5


def test_noise_in_l2_is_uniform_on_the_sphere(stubborn):
    images, labels = grey(2000)
    made, _ = Gaussian(budget="l2_abs", eps=0.3, tries=1).craft(stubborn, images, labels)
    directions = (made - images).flatten(1) / 0.3
    assert abs(float(directions.mean())) < 4 * (36 * 2000 * 36) ** -0.5
    # Of a point on the sphere in d dimensions: E x^2 = 1 / d, E x^4 = 3 / (d (d + 2)).
    assert float(directions.square().mean()) == pytest.approx(1 / 36, rel=1e-5)
    assert float(directions.pow(4).mean()) == pytest.approx(3 / (36 * 38), rel=0.03)
    correlations = directions.T @ directions / 2000 * 36 - torch.eye(36)
    assert correlations.abs().max() < 0.2


def test_noise_is_keyed_by_image_seed_and_try(stubborn):
    images, labels = grey(6)
    attack = Gaussian(budget="l2_abs", eps=0.3, tries=1)

    def craft(index, **options):
        return attack.craft(stubborn, images[index], labels[index], indices=index, **options)[0]

    whole, some = craft(torch.arange(6)), craft(torch.tensor([4, 2]))
    assert torch.equal(some, whole[[4, 2]])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(craft(torch.arange(6), seed=1), whole)
    once = attack.craft(stubborn, images, labels)[0]
    keys, real = [], Gaussian._noisy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Gaussian, "_noisy", lambda self, part: keys.append(part.draws.key) or real(self, part)
        )
        Gaussian(eps=0.3, tries=5)(stubborn, images, labels)
    assert len(set(keys)) == 5
    assert torch.equal(once, whole)


def test_every_try_costs_a_query_until_one_misleads(affine, splits):
    # Misled where the noise along the first pixel is positive: every second try.
    weight = torch.zeros(2, 36)
    weight[1, 0] = 1.0
    classifier = affine(weight, torch.tensor([0.5 + 1e-4, 0.0]))
    images, labels = grey(400)
    attack = Gaussian(budget="linf", eps=0.1, tries=4)
    made, outcome = attack.craft(classifier, images, labels)
    broken = outcome.correct_after == 0
    assert torch.equal(broken, made[:, 0, 0, 0] > 0.5)
    for tries in (1, 2, 3):
        share = float((broken & (outcome.queries == tries)).float().mean())
        assert share == pytest.approx(0.5**tries, abs=0.1)
    assert (outcome.queries[~broken] == 4).all()
    assert float((~broken).float().mean()) == pytest.approx(1 / 16, abs=0.04)
    assert (outcome.gradient == -1).all()
    assert set(outcome.broken_by.tolist()) == {0, -1}
    assert outcome.stages == ("gaussian",)


def test_more_tries_keep_what_fewer_have_broken(sce, splits):
    part = splits.test.first(100)
    few, many = (
        Gaussian(budget="linf", eps=0.3, tries=tries).craft(sce, part.images, part.labels)
        for tries in (2, 8)
    )
    broken = few[1].correct_after == 0
    assert torch.equal(many[0][broken], few[0][broken])
    assert many[1].correct_after.sum() < few[1].correct_after.sum()


@pytest.mark.parametrize(("budget", "eps"), [("l2_abs", 1.5), ("linf", 0.15)])
def test_noise_of_the_same_size_does_not_beat_gradients(sce, isce, splits, budget, eps):
    part = splits.test.first(100)
    for model in (sce, isce):
        clean = PGD(budget=budget, eps=0.0, steps=1)(model, part.images, part.labels)
        noise = Gaussian(budget=budget, eps=eps)(model, part.images, part.labels)
        gradients = PGD(budget=budget, eps=eps, steps=10)(model, part.images, part.labels)
        assert noise.correct_after.sum() > gradients.correct_after.sum() + 20
        assert noise.correct_after.sum() > clean.correct_after.sum() - 20


def test_is_listed_with_its_tries_as_steps():
    columns = Gaussian(budget="linf", eps=0.3, tries=7).columns()
    assert (columns.budget, columns.norm, columns.eps, columns.steps) == ("linf", "linf", 0.3, 7)
    assert (columns.targeted, columns.surface, columns.extra) == (False, "none", {})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": "path_linf"}, "expected a ball such as l2_abs or linf"),
        ({"eps": -0.1}, "eps"),
        ({"tries": 0}, "tries"),
        ({"surface": "none"}, "surface"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        Gaussian(**{"eps": 0.1, **wrong})
