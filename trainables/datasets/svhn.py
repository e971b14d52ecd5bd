"""SVHN (Netzer et al. 2011): 99,289 cropped digits of house numbers, in MATLAB's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.io import loadmat

from trainables.datasets.files import Arrays, Downloaded, Source, checksum, torchvision
from trainables.registry import component


@component("svhn", revision=1)
class SVHN(Downloaded):
    """Digits, 32 x 32 RGB, cut 68,257 / 5,000 / 26,032; without the `extra` part."""

    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    classes: ClassVar[int] = 10
    mean: ClassVar[tuple[float, ...]] = (0.4377, 0.4438, 0.4728)
    std: ClassVar[tuple[float, ...]] = (0.1980, 0.2010, 0.1970)
    full: ClassVar[dict[str, int]] = {"train": 68257, "validation": 5000, "test": 26032}
    train_files: ClassVar[Mapping[str, str]] = {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    }
    test_files: ClassVar[Mapping[str, str]] = {
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    }
    checksum: ClassVar[str] = checksum(train_files, test_files)

    def sources(self) -> list[Source]:
        table = torchvision("SVHN").split_list
        return [
            Source(path=name, md5=md5, urls=(url,))
            for url, name, md5 in (table["train"], table["test"])
        ]

    def decode(self, paths: Sequence[Path]) -> Arrays:
        (path,) = paths
        content = loadmat(path, variable_names=["X", "y"])
        labels = content["y"].ravel()
        return content["X"].transpose(3, 2, 0, 1), np.where(labels == 10, 0, labels)  # 10 is a 0
