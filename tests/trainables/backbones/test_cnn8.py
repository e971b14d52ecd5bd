from __future__ import annotations

import torch
from torch import nn

from trainables.backbones.cnn8 import CNN8


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_has_1250858_parameters_with_a_linear_layer_of_ten():
    trunk = CNN8().build((3, 32, 32))
    assert count(trunk) + count(nn.Linear(CNN8().width, 10)) == 1_250_858


def test_layers_are_those_of_the_docstring():
    layers = [count(layer) for layer in CNN8().build((3, 32, 32)) if count(layer)]
    assert layers == [896, 9_248, 18_496, 36_928, 1_180_160]


def test_maps_have_the_examples_sizes():
    sizes, maps = [], torch.rand(1, 3, 32, 32)
    for layer in CNN8().build((3, 32, 32)):
        maps = layer(maps)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            sizes.append(tuple(maps.shape[1:]))
    assert sizes == [
        *((32, 32, 32), (32, 30, 30), (32, 15, 15)),
        *((64, 15, 15), (64, 13, 13), (64, 6, 6)),
    ]
