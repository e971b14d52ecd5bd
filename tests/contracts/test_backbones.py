"""What every registered backbone must keep to."""

from __future__ import annotations

import pytest
import torch

from trainables import registry
from trainables.seeding import initialise

BACKBONES = list(registry.every("backbone"))
SHAPES = [dataset.shape for dataset in registry.every("dataset")]
pytestmark = [
    pytest.mark.parametrize("cls", BACKBONES, ids=lambda cls: cls.name),
    pytest.mark.parametrize("shape", SHAPES, ids=str),
]


def network(cls, shape, seed=0):
    module = cls().build(shape)
    initialise(module, seed)
    return module.eval()


def images(shape):
    return torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))


def test_gives_width_features_for_every_data_set(cls, shape):
    assert network(cls, shape)(images(shape)).shape == (5, cls().width)


def test_state_depends_on_the_seed_alone(cls, shape):
    torch.manual_seed(1)
    one = network(cls, shape, seed=3).state_dict()
    torch.manual_seed(2)
    same, other = network(cls, shape, seed=3).state_dict(), network(cls, shape, seed=4).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_layers_of_one_shape_start_from_different_weights(cls, shape):
    weights = [p.flatten() for p in network(cls, shape).parameters() if p.dim() > 1]
    for i, one in enumerate(weights):
        for other in weights[:i]:
            n = min(len(one), len(other))
            assert not torch.allclose(one[:n] / one[0], other[:n] / other[0])


def test_features_of_an_image_are_its_own(cls, shape):
    module, x = network(cls, shape), images(shape)
    with torch.no_grad():
        alone = torch.cat([module(x[i : i + 1]) for i in range(5)])
        assert torch.allclose(module(x), alone, atol=1e-5)


def test_gradient_reaches_every_parameter_and_the_image(cls, shape):
    module, x = network(cls, shape), images(shape).requires_grad_()
    module(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
