"""Fashion-MNIST (Xiao et al. 2017): 70,000 pictures of clothing, in MNIST's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from trainables.datasets.files import checksum
from trainables.datasets.mnist import MNIST
from trainables.registry import component


@component("fashion_mnist", revision=1)
class FashionMNIST(MNIST):
    """Clothing, 28 x 28 grey, cut 55,000 / 5,000 / 10,000."""

    published: ClassVar[str] = "FashionMNIST"
    mean: ClassVar[tuple[float, ...]] = (0.2860,)
    std: ClassVar[tuple[float, ...]] = (0.3530,)
    train_files: ClassVar[Mapping[str, str]] = {
        "FashionMNIST/raw/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "FashionMNIST/raw/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    }
    test_files: ClassVar[Mapping[str, str]] = {
        "FashionMNIST/raw/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    checksum: ClassVar[str] = checksum(train_files, test_files)
