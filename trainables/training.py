"""From a model's configuration to its weights, one resumable epoch after another."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.augmentation import augmented
from trainables.classifier import Classifier, TrainingPass, build_classifier
from trainables.config import ModelConfig
from trainables.datasets.base import Splits
from trainables.errors import NonFiniteLoss
from trainables.evaluation import accuracy
from trainables.execution import Execution
from trainables.seeding import Draws, generator


@dataclass(frozen=True)
class Epoch:
    """One point of the training curves.

    Attributes:
        epoch: counted from 1.
        train_loss, train_accuracy: means over the epoch's batches as they were trained on.
        validation_accuracy: over the whole validation split, after the epoch.
        seconds: wall time of the epoch; where a pack trained it, its share of that.
        time: when it ended, seconds since 1970; MLflow's timestamp, kept so that a
            rebuilt run equals the first.
        watched: accuracy under the attack that a search may end the training by, if it has one.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    seconds: float
    time: float
    watched: float | None = None


def watched(epoch: Mapping[str, float]) -> float:
    """The accuracy by which a search may end a training: under the attack it has, or clean."""
    under_attack = epoch.get("watched")
    return epoch["validation_accuracy"] if under_attack is None else under_attack


class Batch(NamedTuple):
    """What a step is made of.

    Attributes:
        step: counted from the training's first, 0 ... `total` - 1.
        total: steps of the whole training.
        images: as they are trained on, (B, C, H, W) in [0, 1].
        labels: true classes, (B,).
        draws: of this batch in this epoch, for whatever else is drawn.
    """

    step: int
    total: int
    images: Tensor
    labels: Tensor
    draws: Draws


class Tally:
    """What an epoch's steps add up to.

    Attributes:
        losses: each step's mean loss.
        correct: images got right as they were trained on.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.correct: Tensor | int = 0

    def add(self, batch: Batch, passed: TrainingPass) -> None:
        """Counts a step."""
        self.losses.append(passed.losses.detach().mean())
        self.correct = self.correct + (passed.logits.argmax(dim=1) == batch.labels).sum()


def new_classifier(config: ModelConfig, execution: Execution) -> Classifier:
    """The untrained model where, and in the layout in which, it is to be computed."""
    half, checkpoint = config.training.precision == "bfloat16", config.checkpoint
    classifier = build_classifier(
        dataset=config.dataset,
        backbone=config.backbone,
        loss=config.loss,
        transform=config.transform,
        seed=None if checkpoint else config.seed,
        normalisation=checkpoint.normalisation if checkpoint else None,
        autocast=torch.bfloat16 if half else None,
    )
    channels_last = execution.channels_last and config.backbone.channels_last
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return classifier.to(device=execution.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


class Trainer:
    """Trains one model; its state between epochs can be saved and loaded."""

    def __init__(self, config: ModelConfig, splits: Splits, execution: Execution) -> None:
        self.config = config
        self.splits = splits
        self.classifier = new_classifier(config, execution)
        self.rates = _rates(self.classifier)
        self.optimizer = torch.optim.Adam(
            [
                {"params": parameters, "lr": config.training.lr * rate}
                for rate, parameters in self.rates.items()
            ],
            weight_decay=config.training.weight_decay,
        )
        self.history: list[Epoch] = []
        self.packing = 1  # the most models that shared a step with it: trainables/packing.py

    @property
    def done(self) -> bool:
        """Whether all epochs have been trained."""
        return len(self.history) >= self.config.training.epochs

    def epoch(self) -> Epoch:
        """Trains one epoch.

        Raises:
            NonFiniteLoss: says at which epoch and step, and what the loss was; or that the
                epoch's last step left weights that are not finite.
        """
        started, tally = time.perf_counter(), Tally()
        self.classifier.train()
        for batch in self.batches():
            tally.add(batch, self.descend(batch))
        return self.conclude(tally, time.perf_counter() - started)

    def conclude(self, tally: Tally, seconds: float) -> Epoch:
        """The record of the epoch whose steps have been made.

        Args:
            tally: of its steps.
            seconds: that they took.

        Raises:
            NonFiniteLoss: as `epoch` does.
        """
        started, number = time.perf_counter(), len(self.history) + 1
        losses = torch.stack(tally.losses).cpu()
        wrong = (~losses.isfinite()).nonzero()
        if len(wrong):
            step = int(wrong[0])
            raise NonFiniteLoss(
                f"non-finite loss {float(losses[step])} at epoch {number}, step {step + 1}"
            )
        if not all(bool(value.isfinite().all()) for value in self.classifier.state_dict().values()):
            raise NonFiniteLoss(f"weights are not finite after epoch {number}'s last step")
        record = Epoch(
            epoch=number,
            train_loss=float(losses.mean()),
            train_accuracy=int(tally.correct) / len(self.splits.train),
            validation_accuracy=accuracy(self.classifier, self.splits.validation),
            seconds=seconds + time.perf_counter() - started,
            time=time.time(),
        )
        self.history.append(record)
        return record

    def batches(self) -> Iterator[Batch]:
        """The next epoch's, in the order that the seed says."""
        train, training, seed = self.splits.train, self.config.training, self.config.seed
        number = len(self.history) + 1
        order = torch.randperm(len(train), generator=generator(seed, "batches", number))
        indices = order.to(train.pixels.device).split(training.batch_size)
        for step, index in enumerate(indices, (number - 1) * len(indices)):
            images, labels = train.batch(index)
            draws = Draws((seed, "training", number), index)
            images = augmented(images, training.augment, draws)
            yield Batch(step, training.epochs * len(indices), images, labels, draws)

    def descend(self, batch: Batch) -> TrainingPass:
        """One step, from the pass over a batch to the weights after it."""
        passed = self.config.regime.training_pass(
            self.classifier, batch.images, batch.labels, batch.draws
        )
        self.optimizer.zero_grad(set_to_none=True)
        passed.losses.mean().backward()
        self.update(batch, passed)
        return passed

    def update(self, batch: Batch, passed: TrainingPass) -> None:
        """What a step does once the gradients are there."""
        training = self.config.training
        factor = training.schedule.factor(batch.step, batch.total)
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            group["lr"] = training.lr * rate * factor
        if training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), training.clip_norm)
        self.optimizer.step()
        self.classifier.head.update(passed.features.detach(), batch.labels)

    def save(self) -> dict[str, bytes]:
        """Weights, optimiser and history, as objects of a store entry."""
        optimizer = self.optimizer.state_dict()
        slots = {
            f"{index}.{key}": value
            for index, state in optimizer["state"].items()
            for key, value in state.items()
        }
        return {
            "weights.safetensors": weights_of(self.classifier),
            "optimizer.safetensors": safetensors.torch.save(_packed(slots)),
            "progress.json": json.dumps(
                {
                    "history": [asdict(epoch) for epoch in self.history],
                    "groups": optimizer["param_groups"],
                    "packing": self.packing,
                }
            ).encode(),
        }

    def load(self, objects: dict[str, bytes]) -> None:
        """Goes on from what `save` returned."""
        progress = json.loads(objects["progress.json"])
        load_weights(self.classifier, objects["weights.safetensors"])
        state: dict[int, dict[str, Any]] = {}
        for name, value in safetensors.torch.load(objects["optimizer.safetensors"]).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": progress["groups"]})
        self.history = [Epoch(**epoch) for epoch in progress["history"]]
        self.packing = progress.get("packing", 1)


def _rates(classifier: Classifier) -> dict[float, list[nn.Parameter]]:
    """The parameters by the multiple of the learning rate that they are trained at."""
    wanted = {f"head.{name}": rate for name, rate in classifier.head.rates.items()}
    if unknown := wanted.keys() - dict(classifier.named_parameters()).keys():
        raise ValueError(f"rates of parameters that there are not: {', '.join(sorted(unknown))}")
    rates: dict[float, list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        rates.setdefault(wanted.get(name, 1.0), []).append(parameter)
    return rates


def weights_of(classifier: Classifier) -> bytes:
    """All parameters and buffers in the safetensors format."""
    return safetensors.torch.save(_packed(classifier.state_dict()))


def load_weights(classifier: Classifier, data: bytes) -> None:
    """Reverses `weights_of`."""
    classifier.load_state_dict(safetensors.torch.load(data))


def _packed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU and contiguous, which the format asks for."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
