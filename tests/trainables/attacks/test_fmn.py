"""FMN against closed forms on affine models, against foolbox, and against DeepFool."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from trainables import registry
from trainables.attacks.base import craft
from trainables.attacks.budgets import size
from trainables.attacks.deepfool import DeepFool
from trainables.attacks.fmn import FMN
from trainables.execution import Execution
from trainables.training import load_weights, new_classifier, weights_of

SHAPE = (1, 6, 6)
D = 36
BALLS = {"l2": "l2_abs", "linf": "linf"}
FAR = 1e3  # a radius that no image within the box exceeds


def fmn(norm, **parameters):
    return FMN(**{"budget": BALLS[norm], "eps": FAR, **parameters})


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def norms(delta, norm):
    return size(delta, norm).flatten()


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


def boundary_within_the_box(images, normal, gap, norm):
    """The least norm of delta with normal·delta = gap and images + delta in the box, (B,).

    Linf: the boundary is reached at radius r when sum |w_i| min(r, room_i) = gap; L2: delta is
    mu w clipped to the box. Both by bisection.
    """
    flat = images.flatten(1)
    room = torch.where(normal > 0, 1 - flat, flat)
    low, high = torch.zeros(len(flat), 1).double(), torch.full((len(flat), 1), 1e3).double()
    for _ in range(200):
        middle = (low + high) / 2
        length = middle * (normal.abs() if norm == "l2" else torch.ones_like(normal))
        step = length.minimum(room)
        over = (step * normal.abs()).sum(dim=1) > gap
        low, high = (
            torch.where(over.unsqueeze(1), low, middle),
            torch.where(over.unsqueeze(1), middle, high),
        )
    return step.norm(dim=1) if norm == "l2" else step.amax(dim=1)


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("spread", [0.05, 0.5])  # the box does not bind; it does
def test_affine_model_is_crossed_at_the_nearest_point(affine, perturb, norm, spread):
    weight = random(2, D)
    classifier = affine(weight, torch.zeros(2, dtype=torch.float64))
    images = (0.5 + spread * random(12, *SHAPE, seed=2)).clamp(0, 1)
    with torch.no_grad():
        z = classifier(images)
    labels = z.argmax(dim=1)
    normal = weight[1] - weight[0]
    normal = torch.where((labels == 0).unsqueeze(1), normal, -normal)
    expected = boundary_within_the_box(images, normal, (z[:, 0] - z[:, 1]).abs(), norm)
    made = perturb(fmn(norm), classifier, images, labels)
    ratio = norms(made.images - images, norm) / expected
    assert (classifier(made.images).argmax(dim=1) != labels).all()
    assert (ratio > 1 - 1e-9).all()
    assert (ratio < 1.05).all()


def reference(foolbox, norm, steps):
    """foolbox's, which in L2 divides a norm by itself and never projects: put right."""
    if norm == "linf":
        return foolbox.attacks.LInfFMNAttack(steps=steps)

    class Projecting(foolbox.attacks.L2FMNAttack):
        def project(self, x, x0, epsilon):
            delta = (x - x0).raw
            length = delta.flatten(1).norm(dim=1).clamp(min=1e-12)
            share = (epsilon.raw / length).clamp(max=1).view(-1, 1, 1, 1)
            return x0 + share * delta

    return Projecting(steps=steps)


@pytest.mark.parametrize("norm", BALLS)
def test_images_equal_those_of_foolbox_where_the_box_does_not_bind(
    foolbox, sce, right, perturb, norm
):
    classifier = copy.deepcopy(sce).double()
    images = 0.35 + 0.3 * right(sce, 60)[0].double()
    with torch.no_grad():
        labels = classifier(images).argmax(dim=1)
    ours = perturb(fmn(norm, steps=20, alpha=1.0), classifier, images, labels).images
    model = foolbox.PyTorchModel(classifier, bounds=(0, 1))
    theirs = reference(foolbox, norm, 20).run(model, images, labels)
    mine, other = (norms(result - images, norm) for result in (ours, theirs))
    same = (ours - theirs).abs().flatten(1).amax(dim=1) < 1e-9
    assert int(same.sum()) >= 36  # the others' radius grew by gamma on the way to the boundary
    assert float(mine.median()) == pytest.approx(float(other.median()), rel=1e-6)
    assert (mine < 1.05 * other).all()


@pytest.mark.parametrize("model", ["sce", "isce"])
def test_norms_are_below_those_of_deepfool(request, right, perturb, model):
    classifier = request.getfixturevalue(model)
    images, labels = right(classifier, 60)
    ours = perturb(fmn("l2"), classifier, images, labels).images
    theirs = perturb(DeepFool(), classifier, images, labels).images
    with torch.no_grad():
        assert (classifier(ours).argmax(dim=1) != labels).all()
    mine, other = (norms(result - images, "l2") for result in (ours, theirs))
    assert float(mine.median()) < 0.95 * float(other.median())
    assert float((mine <= other).float().mean()) > 0.85


@pytest.mark.parametrize("model", ["sce", "isce"])
def test_norms_are_those_of_foolbox_in_linf_and_smaller_with_longer_steps(
    foolbox, request, right, perturb, model
):
    classifier = request.getfixturevalue(model)
    images, labels = right(classifier, 60)
    raw = torch.nn.Sequential(classifier.backbone, classifier.head)
    normalised = dict(mean=classifier.mean.view(1, 1, 1), std=classifier.std.view(1, 1, 1))
    reference = foolbox.PyTorchModel(raw.eval(), bounds=(0, 1), preprocessing=normalised)
    theirs = foolbox.attacks.LInfFMNAttack(steps=100).run(reference, images, labels)

    def ratio(**parameters):
        ours = perturb(fmn("linf", **parameters), classifier, images, labels).images
        with torch.no_grad():
            assert (classifier(ours).argmax(dim=1) != labels).all()
        return norms(ours - images, "linf") / norms(theirs - images, "linf")

    equal = ratio(alpha=1.0)  # theirs, a step of which is short in Linf
    assert float(equal.mean()) == pytest.approx(1, abs=1e-3)
    assert (equal < 1.05).all()
    assert float(ratio().median()) < 0.995


def test_one_run_answers_all_budgets_of_a_norm(sce, splits):
    part = splits.test.first(30)
    attacks = [
        FMN(budget=budget, eps=eps, steps=12)
        for budget, eps in [("l2_rms", 0.04), ("l2_rms", 0.06), ("l2_abs", 1.5), ("l2_rel", 0.2)]
    ]
    assert len({attack.alike() for attack in attacks}) == 1
    with counted(sce) as few:
        together = craft(attacks, sce, part.images, part.labels)
    with counted(sce) as many:
        alone = [attack.craft(sce, part.images, part.labels) for attack in attacks]
    assert len(few) == 12 + 1 + 4  # then judged: clean once, and each
    assert len(many) == 4 * (12 + 2)
    for (images, outcome), (expected, other) in zip(together, alone, strict=True):
        assert torch.equal(images, expected)
        for name in ("correct_after", "l2", "queries", "gradient"):
            assert torch.equal(getattr(outcome, name), getattr(other, name)), name


def test_attacks_of_other_norms_or_steps_are_run_apart():
    attacks = (fmn("l2"), fmn("linf"), fmn("l2", steps=5), fmn("l2", gamma=0.1), fmn("l2", eot=1))
    assert len({attack.alike() for attack in attacks}) == 5


@pytest.mark.parametrize("norm", BALLS)
def test_images_beyond_the_budget_are_handed_back_clean(sce, splits, norm):
    part = splits.test.first(60)
    free, outcome = fmn(norm, steps=15).craft(sce, part.images, part.labels)
    assert (outcome.correct_after == 0).all()
    needed = norms(free - part.images, norm)
    eps = float(needed.median())
    result, bounded = fmn(norm, steps=15, eps=eps).craft(sce, part.images, part.labels)
    fits = needed <= eps
    assert torch.equal(result[fits], free[fits])
    assert torch.equal(result[~fits], part.images[~fits])
    assert torch.equal(bounded.correct_after, (~fits).long())
    nothing = fmn(norm, steps=15, eps=0.0)(sce, part.images, part.labels)
    assert torch.equal(nothing.correct_after, nothing.correct_before)


@pytest.mark.parametrize("norm", BALLS)
def test_outcome_does_not_depend_on_the_batch(sce, splits, norm):
    part = splits.test.first(24)
    attack = fmn(norm, steps=15)
    together = attack(sce, part.images, part.labels)
    for index in torch.arange(24).split(7):
        some = attack(sce, part.images[index], part.labels[index], indices=index)
        assert torch.equal(some.correct_after, together.correct_after[index])
        assert torch.allclose(some.l2, together.l2[index], rtol=1e-3)


def test_no_draw_of_torchs_own_is_spent(sce, splits):
    part = splits.test.first(4)
    before = torch.random.get_rng_state()
    fmn("l2", steps=3)(sce, part.images, part.labels)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_steps_find_smaller_perturbations(sce, right, perturb):
    images, labels = right(sce, 40)
    few, more = (
        norms(perturb(fmn("l2", steps=n), sce, images, labels).images - images, "l2")
        for n in (15, 60)
    )
    assert few.min() > 0
    assert float(more.mean()) < 0.99 * float(few.mean())


def test_gradient_is_the_smallest_that_was_followed(affine, perturb):
    weight = random(2, D)
    classifier = affine(weight, torch.zeros(2, dtype=torch.float64))
    images = 0.5 + 0.05 * random(5, *SHAPE, seed=2)
    labels = classifier(images).argmax(dim=1)
    made = perturb(fmn("l2", steps=4), classifier, images, labels)
    assert made.gradient.dtype == torch.float64
    assert torch.allclose(made.gradient, (weight[1] - weight[0]).norm().expand(5), rtol=1e-12)
    assert made.queries.tolist() == [4] * 5


def test_vanishing_gradients_and_such_that_are_no_numbers_move_nothing(affine, perturb):
    class Root(torch.nn.Module):
        def forward(self, images):
            return (images.flatten(1) - 0.5).abs().sqrt()

    classifier = affine(random(3, D), torch.zeros(3, dtype=torch.float64))
    classifier.backbone = Root()
    images = 0.5 + 0.05 * random(3, *SHAPE, seed=2)
    images[1, 0, 2, 2] = 0.5  # where the root has no derivative
    with torch.no_grad():
        labels = classifier(images).argmax(dim=1)
    made = perturb(fmn("l2", steps=5), classifier, images, labels)
    assert made.images.isfinite().all()
    assert torch.equal(made.images[1], images[1])
    assert made.gradient[1] == 0
    assert (made.gradient[[0, 2]] > 0).all()
    flat = affine(torch.zeros(2, D, dtype=torch.float64), torch.tensor([1.0, 0.0]).double())
    made = perturb(fmn("linf", steps=5), flat, images, torch.zeros(3, dtype=torch.long))
    assert torch.equal(made.images, images)
    assert made.gradient.tolist() == [0] * 3


@pytest.fixture(scope="module")
def random_model(sce, model_config):
    """The trained SCE model behind a random transform."""
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(model, weights_of(sce))
    return model.eval().requires_grad_(False)


def test_an_image_is_broken_when_none_of_the_draws_is_right(random_model, splits):
    part = splits.test.first(20)
    left = []
    for eot in (1, 8):
        outcome = fmn("l2", steps=20, eot=eot)(random_model, part.images, part.labels)
        assert set(outcome.queries[outcome.correct_before > 0].tolist()) == {20 * eot}
        left.append(int(outcome.correct_after.sum()))
    assert left[1] < 0.3 * left[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"steps": 0}, "steps"),
        ({"alpha": 0.0}, "alpha"),
        ({"gamma": 1.0}, "gamma"),
        ({"eot": 0}, "eot"),
        ({"budget": "path_l2"}, "expected a ball"),
        ({"surface": "ce_raw"}, "surface"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        FMN(**{"eps": 0.1, **wrong})


def test_columns_list_what_is_not_at_its_default():
    columns = FMN(eps=0.04).columns()
    assert (columns.budget, columns.norm, columns.eps, columns.steps) == ("l2_rms", "l2", 0.04, 100)
    assert (columns.surface, columns.targeted, columns.extra) == ("margin_raw", False, {})
    assert FMN(budget="linf", eps=0.1, alpha=3.0, eot=1).columns().extra == {"alpha": 3.0}
    settled = FMN(eps=0.04).settled(registry.build("loss", "isce"), stochastic=False)
    assert settled == FMN(eps=0.04, eot=1)
