"""What all tests share: one thread, no telemetry, small real models, trained once and kept."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import warnings

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from trainables import registry
from trainables.attacks.base import Batch
from trainables.classifier import Classifier
from trainables.config import ModelConfig, Training
from trainables.datasets.base import Splits
from trainables.datasets.load import load_splits
from trainables.execution import Execution
from trainables.losses.base import Head, Loss
from trainables.seeding import Draws
from trainables.training import Trainer, load_weights, new_classifier, weights_of
from trainables.transforms.none import NoTransform

torch.set_num_threads(1)
# A shell that starts a job in the background has it ignore Ctrl-C, and so all of its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples in every run; models are slow on the first call and fixtures never change.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("tests")

CPU = Execution()
LONGEST = "test_documentation.py"  # it runs every command of the README


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that of two processes none waits long for the other."""
    items.sort(key=lambda item: item.path.name != LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the commands that they run, keep what they keep in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port of this machine's loopback that nobody listens on."""

    def find() -> int:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            return int(server.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def model_config() -> Callable[..., ModelConfig]:
    """Makes a model's configuration: LeNet-5 on mnist5k, with what a test wants otherwise."""

    def make(
        loss: str | Mapping[str, Any] = "sce",
        *,
        seed: int = 0,
        backbone: Any = "lenet5",
        dataset: Any = "mnist5k",
        regime: Any = "standard",
        transform: Any = "none",
        **training: Any,
    ) -> ModelConfig:
        parts: dict[str, Any] = {
            "dataset": registry.build("dataset", dataset),
            "backbone": registry.build("backbone", backbone),
            "loss": registry.build("loss", loss),
            "regime": registry.build("regime", regime),
            "transform": registry.build("transform", transform),
        }
        return ModelConfig(**parts, training=Training(**training), seed=seed)

    return make


@pytest.fixture(scope="session")
def splits(model_config: Callable[..., ModelConfig]) -> Splits:
    """The splits of mnist5k."""
    return load_splits(model_config().dataset, CPU)


def _kept(name: str, config: ModelConfig, splits: Splits) -> Classifier:
    """The model kept as `tests/models/<name>.safetensors`; trained and written when it is gone.

    Kept, since another processor rounds otherwise and would train another model: what an
    attack takes from it would be no fixed number.
    """
    path = Path(__file__).parent / "models" / f"{name}.safetensors"
    if not path.exists():
        trainer = Trainer(config, splits, CPU)
        while not trainer.done:
            trainer.epoch()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(weights_of(trainer.classifier))
    classifier = new_classifier(config, CPU)
    load_weights(classifier, path.read_bytes())
    return classifier.eval()


@pytest.fixture(scope="session")
def sce(model_config: Callable[..., ModelConfig], splits: Splits) -> Classifier:
    """LeNet-5 trained on mnist5k with SCE, in eval mode; not to be changed."""
    return _kept("sce", model_config("sce"), splits)


@pytest.fixture(scope="session")
def isce(model_config: Callable[..., ModelConfig], splits: Splits) -> Classifier:
    """LeNet-5 trained on mnist5k with I-SCE (1, 0.1), in eval mode; not to be changed."""
    return _kept("isce", model_config({"name": "isce", "s": 1.0, "m": 0.1}), splits)


@pytest.fixture(scope="session")
def on_logits() -> Callable[..., Head]:
    """Makes a loss's head in float64 whose linear layer is the identity: features are logits."""

    def make(loss: Loss, classes: int = 10) -> Head:
        head = loss.head(classes, classes).double()
        with torch.no_grad():
            head.linear.weight.copy_(torch.eye(classes))
            head.linear.bias.zero_()
        return head.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def affine() -> Callable[..., Classifier]:
    """Makes the classifier W x + b of images (B, 1, H, W), with any loss's linear head."""

    def make(weight: Tensor, bias: Tensor, loss: Loss | None = None) -> Classifier:
        loss = loss or registry.build("loss", "sce")
        classes, width = weight.shape
        head = loss.head(width, classes)
        classifier = Classifier(
            transform=NoTransform().build(),
            backbone=nn.Flatten(),
            head=head,
            mean=(0.0,),
            std=(1.0,),
        ).to(weight.dtype)
        with torch.no_grad():
            head.linear.weight.copy_(weight)
            head.linear.bias.copy_(bias)
        return classifier.eval()

    return make


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., Batch]:
    """Makes the batch that `Attack.perturb` is given."""

    def make(
        images: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        indices: Tensor | None = None,
        seed: int = 0,
    ) -> Batch:
        indices = torch.arange(len(images)) if indices is None else indices
        draws = Draws((seed,), indices)
        logits = torch.zeros(len(images), 10)
        return Batch(images=images, labels=labels, targets=targets, logits=logits, draws=draws)

    return make


@pytest.fixture(scope="session")
def right(splits: Splits) -> Callable[..., tuple[Tensor, Tensor]]:
    """Gives the first n test images that a classifier gets right, with their labels."""

    def first(classifier: Classifier, n: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            hits = classifier(splits.test.images).argmax(dim=1) == splits.test.labels
        chosen = hits.nonzero().squeeze(1)[:n]
        return splits.test.images[chosen], splits.test.labels[chosen]

    return first


def _quietly_imported(name: str) -> ModuleType:
    """Imports a reference whose own import warns; our warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def foolbox() -> ModuleType:
    """The first reference for attacks."""
    return _quietly_imported("foolbox")


@pytest.fixture(scope="session")
def torchattacks() -> ModuleType:
    """The second reference for attacks."""
    return _quietly_imported("torchattacks")
