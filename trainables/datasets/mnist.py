"""MNIST (LeCun et al. 1998): 70,000 handwritten digits, in four gzipped IDX files."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.files import Arrays, Downloaded, Source, checksum, torchvision
from trainables.errors import DamagedData
from trainables.registry import component

BYTES = 0x08  # IDX's code for unsigned bytes


@component("mnist", revision=1)
class MNIST(Downloaded):
    """Digits, 28 x 28 grey, cut 55,000 / 5,000 / 10,000.

    Attributes:
        published: torchvision's name for it, of its class and its folder.
    """

    published: ClassVar[str] = "MNIST"
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    classes: ClassVar[int] = 10
    mean: ClassVar[tuple[float, ...]] = (0.1307,)
    std: ClassVar[tuple[float, ...]] = (0.3081,)
    full: ClassVar[dict[str, int]] = {"train": 55000, "validation": 5000, "test": 10000}
    train_files: ClassVar[Mapping[str, str]] = {
        "MNIST/raw/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "MNIST/raw/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    }
    test_files: ClassVar[Mapping[str, str]] = {
        "MNIST/raw/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    checksum: ClassVar[str] = checksum(train_files, test_files)

    def sources(self) -> list[Source]:
        table = torchvision(self.published)
        return [
            Source(
                path=f"{self.published}/raw/{name}",
                md5=md5,
                urls=tuple(mirror + name for mirror in table.mirrors),
            )
            for name, md5 in table.resources
        ]

    def decode(self, paths: Sequence[Path]) -> Arrays:
        images, labels = paths
        return read_idx(images, 3)[:, np.newaxis], read_idx(labels, 1)


def read_idx(path: Path, dimensions: int) -> NDArray[Any]:
    """Reads a gzipped IDX file of unsigned bytes, unpacked in memory only.

    The format: two zero bytes, one for the type, one for the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the values, the last dimension fastest.

    Args:
        path: of the file.
        dimensions: how many it must have.

    Raises:
        DamagedData: it is not such a file.
    """
    content = gzip.decompress(path.read_bytes())
    header = struct.Struct(f">{1 + dimensions}I")
    magic, *shape = header.unpack_from(content.ljust(header.size, b"\0"))
    wanted, size = BYTES << 8 | dimensions, header.size + math.prod(shape)
    if (magic, len(content)) != (wanted, size):
        raise DamagedData(
            f"{path} is no IDX file of bytes in {dimensions} dimensions: expected magic number "
            f"{wanted:#x} and {size} bytes, found {magic:#x} and {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(shape)
