"""What every registered data set that is at hand must keep to."""

from __future__ import annotations

import pytest
import torch

from trainables import registry

DATASETS = list(registry.every("dataset"))
PARTS = ["train", "validation", "test"]


@pytest.fixture(scope="module", params=DATASETS, ids=lambda cls: cls.name)
def dataset(request):
    return request.param()


@pytest.fixture(scope="module")
def loaded(dataset):
    try:
        return dataset.load()
    except FileNotFoundError as error:
        pytest.skip(f"{dataset.name} is not on this machine: {error}")


@pytest.mark.parametrize("name", PARTS)
def test_split_has_the_form_it_says(dataset, loaded, name):
    part = getattr(loaded, name)
    assert len(part) == dataset.sizes[name]
    assert part.images.shape == (dataset.sizes[name], *dataset.shape)
    assert part.images.dtype == torch.float32
    assert part.labels.dtype == torch.int64
    assert part.images.min() == 0
    assert part.images.max() == 1
    assert part.labels.unique().tolist() == list(range(dataset.classes))


@pytest.mark.parametrize("name", PARTS)
def test_larger_n_extends_a_smaller_one(loaded, name):
    part = getattr(loaded, name)
    small, large = part.first(20), part.first(50)
    assert len(small) == 20
    assert torch.equal(large.images[:20], small.images)
    assert torch.equal(large.labels[:20], small.labels)


def test_loading_again_gives_the_same(dataset, loaded):
    again = dataset.load()
    for name in PARTS:
        assert torch.equal(getattr(again, name).images, getattr(loaded, name).images)
        assert torch.equal(getattr(again, name).labels, getattr(loaded, name).labels)


def test_checksum_is_part_of_the_identity(dataset):
    assert dataset.identity()["checksum"] == dataset.checksum
    assert len(dataset.checksum) == 64
    assert len(dataset.mean) == len(dataset.std) == dataset.shape[0]
