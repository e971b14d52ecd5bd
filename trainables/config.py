"""What a result is a function of, and the ids that name it.

Ids are SHA-256 over canonical JSON {schema, component, revision, parameters}: infrastructure
(device, workers, paths) and the names a study gives to things never reach them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field
from pydantic.dataclasses import dataclass as validated

from trainables import registry
from trainables.attacks.base import Attack
from trainables.augmentation import Augment
from trainables.backbones.base import Backbone
from trainables.classifier import Normalisation
from trainables.datasets.base import Dataset
from trainables.diagnostics.base import Diagnostic
from trainables.losses.base import Loss, Unknown
from trainables.names import TEST, VALIDATION
from trainables.regimes.base import Regime
from trainables.regimes.standard import Standard
from trainables.registry import STRICT, hashed_parameters, parameters_of
from trainables.schedules.base import ScheduleField
from trainables.schedules.constant import Constant
from trainables.transforms.base import Transform

SCHEMA = 1
TRAINING_REVISION = 1  # bumped by whatever alters what training computes
CHECKPOINT_REVISION = 1  # the same for how weights from elsewhere are put to use
EVALUATION_REVISION = 2  # the same for judging, survivors and target draws
ID_LENGTH = 16

_ANY_MODEL = "<any model>"  # in the place of an id, which is hexadecimal
_ANY_SEED = "<any seed>"  # in the place of a number

SplitName = Literal["validation", "test"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@validated(frozen=True, kw_only=True, config=STRICT)
class Training:
    """How weights are found.

    Attributes:
        optimizer: Adam, as in the paper.
        lr: learning rate; the paper gives none, 1e-3 is Adam's own default.
        epochs: passes over the training images.
        batch_size: images a step; the last, smaller batch of an epoch is used too.
        weights: which epoch's weights are kept: the last one's.
        schedule: what `lr` is multiplied by at each step: `constant`, `step`, `cosine` or
            `one_cycle`.
        weight_decay: added to the gradient, times the weight (torch's Adam).
        clip_norm: largest L2 norm of the whole gradient; none by default.
        augment: `crop_flip` shifts each image by up to 4 pixels (zeros around it) and mirrors
            half of them, the usual for CIFAR (He et al. 2016); `crop` shifts alone, for digits.
        precision: of the backbone while it is trained; `bfloat16` is torch's autocast. Losses
            and every evaluation are in float32.
    """

    unhashed: ClassVar[Mapping[str, Any]] = {
        "schedule": Constant(),
        "weight_decay": 0.0,
        "clip_norm": None,
        "augment": "none",
    }

    optimizer: Literal["adam"] = "adam"
    lr: Positive = 1e-3
    epochs: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=1)] = 128
    weights: Literal["last"] = "last"
    schedule: ScheduleField = Constant()
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    clip_norm: Positive | None = None
    augment: Augment = "none"
    precision: Literal["float32", "bfloat16"] = "float32"

    def parameters(self) -> dict[str, Any]:
        """Its fields by name, as plain data."""
        return parameters_of(self)

    def identity(self) -> dict[str, Any]:
        """The fields that reach an id."""
        return hashed_parameters(self, self.unhashed)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights from elsewhere, in place of training.

    Attributes:
        file: the name of the user's file; reaches no id.
        sha256: of its bytes.
        mean, std: of each channel, by which images in [0, 1] are normalised.
        arm: digests of all checkpoints that are seeds of its arm, sorted; known to whoever plans.
    """

    file: str
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    arm: tuple[str, ...] = field(default=(), compare=False)

    @property
    def normalisation(self) -> Normalisation:
        """Means and SDs."""
        return self.mean, self.std

    def parameters(self) -> dict[str, Any]:
        """What `ModelConfig.spec` holds of it."""
        normalisation = {"mean": list(self.mean), "std": list(self.std)}
        return {"file": self.file, "sha256": self.sha256, **normalisation}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model to train, or a checkpoint of one; its id is also its trial's.

    Of a checkpoint's id neither regime, training nor seed is a part: `given` makes it.
    """

    dataset: Dataset
    backbone: Backbone
    loss: Loss
    regime: Regime
    transform: Transform
    training: Training
    seed: int
    checkpoint: Checkpoint | None = None

    @cached_property
    def id(self) -> str:
        """The model's content id."""
        if self.checkpoint is not None:
            return content_id(self._identity())
        return self._id_with(self.seed)

    @cached_property
    def arm_id(self) -> str:
        """The id of the configuration less the seed: what seeds are averaged within."""
        if self.checkpoint is not None:
            return content_id({**self._identity(), "weights": self.checkpoint.arm})
        return self._id_with(None)

    def seeded(self, seed: int) -> ModelConfig:
        """The same model with another seed; what their ids have in common is worked out once."""
        other = replace(self, seed=seed)
        vars(other)["_around_the_seed"] = self._around_the_seed
        return other

    def _id_with(self, seed: int | None) -> str:
        before, after = self._around_the_seed
        return _digest(f"{before}{canonical(seed)}{after}")

    @cached_property
    def _around_the_seed(self) -> tuple[str, str]:
        """What stands before and behind the seed in the text that is hashed."""
        text = content_text({**self._identity(), "seed": _ANY_SEED})
        before, _, after = text.rpartition(canonical(_ANY_SEED))
        return before, after

    @property
    def parts(self) -> tuple[str, ...]:
        """The kinds of the components that it is made of."""
        idle = {"regime"} if self.checkpoint else set()
        idle |= {"loss"} if isinstance(self.loss, Unknown) else set()
        return tuple(kind for kind in COMPONENTS if kind not in idle)

    @property
    def epochs(self) -> int:
        """Epochs to train."""
        return 0 if self.checkpoint else self.training.epochs

    def _identity(self) -> dict[str, Any]:
        if self.checkpoint is not None:
            return {
                "component": "checkpoint",
                "revision": CHECKPOINT_REVISION,
                "parameters": {
                    **{kind: getattr(self, kind).identity() for kind in self.parts},
                    "mean": self.checkpoint.mean,
                    "std": self.checkpoint.std,
                },
                "weights": self.checkpoint.sha256,
            }
        training = self.training.identity()
        return {
            "component": "model",
            "revision": TRAINING_REVISION,
            "parameters": {
                **{kind: getattr(self, kind).identity() for kind in COMPONENTS},
                "precision": training.pop("precision"),
                "training": training,
            },
            "seed": self.seed,
        }

    def spec(self) -> dict[str, Any]:
        """Plain data from which `model_from` makes the same configuration."""
        origin = (
            {"checkpoint": self.checkpoint.parameters()}
            if self.checkpoint
            else {"training": self.training.parameters()}
        )
        parts = {kind: getattr(self, kind).spec() for kind in self.parts}
        return {**parts, **origin, "seed": self.seed}


COMPONENTS = ("dataset", "backbone", "loss", "regime", "transform")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to measure on the first n images: an attack at one size, or a diagnostic.

    Attributes:
        probe: what is done to the images, or looked for in them.
        split: which images.
        n: how many, from the front of the split's fixed order.
        seed: of the probe's own draws (targets, starts), the same for every model.
    """

    probe: Attack | Diagnostic
    split: SplitName
    n: int
    seed: int = 0

    @property
    def group(self) -> tuple[Hashable, ...]:
        """Equal for cells of a model that one run can answer; reaches no id."""
        alike = self.probe.alike() if isinstance(self.probe, Attack) else self.probe
        return alike, self.split, self.n, self.seed

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the other models it needs."""
        return self.probe.sources if isinstance(self.probe, Attack) else ()

    def id(self, model_id: str) -> str:
        """The content id of this cell's outcome on a model."""
        before, after = self._around_the_model
        return _digest(f"{before}{model_id}{after}")

    @cached_property
    def _around_the_model(self) -> tuple[str, str]:
        """What stands before and behind a model's id in the text that is hashed."""
        text = content_text(
            {
                "component": "cell",
                "revision": EVALUATION_REVISION,
                "parameters": {
                    "model": _ANY_MODEL,
                    self.probe.kind: self.probe.identity(),
                    "split": self.split,
                    "n": self.n,
                    "seed": self.seed,
                },
            }
        )
        before, after = text.split(_ANY_MODEL)
        return before, after

    def spec(self) -> dict[str, Any]:
        """Plain data from which `cell_from` makes the same cell."""
        return {
            self.probe.kind: self.probe.spec(),
            "split": self.split,
            "n": self.n,
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One model's life: train it, unless it is given, then measure every cell.

    Attributes:
        model: what is trained, or given.
        cells: what is measured of it then.
        watch: what is measured after each epoch, for whoever may end the training early.
    """

    model: ModelConfig
    cells: tuple[Cell, ...]
    watch: Cell | None = None

    def dump(self) -> str:
        """JSON, as it travels to workers and stands in the store."""
        cells = [cell.spec() for cell in self.cells]
        watch = self.watch and self.watch.spec()
        described = {"model": self.model.spec(), "cells": cells, "watch": watch}
        return json.dumps(described, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> TrialConfig:
        """Reverses `dump`."""
        data = json.loads(text)
        return cls(
            model=model_from(data["model"]),
            cells=tuple(cell_from(cell) for cell in data["cells"]),
            watch=data["watch"] and cell_from(data["watch"]),
        )


def model_from(spec: Mapping[str, Any]) -> ModelConfig:
    """Reverses `ModelConfig.spec`."""
    parts: dict[str, Any] = {
        kind: registry.build(kind, spec[kind]) for kind in COMPONENTS if kind in spec
    }
    if "checkpoint" in spec:
        found = spec["checkpoint"]
        normalisation = {key: tuple(found[key]) for key in ("mean", "std")}
        return given(
            **parts, checkpoint=Checkpoint(**{**found, **normalisation}), seed=spec["seed"]
        )
    return ModelConfig(**parts, training=Training(**spec["training"]), seed=spec["seed"])


def given(
    *,
    dataset: Dataset,
    backbone: Backbone,
    transform: Transform,
    checkpoint: Checkpoint,
    loss: Loss | None = None,
    seed: int = 0,
) -> ModelConfig:
    """A model whose weights are a checkpoint's, `seed` being its place among those of its arm.

    Without a loss, whose layer would stand on the backbone, the backbone gives logits itself.
    """
    return ModelConfig(
        dataset=dataset,
        backbone=backbone,
        loss=loss or Unknown(),
        regime=Standard(),
        transform=transform,
        training=Training(),
        seed=seed,
        checkpoint=checkpoint,
    )


def cell_from(spec: Mapping[str, Any]) -> Cell:
    """Reverses `Cell.spec`."""
    if spec["split"] not in (TEST, VALIDATION):
        raise ValueError(f"expected split {TEST!r} or {VALIDATION!r}, found {spec['split']!r}")
    (kind,) = {"attack", "diagnostic"} & set(spec)
    probe = cast(Attack | Diagnostic, registry.build(kind, spec[kind]))
    return Cell(probe=probe, split=spec["split"], n=spec["n"], seed=spec["seed"])


def content_id(identity: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of canonical JSON."""
    return _digest(content_text(identity))


def content_text(identity: Mapping[str, Any]) -> str:
    """The text whose digest is the id."""
    return canonical({"schema": SCHEMA, **identity})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces and every number as a float of 12 significant digits."""
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return float(f"{value:.12g}") + 0.0  # -0.0 is 0.0
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    return value
