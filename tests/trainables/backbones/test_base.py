from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from trainables import registry
from trainables.backbones.base import FlattenAs
from trainables.config import content_id

BACKBONES = list(registry.every("backbone"))
every_backbone = pytest.mark.parametrize("cls", BACKBONES, ids=lambda cls: cls.name)


@every_backbone
@pytest.mark.parametrize("width", [2, 3, 64])
def test_embedding_is_a_linear_layer_of_any_width_at_the_end(cls, width):
    backbone = cls(embedding=width)
    network = backbone.build((1, 28, 28))
    assert backbone.width == width
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, width)
    assert isinstance(network[-1], nn.Linear)
    assert network[-1].in_features == cls().width
    assert list(network.state_dict())[: len(cls().build((1, 28, 28)).state_dict())] == list(
        cls().build((1, 28, 28)).state_dict()
    )


@every_backbone
def test_embedding_reaches_the_id_and_none_leaves_it_as_it_was(cls):
    assert "embedding" not in cls().identity()["parameters"]
    assert content_id(cls(embedding=3).identity()) != content_id(cls().identity())


@every_backbone
@pytest.mark.parametrize("width", [0, -1, 2.5])
def test_embedding_without_a_width_is_refused(cls, width):
    with pytest.raises(ValidationError, match="embedding"):
        cls(embedding=width)


@every_backbone
@pytest.mark.parametrize(("shape", "larger"), [((1, 28, 28), 31), ((3, 32, 32), 36)])
def test_larger_images_pass_as_a_transform_makes_them(cls, shape, larger):
    network = cls().build(shape).eval()
    assert network(torch.rand(2, shape[0], larger, larger)).shape == (2, cls().width)


def test_maps_that_fit_are_flattened_and_others_averaged_first():
    maps = torch.rand(2, 3, 4, 6)
    assert torch.equal(FlattenAs(4, 6)(maps), maps.flatten(1))
    halves = maps.view(2, 3, 2, 2, 3, 2).mean(dim=(3, 5)).flatten(1)
    assert torch.allclose(FlattenAs(2, 3)(maps), halves)
