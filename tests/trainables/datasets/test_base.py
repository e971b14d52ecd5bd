from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from trainables import registry
from trainables.datasets.base import Split, Subset

BYTES = torch.arange(256, dtype=torch.uint8).repeat(6).view(32, 3, 4, 4)
LABELS = torch.arange(32) % 5
INDEX = torch.tensor([7, 0, 31, 7])


@pytest.fixture(params=[BYTES, BYTES.float() / 255], ids=["bytes", "floats"])
def split(request):
    return Split(request.param, LABELS)


def test_bytes_become_exactly_255ths():
    everything = Split(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), torch.zeros(1))
    exact = torch.tensor([value / 255 for value in range(256)], dtype=torch.float64)
    assert torch.equal(everything.images.flatten(), exact.float())
    assert torch.equal((everything.images * 255).round().byte(), everything.pixels)


def test_floats_pass_through_untouched():
    floats = torch.rand(32, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    split = Split(floats, LABELS)
    assert torch.equal(split.images, floats)
    assert torch.equal(split.batch(INDEX)[0], floats[INDEX])


def test_batch_is_the_images_and_labels_at_its_index(split):
    images, labels = split.batch(INDEX)
    assert images.dtype == torch.float32
    assert torch.equal(images, split.images[INDEX])
    assert labels.tolist() == LABELS[INDEX].tolist() == [2, 0, 1, 2]


def test_take_keeps_the_order_and_the_type(split):
    taken = split.take(INDEX)
    assert taken.pixels.dtype == split.pixels.dtype
    assert torch.equal(taken.pixels, split.pixels[INDEX])
    assert torch.equal(taken.labels, LABELS[INDEX])


def test_first_of_none_is_all(split):
    assert len(split.first(None)) == len(split) == 32
    assert torch.equal(split.first(5).pixels, split.pixels[:5])
    assert torch.equal(split.first(5).labels, LABELS[:5])


def test_to_the_cpu_is_there_and_whole(split):
    moved = split.to(torch.device("cpu"))
    assert moved.device == torch.device("cpu")
    assert torch.equal(moved.pixels, split.pixels)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"test": 0}, ("subset", "test")),
        ({"test": "100"}, ("subset", "test")),
        ({"test": True}, ("subset", "test")),
        ({"tset": 100}, ("subset", "tset")),
        (100, ("subset",)),
    ],
)
def test_mistake_in_a_subset_is_told_at_its_key(wrong, place):
    with pytest.raises(ValidationError) as error:
        registry.build("dataset", {"name": "mnist5k", "subset": wrong})
    assert [item["loc"] for item in error.value.errors()] == [place]


def test_subset_without_a_number_is_the_whole_split():
    half = registry.build("dataset", {"name": "mnist5k", "subset": {"train": 2000}})
    assert half.subset == Subset(train=2000, validation=None, test=None)
    assert half.sizes == {"train": 2000, "validation": 500, "test": 500}
