"""Random draws keyed by what they are for, never by who asks for them.

Every draw is a function of (seed, purpose, position …): two trials that differ only in
the loss start from the same weights and see the same batches, and no result depends on
how images were batched or which of them were still unbroken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn


def derive(*key: int | str) -> int:
    """A 63-bit number that depends on every part of `key` (first 8 bytes of SHA-256)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive(*key)`: the same draws on every device."""
    return torch.Generator().manual_seed(derive(*key))


def per_image(
    draw: Callable[[torch.Generator], Tensor], indices: Tensor, *key: int | str
) -> Tensor:
    """Stacks one draw an image, each keyed by `key` and the image's index: (B, ...)."""
    return torch.stack([draw(generator(*key, int(index))) for index in indices])


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
