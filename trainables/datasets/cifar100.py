"""CIFAR-100 (Krizhevsky 2009): CIFAR-10's format, a hundred classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from trainables.datasets.cifar10 import CIFAR10
from trainables.datasets.files import checksum
from trainables.registry import component


@component("cifar100", revision=1)
class CIFAR100(CIFAR10):
    """A hundred kinds of things (the fine labels), 32 x 32 RGB, cut 45,000 / 5,000 / 10,000."""

    published: ClassVar[str] = "CIFAR100"
    label_key: ClassVar[bytes] = b"fine_labels"
    classes: ClassVar[int] = 100
    mean: ClassVar[tuple[float, ...]] = (0.5071, 0.4865, 0.4409)
    std: ClassVar[tuple[float, ...]] = (0.2673, 0.2564, 0.2762)
    train_files: ClassVar[Mapping[str, str]] = {
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    }
    test_files: ClassVar[Mapping[str, str]] = {
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    }
    checksum: ClassVar[str] = checksum(train_files, test_files)
