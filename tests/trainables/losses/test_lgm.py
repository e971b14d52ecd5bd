"""L-GM against SciPy's distances and its own limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from trainables.losses.lgm import LGM
from trainables.seeding import initialise

WIDTH, CLASSES, ROWS = 7, 4, 20
LABELS = torch.arange(ROWS) % CLASSES
AT = np.arange(ROWS), LABELS.numpy()


def head_of(**parameters):
    head = LGM(**parameters).head(WIDTH, CLASSES).double()
    initialise(head, 0)
    return head


def features() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=generator) * 2


def distances(head) -> np.ndarray:
    """d of the paper, (B, K)."""
    return cdist(features(), head.centers.detach(), "sqeuclidean") / 2


def cross_entropy(logits: np.ndarray) -> np.ndarray:
    return logsumexp(logits, axis=1) - logits[AT]


def test_raw_and_deployed_logits_are_minus_the_distances():
    head = head_of(alpha=0.3)
    raw = head(features())
    np.testing.assert_allclose(raw.detach(), -distances(head), rtol=0, atol=1e-10)
    assert torch.equal(head.deployed(raw), raw)


@pytest.mark.parametrize(("alpha", "weight"), [(0.1, 0.1), (0.3, 0.0), (0.0, 2.0)])
def test_loss_is_the_papers_with_margin_and_likelihood(alpha, weight):
    head = head_of(alpha=alpha, weight=weight)
    d = distances(head)
    stretched = d.copy()
    stretched[AT] *= 1 + alpha
    expected = cross_entropy(-stretched) + weight * d[AT]
    found = head.loss(features(), LABELS).detach()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_no_margin_and_no_likelihood_is_cross_entropy_of_the_distances():
    head = head_of(alpha=0.0, weight=0.0)
    expected = cross_entropy(-distances(head))
    np.testing.assert_allclose(head.loss(features(), LABELS).detach(), expected, atol=1e-10)
    inner = head_of().inner(features(), LABELS).detach()
    np.testing.assert_allclose(inner, expected, rtol=0, atol=1e-10)


def test_means_start_as_in_the_authors_example_and_learn_twice_as_fast():
    head = LGM().head(100, 1000)
    initialise(head, 0)
    assert head.centers.std().item() == pytest.approx(math.sqrt(2 / 100), rel=0.01)
    assert head.centers.mean().item() == pytest.approx(0, abs=0.002)
    assert head.rates == {"centers": 2.0}


def test_means_move_towards_their_features():
    head = head_of()
    before = distances(head)[AT].mean()
    head.loss(features(), LABELS).mean().backward()
    with torch.no_grad():
        head.centers -= 0.1 * head.centers.grad
    assert distances(head)[AT].mean() < before


def test_distances_far_from_the_origin_keep_their_digits():
    head = LGM().head(WIDTH, CLASSES)
    with torch.no_grad():
        head.centers.fill_(4096.0)
    h = torch.full((1, WIDTH), 4096.25)
    assert torch.equal(head(h), torch.full((1, CLASSES), -WIDTH / 32))


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -1e-9},
        {"alpha": float("inf")},
        {"weight": -1e-9},
        {"weight": float("nan")},
        {"margin": 0.1},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        LGM(**wrong)
