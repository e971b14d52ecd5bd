"""What a data set is: images in [0, 1], held whole in memory, cut into three fixed splits."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainables.registry import Component
from trainables.seeding import generator


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) float32 in [0, 1] and labels (N,) int64, in one fixed order."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> Split:
        """The first n images: a larger n extends a smaller one."""
        return Split(self.images[:n], self.labels[:n])

    def to(self, device: torch.device) -> Split:
        """The same split on another device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of one data set."""

    train: Split
    validation: Split
    test: Split


class Dataset(Component):
    """A data set: its shape, its normalisation and how to read it.

    Attributes:
        shape: (channels, height, width) of an image.
        classes: number of classes K.
        mean, std: what the network normalises its inputs by, one value a channel.
        checksum: the published SHA-256 of its content, part of every model's id.
        sizes: number of images of each split.
    """

    kind: ClassVar[str] = "dataset"
    shape: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    checksum: ClassVar[str]
    sizes: ClassVar[dict[str, int]]

    @abstractmethod
    def load(self) -> Splits:
        """Reads the data, checked against `checksum`.

        Raises:
            DamagedData: the content is not the published one.
        """

    def identity(self) -> dict[str, Any]:
        """The component's identity and the checksum of its content."""
        return {**super().identity(), "checksum": self.checksum}


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


@functools.lru_cache(maxsize=4)
def load_splits(dataset: Dataset, device: torch.device) -> Splits:
    """The data set on `device`, read once a process: reused workers find it in memory."""
    splits = dataset.load()
    return Splits(
        train=splits.train.to(device),
        validation=splits.validation.to(device),
        test=splits.test.to(device),
    )
