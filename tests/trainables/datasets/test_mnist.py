from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
import torchvision

from trainables.datasets.base import stratified_order
from trainables.datasets.mnist import MNIST, read_idx
from trainables.errors import DamagedData


@pytest.fixture
def packed(tmp_path):
    """Writes a gzipped file."""

    def write(content):
        path = tmp_path / "file.gz"
        path.write_bytes(gzip.compress(content))
        return path

    return write


def header(*numbers):
    return struct.pack(f">{len(numbers)}I", *numbers)


def test_idx_is_row_by_row_and_big_endian(packed):
    array = read_idx(packed(header(0x0803, 2, 3, 4) + bytes(range(24))), 3)
    assert array.tolist() == np.arange(24).reshape(2, 3, 4).tolist()


@pytest.mark.parametrize(
    "content",
    [
        header(0x0801, 4) + bytes(4),  # labels in the images' place
        header(0x0D03, 1, 2, 2) + bytes(4),  # floats
        header(0x0803, 1, 2, 2) + bytes(3),
        header(0x0803, 1, 2, 2) + bytes(5),
        header(0x0803, 1),
        b"",
    ],
    ids=["labels", "floats", "short", "long", "cut", "empty"],
)
def test_what_is_no_idx_file_of_images_is_damage(packed, content):
    with pytest.raises(DamagedData, match=r"file.gz is no IDX file of bytes in 3 dimensions: .*"):
        read_idx(packed(content), 3)


def test_splits_hold_every_published_digit_once(shared, same_images, tmp_path):
    folder = shared(MNIST())
    for path in MNIST().files:
        unpacked = (tmp_path / path).with_suffix("")
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        unpacked.write_bytes(gzip.decompress((folder / path).read_bytes()))
    train, test = (
        torchvision.datasets.MNIST(tmp_path, train=train, download=False) for train in (True, False)
    )
    splits = MNIST().read(folder)
    same_images([splits.train, splits.validation], train.data[:, None], train.targets)
    same_images([splits.test], test.data[:, None], test.targets)
    order = stratified_order(test.targets)
    assert torch.equal(splits.test.pixels[:, 0], test.data[order])
    first = (order == 0).nonzero().item()
    assert splits.test.labels[first] == 7  # as everybody who ever looked at MNIST knows
