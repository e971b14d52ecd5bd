"""What white-box attacks differentiate, and METHODS' statement of what I-SCE does to it."""

from __future__ import annotations

import math

import pytest
import torch

from trainables.attacks.surfaces import SURFACES, objective, on_raw
from trainables.losses.isce import ISCE

LABELS = torch.tensor([3, 0, 7, 1])
TARGETS = torch.tensor([1, 2, 3, 4])


@pytest.fixture(scope="module")
def normalised(affine):
    """Images (B, 1, 10, 1) are raw logits; deployed ones are L2-normalised."""
    return affine(
        torch.eye(10, dtype=torch.float64), torch.zeros(10, dtype=torch.float64), ISCE()
    ).requires_grad_(False)


@pytest.fixture(scope="module")
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 10, dtype=torch.float64, generator=generator) * 4


def value(surface, classifier, z, targets=None):
    return objective(surface, classifier, z.view(-1, 1, 10, 1), LABELS, targets)[0]


def chosen(surface, z):
    return z if surface.endswith("raw") else z / z.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("surface", ["ce_raw", "ce_deployed"])
def test_cross_entropy_rises_away_from_the_label_and_towards_the_target(
    normalised, logits, surface
):
    log_p = chosen(surface, logits).log_softmax(dim=1)
    rows = torch.arange(4)
    assert torch.allclose(value(surface, normalised, logits), -log_p[rows, LABELS])
    assert torch.allclose(value(surface, normalised, logits, TARGETS), log_p[rows, TARGETS])


@pytest.mark.parametrize("surface", ["margin_raw", "margin_deployed"])
def test_margin_is_the_lead_of_the_best_wrong_class_or_of_the_target(normalised, logits, surface):
    z = chosen(surface, logits)
    expected = [max(z[i, j] for j in range(10) if j != y) - z[i, y] for i, y in enumerate(LABELS)]
    assert torch.allclose(value(surface, normalised, logits), torch.stack(expected))
    led = [z[i, t] - z[i, y] for i, (t, y) in enumerate(zip(TARGETS, LABELS, strict=True))]
    assert torch.allclose(value(surface, normalised, logits, TARGETS), torch.stack(led))


@pytest.mark.parametrize("surface", SURFACES)
def test_objective_also_gives_the_deployed_logits(normalised, logits, surface):
    _, deployed = objective(surface, normalised, logits.view(-1, 1, 10, 1), LABELS, None)
    assert torch.equal(deployed, normalised(logits.view(-1, 1, 10, 1)))


def test_margin_is_positive_exactly_where_the_class_is_wrong(sce, splits):
    images, labels = splits.test.images, splits.test.labels
    with torch.no_grad():
        margin, logits = objective("margin_raw", sce, images, labels, None)
    assert torch.equal(margin > 0, logits.argmax(dim=1) != labels)


def test_on_raw_keeps_the_objective():
    assert [on_raw(surface) for surface in SURFACES] == [
        f"{surface.split('_')[0]}_raw" for surface in SURFACES
    ]


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
