"""ArcFace against pytorch-metric-learning, and where the angle has no slope."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from pytorch_metric_learning.losses import ArcFaceLoss
from pytorch_metric_learning.reducers import DoNothingReducer

from trainables.losses.arcface import ArcFace
from trainables.losses.sce import SCE
from trainables.seeding import initialise

WIDTH, CLASSES, ROWS = 7, 4, 40
LABELS = torch.arange(ROWS) % CLASSES


def head_of(**parameters):
    head = ArcFace(**parameters).head(WIDTH, CLASSES).double()
    initialise(head, 0)
    return head


def features(head) -> torch.Tensor:
    """Half of them random, half on the far side of their class: theta_y near pi."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=generator)
    far = -F.normalize(head.linear.weight.detach(), dim=1)[LABELS] + 0.05 * h
    return torch.where(torch.arange(ROWS).unsqueeze(1) < ROWS // 2, 3 * h, far)


def cosines(head, h: torch.Tensor) -> np.ndarray:
    h, w = h.numpy(), head.linear.weight.detach().numpy()
    lengths = np.outer(np.linalg.norm(h, axis=1), np.linalg.norm(w, axis=1))
    return h @ w.T / lengths


@pytest.mark.parametrize(("s", "m"), [(30.0, 0.5), (64.0, 0.5), (5.0, 1.2)])
def test_value_and_gradient_are_those_of_pytorch_metric_learning(s, m):
    head = head_of(s=s, m=m)
    h = features(head).requires_grad_()
    losses = head.loss(h, LABELS)
    found = torch.autograd.grad(losses.mean(), (h, head.linear.weight))

    reference = ArcFaceLoss(
        CLASSES, WIDTH, margin=math.degrees(m), scale=s, reducer=DoNothingReducer()
    )
    reference.W.data = head.linear.weight.detach().T.clone()
    expected = reference(h, LABELS)["loss"]["losses"]
    gradients = torch.autograd.grad(expected.mean(), (h, reference.W))
    assert torch.allclose(losses, expected, rtol=0, atol=1e-10)
    assert torch.allclose(found[0], gradients[0], rtol=0, atol=1e-10)
    assert torch.allclose(found[1], gradients[1].T, rtol=0, atol=1e-10)


def test_beyond_pi_minus_m_the_cosine_itself_falls():
    head = head_of(s=30.0, m=0.5)
    h = features(head)
    theta = np.arccos(cosines(head, h))
    g = np.cos(theta)
    own = np.arange(ROWS), LABELS.numpy()
    beyond = theta[own] > math.pi - 0.5
    assert beyond.sum() == ROWS // 2
    g[own] = np.where(beyond, g[own] - 0.5 * math.sin(0.5), np.cos(theta[own] + 0.5))
    expected = np.log(np.exp(30 * g).sum(axis=1)) - 30 * g[own]
    np.testing.assert_allclose(head.loss(h, LABELS).detach(), expected, rtol=0, atol=1e-10)


def test_no_margin_is_cross_entropy_of_the_scaled_cosines():
    head = head_of(m=0.0)
    h = features(head)
    expected = F.cross_entropy(torch.from_numpy(30 * cosines(head, h)), LABELS, reduction="none")
    assert torch.allclose(head.loss(h, LABELS), expected, rtol=0, atol=1e-10)
    assert torch.allclose(head_of().inner(h, LABELS), expected, rtol=0, atol=1e-10)


def test_raw_and_deployed_logits_are_scaled_cosines_without_the_margin():
    head = head_of(s=12.0)
    h = features(head)
    raw = head(h)
    np.testing.assert_allclose(raw.detach(), 12 * cosines(head, h), rtol=0, atol=1e-10)
    assert torch.equal(head.deployed(raw), raw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cosine", [1.0, 0.0, -1.0, None], ids=lambda value: f"cos={value}")
def test_gradient_is_finite_where_the_angle_has_no_slope(cosine, dtype):
    head = ArcFace().head(3, 3).to(dtype)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(3))
    h = torch.zeros(1, 3, dtype=dtype)  # no direction
    if cosine is not None:
        h[0, 0], h[0, 1] = cosine, 1 - abs(cosine)
    h.requires_grad_()
    loss = head.loss(h, torch.tensor([0]))
    gradients = torch.autograd.grad(loss.sum(), (h, head.linear.weight))
    assert loss.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_gradient_in_float32_stays_moderate_beside_the_center():
    head = ArcFace().head(3, 3)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(3))
    for offset in (1e-2, 1e-4, 1e-6, 1e-8):
        h = torch.tensor([[1.0, offset, -offset], [-1.0, offset, -offset]], requires_grad=True)
        (gradient,) = torch.autograd.grad(head.loss(h, torch.tensor([0, 0])).sum(), h)
        assert gradient.abs().max() < 100  # S times a few


def test_starts_from_the_weights_of_every_linear_layer():
    plain = SCE().head(WIDTH, CLASSES).double()
    initialise(plain, 0)
    assert torch.equal(head_of().linear.weight, plain.linear.weight)


@pytest.mark.parametrize(
    "wrong",
    [
        {"s": 0.0},
        {"s": float("inf")},
        {"m": -1e-9},
        {"m": 1.6},
        {"m": float("nan")},
        {"scale": 30.0},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ArcFace(**wrong)
