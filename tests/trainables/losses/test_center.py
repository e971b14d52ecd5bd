"""Center loss against SciPy's distances, and its centers against the paper's rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.spatial.distance import cdist

from trainables.losses.center import Center
from trainables.losses.sce import SCE
from trainables.seeding import initialise

WIDTH, CLASSES = 7, 4


def head_of(**parameters):
    head = Center(**parameters).head(WIDTH, CLASSES).double()
    initialise(head, 0)
    return head


def batch(seed: int, rows: int = 20, classes: int = CLASSES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, WIDTH, dtype=torch.float64, generator=generator) * 3
    return h, torch.randint(0, classes, (rows,), generator=generator)


def plain_loss() -> torch.nn.Module:
    head = SCE().head(WIDTH, CLASSES).double()
    initialise(head, 0)
    return head


@pytest.mark.parametrize("weight", [0.001, 0.01, 1.0])
def test_loss_adds_half_the_squared_distance_to_the_classs_center(weight):
    head, (h, labels) = head_of(weight=weight), batch(0)
    head.update(*batch(1))
    distances = cdist(h, head.centers, "sqeuclidean")[np.arange(20), labels]
    expected = plain_loss().loss(h, labels).detach().numpy() + weight / 2 * distances
    np.testing.assert_allclose(head.loss(h, labels).detach(), expected, rtol=0, atol=1e-10)


def test_no_weight_is_softmax_cross_entropy():
    head, (h, labels) = head_of(weight=0.0), batch(0)
    head.update(h, labels)
    assert torch.equal(head.loss(h, labels), plain_loss().loss(h, labels))


def test_one_step_worked_by_hand():
    head = Center(rate=0.5).head(2, 3).double()
    assert torch.equal(head.centers, torch.zeros(3, 2, dtype=torch.float64))
    h = torch.tensor([[2.0, 0.0], [1.0, 1.0], [4.0, 2.0]], dtype=torch.float64)
    head.update(h, torch.tensor([1, 0, 1]))
    # class 0: (1, 1) / 2, class 1: (6, 2) / 3, class 2 has no image; half of each
    expected = torch.tensor([[0.25, 0.25], [1.0, 1 / 3], [0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(head.centers, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_centers_follow_the_papers_rule_over_batches(rate):
    head = head_of(rate=rate)
    centers = np.zeros((CLASSES, WIDTH))
    for seed in range(8):
        h, labels = batch(seed, classes=CLASSES - seed % 2)
        head.update(h, labels)
        for j in range(CLASSES):
            own = h.numpy()[labels.numpy() == j]
            centers[j] -= (
                rate * sum((centers[j] - x for x in own), np.zeros(WIDTH)) / (1 + len(own))
            )
    np.testing.assert_allclose(head.centers, centers, rtol=0, atol=1e-12)
    assert rate == 0 or np.abs(centers).min() > 0


def test_centers_come_to_their_classes_means():
    head, (h, labels) = head_of(), batch(0)
    for _ in range(100):
        head.update(h, labels)
    means = torch.stack([h[labels == j].mean(dim=0) for j in range(CLASSES)])
    assert torch.allclose(head.centers, means, rtol=0, atol=1e-10)


def test_centers_are_saved_and_not_descended():
    head, (h, labels) = head_of(), batch(0)
    assert {name for name, _ in head.named_parameters()} == {"linear.weight", "linear.bias"}
    assert "centers" in head.state_dict()
    head.loss(h, labels).sum().backward()
    head.update(h.requires_grad_(), labels)
    assert not head.centers.requires_grad


def test_distances_far_from_the_origin_keep_their_digits():
    head = Center(weight=1.0).head(WIDTH, CLASSES)
    initialise(head, 0)
    head.centers += 4096.0
    h = torch.full((CLASSES, WIDTH), 4096.25)
    labels = torch.arange(CLASSES)
    added = Center(weight=2.0).head(WIDTH, CLASSES)
    added.load_state_dict(head.state_dict())
    found = added.loss(h, labels) - head.loss(h, labels)
    assert torch.allclose(found, torch.full((CLASSES,), WIDTH / 32), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": -1e-9},
        {"weight": float("inf")},
        {"rate": -0.1},
        {"rate": 1.1},
        {"rate": float("nan")},
        {"alpha": 0.5},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Center(**wrong)
