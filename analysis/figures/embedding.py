"""Features of clean images in two or three dimensions: what Figure 4 shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.plan import Group
from analysis.runs import Results
from analysis.specimens import Specimen, specimens

COORDINATES = ("x", "y", "z")
_DRAWN = (2, 3)  # dimensions


@dataclass(frozen=True)
class Clouds:
    """The features of all methods on one data set and backbone; for `frame`, see `clouds`."""

    group: Group
    frame: pd.DataFrame


def clouds(results: Results, group: Group, label: str) -> Clouds | None:
    """Collects the features of each method that has two or three of them.

    The frame has one row a method and image. Columns: `dataset, backbone, method,
    configuration, seed, index` (place in the test images), `label, predicted` (classes),
    and the features `x, y` and, where there are three, `z`.

    Args:
        results: The study.
        group: Data set and backbone.
        label: A diagnostic of kind `embedding`.

    Returns:
        None where there is nothing to draw.
    """
    parts = [
        _points(specimen)
        for specimen in specimens(results, group, label)
        if specimen.arrays["features"].shape[1] in _DRAWN
    ]
    return Clouds(group, pd.concat(parts, ignore_index=True)) if parts else None


def _points(specimen: Specimen) -> pd.DataFrame:
    arrays = specimen.arrays
    features = dict(zip(COORDINATES, arrays["features"].T, strict=False))
    index = np.arange(len(arrays["labels"]))
    classes = {"label": arrays["labels"], "predicted": arrays["predicted"]}
    return specimen.frame({"index": index, **classes, **features})
