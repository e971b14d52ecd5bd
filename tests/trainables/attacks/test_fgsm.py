"""FGSM against the closed form on affine models, foolbox's FGM and a step written out."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError

from trainables import registry
from trainables.attacks.budgets import size
from trainables.attacks.fgsm import FGSM
from trainables.attacks.pgd import PGD
from trainables.attacks.surfaces import slope
from trainables.seeding import Draws, wrong_classes

NORMS = {"l2": "l2_abs", "linf": "linf"}
BALLS = ["l2_abs", "l2_rms", "l2_rel", "linf"]


def images_at(normal, distance, n=6):
    """Images of class 0 well inside the box, at one distance from the boundary normal x = 0.5."""
    generator = torch.Generator().manual_seed(0)
    offsets = 0.1 * torch.rand(n, len(normal), dtype=torch.float64, generator=generator)
    offsets -= (offsets @ normal)[:, None] / normal.square().sum() * normal
    return (0.5 + offsets - distance * normal / normal.norm()).view(n, 1, 4, 4)


@pytest.mark.parametrize("surface", ["margin_raw", "ce_raw"])
@pytest.mark.parametrize("norm", NORMS)
def test_breaks_affine_models_exactly_at_their_distance(affine, norm, surface):
    normal = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    classifier = affine(
        torch.stack([torch.zeros_like(normal), normal]),
        torch.stack([torch.tensor(0.0).double(), -0.5 * normal.sum()]),
    )
    images, labels = images_at(normal, 0.2), torch.zeros(6, dtype=torch.long)
    dual = normal.norm() if norm == "l2" else normal.abs().sum()
    distance = float(0.2 * normal.norm() / dual)
    for share, left in ((1 - 1e-6, 6), (1 + 1e-6, 0)):
        attack = FGSM(budget=NORMS[norm], eps=share * distance, surface=surface)
        assert int(attack(classifier, images, labels).correct_after.sum()) == left


def foolboxs(foolbox, norm, targeted):
    """Its FGM, and for targets, which that refuses, the PGD of one such step that it is."""
    attacks = foolbox.attacks
    if not targeted:
        return {"l2": attacks.L2FastGradientAttack, "linf": attacks.LinfFastGradientAttack}[norm]()
    pgd = {
        "l2": attacks.L2ProjectedGradientDescentAttack,
        "linf": attacks.LinfProjectedGradientDescentAttack,
    }[norm]
    return pgd(rel_stepsize=1.0, steps=1, random_start=False)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("l2", 1.5), ("linf", 0.3)])
def test_images_equal_those_of_foolbox(foolbox, sce, right, batch_of, norm, eps, targeted):
    classifier = copy.deepcopy(sce).double()
    images, labels = right(sce, 40)
    images = images.double()
    targets = wrong_classes(labels, torch.arange(40), 10, 0) if targeted else None
    attack = FGSM(budget=NORMS[norm], eps=eps, surface="ce_deployed", targeted=targeted)
    ours = attack.perturb(classifier, batch_of(images, labels, targets)).images
    criteria = foolbox.criteria
    criterion = criteria.Misclassification(labels)
    if targeted:
        criterion = criteria.TargetedMisclassification(targets)
    model = foolbox.PyTorchModel(classifier, bounds=(0, 1))
    theirs = foolboxs(foolbox, norm, targeted).run(model, images, criterion, epsilon=eps)
    assert size(ours - images, norm).min() > eps / 2
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BALLS)
def test_step_is_a_whole_radius_along_the_steepest_direction(sce, right, batch_of, name):
    images = right(sce, 10)[0] * 0.4 + 0.3  # nothing is clipped
    with torch.no_grad():
        labels = sce(images).argmax(dim=1)
    attack = FGSM(budget=name, eps=0.005)
    made = attack.perturb(sce, batch_of(images, labels))
    draws = Draws((0,), torch.arange(10))
    gradient = slope("margin_raw", sce, images, labels, None, draws).gradient
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    direction = gradient.sign() if name == "linf" else gradient / length
    expected = images + attack.radius(images) * direction
    assert torch.allclose(made.images, expected, atol=1e-6)
    assert torch.allclose(made.gradient, length.flatten().double(), rtol=1e-5)
    assert made.queries.tolist() == [1] * 10


def test_is_weaker_than_many_steps(sce, splits):
    part = splits.test.first(60)
    one = FGSM(budget="l2_abs", eps=1.5)(sce, part.images, part.labels)
    many = PGD(budget="l2_abs", eps=1.5, steps=20)(sce, part.images, part.labels)
    assert many.correct_after.sum() < one.correct_after.sum() < one.correct_before.sum()


def test_is_listed_with_one_step_and_without_its_draws():
    columns = FGSM(budget="linf", eps=0.3, targeted=True, surface="ce_raw").columns()
    assert (columns.budget, columns.norm, columns.eps, columns.steps) == ("linf", "linf", 0.3, 1)
    assert (columns.targeted, columns.surface, columns.extra) == (True, "ce_raw", {})
    settled = FGSM(eps=0.3).settled(registry.build("loss", "sce"), stochastic=False)
    assert settled == FGSM(eps=0.3, eot=1)
    assert settled.columns() == FGSM(eps=0.3).columns()
    assert FGSM(eps=0.3, eot=40).columns().extra == {"eot": 40}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": "path_l2"}, "expected a ball such as l2_abs or linf"),
        ({"eps": -0.1}, "eps"),
        ({"surface": "logits"}, "surface"),
        ({"eot": 0}, "eot"),
        ({"steps": 1}, "steps"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        FGSM(**{"eps": 0.1, **wrong})
