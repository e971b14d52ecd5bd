from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from trainables import registry
from trainables.backbones.base import Sized
from trainables.config import content_id
from trainables.evaluation import accuracy
from trainables.execution import Execution
from trainables.training import load_weights, new_classifier, weights_of

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


def test_images_that_fit_are_left_and_others_resized_as_torch_does():
    layers, images = Sized((4, 6), nn.Identity()), torch.rand(2, 3, 4, 6)
    assert layers(images) is images
    for shape in ((5, 9), (8, 6), (31, 31)):
        larger = torch.rand(2, 3, *shape)
        expected = F.interpolate(larger, (4, 6), mode="bilinear", antialias=True)
        assert torch.allclose(layers(larger), expected, atol=1e-6)


def test_random_resizing_costs_a_trained_network_little(sce, model_config, splits):
    # Without resizing back, digits lie off their place and LeNet-5 loses 30 points.
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(model, weights_of(sce))
    assert accuracy(model, splits.test) > accuracy(sce, splits.test) - 0.06
