from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.backbones.resnet32 import ResNet32, _Subsample
from trainables.seeding import initialise

COLOUR, GREY = (3, 32, 32), (1, 28, 28)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("shortcut", "shape", "parameters"),
    [("A", COLOUR, 464_154), ("A", GREY, 463_866), ("B", COLOUR, 466_906), ("B", GREY, 466_618)],
)
def test_has_the_original_number_of_parameters(shortcut, shape, parameters):
    backbone = ResNet32(shortcut=shortcut)
    head = nn.Linear(backbone.width, 10)
    assert count(backbone.build(shape)) + count(head) == parameters


def test_has_32_weighted_layers_with_the_head():
    convolutions = [m for m in ResNet32().build(COLOUR).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == 32
    assert all(m.bias is None for m in convolutions)


def test_stages_have_the_originals_sizes():
    sizes, maps = [], torch.rand(2, *COLOUR)
    for layer in ResNet32().build(COLOUR):
        maps = layer(maps)
        sizes.append(tuple(maps.shape[1:]))
    blocks = sizes[3:18]
    assert blocks == [(16, 32, 32)] * 5 + [(32, 16, 16)] * 5 + [(64, 8, 8)] * 5
    assert sizes[-1] == (64,)


def test_shortcut_a_takes_every_second_pixel_and_pads_channels_with_zeros():
    maps = torch.rand(2, 16, 8, 8)
    result = _Subsample(16, 2)(maps)
    assert result.shape == (2, 32, 4, 4)
    assert torch.equal(result[:, 8:24], maps[:, :, ::2, ::2])
    assert result[:, :8].count_nonzero() == result[:, 24:].count_nonzero() == 0


def test_block_adds_its_shortcut():
    block = ResNet32().build(COLOUR)[3].eval()
    maps = torch.rand(2, 16, 8, 8)
    assert torch.equal(block(maps), torch.relu(block.body(maps) + maps))


def test_convolutions_start_as_he_et_al_draw_them():
    network = ResNet32().build(COLOUR)
    initialise(network, 0)
    last = [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
    assert float(last.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
