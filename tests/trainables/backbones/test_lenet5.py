from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.backbones.lenet5 import LeNet5


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_has_61706_parameters_with_a_linear_layer_of_ten(sce):
    assert count(sce) == 61_706


def test_layers_are_those_of_the_docstring():
    layers = [count(layer) for layer in LeNet5().build((1, 28, 28)) if count(layer)]
    assert layers == [156, 2_416, 48_120, 10_164]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 31, 33)])
def test_gives_84_features_for_any_size(shape):
    features = LeNet5().build(shape)(torch.rand(2, *shape))
    assert features.shape == (2, LeNet5().width)
    assert LeNet5().width == 84


def test_first_layer_keeps_the_size():
    assert LeNet5().build((1, 28, 28))[0](torch.rand(1, 1, 28, 28)).shape == (1, 6, 28, 28)
