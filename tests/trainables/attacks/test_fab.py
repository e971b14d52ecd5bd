"""FAB-T against the library called directly, and against closed forms on affine models."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from trainables.attacks import fab as module
from trainables.attacks.base import NO_GRADIENT, craft
from trainables.attacks.budgets import size
from trainables.attacks.fab import FAB
from trainables.classifier import frozen
from trainables.execution import Execution
from trainables.training import load_weights, new_classifier, weights_of

NORMS = {"l2_abs": "L2", "linf": "Linf"}
EPS = {"l2_abs": 1.5, "linf": 0.1}
FAR = {"l2_abs": 30.0, "linf": 1.0}  # no image is further away
both_norms = pytest.mark.parametrize("budget", list(NORMS))


def fab(budget="l2_abs", **parameters):
    """One of few steps and rivals: more are slow and tell nothing new."""
    few = {"steps": 10, "rivals": 3}
    return FAB(**{"budget": budget, "eps": EPS.get(budget, 0.05), **few, **parameters})


class Raw(nn.Module):
    """A classifier's raw logits, as the library asks for them."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier
        self.eval()

    def forward(self, images):
        return self.classifier.raw(images)


def library(torchattacks, classifier, images, labels, **options):
    """What the library makes when it is called as its users call it."""
    with torch.random.fork_rng(devices=[]), frozen(classifier, classifier):
        attack = torchattacks.FAB(Raw(classifier), **options)
        if not attack.multi_targeted:  # towards the likeliest wrong class; the setter prints
            attack.targeted = True
            attack._target_map_function = lambda x, y: Raw(classifier)(x).argsort(dim=1)[:, -2]
        return attack(images, labels)


def batch_for(batch_of, classifier, images, labels, **options):
    """A batch that knows the logits: they order the rivals."""
    with torch.no_grad():
        return replace(batch_of(images, labels, **options), logits=classifier(images))


def wrong(classifier, images, labels):
    with torch.no_grad():
        return classifier(images).argmax(dim=1) != labels


@pytest.fixture(scope="module")
def random(sce, model_config):
    """The trained SCE model behind a random transform."""
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(model, weights_of(sce))
    return model.eval()


# Against the library


@both_norms
def test_images_towards_one_rival_are_those_of_the_library(
    torchattacks, sce, right, batch_of, budget
):
    images, labels = right(sce, 40)
    with frozen(sce, sce):
        made = fab(budget, eps=FAR[budget], rivals=1).perturb(
            sce, batch_for(batch_of, sce, images, labels)
        )
    options = {"norm": NORMS[budget], "eps": float("inf"), "steps": 10}
    theirs = library(torchattacks, sce, images, labels, **options)
    assert wrong(sce, theirs, labels).sum() > 30
    assert torch.equal(made.images, theirs)


@pytest.mark.parametrize(("model", "rivals"), [("sce", 9), ("isce", 3)])
@both_norms
def test_breaks_what_the_library_breaks(request, torchattacks, right, model, rivals, budget):
    classifier = request.getfixturevalue(model)
    images, labels = right(classifier, 30)
    ours = fab(budget, rivals=rivals)(classifier, images, labels).correct_after == 0
    options = {"norm": NORMS[budget], "eps": EPS[budget], "steps": 10}
    options |= {"multi_targeted": True, "n_classes": rivals + 1}
    theirs = wrong(classifier, library(torchattacks, classifier, images, labels, **options), labels)
    assert 5 <= theirs.sum() <= 25
    assert torch.equal(ours, theirs)


def test_more_rivals_never_find_more_to_be_smallest(sce, right):
    images, labels = right(sce, 20)
    lengths = []
    for rivals in (1, 2, 4):
        _, outcome = fab(eps=30.0, rivals=rivals).craft(sce, images, labels)
        lengths.append(torch.where(outcome.correct_after == 0, outcome.l2, torch.inf))
    for fewer, more in itertools.pairwise(lengths):
        assert (more <= fewer * (1 + 1e-5)).all()
        assert (more < fewer * 0.99).any()


# Against closed forms


def smallest(normal, rise, images, norm):
    """The least norm of delta in the box with normal·delta = rise, by bisection: (B,)."""
    low, high = -images.flatten(1), 1 - images.flatten(1)
    speed = normal if norm == "l2" else normal.sign()
    least, most = torch.zeros_like(rise), torch.full_like(rise, 1e6)
    for _ in range(200):
        middle = (least + most) / 2
        delta = (middle.unsqueeze(1) * speed).clamp(low, high)
        over = (delta * normal).sum(dim=1) > rise
        least, most = torch.where(over, least, middle), torch.where(over, middle, most)
    return size(delta.view_as(images), norm).flatten()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("binding", [False, True], ids=["open", "box"])
@both_norms
def test_finds_the_nearest_boundary_of_an_affine_model(affine, budget, binding, dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 64, generator=generator).to(dtype)
    spread = 0.7 if binding else 0.05  # a third of the pixels on the box, or none
    images = (0.5 + spread * torch.randn(30, 1, 8, 8, generator=generator)).clamp(0, 1).to(dtype)
    classifier = affine(weight, -weight @ torch.full((64,), 0.5, dtype=dtype))
    with torch.no_grad():
        logits = classifier(images)
    labels = logits.argmax(dim=1)
    attack = fab(budget, eps=FAR[budget], steps=20)
    made, outcome = attack.craft(classifier, images, labels)
    assert made.dtype == dtype
    assert (outcome.correct_after == 0).all()
    every = []
    for rival in range(4):
        normal = weight[rival] - weight[labels]
        rise = logits.gather(1, labels.unsqueeze(1)).squeeze(1) - logits[:, rival]
        found = smallest(normal, rise, images, attack.norm)
        every.append(torch.where(labels == rival, torch.inf, found))
    ratio = size(made - images, attack.norm).flatten() / torch.stack(every).amin(dim=0)
    assert (ratio > 1 - 1e-4).all()
    assert (ratio <= 1.05).all()


# One run for all balls


@pytest.fixture
def runs(monkeypatch):
    """Counts the searches."""
    found, search = [], FAB._smallest

    def counted(self, *args):
        found.append(self)
        return search(self, *args)

    monkeypatch.setattr(FAB, "_smallest", counted)
    return found


def test_one_run_answers_every_ball_of_a_norm(sce, right, runs):
    images, labels = right(sce, 20)
    balls = [("l2_abs", 0.7), ("l2_abs", 1.5), ("l2_rms", 0.05), ("l2_rel", 0.2)]
    attacks = [fab(budget, eps=eps) for budget, eps in balls]
    assert len({attack.alike() for attack in attacks}) == 1
    together = craft(attacks, sce, images, labels)
    assert len(runs) == 1
    broken = []
    for attack, (made, outcome) in zip(attacks, together, strict=True):
        alone, own = attack.craft(sce, images, labels)
        assert torch.equal(made, alone)
        assert torch.equal(outcome.correct_after, own.correct_after)
        broken.append(int((outcome.correct_after == 0).sum()))
    assert 0 < broken[0] < broken[1] < 20
    assert fab("linf").alike() != attacks[0].alike()
    assert fab(steps=11).alike() != attacks[0].alike()
    assert fab(rivals=2).alike() != attacks[0].alike()


@pytest.mark.parametrize(("budget", "eps"), [("l2_abs", 1.5), ("l2_rel", 0.17), ("linf", 0.1)])
def test_images_beyond_their_radius_are_handed_back_clean(sce, right, budget, eps):
    images, labels = right(sce, 30)
    far = fab("linf" if budget == "linf" else "l2_abs", eps=30.0)
    nearest, free = far.craft(sce, images, labels)
    attack = fab(budget, eps=eps)
    made, outcome = attack.craft(sce, images, labels)
    fits = (size(nearest - images, attack.norm) <= attack.radius(images)).flatten()
    assert (free.correct_after == 0).all()  # as the base judges them, in another batch
    assert 5 < fits.sum() < 25
    assert torch.equal(outcome.correct_after == 0, fits)
    assert torch.equal(made[fits], nearest[fits])
    assert torch.equal(made[~fits], images[~fits])


# What it leaves alone


@both_norms
def test_nothing_global_is_changed(sce, right, budget):
    classifier, (images, labels) = copy.deepcopy(sce).train(), right(sce, 3)
    state = torch.get_rng_state()
    fab(budget, steps=2)(classifier, images, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in classifier.modules())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert torch.is_grad_enabled()


def test_library_is_imported_by_a_run_alone():
    code = "import sys, trainables.attacks.fab; print('torchattacks' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_an_image_does_not_depend_on_the_others(sce, right, batch_of):
    classifier, (images, labels) = copy.deepcopy(sce).double(), right(sce, 20)
    images, attack = images.double(), fab()
    with frozen(classifier, classifier):
        whole = attack.perturb(classifier, batch_for(batch_of, classifier, images, labels))
        for part in torch.arange(20).split(7):
            batch = batch_for(batch_of, classifier, images[part], labels[part], indices=part)
            some = attack.perturb(classifier, batch)
            assert torch.allclose(some.images, whole.images[part], rtol=0, atol=1e-6)
            assert torch.allclose(some.gradient, whole.gradient[part], rtol=1e-4)


# Where the library would not do


def test_an_image_that_is_wrong_already_is_left_to_itself(sce, right, batch_of):
    # Within rounding the library may find wrong what the base found right in another batch.
    images, labels = right(sce, 12)
    mistaken = labels.clone()
    mistaken[5] = (labels[5] + 1) % 10
    attack, others = fab(eps=30.0), torch.arange(12) != 5
    with frozen(sce, sce):
        batch = batch_for(batch_of, sce, images, labels)
        whole = attack.perturb(sce, batch)
        some = attack.perturb(sce, replace(batch, labels=mistaken))
    assert torch.equal(some.images[5], images[5])
    assert some.gradient[5] == NO_GRADIENT
    assert some.queries[5] < whole.queries[5]
    assert torch.equal(some.queries[others], whole.queries[others])
    assert torch.allclose(some.images[others], whole.images[others], rtol=0, atol=1e-5)


class Steep(nn.Module):
    """The pixels, and their norm times zero, whose gradient is not a number where all are 0."""

    def forward(self, images):
        flat = images.flatten(1)
        return flat + 0 * flat.square().sum(dim=1, keepdim=True).sqrt()


@both_norms
def test_gradients_that_are_not_finite_count_as_zero(affine, batch_of, budget):
    weight = torch.zeros(2, 4)
    weight[1] = 1.0
    classifier = affine(weight, torch.tensor([1.0, 0.0]))
    images, labels = torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)
    images[1] = 0.1
    classifier.backbone = Steep()
    outcome = fab(budget, eps=FAR[budget])(classifier, images, labels)
    assert outcome.correct_after.tolist() == [1, 0]
    assert outcome.gradient.tolist() == pytest.approx([0.0, 2.0])
    assert outcome.l2[0] == 0


def test_queries_and_gradients_are_those_of_the_model(affine, batch_of):
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    classifier = affine(weight, torch.tensor([1.0, -3.0, 0.0]))
    images, labels = torch.full((4, 1, 1, 2), 0.3), torch.zeros(4, dtype=torch.long)
    asked, raw = [], classifier.raw
    classifier.raw = lambda images, draws=None: (asked.append(len(images)), raw(images, draws))[1]
    with frozen(classifier, classifier):
        made = fab(steps=5, rivals=2).perturb(
            classifier, batch_for(batch_of, classifier, images, labels)
        )
    del classifier.raw
    assert asked[0] == 4  # the batch's own logits
    assert made.queries.tolist() == [len(asked) - 1] * 4 == [1 + 2 * (2 + 2 * 5)] * 4
    assert made.gradient.tolist() == pytest.approx([1.0] * 4)  # of the second rival: 5 and 1


def test_a_model_that_draws_is_attacked_as_its_mean_over_the_same_draws(
    random, sce, right, batch_of, monkeypatch
):
    images, labels = right(sce, 6)
    keys, raw = [], random.raw

    def watched(images, draws):
        keys.append(draws.key)
        return raw(images, draws)

    batch = replace(batch_of(images, labels), logits=torch.randn(6, 10))
    monkeypatch.setattr(random, "raw", watched)
    with frozen(random, random):
        made = fab(steps=3, rivals=1, eot=4, eps=30.0).perturb(random, batch)
        mean = torch.stack([raw(made.images, batch.draws.at(k)) for k in range(4)]).mean(dim=0)
    assert keys == [batch.draws.at(look).key for look in range(4)] * (1 + 2 + 2 * 3)
    assert (made.images != images).flatten(1).any(dim=1).sum() >= 3
    moved = (made.images != images).flatten(1).any(dim=1)
    assert (mean.argmax(dim=1) != labels)[moved].all()
    assert made.queries.max() == 4 * (1 + 2 + 2 * 3)


# Its parameters


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"steps": 0}, "steps"),
        ({"rivals": 0}, "rivals"),
        ({"eot": 0}, "eot"),
        ({"budget": "path_linf"}, "expected a ball"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(parameters, message):
    with pytest.raises(ValidationError, match=message):
        fab(**parameters)


def test_its_defaults_are_autoattacks():
    attack = FAB(eps=0.04)
    assert (attack.budget.name, attack.steps, attack.rivals) == ("l2_rms", 100, 9)
    columns = attack.columns()
    assert (columns.budget, columns.norm, columns.eps, columns.steps) == ("l2_rms", "l2", 0.04, 100)
    assert (columns.surface, columns.targeted, columns.extra) == ("margin_raw", False, {})
    assert replace(attack, eot=1).columns() == columns
    assert fab(eot=2).columns().extra == {"rivals": 3, "eot": 2}
    assert set(module.LIBRARY_NORMS.values()) == set(NORMS.values())
