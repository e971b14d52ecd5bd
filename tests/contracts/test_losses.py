"""What every registered loss must keep to."""

from __future__ import annotations

import pytest
import torch

from trainables import registry
from trainables.losses.base import Head
from trainables.seeding import initialise

WIDTH, CLASSES = 12, 4
LOSSES = list(registry.every("loss"))
pytestmark = pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.name)


def head_of(cls, seed: int = 0) -> Head:
    head = cls().head(WIDTH, CLASSES).double()
    initialise(head, seed)
    return head


def features(rows: int = 6, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, WIDTH, dtype=torch.float64, generator=generator) * scale


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_gives_one_loss_a_sample_that_is_its_own(cls):
    head, h = head_of(cls), features()
    losses = head.loss(h, LABELS)
    assert losses.shape == (6,)
    alone = torch.cat([head.loss(h[i : i + 1], LABELS[i : i + 1]) for i in range(6)])
    assert torch.allclose(losses, alone, rtol=0, atol=1e-10)


def test_gradient_is_that_of_finite_differences(cls):
    head, h = head_of(cls), features().requires_grad_()
    parameters = tuple(head.parameters())
    assert torch.autograd.gradcheck(lambda h, *_: head.loss(h, LABELS), (h, *parameters))


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e4])
def test_loss_and_gradient_are_finite_in_float32(cls, scale):
    head = head_of(cls).float()
    h = features(scale=scale).float().requires_grad_()
    loss = head.loss(h, LABELS)
    gradients = torch.autograd.grad(loss.sum(), (h, *head.parameters()))
    assert loss.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_learns(cls):
    head, h = head_of(cls), features()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    first = head.loss(h, LABELS).mean().item()
    for _ in range(20):
        optimizer.zero_grad()
        loss = head.loss(h, LABELS).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < first


def test_raw_and_deployed_logits_choose_the_same_class(cls):
    head = head_of(cls)
    raw = head(features())
    assert raw.shape == (6, CLASSES)
    assert torch.equal(head.deployed(raw).argmax(dim=1), raw.argmax(dim=1))


def test_deploys_raw_says_whether_raw_and_deployed_are_one(cls):
    head = head_of(cls)
    raw = head(features())
    assert torch.allclose(head.deployed(raw), raw) == cls().deploys_raw


def test_probabilities_sum_to_one(cls):
    head = head_of(cls)
    p = head.probabilities(head(features()))
    assert torch.allclose(p.sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert (p >= 0).all()


def test_state_depends_on_the_seed_alone(cls):
    torch.manual_seed(1)
    one = head_of(cls, seed=3).state_dict()
    torch.manual_seed(2)
    same = head_of(cls, seed=3).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
