"""From a model's configuration to its weights, one resumable epoch after another."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.augmentation import augmented
from trainables.classifier import Classifier, build_classifier
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
        seconds: wall time of the epoch.
        time: when it ended, seconds since 1970; MLflow's timestamp, kept so that a
            rebuilt run equals the first.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    seconds: float
    time: float


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
        started, number = time.perf_counter(), len(self.history) + 1
        losses, correct = self._descend(number)
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
            train_accuracy=correct / len(self.splits.train),
            validation_accuracy=accuracy(self.classifier, self.splits.validation),
            seconds=time.perf_counter() - started,
            time=time.time(),
        )
        self.history.append(record)
        return record

    def _descend(self, number: int) -> tuple[Tensor, int]:
        """One pass over the training images: each step's mean loss, and images got right."""
        self.classifier.train()
        train, seed = self.splits.train, self.config.seed
        order = torch.randperm(len(train), generator=generator(seed, "batches", number))
        batches = order.to(train.pixels.device).split(self.config.training.batch_size)
        losses, correct = [], torch.zeros((), dtype=torch.long, device=train.device)
        for step, index in enumerate(batches):
            self._set_rate((number - 1) * len(batches) + step, len(batches))
            images, labels = train.batch(index)
            draws = Draws((seed, "training", number), index)
            images = augmented(images, self.config.training.augment, draws)
            passed = self.config.regime.training_pass(self.classifier, images, labels, draws)
            loss = passed.losses.mean()
            self._step(loss)
            self.classifier.head.update(passed.features.detach(), labels)
            losses.append(loss.detach())
            correct += (passed.logits.detach().argmax(dim=1) == labels).sum()
        return torch.stack(losses).cpu(), int(correct)

    def _set_rate(self, step: int, steps_per_epoch: int) -> None:
        """Sets each group's learning rate for a step, counted from the training's first."""
        training = self.config.training
        factor = training.schedule.factor(step, training.epochs * steps_per_epoch)
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            group["lr"] = training.lr * rate * factor

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(
                self.classifier.parameters(), self.config.training.clip_norm
            )
        self.optimizer.step()

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
