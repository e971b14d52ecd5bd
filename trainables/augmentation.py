"""Random views of training images, drawn for each image and made for a whole batch at once."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.seeding import Draws

Augment = Literal["none", "crop", "crop_flip"]
SHIFT = 4  # pixels each way (He et al. 2016: pad by 4, crop at random)


def augmented(images: Tensor, augment: Augment, draws: Draws) -> Tensor:
    """The images as `augment` shows them, (B, C, H, W).

    Args:
        images: (B, C, H, W).
        augment: `crop` shifts by up to 4 pixels each way, zeros coming in; `crop_flip`
            mirrors half of the images too.
        draws: of this batch in this epoch.
    """
    if augment == "none":
        return images
    down, right, mirror = draws.at("augment").uniform(3).to(images.device).unbind(dim=1)
    rows = _shifted(images.shape[2], down)
    columns = _shifted(images.shape[3], right)
    if augment == "crop_flip":
        columns = torch.where((mirror < 0.5).unsqueeze(1), columns.flip(1), columns)
    return _picked(images, rows, columns)


def _shifted(size: int, share: Tensor) -> Tensor:
    """The source of each row (or column) after a shift drawn by `share`: (B, size)."""
    shift = (share * (2 * SHIFT + 1)).long() - SHIFT
    return torch.arange(size, device=share.device) + shift.unsqueeze(1)


def _picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """images[b, :, rows[b], columns[b]], zeros from outside."""
    height, width = images.shape[2:]
    inside = _within(rows, height).unsqueeze(2) & _within(columns, width).unsqueeze(1)
    batch = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    rows = rows.clamp(0, height - 1).unsqueeze(2)
    columns = columns.clamp(0, width - 1).unsqueeze(1)
    picked = images.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)
    return picked * inside.unsqueeze(1)


def _within(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)
