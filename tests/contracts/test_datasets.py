"""What every registered data set must keep to; its content where it is at hand.

Nothing is downloaded here: data that is not in the folder is skipped, saying so.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from trainables import registry
from trainables.datasets.base import Subset

DATASETS = list(registry.every("dataset"))
FOLDER = Path(os.environ.get("STUDY_DATA") or Path(__file__).parents[2] / "../shared/data")
PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module", params=DATASETS, ids=lambda cls: cls.name)
def dataset(request):
    return request.param()


@pytest.fixture(scope="module")
def loaded(dataset):
    absent = [path for path in getattr(dataset, "files", ()) if not (FOLDER / path).is_file()]
    if absent:
        pytest.skip(f"{dataset.name} is not on this machine: no {absent[0]} in {FOLDER}")
    return dataset.load(FOLDER)


def test_splits_have_the_form_that_it_says(dataset, loaded):
    assert dataset.sizes == dataset.full
    for name in PARTS:
        part = getattr(loaded, name)
        assert len(part) == dataset.sizes[name]
        assert part.pixels.shape == (dataset.sizes[name], *dataset.shape)
        assert part.pixels.is_contiguous()
        assert part.labels.dtype == torch.int64
        assert part.labels.unique().tolist() == list(range(dataset.classes))
        images, _ = part.batch(torch.arange(500))
        assert images.dtype == torch.float32
        assert 0 <= images.min() < 0.05
        assert 0.95 < images.max() <= 1


def test_subset_is_read_again_as_a_stratified_prefix(dataset, loaded):
    sizes = {"train": 400, "validation": 150, "test": 200}
    small = type(dataset)(subset=Subset(**sizes)).load(FOLDER)
    for name, size in sizes.items():
        part, whole = getattr(small, name), getattr(loaded, name)
        assert len(part) == size
        assert torch.equal(part.pixels, whole.pixels[:size])
        assert torch.equal(part.labels, whole.labels[:size])
        n = torch.arange(1, len(whole) + 1, dtype=torch.float64).unsqueeze(1)
        counts = torch.nn.functional.one_hot(whole.labels).cumsum(dim=0)
        assert (counts - n * counts[-1] / len(whole)).abs().max() < 2


def test_mean_and_deviation_are_its_own(dataset, loaded):
    whole = torch.cat([loaded.train.pixels, loaded.validation.pixels])
    for channel, expected in enumerate(zip(dataset.std, dataset.mean, strict=True)):
        found = torch.std_mean(whole[:, channel].double() / 255)
        assert [value.item() for value in found] == pytest.approx(expected, abs=1e-3)


def test_checksum_is_part_of_the_identity(dataset):
    assert dataset.identity()["checksum"] == dataset.checksum
    assert len(bytes.fromhex(dataset.checksum)) == 32
    assert len(dataset.mean) == len(dataset.std) == dataset.shape[0]


def test_no_two_data_sets_share_a_checksum():
    assert len({cls.checksum for cls in DATASETS}) == len(DATASETS)


@pytest.mark.parametrize("part", PARTS)
def test_subset_is_part_of_the_identity_and_the_whole_is_not(dataset, part):
    spec = {"name": dataset.name, "subset": {part: 100}}  # as a study file gives it
    small = registry.build("dataset", spec)
    assert small.sizes == {**dataset.full, part: 100}
    # No model sees the test images, and every cell says how many it is of.
    kept = {} if part == "test" else {"subset": {part: 100}}
    assert small.identity()["parameters"] == kept
    assert dataset.identity()["parameters"] == {}
    whole = registry.build("dataset", {"name": dataset.name, "subset": dict(dataset.full)})
    assert whole.identity() == dataset.identity()
    assert registry.build("dataset", {"name": dataset.name, "subset": {}}) == dataset
    assert registry.build("dataset", small.spec()) == small


@pytest.mark.parametrize("part", PARTS)
def test_subset_that_is_larger_than_its_split_is_refused(dataset, part):
    size = dataset.full[part]
    assert type(dataset)(subset=Subset(**{part: size})).sizes == dataset.full
    with pytest.raises(ValidationError, match=rf"subset\.{part}: expected at most {size}\b.*"):
        type(dataset)(subset=Subset(**{part: size + 1}))
