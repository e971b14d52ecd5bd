"""Images before and under attack: what the gallery shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.plan import Group
from analysis.runs import Results
from analysis.specimens import Array, Specimen, metric, specimens
from analysis.tables.text import share
from trainables import names

ENDS = ("worst", "best")  # of the margin under attack
_FATES = ("index", "label", "before", "after", "margin", "l2", "linf")


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One method's images.

    Attributes:
        method: The study's name for it.
        caption: Method, seed, and its accuracy under the attack.
        frame: One row an image, see `gallery`; none where no image was right before.
        clean: (N, C, H, W) in [0, 1], in the frame's order, `attacked` likewise.
    """

    method: str
    caption: str
    frame: pd.DataFrame
    clean: Array
    attacked: Array


@dataclass(frozen=True)
class Gallery:
    """The images of all methods on one data set and backbone, a method a row."""

    group: Group
    exhibits: tuple[Exhibit, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a method and image."""
        return pd.concat([exhibit.frame for exhibit in self.exhibits], ignore_index=True)


def gallery(results: Results, group: Group, label: str) -> Gallery | None:
    """Collects the worst and best images that a diagnostic of kind `exhibits` found.

    Frames have the columns `dataset, backbone, method, configuration, seed, group` (one of
    `ENDS`), `index` (place in the test images), `label, before, after` (true class, and what
    was predicted before and under the attack), `margin` (of the raw logits under it), `l2,
    linf` (of the perturbation); `worst` rises in the margin, `best` falls.

    Args:
        results: The study.
        group: Data set and backbone.
        label: The diagnostic.

    Returns:
        One exhibit a method in the plan's order; None while no run has been examined.
    """
    found = tuple(_exhibit(specimen, label) for specimen in specimens(results, group, label))
    return Gallery(group, found) if found else None


def _exhibit(specimen: Specimen, label: str) -> Exhibit:
    arrays = specimen.arrays
    rows = np.concatenate([arrays[end] for end in ENDS])
    ends = np.repeat(ENDS, [len(arrays[end]) for end in ENDS])
    kept = share(specimen.row[metric(label, "accuracy")])
    return Exhibit(
        method=specimen.arm.method,
        caption=f"{specimen.caption}: {kept} of {specimen.row[names.N]:.0f} images right "
        "under the attack",
        frame=specimen.frame({"group": ends, **{name: arrays[name][rows] for name in _FATES}}),
        clean=arrays["clean"][rows],
        attacked=arrays["attacked"][rows],
    )
