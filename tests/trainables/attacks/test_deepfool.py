"""DeepFool against its closed form on affine models and against foolbox and torchattacks."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from trainables import registry
from trainables.attacks.base import NO_GRADIENT, craft
from trainables.attacks.budgets import size
from trainables.attacks.deepfool import DeepFool
from trainables.execution import Execution
from trainables.training import load_weights, new_classifier, weights_of

SHAPE = (1, 6, 6)
D = 36


@contextlib.contextmanager
def counted(classifier):
    """A list that grows by one with each forward pass of a batch."""
    passes = []
    hook = classifier.backbone.register_forward_hook(lambda *_: passes.append(1))
    yield passes
    hook.remove()


@pytest.fixture
def perturb(batch_of):
    """What an attack makes of images that are all classified rightly."""

    def make(attack, classifier, images, labels):
        with torch.no_grad():
            logits = classifier(images)
        return attack.perturb(classifier, replace(batch_of(images, labels), logits=logits))

    return make


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
    affine, perturb, classes, overshoot
):
    classifier, images, labels, distance = affine_case(affine, classes)
    result = perturb(DeepFool(steps=1, overshoot=overshoot), classifier, images, labels).images
    length = size(result - images, "l2").flatten()
    assert torch.allclose(length, (1 + overshoot) * (distance + 1e-4), rtol=0, atol=1e-6)
    assert (classifier(result).argmax(dim=1) != labels).all()


def test_affine_model_stops_after_one_step(affine, perturb):
    classifier, images, labels, _ = affine_case(affine, 10)
    once = perturb(DeepFool(steps=1), classifier, images, labels)
    often = perturb(DeepFool(steps=50), classifier, images, labels)
    assert torch.equal(once.images, often.images)
    assert once.queries.tolist() == [1] * 12
    assert often.queries.tolist() == [2] * 12


def test_only_the_ten_best_classes_are_looked_at(affine, perturb):
    # Class 11 is the nearest boundary by far, and the last in the ranking.
    weight = torch.zeros(12, D, dtype=torch.float64)
    weight[1:11] = random(10, D) * 0.01
    weight[11, 0] = 1e3
    bias = torch.tensor([1.0, *[0.5] * 10, -501.0], dtype=torch.float64)
    classifier = affine(weight, bias)
    images, labels = torch.full((1, *SHAPE), 0.5, dtype=torch.float64), torch.tensor([0])
    result = perturb(DeepFool(steps=1), classifier, images, labels).images
    assert float(size(result - images, "l2")) > 0.1


def test_per_step_adds_no_1e_4_and_leaves_images_on_the_boundary(affine, perturb):
    classifier, images, labels, distance = affine_case(affine, 3)
    attack = DeepFool(steps=1, overshoot=0.0, overshoot_rule="per_step")
    result = perturb(attack, classifier, images, labels).images
    assert torch.allclose(size(result - images, "l2").flatten(), distance, rtol=0, atol=1e-12)
    z = classifier(result).detach().sort(dim=1, descending=True).values
    assert torch.allclose(z[:, 0], z[:, 1], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("steps", "n"), [(10, 200), (50, 100)])
def test_norms_and_accuracy_equal_those_of_foolbox(foolbox, sce, right, perturb, steps, n):
    images, labels = right(sce, n)
    ours = perturb(DeepFool(steps=steps), sce, images, labels).images
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


def test_per_step_equals_torchattacks(torchattacks, sce, right, perturb):
    # In float64: the images lie ON the boundary, where float32 rounding picks the class.
    classifier = copy.deepcopy(sce).double()
    images, labels = right(sce, 32)
    images = images.double()
    attack = DeepFool(steps=10, overshoot_rule="per_step")
    ours = perturb(attack, classifier, images, labels).images
    theirs = torchattacks.DeepFool(classifier, steps=10, overshoot=0.02)(images, labels)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
    with torch.no_grad():
        left, expected = (
            int((classifier(x).argmax(dim=1) == labels).sum()) for x in (ours, theirs)
        )
    assert expected > 16
    assert abs(left - expected) <= 1


def test_per_step_images_equal_torchattacks_in_float32(torchattacks, sce, right, perturb):
    images, labels = right(sce, 32)
    attack = DeepFool(steps=10, overshoot_rule="per_step")
    ours = perturb(attack, sce, images, labels).images
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


def test_scaling_the_logits_changes_nothing(perturb, affine):
    weight, bias = random(5, D), random(5, seed=1) * 0.1
    images = 0.5 + 0.05 * random(8, *SHAPE, seed=2)
    plain, scaled = affine(weight, bias), affine(1e3 * weight, 1e3 * bias)
    labels = plain(images).argmax(dim=1)
    one = perturb(DeepFool(), plain, images, labels).images
    other = perturb(DeepFool(), scaled, images, labels).images
    assert torch.allclose(one, other, rtol=0, atol=1e-9)


def test_result_is_within_the_box(affine, perturb):
    classifier, _, _, _ = affine_case(affine, 3)
    images = (0.5 + 2 * random(12, *SHAPE, seed=5)).clamp(0, 1)
    labels = classifier(images).argmax(dim=1)
    result = perturb(DeepFool(), classifier, images, labels).images
    assert result.min() >= 0
    assert result.max() <= 1


def test_vanishing_gradient_leaves_a_finite_image(affine, perturb):
    weight = torch.zeros(3, D, dtype=torch.float64)
    classifier = affine(weight, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    images = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    result = perturb(DeepFool(steps=3), classifier, images, torch.tensor([0, 0])).images
    assert torch.equal(result, images)


def test_outcome_does_not_depend_on_the_batch(sce, splits):
    part = splits.test.first(40)
    attack = DeepFool(steps=10)
    together = attack(sce, part.images, part.labels)
    for index in torch.arange(40).split(9):
        some = attack(sce, part.images[index], part.labels[index], indices=index)
        assert torch.equal(some.correct_after, together.correct_after[index])
        assert torch.allclose(some.l2, together.l2[index], atol=1e-4)


def test_images_beyond_the_budget_are_handed_back_clean(sce, splits):
    part = splits.test.first(100)
    free, outcome = DeepFool().craft(sce, part.images, part.labels)
    attack = DeepFool(budget="l2_rms", eps=0.05)
    result, bounded = attack.craft(sce, part.images, part.labels)
    fits = size(free - part.images, "l2").flatten() <= 0.05 * 28
    assert 20 < int(fits.sum()) < 80
    assert torch.equal(result[fits], free[fits])
    assert torch.equal(result[~fits], part.images[~fits])
    broken = (outcome.correct_before == 1) & (outcome.correct_after == 0)
    assert torch.equal(bounded.correct_after == 0, (outcome.correct_before == 0) | (broken & fits))
    assert torch.equal(bounded.queries, outcome.queries)


def test_eps_0_leaves_the_clean_accuracy_exactly(sce, splits):
    part = splits.test.first(40)
    result, outcome = DeepFool(budget="l2_abs", eps=0.0).craft(sce, part.images, part.labels)
    assert torch.equal(outcome.correct_after, outcome.correct_before)
    assert torch.equal(result, part.images)


def test_one_run_answers_all_eps_and_steps(sce, splits):
    part = splits.test.first(40)
    attacks = [
        DeepFool(budget="l2_rms", eps=eps, steps=steps) for eps in (0.04, 0.06) for steps in (2, 9)
    ]
    attacks += [DeepFool(budget="l2_rel", eps=0.2, steps=5), DeepFool(steps=7)]
    assert len({attack.alike() for attack in attacks}) == 1
    with counted(sce) as few:
        together = craft(attacks, sce, part.images, part.labels)
    with counted(sce) as many:
        alone = [attack.craft(sce, part.images, part.labels) for attack in attacks]
    judged = 1 + len(attacks)  # clean once, then each
    assert len(few) - judged == 9
    assert len(many) - 2 * len(attacks) == 2 + 9 + 2 + 9 + 5 + 7
    for (images, outcome), (expected, other) in zip(together, alone, strict=True):
        assert torch.equal(images, expected)
        for name in ("correct_after", "l2", "queries", "gradient"):
            assert torch.equal(getattr(outcome, name), getattr(other, name)), name


def test_attacks_of_other_overshoots_or_outputs_are_run_apart():
    alike = {
        attack.alike()
        for attack in (
            DeepFool(),
            DeepFool(overshoot=0.04),
            DeepFool(overshoot_rule="per_step"),
            DeepFool(output="deployed"),
            DeepFool(eot=1),
        )
    }
    assert len(alike) == 5


def test_normalised_logits_are_a_detour_and_probabilities_destroy_images(isce, sce, splits):
    # METHODS 3: careless choices, kept because others' numbers come from them.
    part = splits.test.first(40)

    def median(model, output):
        return float(DeepFool(output=output)(model, part.images, part.labels).l2.median())

    raw = median(isce, "raw")
    assert median(isce, "deployed") > 2 * raw
    assert median(isce, "probabilities") > 3 * raw
    assert median(sce, "probabilities") > 8 * median(sce, "raw")
    assert median(sce, "deployed") == median(sce, "raw")


def test_deployed_is_raw_where_the_loss_deploys_raw_logits():
    attack = DeepFool(output="deployed", steps=3)
    sce, isce = (registry.build("loss", name) for name in ("sce", "isce"))
    assert attack.settled(sce, stochastic=True) == DeepFool(steps=3)
    assert attack.settled(sce, stochastic=False) == DeepFool(steps=3, eot=1)
    assert attack.settled(isce, stochastic=True) == attack
    probabilities = DeepFool(output="probabilities")
    assert probabilities.settled(sce, stochastic=True) == probabilities


def test_new_parameters_do_not_alter_the_identity_of_what_there_was():
    settled = DeepFool().settled(registry.build("loss", "sce"), stochastic=False)
    assert settled.identity() == {
        "component": "attack/deepfool",
        "revision": 1,
        "parameters": {"overshoot": 0.02, "steps": 50, "overshoot_rule": "total"},
    }
    others = [
        DeepFool(),  # on a model that draws at random: a mean now, once a single draw
        DeepFool(eot=1, output="deployed"),
        DeepFool(eot=1, budget="l2_abs", eps=1.0),
        DeepFool(eot=1, budget="l2_rms", eps=1.0),
        DeepFool(eot=1, budget="l2_rms", eps=2.0),
    ]
    assert len({str(attack.identity()) for attack in [settled, *others]}) == 6


def test_gradient_is_the_smallest_normal_that_was_followed(affine, perturb, sce, right):
    classifier, images, labels, _ = affine_case(affine, 2)
    weight = classifier.head.linear.weight
    made = perturb(DeepFool(), classifier, images, labels)
    expected = (weight[1] - weight[0]).norm().expand(12)
    assert made.gradient.dtype == torch.float64
    assert torch.allclose(made.gradient, expected, rtol=1e-12)
    few, more = (perturb(DeepFool(steps=n), sce, *right(sce, 20)).gradient for n in (1, 8))
    assert (more <= few).all()
    assert (more < few).any()


def test_gradient_that_is_no_number_moves_nothing(affine, perturb):
    class Root(torch.nn.Module):
        def forward(self, images):
            return (images.flatten(1) - 0.5).abs().sqrt()

    classifier, images, labels, _ = affine_case(affine, 3)
    classifier.backbone = Root()
    images[3, 0, 2, 2] = 0.5  # where the root has no derivative
    with torch.no_grad():
        labels = classifier(images).argmax(dim=1)
    made = perturb(DeepFool(steps=3), classifier, images, labels)
    others = torch.arange(12) != 3
    assert made.images.isfinite().all()
    assert torch.equal(made.images[3], images[3])
    assert made.gradient[3] == 0
    assert (made.gradient[others] > 0).all()
    assert (made.images != images).flatten(1).any(dim=1).tolist() == others.tolist()


def test_classes_without_a_finite_normal_are_passed_over():
    normals = torch.tensor([[3.0, 4.0], [torch.nan, 1.0], [torch.inf, 0.0]]).view(3, 1, 1, 1, 2)
    gaps = torch.tensor([[1.0], [1e-3], [1e-3]])
    step, length = DeepFool(overshoot_rule="per_step")._step(gaps, normals)
    assert step.flatten().tolist() == pytest.approx([3 / 25, 4 / 25])
    assert length.tolist() == [5.0]


def test_what_cannot_move_is_left_alone(affine, perturb, sce, right):
    weight = torch.zeros(3, D, dtype=torch.float64)
    flat = affine(weight, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    images = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    made = perturb(DeepFool(), flat, images, torch.tensor([0, 0]))
    assert made.queries.tolist() == [1, 1]
    assert made.gradient.tolist() == [0, 0]
    # Steps towards the boundary, cut short by the box, become smaller than float32 resolves.
    made = perturb(DeepFool(overshoot_rule="per_step"), sce, *right(sce, 40))
    assert int(made.queries.max()) < 50


def test_images_that_are_not_right_are_not_touched(sce, right, perturb):
    images, labels = right(sce, 4)
    made = perturb(DeepFool(), sce, images, (labels + 1) % 10)
    assert torch.equal(made.images, images)
    assert made.gradient.tolist() == [NO_GRADIENT] * 4


@pytest.fixture(scope="module")
def random_model(sce, model_config):
    """The trained SCE model behind a random transform."""
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(model, weights_of(sce))
    return model.eval().requires_grad_(False)


def test_the_mean_over_draws_is_linearised(random_model, right, sce, batch_of):
    images, labels = right(sce, 6)
    batch = batch_of(images, labels)
    found = DeepFool()._linearise(random_model, batch, batch.draws, looks=3)
    current = images.clone().requires_grad_()
    drawn = [batch.draws, batch.draws.at(1), batch.draws.at(2)]
    logits = torch.stack([random_model(current, draws) for draws in drawn])
    mean, rivals = logits.mean(dim=0), batch.rivals()
    for k in range(9):
        gap = mean.gather(1, rivals[:, k : k + 1]) - mean.gather(1, labels.unsqueeze(1))
        normal = torch.autograd.grad(gap.sum(), current, retain_graph=True)[0]
        assert torch.allclose(found.normals[k], normal, atol=1e-5)
        assert torch.allclose(found.gaps[k], gap.abs().flatten(), atol=1e-5)
    assert torch.equal(found.right, (logits.argmax(dim=2) == labels).any(dim=0))


def test_eot_is_spent_on_models_that_draw_at_random_alone(random_model, sce, splits):
    part = splits.test.first(12)
    attack = DeepFool(steps=2, eot=3)
    outcome = attack(random_model, part.images, part.labels)
    assert set(outcome.queries[outcome.correct_before > 0].tolist()) == {6}
    (images, one), (expected, other) = (
        DeepFool(eot=eot).craft(sce, part.images, part.labels) for eot in (1, 3)
    )
    assert torch.equal(images, expected)
    assert torch.equal(one.queries, other.queries)


def test_no_lucky_draw_is_enough_on_a_model_that_draws_at_random(random_model, splits):
    part = splits.test.first(12)
    left = [
        int(DeepFool(steps=12, eot=eot)(random_model, part.images, part.labels).correct_after.sum())
        for eot in (1, 5)
    ]
    assert left[1] < left[0]  # goes on until every one of its draws is wrong


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"overshoot": -0.1}, "overshoot"),
        ({"steps": 0}, "steps"),
        ({"overshoot_rule": "both"}, "overshoot_rule"),
        ({"output": "logits"}, "output"),
        ({"eot": 0}, "eot"),
        ({"eps": 0.1}, "expected budget and eps together"),
        ({"budget": "l2_rms"}, "expected budget and eps together"),
        ({"budget": "l2_rms", "eps": -1.0}, "eps"),
        ({"budget": "linf", "eps": 0.1}, "expected a ball in L2"),
        ({"budget": "path_l2", "eps": 0.1}, "expected a ball"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        DeepFool(**wrong)


def listed(columns):
    return columns.budget, columns.norm, columns.surface, columns.eps, columns.steps


def test_columns_list_the_overshoot_as_eps():
    columns = DeepFool(overshoot=0.04, steps=10, overshoot_rule="per_step", eot=1).columns()
    assert listed(columns) == ("overshoot", None, "raw", 0.04, 10)
    assert columns.extra == {"overshoot_rule": "per_step"}


def test_columns_list_the_budget_where_there_is_one():
    columns = DeepFool(budget="l2_rms", eps=0.05, overshoot=0.04, output="deployed").columns()
    assert listed(columns) == ("l2_rms", "l2", "deployed", 0.05, 50)
    assert columns.extra == {"overshoot": 0.04}
    assert DeepFool(budget="l2_rms", eps=0.05).columns().extra == {}
