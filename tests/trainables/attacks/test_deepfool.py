"""DeepFool against its closed form on affine models and against foolbox and torchattacks."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError

from trainables.attacks.budgets import size
from trainables.attacks.deepfool import DeepFool

SHAPE = (1, 6, 6)
D = 36


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def affine_case(affine, classes):
    """An affine model, images off the box with their classes, and each one's distance."""
    weight = random(classes, D)
    classifier = affine(weight, random(classes, seed=1) * 0.1)
    images = 0.5 + 0.05 * random(12, *SHAPE, seed=2)
    with torch.no_grad():
        z = classifier(images)
    labels = z.argmax(dim=1)
    distances = []
    for row, label in zip(z, labels, strict=True):
        others = [k for k in range(classes) if k != label]
        gaps = row[label] - row[others]
        distances.append((gaps / (weight[others] - weight[label]).norm(dim=1)).min())
    return classifier, images, labels, torch.stack(distances)


@pytest.mark.parametrize("overshoot", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_affine_model_is_crossed_in_one_step_of_the_exact_length(
    affine, batch_of, classes, overshoot
):
    classifier, images, labels, distance = affine_case(affine, classes)
    result, _ = DeepFool(steps=1, overshoot=overshoot).perturb(classifier, batch_of(images, labels))
    length = size(result - images, "l2").flatten()
    assert torch.allclose(length, (1 + overshoot) * (distance + 1e-4), rtol=0, atol=1e-6)
    assert (classifier(result).argmax(dim=1) != labels).all()


def test_affine_model_stops_after_one_step(affine, batch_of):
    classifier, images, labels, _ = affine_case(affine, 10)
    once, _ = DeepFool(steps=1).perturb(classifier, batch_of(images, labels))
    often, queries = DeepFool(steps=50).perturb(classifier, batch_of(images, labels))
    assert torch.equal(once, often)
    assert queries.tolist() == [2] * 12


def test_only_the_ten_best_classes_are_looked_at(affine, batch_of):
    # Class 11 is the nearest boundary by far, and the last in the ranking.
    weight = torch.zeros(12, D, dtype=torch.float64)
    weight[1:11] = random(10, D) * 0.01
    weight[11, 0] = 1e3
    bias = torch.tensor([1.0, *[0.5] * 10, -501.0], dtype=torch.float64)
    classifier = affine(weight, bias)
    images, labels = torch.full((1, *SHAPE), 0.5, dtype=torch.float64), torch.tensor([0])
    result, _ = DeepFool(steps=1).perturb(classifier, batch_of(images, labels))
    assert float(size(result - images, "l2")) > 0.1


def test_per_step_adds_no_1e_4_and_leaves_images_on_the_boundary(affine, batch_of):
    classifier, images, labels, distance = affine_case(affine, 3)
    attack = DeepFool(steps=1, overshoot=0.0, overshoot_rule="per_step")
    result, _ = attack.perturb(classifier, batch_of(images, labels))
    assert torch.allclose(size(result - images, "l2").flatten(), distance, rtol=0, atol=1e-12)
    z = classifier(result).detach().sort(dim=1, descending=True).values
    assert torch.allclose(z[:, 0], z[:, 1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [10, 50])
def test_norms_and_accuracy_equal_those_of_foolbox(foolbox, sce, right, batch_of, steps):
    images, labels = right(sce, 200)
    ours, _ = DeepFool(steps=steps).perturb(sce, batch_of(images, labels))
    reference = foolbox.attacks.L2DeepFoolAttack(steps=steps, candidates=10, overshoot=0.02)
    model = foolbox.PyTorchModel(sce, bounds=(0, 1))
    theirs = reference.run(model, images, foolbox.criteria.Misclassification(labels))
    mine, other = (size(result - images, "l2").flatten() for result in (ours, theirs))
    assert float(mine.median()) == pytest.approx(float(other.median()), rel=1e-4)
    agreement = float(((mine - other).abs() < 1e-3 * other).float().mean())
    assert agreement >= 0.98, f"{agreement:.1%} of the images have foolbox's norm"
    with torch.no_grad():
        left = (sce(ours).argmax(dim=1) == labels).float().mean()
        expected = (sce(theirs).argmax(dim=1) == labels).float().mean()
    assert abs(float(left - expected)) <= 0.005 + 1e-7


def test_per_step_equals_torchattacks(torchattacks, sce, right, batch_of):
    # In float64: the images lie ON the boundary, where float32 rounding picks the class.
    classifier = copy.deepcopy(sce).double()
    images, labels = right(sce, 32)
    images = images.double()
    attack = DeepFool(steps=10, overshoot_rule="per_step")
    ours, _ = attack.perturb(classifier, batch_of(images, labels))
    theirs = torchattacks.DeepFool(classifier, steps=10, overshoot=0.02)(images, labels)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
    with torch.no_grad():
        left, expected = (
            int((classifier(x).argmax(dim=1) == labels).sum()) for x in (ours, theirs)
        )
    assert expected > 16
    assert abs(left - expected) <= 1


def test_per_step_images_equal_torchattacks_in_float32(torchattacks, sce, right, batch_of):
    images, labels = right(sce, 32)
    attack = DeepFool(steps=10, overshoot_rule="per_step")
    ours, _ = attack.perturb(sce, batch_of(images, labels))
    theirs = torchattacks.DeepFool(sce, steps=10, overshoot=0.02)(images, labels)
    same = (ours - theirs).abs().flatten(1).amax(dim=1) < 1e-4
    assert int(same.sum()) >= 31  # one that rounding took over the boundary may stop earlier


def test_total_breaks_what_per_step_leaves_on_the_boundary(sce, splits):
    part = splits.test.first(100)
    total = DeepFool(steps=10)(sce, part.images, part.labels)
    per_step = DeepFool(steps=10, overshoot_rule="per_step")(sce, part.images, part.labels)
    assert int(total.correct_after.sum()) < int(per_step.correct_after.sum()) / 4


def test_raw_logits_are_differentiated_on_a_normalised_model(isce, splits):
    # METHODS 3: on f the median norm is 5 times that on raw logits.
    part = splits.test.first(60)
    outcome = DeepFool()(isce, part.images, part.labels)
    assert float(outcome.l2.median()) < 3


def test_scaling_the_logits_changes_nothing(batch_of, affine):
    weight, bias = random(5, D), random(5, seed=1) * 0.1
    images = 0.5 + 0.05 * random(8, *SHAPE, seed=2)
    plain, scaled = affine(weight, bias), affine(1e3 * weight, 1e3 * bias)
    labels = plain(images).argmax(dim=1)
    one, _ = DeepFool().perturb(plain, batch_of(images, labels))
    other, _ = DeepFool().perturb(scaled, batch_of(images, labels))
    assert torch.allclose(one, other, rtol=0, atol=1e-9)


def test_result_is_within_the_box(affine, batch_of):
    classifier, _, _, _ = affine_case(affine, 3)
    images = (0.5 + 2 * random(12, *SHAPE, seed=5)).clamp(0, 1)
    labels = classifier(images).argmax(dim=1)
    result, _ = DeepFool().perturb(classifier, batch_of(images, labels))
    assert result.min() >= 0
    assert result.max() <= 1


def test_vanishing_gradient_leaves_a_finite_image(affine, batch_of):
    weight = torch.zeros(3, D, dtype=torch.float64)
    classifier = affine(weight, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    images = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    result, _ = DeepFool(steps=3).perturb(classifier, batch_of(images, torch.tensor([0, 0])))
    assert torch.equal(result, images)


def test_outcome_does_not_depend_on_the_batch(sce, splits):
    part = splits.test.first(40)
    attack = DeepFool(steps=10)
    together = attack(sce, part.images, part.labels)
    for index in torch.arange(40).split(9):
        some = attack(sce, part.images[index], part.labels[index], indices=index)
        assert torch.equal(some.correct_after, together.correct_after[index])
        assert torch.allclose(some.l2, together.l2[index], atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"overshoot": -0.1}, {"steps": 0}, {"overshoot_rule": "both"}, {"eps": 0.1}], ids=str
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DeepFool(**wrong)


def test_columns_list_the_overshoot_as_eps():
    columns = DeepFool(overshoot=0.04, steps=10, overshoot_rule="per_step").columns()
    assert (columns.budget, columns.norm, columns.eps, columns.steps) == (
        "overshoot",
        None,
        0.04,
        10,
    )
    assert columns.extra == {"overshoot_rule": "per_step"}
