"""CIFAR-10 (Krizhevsky 2009): 60,000 small photographs, pickled by Python 2 in batches."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trainables.datasets.files import Arrays, Downloaded, Source, checksum, torchvision
from trainables.errors import DamagedData
from trainables.registry import component


@component("cifar10", revision=1)
class CIFAR10(Downloaded):
    """Ten kinds of animals and vehicles, 32 x 32 RGB, cut 45,000 / 5,000 / 10,000.

    Attributes:
        published: torchvision's name of its class.
        label_key: where a batch holds its labels.
    """

    published: ClassVar[str] = "CIFAR10"
    label_key: ClassVar[bytes] = b"labels"
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    classes: ClassVar[int] = 10
    mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4822, 0.4465)
    std: ClassVar[tuple[float, ...]] = (0.2470, 0.2435, 0.2616)
    full: ClassVar[dict[str, int]] = {"train": 45000, "validation": 5000, "test": 10000}
    train_files: ClassVar[Mapping[str, str]] = {
        "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    }
    test_files: ClassVar[Mapping[str, str]] = {
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    }
    checksum: ClassVar[str] = checksum(train_files, test_files)

    def sources(self) -> list[Source]:
        table = torchvision(self.published)
        return [Source(path=table.filename, md5=table.tgz_md5, urls=(table.url,))]

    def decode(self, paths: Sequence[Path]) -> Arrays:
        batches = [read_batch(path) for path in paths]
        pixels = np.concatenate([batch[b"data"] for batch in batches])
        labels = np.concatenate([batch[self.label_key] for batch in batches])
        return pixels.reshape(-1, *self.shape), labels


def read_batch(path: Path) -> dict[bytes, Any]:
    """Reads a pickle that may hold arrays and plain data, nothing that runs.

    Raises:
        DamagedData: it asks for anything else.
    """
    with path.open("rb") as file:
        try:
            batch: dict[bytes, Any] = _ArraysOnly(file, encoding="bytes").load()
        except pickle.UnpicklingError as error:
            raise DamagedData(f"{path} is no batch of images: {error}") from error
    return batch


def _dtype(name: bytes, align: int, copy: int) -> np.dtype[Any]:
    """NumPy 2.4 warns of the integers that Python 2 wrote for truth values."""
    return np.dtype(name.decode(), bool(align), bool(copy))


class _ArraysOnly(pickle.Unpickler):
    ADMITTED: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
