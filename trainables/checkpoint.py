"""Checkpoints from elsewhere: read, tried in their network, and kept as trained models are.

Safetensors alone: what is pickled could run any code when it is read.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from trainables.classifier import Classifier
from trainables.config import ModelConfig
from trainables.errors import BadCheckpoint, nearest
from trainables.execution import Execution
from trainables.seeding import Draws
from trainables.store import Store
from trainables.training import new_classifier

_PICKLED = (b"PK", b"\x80")  # how torch's files and bare pickles begin
_TOLD = 3  # wrong names that a message lists
_NETWORK = "backbone."  # where a user's network stands in the classifier


def require_safetensors(path: Path) -> None:
    """Looks at a file's beginning.

    Raises:
        BadCheckpoint: there is none, or it is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            pickled = file.read(2).startswith(_PICKLED)  # or a header of that length
    except OSError as error:
        hint = nearest(path.name, [other.name for other in path.parent.glob("*.safetensors")])
        what = f"cannot read {str(path)!r} ({error.strerror}){hint}"
        raise BadCheckpoint(f"{what}: expected a path beside the study file, or absolute") from None
    try:
        with safetensors.safe_open(path, "pt"):
            pass
    except safetensors.SafetensorError as error:
        what = f"expected {path.name!r} to be a safetensors file: {error}"
        raise BadCheckpoint(_how_to_convert(path) if pickled else what) from None


def _how_to_convert(path: Path) -> str:
    return (
        f"{path.name!r} is a pickle, which could run any code when it is read, so that none is "
        "read here; convert its state dict once, if you know where it is from:\n"
        "    import torch, safetensors.torch\n"
        f"    safetensors.torch.save_file(torch.load({path.name!r}, weights_only=True), "
        f"{path.with_suffix('.safetensors').name!r})"
    )


@functools.cache  # a study is planned more than once, and the configuration holds the digest
def misfit(config: ModelConfig, path: Path) -> str | None:
    """Why a checkpoint's weights make no model of its configuration; None if they do.

    Two images are tried: what comes out must be finite logits (2, K), the same twice.
    """
    try:
        classifier = new_classifier(config, Execution())
    except ValueError as error:
        return str(error)
    weights = safetensors.torch.load_file(path)
    wrong = _wrong_names(weights, _own_weights(classifier, config))
    if wrong:
        return f"{path.name} does not fit {config.backbone.name}: {wrong}"
    classifier.load_state_dict(_as_ours(weights, config))
    reason = _wrong_logits(classifier.eval(), config)
    return reason and f"{config.backbone.name} with the weights of {path.name} {reason}"


def digest_of(path: Path) -> str:
    """The SHA-256 of a checkpoint's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bring(config: ModelConfig, path: Path, store: Store) -> None:
    """Puts a checkpoint into the store, where it is a trained model like any other.

    Raises:
        BadCheckpoint: the file is no longer the one that was planned.
    """
    assert config.checkpoint is not None
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != config.checkpoint.sha256:
        raise BadCheckpoint(f"{str(path)!r} has changed since the study was planned: run it again")
    weights = _as_ours(safetensors.torch.load(data), config)
    store.write(
        f"models/{config.id}",
        {
            "weights.safetensors": safetensors.torch.save(weights),
            "config.json": json.dumps(config.spec(), indent=1).encode(),
            "history.json": b"[]",
            "execution.json": b"{}",
        },
    )


def _gives_logits(config: ModelConfig) -> bool:
    return config.backbone.width == 0


def _as_ours(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """A checkpoint's weights by their names in the classifier."""
    prefix = _NETWORK if _gives_logits(config) else ""
    return {f"{prefix}{name}": value for name, value in weights.items()}


def _own_weights(classifier: Classifier, config: ModelConfig) -> dict[str, Tensor]:
    """What a checkpoint must hold, by its names there."""
    module = classifier.backbone if _gives_logits(config) else classifier
    weights: dict[str, Tensor] = module.state_dict()
    return weights


def _wrong_names(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """What is missing, too much or of another shape; nothing where all fits."""
    missing = [
        f"{name!r} is missing{nearest(name, found.keys() - wanted.keys())}"
        for name in wanted
        if name not in found
    ]
    unknown = [f"{name!r} is not one of its weights" for name in found if name not in wanted]
    misshapen = [
        f"{name!r} is {_size(found[name])}, expected {_size(value)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    return "; ".join(told for group in (missing, unknown, misshapen) for told in _first(group))


def _first(told: list[str]) -> list[str]:
    rest = len(told) - _TOLD
    return [*told[:_TOLD], f"and {rest} more like it"] if rest > 0 else told


def _size(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"


def _wrong_logits(classifier: Classifier, config: ModelConfig) -> str | None:
    """What is wrong with what comes out of it."""
    size, classes = config.dataset.shape, config.dataset.classes
    images = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    draws = Draws((0, "try"), torch.arange(2))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        inputs = (classifier.transform(images, draws) - classifier.mean) / classifier.std
        one, other = (classifier.backbone(inputs) for _ in range(2))
    if not isinstance(one, Tensor):
        return f"gives {type(one).__name__}, expected a tensor of logits"
    with torch.no_grad():
        logits = classifier.head(one)
    if logits.shape != (2, classes):
        return f"gives {_size(logits)} for two images, expected logits 2 x {classes}"
    if not logits.isfinite().all():
        return "gives logits that are not finite"
    if not torch.equal(one, other):
        return "draws at random in eval mode: its results would not repeat"
    return None
