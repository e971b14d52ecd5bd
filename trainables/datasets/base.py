"""What a data set is: images held whole in memory, cut into three fixed splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from trainables.registry import STRICT, Component
from trainables.seeding import generator

# Images at a time in evaluation. No result depends on it but for float32's rounding: DeepFool's
# `per_step` rule, which leaves images ON the boundary, is decided by that.
BATCH = 256
ROOM = 0.5  # share of a GPU's free memory that a data set may take


class Split:
    """Images and labels in one fixed order.

    Args:
        pixels: (N, C, H, W), uint8 of 0-255 or floats in [0, 1]. Bytes take a quarter of the
            room; they become floats batch by batch.
        labels: (N,) int64.
        device: where batches are wanted; the whole set may lie elsewhere.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, device: torch.device | None = None) -> None:
        self.pixels = pixels
        self.labels = labels
        self.device = device or pixels.device

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """All images as floats in [0, 1], (N, C, H, W)."""
        return _as_floats(self.pixels.to(self.device))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images as floats in [0, 1], and labels, at `index` (B,), on `device`."""
        index = index.to(self.pixels.device)
        pixels, labels = self.pixels[index], self.labels[index]
        return _as_floats(pixels.to(self.device)), labels.to(self.device)

    def batches(self, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images, labels and indices of `size` images at a time, in order."""
        for index in torch.arange(len(self)).split(size):
            yield *self.batch(index), index

    def take(self, index: Tensor) -> Split:
        """The split of the images at `index`, in that order."""
        return Split(self.pixels[index], self.labels[index], self.device)

    def first(self, n: int | None) -> Split:
        """The first n images, all for None: a larger n extends a smaller one."""
        return Split(self.pixels[:n], self.labels[:n], self.device)

    def to(self, device: torch.device) -> Split:
        """The same split for batches on another device, held there if there is room."""
        if device.type == "cuda":
            room = ROOM * torch.cuda.mem_get_info(device)[0]
            if self.pixels.nbytes > room:
                return Split(self.pixels, self.labels, device)
        return Split(self.pixels.to(device), self.labels.to(device), device)


def _as_floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of one data set."""

    train: Split
    validation: Split
    test: Split

    def to(self, device: torch.device) -> Splits:
        """The same for batches on another device."""
        return Splits(
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


Count = Annotated[int, Field(ge=1, strict=True)] | None


# Not STRICT, which would refuse the mapping that a study file gives.
@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Subset:
    """How many images of each split are used; all by default.

    Each is a prefix of its split's fixed stratified order (seed 0), so that a larger subset
    extends a smaller one and the classes keep their proportions.
    """

    train: Count = None
    validation: Count = None
    test: Count = None


@validated(frozen=True, kw_only=True, config=STRICT)
class Dataset(Component):
    """A data set: its shape, its normalisation and how to read it.

    Attributes:
        subset: how many images of each split are used.
        shape: (channels, height, width) of an image.
        classes: number of classes K.
        mean, std: what the network normalises its inputs by, one value a channel.
        checksum: SHA-256 of the content, or of its files' published checksums; part of every
            model's id.
        full: number of images of each split, the validation images being cut from the
            published training images.
    """

    kind: ClassVar[str] = "dataset"
    unhashed: ClassVar[Mapping[str, Any]] = {"subset": Subset()}
    shape: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    checksum: ClassVar[str]
    full: ClassVar[dict[str, int]]

    subset: Subset = Subset()

    def __post_init__(self) -> None:
        """Refuses a subset that is larger than its split."""
        for name, size in self.full.items():
            wanted = getattr(self.subset, name)
            if wanted is not None and wanted > size:
                raise ValueError(
                    f"subset.{name}: expected at most {size}, all that {self.name} has, "
                    f"found {wanted}"
                )

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images of each split, as used."""
        return {name: getattr(self.subset, name) or size for name, size in self.full.items()}

    @abstractmethod
    def read(self, folder: Path) -> Splits:
        """Reads all of the data, checked against what was published.

        Args:
            folder: of the downloaded data sets.

        Raises:
            MissingData: it is not there and cannot be downloaded.
            DamagedData: the content is not the published one.
        """

    def fetch(self, folder: Path) -> None:
        """Brings the data into `folder`, checked; nothing to do for one that is embedded.

        Raises:
            MissingData: it is not there and cannot be downloaded.
            DamagedData: the content is not the published one.
        """

    def load(self, folder: Path) -> Splits:
        """The splits, cut to the subset; raises as `read` does."""
        whole = self.read(folder)

        def used(name: str) -> Split:
            split: Split = getattr(whole, name)
            n = getattr(self.subset, name)
            return split if n is None else split.take(torch.arange(n))  # keeps no more alive

        return Splits(train=used("train"), validation=used("validation"), test=used("test"))

    def identity(self) -> dict[str, Any]:
        """The component's identity and the checksum of its content.

        The test images are left out: no model sees them, and every cell says how many it is of.
        """
        identity = super().identity()
        parameters = {key: item for key, item in identity["parameters"].items() if key != "subset"}
        subset = {
            name: n
            for name in ("train", "validation")
            if (n := getattr(self.subset, name)) not in (None, self.full[name])
        }
        if subset:
            parameters["subset"] = subset
        return {**identity, "parameters": parameters, "checksum": self.checksum}


def stratified_order(labels: Tensor, seed: int = 0) -> Tensor:
    """An order of all images in which every prefix holds the classes in their proportions.

    Each class is shuffled by a draw of its own, then the classes are interleaved by rank.
    Validation and test sets are prefixes of such an order, hence stratified and nested.

    Args:
        labels: class of each image, (N,).
        seed: 0 for every trial, so that all of them see the same images.

    Returns:
        Indices into `labels`, (N,).
    """
    rank = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        shuffled = members[torch.randperm(len(members), generator=generator(seed, "split", label))]
        rank[shuffled] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return torch.argsort(rank + labels * 1e-9, stable=True)
