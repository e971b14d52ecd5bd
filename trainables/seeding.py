"""Random draws keyed by what they are for, never by who asks for them.

Every draw is a function of (seed, purpose, position …): two trials that differ only in
the loss start from the same weights and see the same batches, and no result depends on
how images were batched or which of them were still unbroken.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


def derive(*key: int | str) -> int:
    """A 63-bit number that depends on every part of `key` (first 8 bytes of SHA-256)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive(*key)`: the same draws on every device."""
    return torch.Generator().manual_seed(derive(*key))


@dataclass(frozen=True)
class Draws:
    """Random numbers of a batch: each image's are a function of `key` and its index alone.

    Attributes:
        key: what they are for: seed, purpose, epoch or step, pass …
        indices: each image's place in its split's fixed order, (B,).
    """

    key: tuple[int | str, ...]
    indices: Tensor

    def at(self, *more: int | str) -> Draws:
        """Other draws for the same images: the key goes on with `more`."""
        return replace(self, key=(*self.key, *more))

    def __getitem__(self, chosen: Tensor) -> Draws:
        """The same draws for some of the images."""
        return replace(self, indices=self.indices[chosen.to(self.indices.device)])

    def uniform(self, count: int) -> Tensor:
        """Numbers in [0, 1), (B, count) float64, by SplitMix64 (Steele et al. 2014)."""
        images = _mix(derive(*self.key) + (self.indices.long() + 1) * _GOLDEN)
        columns = torch.arange(1, count + 1, device=images.device) * _GOLDEN
        bits = _mix(images.unsqueeze(1) + columns)
        return _shift(bits, 11).double() * 2.0**-53

    def normal(self, count: int) -> Tensor:
        """Standard normal numbers, (B, count) float64, by Box and Muller's transform."""
        u, v = self.at("normal").uniform(2 * count).chunk(2, dim=1)
        return (-2 * torch.log1p(-u)).sqrt() * torch.cos(2 * math.pi * v)


def _signed(value: int) -> int:
    """A 64-bit constant as torch's int64 holds it; its products wrap as unsigned ones do."""
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)


def _shift(value: Tensor, bits: int) -> Tensor:
    """A right shift that brings zeros in, which int64's does not."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shift(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ _shift(value, 31)


def wrong_classes(labels: Tensor, indices: Tensor, classes: int, seed: int) -> Tensor:
    """Targets of a targeted attack: uniform over the wrong classes, fixed for each image.

    Args:
        labels: true classes, (B,).
        indices: each image's place in its split's fixed order, (B,).
        classes: number of classes K.
        seed: the selection's seed.
    """
    shifts = [1 + derive(seed, "target", int(index)) % (classes - 1) for index in indices]
    return (labels + torch.tensor(shifts, device=labels.device)) % classes


def initialise(module: nn.Module, seed: int) -> None:
    """Draws every layer's parameters anew, keyed by (seed, the layer's name)."""
    with torch.random.fork_rng(devices=[]):
        for name, layer in module.named_modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                torch.manual_seed(derive(seed, "init", name))
                reset()
