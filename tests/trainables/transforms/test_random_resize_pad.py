"""Xie et al.'s transform against torch's own resizing, image by image."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from trainables.errors import BrokenInvariant
from trainables.seeding import Draws
from trainables.transforms.random_resize_pad import RandomResizePad, _places, resize_pad


def images(n, side, channels=3):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def draws(n, key=0):
    return Draws((key,), torch.arange(n))


@pytest.mark.parametrize(("height", "side", "sizes"), [(28, 31, {29, 30}), (32, 36, {33, 34, 35})])
def test_sides_are_the_originals_scaled(height, side, sizes):
    assert RandomResizePad().side(height) == side
    size, top, left = _places(draws(3000), height, side)
    assert set(size.tolist()) == sizes
    for start in (top, left):
        assert start.min() == 0
        assert (start + size).max() == side
    assert min(Counter(size.tolist()).values()) > 3000 / len(sizes) * 0.9
    for one in sizes:
        assert set(top[size == one].tolist()) == set(range(side - one + 1))


def test_the_original_is_299_to_310_up_to_330_in_331():
    # Our sides begin at H + 1: the original's begin at 310, of the same 331.
    assert RandomResizePad().side(299) == 331


@pytest.mark.parametrize(("height", "side"), [(28, 31), (32, 36), (7, 20)])
def test_equals_interpolation_and_padding_exactly(height, side):
    x = images(40, height)
    size, top, left = _places(draws(40), height, side)
    found = resize_pad(x, size, top, left, side)
    for i, (image, s, t, at) in enumerate(zip(x, size, top, left, strict=True)):
        resized = F.interpolate(image[None], size=int(s), mode="nearest")[0]
        expected = F.pad(resized, (int(at), side - int(at + s), int(t), side - int(t + s)))
        assert torch.equal(found[i], expected)


def test_gradient_is_that_of_picking_pixels():
    x = images(3, 6).double().requires_grad_()
    size, top, left = _places(draws(3), 6, 9)
    assert torch.autograd.gradcheck(lambda z: resize_pad(z, size, top, left, 9), (x,))


def test_draws_of_an_image_are_its_own_and_the_keys():
    module, x = RandomResizePad().build().eval(), images(30, 28, 1)
    whole = module(x, draws(30))
    index = torch.tensor([20, 4])
    assert torch.equal(module(x[index], draws(30)[index]), whole[index])
    assert not torch.equal(module(x, draws(30, key=1)), whole)


@pytest.mark.parametrize(("apply", "trained_on"), [("test", 28), ("both", 31)])
def test_applies_in_training_only_where_asked(apply, trained_on):
    module, x = RandomResizePad(apply=apply).build(), images(2, 28, 1)
    assert module.train()(x, draws(2)).shape[-1] == trained_on
    assert module.eval()(x, draws(2)).shape[-1] == 31
    assert module.stochastic


def test_a_draw_that_nobody_keyed_is_a_bug():
    with pytest.raises(BrokenInvariant, match="draws"):
        RandomResizePad().build().eval()(images(2, 28), None)


def test_images_that_do_not_fit_are_refused_with_the_reason():
    assert RandomResizePad().refuses((1, 28, 28)) is None
    assert "square" in RandomResizePad().refuses((3, 28, 32))
    assert "pad >= 30" in RandomResizePad(pad=29).refuses((1, 28, 28))
    assert RandomResizePad(pad=30).refuses((1, 28, 28)) is None


@pytest.mark.parametrize("wrong", [{"apply": "train"}, {"pad": 2}, {"pad": 31.5}], ids=str)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        RandomResizePad(**wrong)
