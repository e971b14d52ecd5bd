"""What a result is a function of, and the ids that name it.

Ids are SHA-256 over canonical JSON {schema, component, revision, parameters}: infrastructure
(device, workers, paths) and the names a study gives to things never reach them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field
from pydantic import dataclasses as pydantic_dataclasses

from trainables import registry
from trainables.attacks.base import Attack
from trainables.backbones.base import Backbone
from trainables.datasets.base import Dataset
from trainables.losses.base import Loss
from trainables.names import TEST, VALIDATION
from trainables.regimes.base import Regime
from trainables.transforms.base import Transform

SCHEMA = 1
TRAINING_REVISION = 1  # bumped by whatever alters what training computes
EVALUATION_REVISION = 1  # the same for judging, survivors and target draws
ID_LENGTH = 16

SplitName = Literal["validation", "test"]


@pydantic_dataclasses.dataclass(
    frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True)
)
class Training:
    """How weights are found.

    Attributes:
        optimizer: Adam, as in the paper.
        lr: learning rate; the paper gives none, 1e-3 is Adam's own default.
        epochs: passes over the training images.
        batch_size: images a step; the last, smaller batch of an epoch is used too.
        weights: which epoch's weights are kept: the last one's.
    """

    optimizer: Literal["adam"] = "adam"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    epochs: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=1)] = 128
    weights: Literal["last"] = "last"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model to train; its id is also its trial's."""

    dataset: Dataset
    backbone: Backbone
    loss: Loss
    regime: Regime
    transform: Transform
    training: Training
    seed: int
    precision: Literal["float32"] = "float32"

    @property
    def id(self) -> str:
        """The model's content id."""
        return content_id(self._identity())

    @property
    def arm_id(self) -> str:
        """The id of the configuration less the seed: what seeds are averaged within."""
        return content_id({**self._identity(), "seed": None})

    def _identity(self) -> dict[str, Any]:
        return {
            "component": "model",
            "revision": TRAINING_REVISION,
            "parameters": {
                **{kind: getattr(self, kind).identity() for kind in COMPONENTS},
                "training": vars_of(self.training),
                "precision": self.precision,
            },
            "seed": self.seed,
        }

    def spec(self) -> dict[str, Any]:
        """Plain data from which `model_from` makes the same configuration."""
        return {
            **{kind: getattr(self, kind).spec() for kind in COMPONENTS},
            "training": vars_of(self.training),
            "seed": self.seed,
            "precision": self.precision,
        }


COMPONENTS = ("dataset", "backbone", "loss", "regime", "transform")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number to measure: an attack at one eps and one step count on the first n images.

    Attributes:
        attack: what is done to the images.
        split: which images.
        n: how many, from the front of the split's fixed order.
        seed: of the attack's own draws (targets, starts), the same for every model.
    """

    attack: Attack
    split: SplitName
    n: int
    seed: int = 0

    def id(self, model_id: str) -> str:
        """The content id of this cell's outcome on a model."""
        return content_id(
            {
                "component": "cell",
                "revision": EVALUATION_REVISION,
                "parameters": {
                    "model": model_id,
                    "attack": self.attack.identity(),
                    "split": self.split,
                    "n": self.n,
                    "seed": self.seed,
                },
            }
        )

    def spec(self) -> dict[str, Any]:
        """Plain data from which `cell_from` makes the same cell."""
        return {
            "attack": self.attack.spec(),
            "split": self.split,
            "n": self.n,
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One model's life: train it, then measure every cell."""

    model: ModelConfig
    cells: tuple[Cell, ...]

    def dump(self) -> str:
        """JSON, as it travels to workers and stands in the store."""
        cells = [cell.spec() for cell in self.cells]
        return json.dumps({"model": self.model.spec(), "cells": cells}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> TrialConfig:
        """Reverses `dump`."""
        data = json.loads(text)
        return cls(
            model=model_from(data["model"]),
            cells=tuple(cell_from(cell) for cell in data["cells"]),
        )


def model_from(spec: Mapping[str, Any]) -> ModelConfig:
    """Reverses `ModelConfig.spec`."""
    parts: dict[str, Any] = {kind: registry.build(kind, spec[kind]) for kind in COMPONENTS}
    return ModelConfig(
        **parts,
        training=Training(**spec["training"]),
        seed=spec["seed"],
        precision=spec["precision"],
    )


def cell_from(spec: Mapping[str, Any]) -> Cell:
    """Reverses `Cell.spec`."""
    if spec["split"] not in (TEST, VALIDATION):
        raise ValueError(f"expected split {TEST!r} or {VALIDATION!r}, found {spec['split']!r}")
    attack = cast(Attack, registry.build("attack", spec["attack"]))
    return Cell(attack=attack, split=spec["split"], n=spec["n"], seed=spec["seed"])


def vars_of(training: Training) -> dict[str, Any]:
    """The training parameters by name."""
    return {name: getattr(training, name) for name in Training.__dataclass_fields__}


def content_id(identity: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of canonical JSON."""
    text = canonical({"schema": SCHEMA, **identity})
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces and every number as a float of 12 significant digits."""
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(f"{value:.12g}") + 0.0  # -0.0 is 0.0
    return value
