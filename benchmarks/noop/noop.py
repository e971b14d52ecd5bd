"""A plugin whose trials do next to nothing: what is left of their time is the engine's."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn

from trainables.backbones.base import Backbone
from trainables.datasets.base import Dataset, Split, Splits
from trainables.registry import component
from trainables.seeding import generator


@component("specks", revision=1)
class Specks(Dataset):
    """48 images of 4 x 4 random pixels in four classes."""

    shape: ClassVar[tuple[int, int, int]] = (1, 4, 4)
    classes: ClassVar[int] = 4
    mean: ClassVar[tuple[float, ...]] = (0.5,)
    std: ClassVar[tuple[float, ...]] = (0.3,)
    checksum: ClassVar[str] = "0" * 64
    full: ClassVar[dict[str, int]] = {"train": 32, "validation": 8, "test": 8}

    def read(self, folder: Path) -> Splits:
        """Draws them."""
        pixels = torch.rand(48, *self.shape, generator=generator(0, "specks"))
        train, validation, test = (
            Split(pixels[start:end], torch.arange(end - start) % self.classes)
            for start, end in ((0, 32), (32, 40), (40, 48))
        )
        return Splits(train=train, validation=validation, test=test)


@component("flat", revision=1)
class Flat(Backbone):
    """A linear layer.

    Attributes:
        seconds: how long one of Ray's workers takes to build it, at no cost of processor time. It
            notes in the folder `$NOOP_NOTES` on which node that was, from when to when.
    """

    seconds: Annotated[float, Field(ge=0)] = 0.0

    @property
    def trunk_width(self) -> int:
        """Four features."""
        return 4

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Flatten, linear."""
        if self.seconds:
            self._wait()
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 4))

    def _wait(self) -> None:
        import ray

        if not ray.is_initialized():  # the driver, which tries whether the layers fit
            return
        began = time.time()
        time.sleep(self.seconds)
        note = [ray.get_runtime_context().get_node_id(), began, time.time()]
        Path(os.environ["NOOP_NOTES"], f"{os.getpid()}-{began}").write_text(json.dumps(note))
