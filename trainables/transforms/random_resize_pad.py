"""Random resizing and padding (Xie et al. 2018), the paper's method "Random"."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.errors import BrokenInvariant
from trainables.registry import component
from trainables.seeding import Draws
from trainables.transforms.base import Transform, Transformation

ORIGINAL = 331 / 299  # side after padding over side before, on ImageNet

Apply = Literal["test", "both"]


@component("random_resize_pad", revision=1)
class RandomResizePad(Transform):
    """Nearest-neighbour resize to a random side, then zeros around it at a random place.

    An image of side H becomes one of a side drawn from H + 1 ... P - 1, put at a place drawn
    from all that fit into P x P. The original resizes 299 to 310 ... 330 and pads to 331.

    Attributes:
        apply: `test`, as in the original, at inference alone; `both`, in training too.
        pad: the side P after padding; by default H * 331 / 299 rounded up, which is 31 for
            28 (sides 29, 30) and 36 for 32 (sides 33 to 35).
    """

    apply: Apply = "test"
    pad: Annotated[int, Field(ge=3)] | None = None

    def build(self) -> Transformation:
        """The module, in training mode the identity where `apply` is `test`."""
        return _RandomResizePad(self)

    def side(self, height: int) -> int:
        """The side P after padding, for images of `height`."""
        return math.ceil(height * ORIGINAL) if self.pad is None else self.pad

    def refuses(self, shape: tuple[int, int, int]) -> str | None:
        """Images that are not square, or do not fit."""
        _, height, width = shape
        if height != width:
            return f"random_resize_pad needs square images, found {height} x {width}"
        if self.side(height) < height + 2:
            return (
                f"random_resize_pad needs pad >= {height + 2}, two more than the image's side, "
                f"found {self.pad}"
            )
        return None


class _RandomResizePad(Transformation):
    stochastic: ClassVar[bool] = True

    def __init__(self, config: RandomResizePad) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor, draws: Draws | None) -> Tensor:
        if self.training and self.config.apply == "test":
            return images
        if draws is None:
            raise BrokenInvariant("a model that draws at random was not told what the draws are")
        height = images.shape[-1]
        side = self.config.side(height)
        size, top, left = _places(draws.at("resize pad"), height, side)
        return resize_pad(images, size, top, left, side)


def _places(draws: Draws, height: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Resized side, first row and first column of each image, (B,) of int64."""
    size, top, left = draws.uniform(3).unbind(dim=1)
    size = height + 1 + (size * (side - 1 - height)).long()
    room = side - size + 1
    return size, (top * room).long(), (left * room).long()


def resize_pad(images: Tensor, size: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Resizes each image to its own `size` and pads it with zeros to `side`.

    Rows and columns are picked by products with matrices of zeros and ones: exact, one
    operation for the whole batch, and with a gradient that is deterministic on a GPU too.

    Args:
        images: (B, C, H, H).
        size: resized side of each image, (B,).
        top: first row of each, (B,).
        left: first column of each, (B,).
        side: P.

    Returns:
        (B, C, P, P).
    """
    rows = _picks(images, size, top, side).unsqueeze(1)
    columns = _picks(images, size, left, side).unsqueeze(1)
    return rows @ images @ columns.mT


def _picks(images: Tensor, size: Tensor, start: Tensor, side: int) -> Tensor:
    """Which pixel of the image each of the `side` new ones is: (B, P, H) of zeros and ones."""
    height = images.shape[-1]
    size, start = (value.to(images.device).unsqueeze(1) for value in (size, start))
    place = torch.arange(side, device=images.device) - start
    # As torch's own nearest-neighbour interpolation computes it, in float32.
    source = (place * (height / size.double()).float()).floor().long()
    inside = (place >= 0) & (place < size)
    source = torch.where(inside, source.clamp(0, height - 1), -1)
    pixels = torch.arange(height, device=images.device)
    return (source.unsqueeze(2) == pixels).to(images.dtype)
