"""scikit-learn's 8 x 8 digits as a data set of one's own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import torch
from sklearn.datasets import load_digits

from trainables.datasets.base import Dataset, Split, Splits, stratified_order
from trainables.errors import DamagedData
from trainables.registry import component


@component("tiny_digits", revision=1)
class TinyDigits(Dataset):
    """1,797 real digits of 8 x 8 grey pixels of 0-16, cut 1,397 / 200 / 200."""

    shape: ClassVar[tuple[int, int, int]] = (1, 8, 8)
    classes: ClassVar[int] = 10
    mean: ClassVar[tuple[float, ...]] = (0.3053,)
    std: ClassVar[tuple[float, ...]] = (0.3760,)
    checksum: ClassVar[str] = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    full: ClassVar[dict[str, int]] = {"train": 1397, "validation": 200, "test": 200}

    def read(self, folder: Path) -> Splits:
        """Reads the digits from the installed package, which needs no folder."""
        pixels, digits = load_digits(return_X_y=True)
        found = hashlib.sha256(pixels.astype("uint8").tobytes()).hexdigest()
        if found != self.checksum:
            raise DamagedData(f"tiny_digits: expected SHA-256 {self.checksum}, found {found}")
        images = torch.from_numpy(pixels / 16).float().view(-1, *self.shape)
        whole = Split(images, torch.from_numpy(digits).long())
        test, validation, train = stratified_order(whole.labels).split([200, 200, 1397])
        return Splits(
            train=whole.take(train), validation=whole.take(validation), test=whole.take(test)
        )
