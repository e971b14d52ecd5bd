"""APGD against closed forms, step by step against the authors' code, and against torchattacks."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
from fractions import Fraction

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pydantic import ValidationError
from torch import nn

from trainables import registry
from trainables.attacks import apgd as module
from trainables.attacks.apgd import APGD, _Climb, checkpoints
from trainables.attacks.base import NO_GRADIENT, PASSES
from trainables.attacks.budgets import size
from trainables.attacks.surfaces import objective
from trainables.execution import Execution
from trainables.training import load_weights, new_classifier, weights_of

SHAPE = (1, 5, 5)
D = 25
NORMS = {"l2_abs": "L2", "linf": "Linf"}
every_norm = pytest.mark.parametrize("budget", NORMS)


class Raw(nn.Module):
    """A classifier's raw logits, for attacks that call a module."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = copy.deepcopy(classifier).requires_grad_(False)

    def forward(self, images):
        return self.classifier.raw(images)


@contextlib.contextmanager
def contained():
    """References print, and seed torch's global generator."""
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        yield


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def two_classes(affine, seed=0, bias=0.0):
    """A binary affine model and its normal: z_1 - z_0 = w x - bias."""
    weight = random(2, D, seed=seed)
    shift = torch.tensor([bias, 0.0], dtype=torch.float64)
    return affine(weight, shift), weight[1] - weight[0]


def values(surface, classifier, images, labels, targets=None):
    with torch.no_grad():
        return objective(surface, classifier, images, labels, targets)[0]


def largest_gain(normal, images, radius, norm):
    """max of normal·delta over the ball and the box, by bisection on the multiplier."""
    flat = images.flatten(1)
    low, high = -flat, 1 - flat
    if norm == "linf":
        delta = (radius * normal.sign()).clamp(low, high)
        return (delta * normal).sum(dim=1)
    least, most = torch.zeros(len(flat), 1).double(), torch.full((len(flat), 1), 1e6).double()
    for _ in range(200):
        middle = (least + most) / 2
        over = (middle * normal).clamp(low, high).norm(dim=1, keepdim=True) > radius
        least, most = torch.where(over, least, middle), torch.where(over, middle, most)
    return ((least * normal).clamp(low, high) * normal).sum(dim=1)


@pytest.fixture
def looks(monkeypatch):
    """Every look that an attack takes at a model: what it was asked for and what it saw."""
    seen = []
    real = module.slope

    def slope(surface, classifier, images, labels, targets, draws, **options):
        found = real(surface, classifier, images, labels, targets, draws, **options)
        seen.append((images, targets, draws, found))
        return found

    monkeypatch.setattr(module, "slope", slope)
    return seen


@pytest.fixture(scope="module")
def stochastic(sce, model_config):
    """The trained SCE model behind a random transform."""
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(model, weights_of(sce))
    return model.eval()


# Against closed forms


@pytest.mark.parametrize("surface", ["ce_raw", "margin_raw"])
@pytest.mark.parametrize("boxed", [False, True])
@every_norm
def test_reaches_the_optimum_of_an_affine_model(affine, batch_of, budget, boxed, surface):
    # The bias keeps class 0 right all over the ball: the best point is handed over.
    classifier, normal = two_classes(affine, bias=30.0)
    spread = 0.5 if boxed else 0.05  # a third of the pixels on the box, or none
    eps = {"l2_abs": 0.6 if boxed else 0.3, "linf": 0.3}[budget]
    images = (random(8, *SHAPE, seed=1) * spread + 0.5).clamp(0, 1)
    labels = torch.zeros(8, dtype=torch.long)
    attack = APGD(budget=budget, eps=eps, surface=surface)
    result = attack.perturb(classifier, batch_of(images, labels)).images
    gained = values("margin_raw", classifier, result, labels) - values(
        "margin_raw", classifier, images, labels
    )
    ratio = largest_gain(normal, images, eps, attack.norm) / gained
    assert (ratio > 1 - 1e-9).all()
    assert (ratio < 1.05).all()


@every_norm
def test_breaks_an_affine_model_where_the_boundary_is_within_reach(affine, budget):
    _, normal = two_classes(affine)
    dual = normal.norm() if budget == "l2_abs" else normal.abs().sum()
    classifier, _ = two_classes(affine, bias=float(0.5 * normal.sum() + 0.1 * dual))
    images = torch.full((6, *SHAPE), 0.5, dtype=torch.float64)
    labels = torch.zeros(6, dtype=torch.long)
    for eps, left in ((0.101, 0), (0.099, 6)):
        attack = APGD(budget=budget, eps=eps, surface="ce_raw")
        assert attack(classifier, images, labels).correct_after.sum() == left


# Against the authors' code and torchattacks


@pytest.mark.parametrize(
    ("model", "budget", "loss"),
    [
        ("sce", "l2_abs", "ce"),
        ("sce", "linf", "dlr"),
        ("isce", "l2_abs", "dlr"),
        ("isce", "linf", "ce"),
    ],
)
def test_images_equal_those_of_the_authors_code(request, right, batch_of, model, budget, loss):
    # The same starts, float64: the iterates agree until rounding grows. Its count of rises
    # begins from a value of 0, which may alter one image's first checkpoint.
    images, labels = right(request.getfixturevalue(model), 16)
    classifier = copy.deepcopy(request.getfixturevalue(model)).double()
    images = images.double()
    eps = {"l2_abs": 0.6, "linf": 0.04}[budget]
    attack = APGD(budget=budget, eps=eps, surface=f"{loss}_raw")
    batch = batch_of(images, labels)
    ours = attack.perturb(classifier, batch).images
    reference = APGDAttack(Raw(classifier), norm=NORMS[budget], eps=eps, loss=loss, device="cpu")
    reference.init_hyperparam(images)
    with contained():
        best, standing, _, _ = reference.attack_single_run(
            images, labels, x_init=attack._start(batch)
        )
    with torch.no_grad():
        assert torch.equal(classifier(ours).argmax(dim=1) == labels, standing)
    apart = (ours - best)[standing].abs().flatten(1).amax(dim=1)
    assert len(apart) >= 8
    assert (apart > 1e-6).sum() <= 1


def reference_accuracies(torchattacks, classifier, images, labels, *, norm, eps, loss):
    """How many images torchattacks and the authors' code leave right."""
    model = Raw(classifier)
    with contained():
        if loss == "targeted":
            attacked = [
                torchattacks.APGDT(model, norm=norm, eps=eps, steps=100, n_classes=4)(
                    images, labels
                ),  # three rivals
                APGDAttack_targeted(
                    model, norm=norm, eps=eps, n_target_classes=3, device="cpu"
                ).perturb(images.clone(), labels),
            ]
        else:
            attacked = [
                torchattacks.APGD(model, norm=norm, eps=eps, steps=100, loss=loss)(images, labels),
                APGDAttack(model, norm=norm, eps=eps, loss=loss, device="cpu").perturb(
                    images.clone(), labels
                ),
            ]
    with torch.no_grad():
        return [int((model(made).argmax(dim=1) == labels).sum()) for made in attacked]


# The last is how far our own figure goes with the seed; theirs set a seed of their own.
@pytest.mark.parametrize(
    ("model", "budget", "eps", "loss", "spread"),
    [
        ("sce", "l2_abs", 1.5, "ce", 1),
        ("sce", "linf", 0.1, "dlr", 1),
        ("isce", "l2_abs", 1.5, "ce", 3),
    ],
)
def test_accuracy_is_that_of_the_references(
    request, torchattacks, splits, model, budget, eps, loss, spread
):
    classifier, part = request.getfixturevalue(model), splits.test.first(200)
    attack = APGD(budget=budget, eps=eps, surface=f"{loss}_raw")
    ours = int(attack(classifier, part.images, part.labels).correct_after.sum())
    theirs = reference_accuracies(
        torchattacks, classifier, part.images, part.labels, norm=NORMS[budget], eps=eps, loss=loss
    )
    assert all(40 < left < 120 for left in theirs)
    assert all(abs(ours - left) <= spread for left in theirs)


def test_accuracy_towards_rivals_is_that_of_the_references(torchattacks, isce, splits):
    part = splits.test.first(40)
    attack = APGD(budget="l2_abs", eps=1.5, rivals=3)
    ours = int(attack(isce, part.images, part.labels).correct_after.sum())
    theirs = reference_accuracies(
        torchattacks, isce, part.images, part.labels, norm="L2", eps=1.5, loss="targeted"
    )
    assert all(4 < left < 30 for left in theirs)
    assert all(abs(ours - left) <= 1 for left in theirs)


# The schedule


def test_checkpoints_are_the_published_ones():
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert list(checkpoints(1000)) == [220, 410, 570, 700, 800, 870, 930, 990]


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 40, 50, 73, 250])
def test_checkpoints_keep_to_the_papers_formula(steps):
    shares = [Fraction(0), Fraction(22, 100)]
    while shares[-1] < 1:
        shares.append(
            shares[-1] + max(shares[-1] - shares[-2] - Fraction(3, 100), Fraction(6, 100))
        )
    expected = sorted({-(-share * steps // 1) for share in shares if 0 < share <= 1})
    marks = checkpoints(steps)
    assert list(marks) == expected
    assert list(itertools.accumulate(marks.values())) == expected


def climb(n=1, **state):
    """The climb of n images of one pixel that stand at 1, the best of them at 5."""
    start = _Climb.begin(torch.ones(n, 1, 1, 1), torch.full((n, 1, 1, 1), 2.0))
    start.best, start.best_gradient = start.current * 5, start.current * 50
    start.gradient = start.current * 10
    for name, value in state.items():
        setattr(start, name, torch.tensor(value))
    return start


@pytest.mark.parametrize(("rises", "halved"), [(11.0, True), (12.0, True), (13.0, False)])
def test_steps_are_halved_where_at_most_three_quarters_of_them_rose(rises, halved):
    state = climb(rises=[rises])
    state.check(16)
    assert state.length.item() == (1.0 if halved else 2.0)
    assert state.current.item() == (5.0 if halved else 1.0)  # back to the best
    assert state.gradient.item() == (50.0 if halved else 10.0)
    assert state.halved.item() is halved
    assert state.rises.item() == 0


def test_steps_are_halved_where_the_best_stays_unless_they_just_were():
    # Three images that rose at every step: only the first neither gained nor was halved before.
    state = climb(
        3,
        rises=[16.0] * 3,
        halved=[False, False, True],
        checked=[1.0, 1.0, 1.0],
        best_value=[1.0, 1.1, 1.0],
    )
    state.check(16)
    assert state.length.flatten().tolist() == [1.0, 2.0, 2.0]
    assert state.halved.tolist() == [True, False, False]
    assert state.checked.tolist() == pytest.approx([1.0, 1.1, 1.0])
    state.rises = torch.full((3,), 16.0)
    state.check(16)  # nothing was gained since: the second and third are halved now
    assert state.length.flatten().tolist() == [1.0, 1.0, 1.0]


def test_first_step_counts_as_a_rise_above_the_start_alone(sce, right, batch_of, looks):
    images, labels = right(sce, 6)
    counted = []
    check = _Climb.check

    def spied(self, steps):
        counted.append(self.rises)
        check(self, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Climb, "check", spied)
        APGD(budget="l2_abs", eps=0.05, steps=10).perturb(sce, batch_of(images, labels))
    value = torch.stack([found.value for *_, found in looks])
    assert torch.equal(counted[0], (value[1:4] > value[:3]).sum(dim=0).float())


# What is handed over


@pytest.mark.parametrize("surface", ["dlr_raw", "ce_deployed", "train_loss"])
@every_norm
def test_unbroken_images_are_the_best_that_were_seen(isce, right, batch_of, looks, budget, surface):
    images, labels = right(isce, 30)
    attack = APGD(
        budget=budget, eps={"l2_abs": 0.6, "linf": 0.04}[budget], steps=12, surface=surface
    )
    made = attack.perturb(isce, batch_of(images, labels)).images
    with torch.no_grad():
        alive = (isce(made).argmax(dim=1) == labels).nonzero().squeeze(1)
    del looks[:]
    made = attack.perturb(isce, batch_of(images[alive], labels[alive], indices=alive))
    seen = torch.stack([found.value for *_, found in looks])
    best = seen.max(dim=0).values
    assert torch.allclose(values(surface, isce, made.images, labels[alive]), best, atol=1e-6)
    assert (best > seen[-1] + 1e-4).any()  # the last ones would not do
    assert made.queries.tolist() == [13] * len(alive)


def test_first_adversarial_image_is_handed_over_and_leaves_the_batch(isce, right, batch_of, looks):
    images, labels = right(isce, 30)
    made = APGD(budget="l2_abs", eps=1.5, steps=20).perturb(isce, batch_of(images, labels))
    with torch.no_grad():
        broken = isce(made.images).argmax(dim=1) != labels
    assert broken.any()
    active = torch.arange(30)
    for number, (at, _, _, found) in enumerate(looks):
        assert len(at) == len(active)
        wrong = found.logits.argmax(dim=1) != labels[active]
        assert torch.equal(made.images[active[wrong]], at[wrong])
        assert (made.queries[active[wrong]] == number + 1).all()
        active = active[~wrong]
    assert not broken[active].any()
    assert len({len(at) for at, *_ in looks}) > 3


def test_it_ends_when_nothing_is_left(sce, right, batch_of, looks):
    images, labels = right(sce, 10)
    APGD(budget="linf", eps=1.0).perturb(sce, batch_of(images, labels))
    assert len(looks) < 20


@every_norm
def test_perturbations_keep_to_the_ball_and_the_box(sce, splits, budget):
    part = splits.test.first(30)
    attack = APGD(budget=budget, eps=0.05, steps=12)
    made, outcome = attack.craft(sce, part.images, part.labels)
    achieved = size(made - part.images, attack.norm).flatten()
    assert (achieved <= 0.05 * (1 + 1e-5)).all()
    assert made.min() >= 0
    assert made.max() <= 1
    assert (achieved[outcome.correct_before > 0] > 0.02).all()


@every_norm
def test_eps_0_leaves_the_images_as_they_are(sce, splits, budget):
    part = splits.test.first(20)
    made, _ = APGD(budget=budget, eps=0.0, steps=5).craft(sce, part.images, part.labels)
    assert torch.equal(made, part.images)


def test_smallest_gradient_that_was_met_is_told(sce, right, batch_of, looks):
    images, labels = right(sce, 8)
    made = APGD(budget="l2_abs", eps=0.01, steps=6).perturb(sce, batch_of(images, labels))
    norms = torch.stack([found.norm for *_, found in looks])
    assert torch.equal(made.gradient, norms.min(dim=0).values)
    assert (made.gradient > 0).all()


def test_saturated_cross_entropy_is_told_and_dlr_goes_on(sce, splits):
    classifier, part = copy.deepcopy(sce), splits.test.first(30)
    with torch.no_grad():
        for parameter in classifier.head.parameters():
            parameter *= 1e4
    blind = APGD(budget="l2_abs", eps=1.5, steps=20, surface="ce_raw")
    outcome = blind(classifier, part.images, part.labels)
    attacked = outcome.gradient != NO_GRADIENT
    assert (outcome.gradient[attacked] == 0).float().mean() > 0.9
    seeing = APGD(budget="l2_abs", eps=1.5, steps=20, surface="dlr_raw")
    assert seeing(classifier, part.images, part.labels).correct_after.sum() < 25
    assert outcome.correct_after.sum() > 25


# Rivals and restarts


def test_rivals_are_the_likeliest_wrong_classes_and_any_misclassification_counts(
    sce, splits, looks
):
    part = splits.test.first(40)
    attack = APGD(budget="l2_abs", eps=0.8, steps=5, rivals=3)
    outcome = attack(sce, part.images, part.labels)
    with torch.no_grad():
        logits = sce(part.images)
    alive = (logits.argmax(dim=1) == part.labels).nonzero().squeeze(1)
    ranked = logits.scatter(1, part.labels.unsqueeze(1), -torch.inf).argsort(1, descending=True)
    first = next(targets for at, targets, _, _ in looks if len(at) == len(alive))
    assert torch.equal(first, ranked[alive, 0])
    named = {tuple(targets.tolist()) for at, targets, *_ in looks if len(targets) > 20}
    assert len(named) >= 3
    assert not attack.targeted
    assert (outcome.targets == -1).all()
    assert 0 < outcome.correct_after.sum() < len(alive)


def test_second_rival_finds_what_the_first_does_not(affine):
    # Class 1 is likelier and out of reach for good, class 2 is within reach.
    weight = torch.zeros(3, 4)
    weight[1, 0], weight[2, 1] = 1e-3, 1.0
    classifier = affine(weight, torch.tensor([1.0, 0.8, 0.2]))
    images, labels = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.long)
    settings = {"budget": "linf", "eps": 0.45, "surface": "margin_raw"}
    one = APGD(**settings, rivals=1, steps=10)
    assert one(classifier, images, labels).correct_after.all()
    two = APGD(**settings, rivals=2, steps=10)
    outcome = two(classifier, images, labels)
    assert not outcome.correct_after.any()
    assert outcome.stages == ("apgd",)
    assert (outcome.broken_by == 0).all()
    more = APGD(**settings, rivals=9, steps=10)  # than there are
    assert not more(classifier, images, labels).correct_after.any()


def test_restarts_begin_elsewhere_and_leave_no_more(sce, splits, looks):
    part = splits.test.first(30)
    once = APGD(budget="linf", eps=0.05, steps=3)
    left = once(sce, part.images, part.labels).correct_after
    del looks[:]
    again = APGD(budget="linf", eps=0.05, steps=3, restarts=4)
    outcome = again(sce, part.images, part.labels)
    assert outcome.correct_after.sum() <= left.sum()
    starts = [at for at, *_ in looks[::4]]
    assert len(starts) == 4
    survivors = outcome.correct_after > 0
    assert outcome.queries[survivors].tolist() == [4 * (4 + 1)] * int(survivors.sum())
    assert not any(
        torch.equal(one[:5], other[:5]) for one, other in itertools.combinations(starts, 2)
    )


# Draws


@every_norm
def test_start_is_on_the_surface_of_the_ball_and_keyed(splits, batch_of, budget):
    part = splits.test.first(8)
    inside = part.images * 0.5 + 0.25  # nothing is clipped
    attack = APGD(budget=budget, eps=0.2)
    start = attack._start(batch_of(inside, part.labels, seed=1))
    delta = start - inside
    assert torch.allclose(size(delta, attack.norm), torch.tensor(0.2), atol=1e-6)
    some = attack._start(batch_of(inside[3:], part.labels[3:], indices=torch.arange(3, 8), seed=1))
    assert torch.equal(start[3:], some)
    other = attack._start(batch_of(inside, part.labels, seed=2))
    assert (other - start).flatten(1).norm(dim=1).min() > 0.1
    if budget == "linf":  # filled evenly, not its corners alone
        assert float(delta.abs().mean()) == pytest.approx(0.1, abs=0.01)


def test_start_is_clipped_to_the_box(splits, batch_of):
    part = splits.test.first(8)
    start = APGD(budget="linf", eps=0.2)._start(batch_of(part.images, part.labels))
    assert start.min() == 0
    assert start.max() == 1


@pytest.mark.parametrize("rivals", [0, 2])
def test_outcome_does_not_depend_on_the_batch(sce, splits, rivals):
    attack = APGD(budget="l2_abs", eps=0.9, steps=12, rivals=rivals)
    part = splits.test.first(24)
    together = attack(sce, part.images, part.labels)
    assert 0 < together.correct_after.sum() < 22
    for length in (1, 7):
        for index in torch.arange(24).split(length):
            some = attack(sce, part.images[index], part.labels[index], indices=index)
            assert torch.equal(some.correct_after, together.correct_after[index])
            assert torch.equal(some.queries, together.queries[index])
            assert torch.allclose(some.l2, together.l2[index], atol=1e-4)


def test_random_state_of_torch_is_untouched(sce, splits):
    part = splits.test.first(4)
    before = torch.get_rng_state()
    APGD(eps=0.02, steps=2, restarts=2)(sce, part.images, part.labels)
    assert torch.equal(torch.get_rng_state(), before)


# Models that draw at random


def test_no_lucky_pass_ends_the_climb_of_a_model_that_draws(stochastic, splits, looks):
    part = splits.test.first(12)
    attack = APGD(budget="linf", eps=0.2, steps=5, eot=2)
    made, outcome = attack.craft(stochastic, part.images, part.labels)
    alive = (outcome.correct_before > 0).nonzero().squeeze(1)
    assert outcome.queries[alive].tolist() == [2 * 6] * len(alive)
    assert {len(at) for at, *_ in looks} == {len(alive)}
    keys = [draws.key for _, _, draws, _ in looks]
    assert len(set(keys)) == 6  # every step draws anew
    wrong = torch.stack([found.logits.argmax(dim=1) for *_, found in looks]) != part.labels[alive]
    assert wrong[:-1].any()  # passes that would have been lucky
    value = torch.stack([found.value for *_, found in looks])
    iterates = torch.stack([at for at, *_ in looks])
    best = iterates[value.argmax(dim=0), torch.arange(len(alive))]
    assert torch.equal(made[alive], best)  # of the mean over draws
    assert outcome.passes == PASSES
    assert outcome.correct_after.sum() < 0.5 * outcome.correct_before.sum()


# Its place among attacks


def test_planned_form_names_equal_surfaces_once_and_needs_no_draws():
    attack = APGD(eps=0.1, surface="ce_deployed")
    loss = registry.build("loss", "sce")
    assert attack.settled(loss, stochastic=False) == APGD(eps=0.1, surface="ce_raw", eot=1)
    assert attack.settled(loss, stochastic=True) == APGD(eps=0.1, surface="ce_raw")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"steps": 0}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"rivals": -1}, "rivals"),
        ({"surface": "dlr"}, "surface"),
        ({"budget": "path_l2"}, "expected a ball"),
        ({"targeted": True}, "targeted"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        APGD(**{"eps": 0.1, **wrong})


def test_columns_list_what_is_not_at_its_default():
    columns = APGD(budget="linf", eps=0.3, surface="ce_raw", rivals=9).columns()
    assert (columns.budget, columns.norm, columns.eps, columns.steps) == ("linf", "linf", 0.3, 100)
    assert (columns.surface, columns.targeted) == ("ce_raw", False)
    assert columns.extra == {"rivals": 9}
