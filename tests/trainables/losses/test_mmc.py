"""MMC: its centers are the simplex that METHODS gives, its loss the distance to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from scipy.spatial.distance import cdist, pdist

from trainables.losses.mmc import MMC, simplex
from trainables.seeding import initialise

WIDTH, CLASSES, ROWS = 12, 10, 20
LABELS = torch.arange(ROWS) % CLASSES


def head_of(**parameters):
    head = MMC(**parameters).head(WIDTH, CLASSES).double()
    initialise(head, 0)
    return head


def features() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=generator) * 2


def squared_distances(head) -> np.ndarray:
    return cdist(head.linear(features()).detach(), head.centers, "sqeuclidean")


@pytest.mark.parametrize("radius", [1.0, 10.0])
@pytest.mark.parametrize("spare", [0, 5])
def test_centers_have_the_gram_matrix_of_the_simplex(spare, radius):
    for classes in range(2, 101):
        centers = simplex(classes - 1 + spare, classes, radius)
        assert centers.shape == (classes, classes - 1 + spare)
        eye, ones = np.eye(classes), np.ones((classes, classes))
        gram = (1 + 1 / (classes - 1)) * eye - ones / (classes - 1)
        found = (centers @ centers.T).numpy() / radius**2
        np.testing.assert_allclose(found, gram, rtol=0, atol=1e-12)


def test_ten_centers_of_length_10_are_14_907_apart_and_span_9_dimensions():
    centers = simplex(84, 10, 10.0)
    np.testing.assert_allclose(pdist(centers), 14.907, atol=5e-4)
    assert torch.linalg.matrix_rank(centers) == 9
    assert not centers[:, 9:].any()
    assert torch.allclose(MMC().head(84, 10).centers.double(), centers)


def test_centers_are_neither_learned_nor_saved():
    head = head_of()
    assert {name for name, _ in head.named_parameters()} == {"linear.weight", "linear.bias"}
    assert set(head.state_dict()) == {"linear.weight", "linear.bias"}
    assert head.linear.weight.shape == (WIDTH, WIDTH)


def test_loss_is_half_the_squared_distance_to_the_classs_center():
    head = head_of()
    expected = squared_distances(head)[np.arange(ROWS), LABELS] / 2
    np.testing.assert_allclose(head.loss(features(), LABELS).detach(), expected, atol=1e-10)


def test_raw_and_deployed_logits_are_minus_the_squared_distances():
    head = head_of(radius=3.0)
    raw = head(features())
    np.testing.assert_allclose(raw.detach(), -squared_distances(head), rtol=0, atol=1e-10)
    assert torch.equal(head.deployed(raw), raw)


def test_inner_objective_is_its_own_loss_for_cross_entropy_is_flat():
    head = MMC().head(WIDTH, CLASSES)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(WIDTH))
        head.linear.bias.zero_()
    labels = torch.arange(CLASSES)
    h = (head.centers + 0.1).requires_grad_()
    flat = F.cross_entropy(head(h), labels, reduction="sum")
    assert not torch.autograd.grad(flat, h)[0].any()
    assert torch.equal(head.inner(h, labels), head.loss(h, labels))
    (gradient,) = torch.autograd.grad(head.inner(h, labels).sum(), h)
    assert torch.allclose(gradient, torch.full_like(h, 0.1), atol=1e-5)


def test_distances_far_from_the_origin_keep_their_digits():
    head = MMC(radius=1.0).head(2, 3)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(2))
        head.linear.bias.zero_()
        head.centers.fill_(4096.0)
    h = torch.full((1, 2), 4096.25)
    assert torch.equal(head(h), torch.full((1, 3), -0.125))
    assert torch.equal(head.loss(h, torch.tensor([1])), torch.tensor([0.0625]))


def test_refuses_fewer_features_than_the_simplex_has_dimensions():
    assert MMC().refuses(3, 10) == "mmc needs at least K - 1 = 9 features, found 3"
    assert MMC().refuses(64, 100) is not None
    assert MMC().refuses(8, 10) is not None
    assert MMC().refuses(9, 10) is None
    assert MMC().head(9, 10)(torch.zeros(1, 9)).shape == (1, 10)


@pytest.mark.parametrize(
    "wrong", [{"radius": 0.0}, {"radius": float("inf")}, {"C_MM": 100.0}], ids=str
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MMC(**wrong)
