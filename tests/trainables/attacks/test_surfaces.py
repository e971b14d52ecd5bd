"""What white-box attacks differentiate, and METHODS' statement of what I-SCE does to it."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import nn

from trainables import registry
from trainables.attacks.surfaces import SURFACES, objective, settled, slope
from trainables.classifier import Classifier
from trainables.execution import Execution
from trainables.losses.isce import ISCE
from trainables.seeding import Draws, initialise
from trainables.training import new_classifier
from trainables.transforms.none import NoTransform

LABELS = torch.tensor([3, 0, 7, 1])
TARGETS = torch.tensor([1, 2, 3, 4])
S, M = 2.0, 0.3
DRAWS = Draws((0,), torch.arange(4))


@pytest.fixture(scope="module")
def normalised(affine):
    """Images (B, 1, 10, 1) are raw logits; deployed ones are L2-normalised."""
    return affine(
        torch.eye(10, dtype=torch.float64), torch.zeros(10, dtype=torch.float64), ISCE(s=S, m=M)
    ).requires_grad_(False)


@pytest.fixture(scope="module")
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 10, dtype=torch.float64, generator=generator) * 4


def value(surface, classifier, z, targets=None, **options):
    images = z.view(-1, 1, z.shape[1], 1)
    return objective(surface, classifier, images, LABELS[: len(z)], targets, **options)[0]


def cross_entropy(z, y):
    return logsumexp(z) - z[y]


def eq_2(f):
    """What s and m on the largest logit make of f."""
    return np.where(np.arange(len(f)) == f.argmax(), S * f + M, f)


def eq_3(f, y):
    """The training loss: CE with s and m on the label's logit."""
    return cross_entropy(np.where(np.arange(len(f)) == y, S * f + M, f), y)


def margin(z, y, t):
    return z[t] - z[y] if t is not None else np.delete(z, y).max() - z[y]


def dlr(z, y, t):
    """Croce and Hein's eq. 3 and, towards a target, eq. 4; both with the sign turned."""
    first, _, third, *rest = sorted(z, reverse=True)
    if t is None:
        return -(z[y] - np.delete(z, y).max()) / (first - third)
    fourth = rest[0] if rest else third
    return -(z[y] - z[t]) / (first - (third + fourth) / 2)


def signed(loss, y, t):
    """What an adversary raises: the label's loss, or less of the target's."""
    return loss(y) if t is None else -loss(t)


# From the raw logits z and their unit-norm form f, for a label y and a target t or none.
FORMULAS = {
    "ce_deployed": lambda z, f, y, t: signed(lambda k: cross_entropy(f, k), y, t),
    "ce_infer": lambda z, f, y, t: signed(lambda k: cross_entropy(eq_2(f), k), y, t),
    "ce_raw": lambda z, f, y, t: signed(lambda k: cross_entropy(z, k), y, t),
    "margin_raw": lambda z, f, y, t: margin(z, y, t),
    "dlr_raw": lambda z, f, y, t: dlr(z, y, t),
    "margin_deployed": lambda z, f, y, t: margin(f, y, t),
    "train_loss": lambda z, f, y, t: signed(lambda k: eq_3(f, k), y, t),
}


@pytest.mark.parametrize("targets", [None, TARGETS], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("surface", SURFACES)
def test_value_is_the_formulas(normalised, logits, surface, targets):
    found = value(surface, normalised, logits, targets)
    for i, z in enumerate(logits.numpy()):
        y, t = int(LABELS[i]), None if targets is None else int(targets[i])
        expected = FORMULAS[surface](z, z / np.linalg.norm(z), y, t)
        assert float(found[i]) == pytest.approx(expected, rel=1e-10), (surface, i)


@pytest.mark.parametrize("targets", [None, torch.tensor([2, 2])], ids=["untargeted", "targeted"])
def test_dlr_of_three_classes_has_the_smallest_in_the_fourths_place(affine, targets):
    classifier = affine(torch.eye(3).double(), torch.zeros(3).double())
    logits = torch.tensor([[1.0, 4.0, 2.5], [3.0, -1.0, 0.0]]).double()
    labels = torch.tensor([1, 0])
    found, _ = objective("dlr_raw", classifier, logits.view(2, 1, 3, 1), labels, targets)
    # (2.5 - 4) / (4 - 1) and (0 - 3) / (3 + 1), towards the second wrong class too.
    assert found.tolist() == pytest.approx([-0.5, -0.75])


@pytest.mark.parametrize("targets", [None, TARGETS], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("surface", SURFACES)
def test_gradient_is_that_of_finite_differences(normalised, logits, surface, targets):
    def evaluate(z):
        return value(surface, normalised, z, targets)

    assert torch.autograd.gradcheck(evaluate, (logits.clone().requires_grad_(),))


@pytest.mark.parametrize("surface", SURFACES)
def test_objective_also_gives_the_deployed_logits(normalised, logits, surface):
    _, deployed = objective(surface, normalised, logits.view(-1, 1, 10, 1), LABELS, None)
    assert torch.equal(deployed, normalised(logits.view(-1, 1, 10, 1)))


def test_margin_is_positive_exactly_where_the_class_is_wrong(sce, splits):
    images, labels = splits.test.images, splits.test.labels
    with torch.no_grad():
        margin, logits = objective("margin_raw", sce, images, labels, None)
    assert torch.equal(margin > 0, logits.argmax(dim=1) != labels)


def on(loss, width=9, classes=4):
    """A model of images (B, 1, 3, 3) with a loss's own head, its state drawn by a seed."""
    classifier = Classifier(
        transform=NoTransform().build(),
        backbone=nn.Flatten(),
        head=loss.head(width, classes),
        mean=(0.0,),
        std=(1.0,),
    ).double()
    initialise(classifier, 0)
    return classifier.eval().requires_grad_(False)


VARIANTS = [
    {"name": "isce", "s": s, "m": m, "normalize": normalize}
    for s, m in ((1.0, 0.0), (1.0, 0.1), (2.0, 0.1))
    for normalize in ("logits", "features", "none")
]


@pytest.mark.parametrize("targets", [None, torch.tensor([1, 2, 3, 0] * 3)], ids=["un", "tar"])
@pytest.mark.parametrize("spec", [*registry.names("loss"), *VARIANTS], ids=str)
def test_surfaces_of_one_settled_name_are_equal_and_others_differ(spec, targets):
    loss = registry.build("loss", spec)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(12, 1, 3, 3, dtype=torch.float64, generator=generator) * 3
    labels = torch.tensor([0, 1, 2, 3] * 3)
    found = {
        surface: slope(surface, on(loss), images, labels, targets, DRAWS) for surface in SURFACES
    }
    for one, other in itertools.combinations(SURFACES, 2):
        a, b = found[one], found[other]
        same = torch.allclose(a.value, b.value, rtol=1e-9) and torch.allclose(
            a.gradient, b.gradient, rtol=1e-9, atol=1e-12
        )
        assert same == (settled(one, loss) == settled(other, loss)), (one, other)


@pytest.mark.parametrize("spec", [*registry.names("loss"), *VARIANTS], ids=str)
def test_settled_names_a_surface_that_is_settled(spec):
    loss = registry.build("loss", spec)
    for surface in SURFACES:
        assert settled(settled(surface, loss), loss) == settled(surface, loss)


def scaled(model, factor):
    """The same model with logits of another size."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter *= factor
    return model.requires_grad_(False)


@pytest.mark.parametrize("surface", ["ce_raw", "ce_deployed", "ce_infer"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_unit_scale_makes_cross_entropy_blind_to_the_logits_size(
    sce, right, factor, targeted, surface
):
    images, labels = right(sce, 20)
    targets, draws = (labels + 1) % 10 if targeted else None, Draws((0,), torch.arange(20))
    models = sce, scaled(sce, factor)
    one, other = (
        slope(surface, model, images, labels, targets, draws, rescale="unit") for model in models
    )
    assert torch.allclose(one.value, other.value, rtol=1e-4)
    assert torch.allclose(one.gradient, other.gradient, rtol=1e-3, atol=1e-5)
    assert torch.allclose(one.logits * factor, other.logits, rtol=1e-4, atol=1e-4 * factor)
    plain, changed = (slope(surface, model, images, labels, targets, draws) for model in models)
    assert not torch.allclose(plain.value, changed.value, rtol=0.1)
    if factor > 1 and not targeted:
        assert (changed.norm == 0).float().mean() > 0.9  # saturated: nothing to follow
        assert (other.norm > 1e-3).all()


def test_unit_scale_is_the_gradient_of_a_network_that_was_scaled(normalised, logits):
    # As of a constant: the divisor itself is not differentiated.
    images = logits.view(4, 1, 10, 1)
    found = slope("ce_raw", normalised, images, LABELS, None, DRAWS, rescale="unit").gradient
    spread = logits.std(dim=1, keepdim=True)
    p = (logits / spread).softmax(dim=1)
    p[torch.arange(4), LABELS] -= 1
    assert torch.allclose(found.flatten(1), p / spread)


@pytest.mark.parametrize("surface", SURFACES)
def test_equal_logits_have_a_finite_unit_scale(normalised, surface):
    images = torch.ones(4, 1, 10, 1, dtype=torch.float64)
    found = slope(surface, normalised, images, LABELS, None, DRAWS, rescale="unit")
    assert found.value.isfinite().all()
    assert found.norm.isfinite().all()


class Root(nn.Module):
    """Features that are the roots of pixels: their slope at 0 is infinite."""

    def forward(self, images):
        return images.flatten(1).sqrt()


def test_gradient_that_is_not_finite_is_zero_for_that_image_alone(affine):
    generator = torch.Generator().manual_seed(0)
    classifier = affine(torch.randn(3, 9, generator=generator), torch.zeros(3))
    classifier.backbone = Root()
    images, labels = torch.rand(4, 1, 3, 3, generator=generator), torch.tensor([0, 1, 2, 0])
    images[2, 0, 1, 1] = 0.0
    found = slope("margin_raw", classifier, images, labels, None, DRAWS)
    assert found.gradient[2].count_nonzero() == 0
    assert found.norm[2] == 0
    others = torch.tensor([0, 1, 3])
    alone = slope("margin_raw", classifier, images[others], labels[others], None, DRAWS[others])
    assert torch.allclose(found.gradient[others], alone.gradient)
    assert (found.norm[others] > 0).all()


@pytest.mark.parametrize("size", [1e-30, 1e-38])
def test_norm_of_a_tiny_gradient_is_not_zero(affine, size):
    weight = torch.zeros(2, 9)
    weight[1] = size  # its square is none in float32
    images, labels = torch.full((1, 1, 3, 3), 0.5), torch.tensor([0])
    classifier = affine(weight, torch.zeros(2))
    found = slope("margin_raw", classifier, images, labels, None, DRAWS)
    assert found.norm.dtype == torch.float64
    assert float(found.norm) == pytest.approx(3 * size, rel=1e-6, abs=0)


def test_look_gives_value_and_logits_without_a_graph(sce, right):
    images, labels = right(sce, 5)
    found = slope("ce_raw", sce, images, labels, None, Draws((0,), torch.arange(5)))
    with torch.no_grad():
        expected, logits = objective("ce_raw", sce, images, labels, None)
    assert torch.equal(found.value, expected)
    assert torch.equal(found.logits, logits)
    assert torch.equal(found.norm, found.gradient.flatten(1).double().norm(dim=1))
    assert not any(part.requires_grad for part in found)
    assert not images.requires_grad


@pytest.fixture(scope="module")
def random(model_config):
    """A model behind a random transform, untrained."""
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("eot", [1, 2, 5])
def test_look_at_a_random_model_is_the_mean_over_draws(random, splits, eot):
    images, labels = splits.test.batch(torch.arange(6))
    draws = Draws((0,), torch.arange(6))
    found = slope("margin_raw", random, images, labels, None, draws, eot=eot)
    each = [
        slope("margin_raw", random, images, labels, None, drawn)
        for drawn in [draws, *(draws.at(number) for number in range(1, eot))]
    ]
    for name in ("gradient", "value", "logits"):
        mean = torch.stack([getattr(one, name) for one in each]).double().mean(dim=0)
        assert torch.allclose(getattr(found, name).double(), mean, atol=1e-6), name
    if eot > 1:
        assert not torch.allclose(each[0].gradient, each[1].gradient, atol=1e-4)
        assert (found.norm < sum(one.norm for one in each) / eot).all()


def test_look_at_a_model_without_draws_is_one(sce, right):
    images, labels = right(sce, 3)
    asked, real = [], sce.backbone.forward
    sce.backbone.forward = lambda x: asked.append(len(x)) or real(x)
    try:
        slope("ce_raw", sce, images, labels, None, Draws((0,), torch.arange(3)), eot=20)
    finally:
        del sce.backbone.forward
    assert asked == [3]


def optimum(f_y: float) -> torch.Tensor:
    """Unit-norm logits with f_y in place 0 and the rest equal, I-SCE's training optimum."""
    z = torch.full((1, 10), -math.sqrt((1 - f_y**2) / 9), dtype=torch.float64)
    z[0, 0] = f_y
    return z


def tangential(surface, classifier, z) -> float:
    z = z.view(1, 1, 10, 1).clone().requires_grad_()
    total = objective(surface, classifier, z, torch.tensor([0]), None)[0].sum()
    return float(torch.autograd.grad(total, z)[0].norm())


@pytest.mark.parametrize(
    ("f_y", "surface", "expected"),
    [
        (math.sqrt(0.9), "ce_deployed", 0.0),  # s = 1: masked by construction
        (math.sqrt(0.9), "margin_deployed", 0.943),
        (0.98639, "ce_deployed", 0.125),  # s = 2, m = 0.1
    ],
)
def test_tangential_gradient_at_the_training_optimum(normalised, f_y, surface, expected):
    # Normalisation leaves the tangential part alone: |z| = 1 here.
    assert tangential(surface, normalised, optimum(f_y)) == pytest.approx(expected, abs=6e-4)


def test_margin_gradient_beside_the_training_optimum(normalised):
    # One wrong class is a hair ahead of the others, as in any real network.
    z = optimum(math.sqrt(0.9))
    z[0, 4] += 1e-9
    assert tangential("margin_deployed", normalised, z) == pytest.approx(0.943, abs=6e-4)
