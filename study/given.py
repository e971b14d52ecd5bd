"""A method whose models come from elsewhere: a checkpoint each, tried before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from study.spec import Method, Normalize
from trainables.backbones.base import Backbone
from trainables.checkpoint import digest_of, misfit
from trainables.classifier import Normalisation
from trainables.config import Checkpoint, ModelConfig, given
from trainables.datasets.base import Dataset
from trainables.errors import Mistake


def given_models(
    name: str, method: Method, parts: Mapping[str, Any], mistakes: list[Mistake]
) -> Iterator[tuple[ModelConfig, Path]]:
    """The models of a method that has checkpoints, each with the place of its weights.

    Args:
        name: the method's.
        method: its keys; the paths are absolute, and `study.check` has looked into the files.
        parts: one choice of its components.
        mistakes: what keeps a checkpoint from being used is added here.
    """
    used = {kind: parts[kind] for kind in ("dataset", "backbone", "loss", "transform")}
    normalisation = _normalisation(
        name, method.normalize, parts["dataset"], parts["backbone"], mistakes
    )
    if normalisation is None:
        return
    mean, std = normalisation
    digests = {path: digest_of(path) for path in map(Path, method.checkpoint or ())}
    arm = tuple(sorted(set(digests.values())))
    for seed, (path, digest) in enumerate(digests.items()):
        checkpoint = Checkpoint(file=path.name, sha256=digest, mean=mean, std=std, arm=arm)
        model = given(**used, checkpoint=checkpoint, seed=seed)
        reason = misfit(model, path)
        if reason is None:
            yield model, path
        else:
            mistakes.append(Mistake(f"methods.{name}.checkpoint", reason))


def _normalisation(
    name: str,
    wanted: Normalize | None,
    dataset: Dataset,
    backbone: Backbone,
    mistakes: list[Mistake],
) -> Normalisation | None:
    """Mean and SD of each channel; None where there are too many or too few of them."""
    if wanted is None and backbone.width:
        return dataset.mean, dataset.std
    channels, found = dataset.shape[0], (wanted or Normalize()).model_dump()
    for key, values in found.items():
        if len(values) not in (1, channels):
            what = f"expected one number, or one for each of {channels} channels"
            mistakes.append(Mistake(f"methods.{name}.normalize.{key}", f"{what}, found {values}"))
            return None
    mean, std = (tuple(values * (channels // len(values))) for values in found.values())
    return mean, std
