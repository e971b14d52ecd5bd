"""AutoAttack against its authors' ensemble and torchattacks', and each of its four in its turn."""

from __future__ import annotations

import contextlib
import copy
import io
import logging

import pytest
import torch
from pyautoattack import AutoAttack as Original
from pydantic import ValidationError
from torch import nn

from trainables import registry
from trainables.attacks import autoattack as module
from trainables.attacks.autoattack import AutoAttack
from trainables.attacks.base import PASSES, UNBROKEN, Attack, Crafted
from trainables.attacks.budgets import size
from trainables.classifier import Classifier
from trainables.execution import Execution
from trainables.training import load_weights, new_classifier, weights_of
from trainables.transforms.none import NoTransform

NORMS = {"l2_abs": "L2", "linf": "Linf"}
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


class Raw(nn.Module):
    """A classifier's raw logits, for ensembles that call a module."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = copy.deepcopy(classifier).requires_grad_(False)

    def forward(self, images):
        return self.classifier.raw(images)


@contextlib.contextmanager
def contained():
    """The references print, log, and seed torch's global generator."""
    logger = logging.getLogger("auto-attack")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


class Stub(Attack):
    """Breaks the images with some indices by turning them white, and remembers which it saw."""

    name, revision = "stub", 1  # never registered

    def __init__(self, *broken):
        self.broken, self.seen = broken, []

    def columns(self):
        return None

    def perturb(self, classifier, batch):
        indices = batch.draws.indices.tolist()
        self.seen += indices
        images = batch.images.clone()
        for place, index in enumerate(indices):
            if index in self.broken:
                images[place] = 1.0
        return Crafted(images=images, queries=torch.ones_like(batch.labels))


@pytest.fixture
def short(monkeypatch):
    """Few steps and rivals, where it is not numbers that are tested."""
    monkeypatch.setattr(module, "STEPS", 10)
    monkeypatch.setattr(module, "RIVALS", 2)


@pytest.fixture(scope="module")
def stochastic(sce, model_config):
    """The trained SCE model behind a random transform."""
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(model, weights_of(sce))
    return model.eval()


def white_is_1(affine):
    """Class 0 for dark images of four pixels, class 1 for white ones."""
    return affine(torch.tensor([[0.0] * 4, [1.0] * 4]), torch.tensor([3.0, 0.0]))


# Against the ensembles


@pytest.mark.parametrize(
    ("model", "budget", "eps"),
    [
        ("sce", "l2_abs", 1.65),
        ("sce", "linf", 0.12),
        ("isce", "l2_abs", 1.4),
        ("isce", "linf", 0.095),
    ],
)
def test_accuracy_is_that_of_both_ensembles(
    request, monkeypatch, torchattacks, splits, model, budget, eps
):
    # Equal work, and less of it for all three: three rivals and 200 queries. In torchattacks
    # the three that step take 10 steps by default, which leaves two points more.
    monkeypatch.setattr(module, "RIVALS", 3)
    classifier, part = request.getfixturevalue(model), splits.test.first(100)
    attack = AutoAttack(budget=budget, eps=eps, queries=200)
    outcome = attack(classifier, part.images, part.labels)
    ours, raw, norm = int(outcome.correct_after.sum()), Raw(classifier), NORMS[budget]
    with contained():
        original = Original(raw, norm=norm, eps=eps, seed=0)
        original.apgd_targeted.n_target_classes = original.fab.n_target_classes = 3
        original.square.n_queries = 200
        adversarial, _ = original.run_standard_evaluation(part.images, part.labels)
        library = torchattacks.AutoAttack(raw, norm=norm, eps=eps, n_classes=4, seed=0)
        for stepping in library._autoattack.attacks[:3]:
            stepping.steps = 100
        library._autoattack.attacks[3].n_queries = 200
        other = library(part.images, part.labels)
    with torch.no_grad():
        theirs = [int((raw(made).argmax(1) == part.labels).sum()) for made in (adversarial, other)]
    assert all(20 <= left <= 70 for left in theirs)
    assert all(abs(ours - left) <= 1 for left in theirs)  # a point
    assert outcome.stages == (*STANDARD, "apgd-dlr")
    assert (outcome.broken_by == 0).sum() > 20


# Its parts


def test_each_attack_gets_what_those_before_it_left(affine, monkeypatch):
    classifier = white_is_1(affine)
    images, labels = torch.zeros(6, 1, 2, 2), torch.zeros(6, dtype=torch.long)
    stubs = dict(zip(STANDARD, (Stub(0, 3), Stub(1), Stub(), Stub(0, 4)), strict=True))
    monkeypatch.setattr(AutoAttack, "_attacks", lambda self, classes: stubs)
    attack = AutoAttack(budget="linf", eps=1.0, version="standard")
    outcome = attack(classifier, images, labels)
    assert [stub.seen for stub in stubs.values()] == [
        [0, 1, 2, 3, 4, 5],
        [1, 2, 4, 5],
        [2, 4, 5],
        [2, 4, 5],
    ]
    assert outcome.broken_by.tolist() == [0, 1, UNBROKEN, 0, 3, UNBROKEN]
    assert outcome.correct_after.tolist() == [0, 0, 1, 0, 0, 1]
    assert outcome.stages == attack.stages == STANDARD


def test_attacks_are_those_of_the_original():
    attack = AutoAttack(budget="linf", eps=0.3, queries=70, eot=3)
    parts = attack._attacks(10)
    described = {name: part.columns() for name, part in parts.items()}
    assert [columns.steps for columns in described.values()] == [100, 100, 100, 100, 70]
    assert {(c.budget, c.eps, c.targeted) for c in described.values()} == {("linf", 0.3, False)}
    assert described["apgd-ce"].surface == "ce_raw"
    assert described["apgd-dlr"].surface == described["apgd-t"].surface == "dlr_raw"
    assert {parts[name].eot for name in ("apgd-ce", "apgd-dlr", "apgd-t")} == {3}
    assert [parts[name].rivals for name in ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t")] == [
        0,
        0,
        9,
        9,
    ]
    assert {part.restarts for name, part in parts.items() if name.startswith("apgd")} == {1}


@pytest.mark.parametrize(
    ("classes", "dlr", "targeted"),
    [(2, "margin_raw", "margin_raw"), (3, "dlr_raw", "margin_raw"), (4, "dlr_raw", "dlr_raw")],
)
def test_margin_stands_in_where_dlr_is_constant(affine, short, classes, dlr, targeted):
    parts = AutoAttack(eps=0.1)._attacks(classes)
    assert (parts["apgd-dlr"].surface, parts["apgd-t"].surface) == (dlr, targeted)
    # Cross entropy is flat to float32 at a gap of 200, and no noise of this size matters.
    weight = torch.zeros(classes, 16)
    weight[1:, :8] = 1e3
    bias = -4150.0 - 50 * torch.arange(classes)
    bias[0] = 0.0
    classifier = affine(weight, bias)
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.long)
    outcome = AutoAttack(budget="linf", eps=0.03, queries=1)(classifier, images, labels)
    assert outcome.broken_by.tolist() == [STANDARD.index("apgd-t")] * 3


def test_saturated_logits_hide_cross_entropy_alone(sce, splits, short):
    classifier, part = copy.deepcopy(sce), splits.test.first(20)
    with torch.no_grad():
        for parameter in classifier.head.parameters():
            parameter *= 1e4
    outcome = AutoAttack(budget="l2_abs", eps=2.5, queries=50)(classifier, part.images, part.labels)
    assert outcome.correct_after.sum() <= 2
    assert (outcome.broken_by == 1).sum() > 8  # the targeted DLR
    assert (outcome.gradient[outcome.broken_by == 1] == 0).all()  # what cross entropy met


class Coarse(nn.Module):
    """Rounds images to three grey levels: no gradient comes through."""

    def forward(self, images):
        return (images * 2).round() / 2


def test_square_breaks_what_has_no_gradient(sce, splits, short):
    part = splits.test.first(30)
    masked = Classifier(
        transform=NoTransform().build(),
        backbone=nn.Sequential(Coarse(), sce.backbone),
        head=sce.head,
        mean=(0.0,),
        std=(1.0,),
    ).eval()
    outcome = AutoAttack(budget="linf", eps=0.27, queries=100)(masked, part.images, part.labels)
    square = outcome.stages.index("square")
    assert (outcome.broken_by == square).sum() >= 10
    assert set(outcome.broken_by.tolist()) <= {UNBROKEN, 0, square}  # and lucky starts


def test_raw_logits_are_attacked_whatever_is_deployed(isce, splits, short):
    # Deployed logits that are constant but for their order give no gradient; raw ones do.
    class Ordered(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head = head

        def forward(self, features):
            return self.head(features)

        def deployed(self, logits):
            return logits.argsort(dim=1).argsort(dim=1).to(logits.dtype)

        def inferred(self, logits):
            return self.deployed(logits)

    part = splits.test.first(30)
    ordered = Classifier(
        transform=NoTransform().build(),
        backbone=isce.backbone,
        head=Ordered(isce.head),
        mean=tuple(isce.mean.flatten().tolist()),
        std=tuple(isce.std.flatten().tolist()),
    ).eval()
    attack = AutoAttack(budget="l2_abs", eps=2.0, queries=10)
    ours, same = (attack(model, part.images, part.labels) for model in (ordered, isce))
    assert torch.equal(ours.broken_by == 0, same.broken_by == 0)
    assert (ours.broken_by == 0).sum() > 15


def test_perturbations_keep_to_the_ball(sce, splits, short):
    part = splits.test.first(20)
    attack = AutoAttack(budget="l2_rms", eps=0.05, queries=30)
    made, outcome = attack.craft(sce, part.images, part.labels)
    assert (size(made - part.images, "l2") <= 0.05 * 28 * (1 + 1e-5)).all()
    assert torch.equal(attack.radius(part.images), torch.full((20, 1, 1, 1), 1.4))
    assert 0 < outcome.correct_after.sum() < 20


def test_queries_are_those_of_square(sce, right, short):
    images, labels = right(sce, 3)
    spent = [
        AutoAttack(budget="l2_abs", eps=0.01, queries=queries)(sce, images, labels).queries
        for queries in (10, 35)
    ]
    assert (spent[1] - spent[0]).tolist() == [25] * 3


def test_outcome_does_not_depend_on_the_batch(sce, splits, short):
    part = splits.test.first(16)
    attack = AutoAttack(budget="l2_abs", eps=1.2, queries=40)
    together = attack(sce, part.images, part.labels)
    assert 0 < together.correct_after.sum() < 14
    for index in torch.arange(16).split(5):
        some = attack(sce, part.images[index], part.labels[index], indices=index)
        assert torch.equal(some.correct_after, together.correct_after[index])
        assert torch.equal(some.broken_by, together.broken_by[index])
        assert torch.equal(some.queries, together.queries[index])


def test_random_state_of_torch_is_untouched(sce, splits, short):
    part = splits.test.first(4)
    before = torch.get_rng_state()
    AutoAttack(eps=0.02, queries=5)(sce, part.images, part.labels)
    assert torch.equal(torch.get_rng_state(), before)


# Models that draw at random


@pytest.mark.parametrize("version", ["auto", "rand"])
def test_models_that_draw_meet_cross_entropy_and_dlr(stochastic, splits, short, version):
    part = splits.test.first(12)
    attack = AutoAttack(budget="linf", eps=0.2, version=version, eot=2)
    outcome = attack(stochastic, part.images, part.labels)
    broken = {outcome.stages[stage] for stage in outcome.broken_by if stage != UNBROKEN}
    assert "apgd-ce" in broken
    assert broken <= {"apgd-ce", "apgd-dlr"}
    once = 11 * 2 + PASSES
    spent = set(outcome.queries[outcome.correct_before > 0].tolist())
    assert spent == {once, 2 * once}
    assert outcome.correct_after.sum() < 0.5 * outcome.correct_before.sum()


def test_stage_of_a_model_that_draws_is_named_in_either_form(stochastic, splits, monkeypatch):
    stubs = {"apgd-ce": Stub(), "apgd-dlr": Stub(*range(10))}
    monkeypatch.setattr(AutoAttack, "_attacks", lambda self, classes: stubs)
    part = splits.test.first(10)
    for version in ("auto", "rand"):
        attack = AutoAttack(budget="linf", eps=1.0, version=version)
        outcome = attack(stochastic, part.images, part.labels)
        broken = outcome.broken_by[outcome.broken_by != UNBROKEN]
        assert {outcome.stages[stage] for stage in broken} == {"apgd-dlr"}


# Its place among attacks


def test_planned_form_has_the_version_that_suits_the_model():
    attack, loss = AutoAttack(eps=0.1, queries=70), registry.build("loss", "isce")
    planned = attack.settled(loss, stochastic=False)
    assert planned == AutoAttack(eps=0.1, queries=70, version="standard", eot=1)
    assert planned.stages == STANDARD
    planned = attack.settled(loss, stochastic=True)
    assert planned == AutoAttack(eps=0.1, version="rand")
    assert planned.stages == ("apgd-ce", "apgd-dlr")
    asked = AutoAttack(eps=0.1, version="standard")
    assert asked.settled(loss, stochastic=True) == asked


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"version": "plus"}, "version"),
        ({"queries": 0}, "queries"),
        ({"budget": "path_l2"}, "expected a ball"),
        ({"steps": 10}, "steps"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        AutoAttack(**{"eps": 0.1, **wrong})


def test_columns_list_what_is_not_at_its_default():
    columns = AutoAttack(budget="linf", eps=0.3, queries=100).columns()
    assert (columns.budget, columns.norm, columns.eps, columns.steps) == ("linf", "linf", 0.3, 100)
    assert (columns.surface, columns.targeted) == ("raw", False)
    assert columns.extra == {"queries": 100}
