"""Our epoch beside a bare loop and beside the usual one, in one process and one run.

python benchmarks/training.py [--data FOLDER] [--images 12800] [--turns 7] [--json FILE]

- `ours`: `Trainer.epoch()`.
- `bare`: a loop written out, on the same layers in the same layout with batches of floats that lie
  ready in memory, their labels beside them; each step's loss is kept.
- `usual`: a torchvision data set with `ToTensor` and `Normalize` behind a shuffling `DataLoader`,
  in this process or with two workers (which get cores of their own), on torch's default layout.

LeNet-5 on MNIST, then ResNet-32 on CIFAR-10, ours and bare alone; on mnist5k where FOLDER lacks
them. Everyone trains one epoch of the same number of images with Adam, in batches of 128, with one
thread, and then measures accuracy on the same number of validation images. They take turns, each
epoch after another's, since the speed of a machine drifts; a ratio is the median over the turns of
the ratio within a turn. Exit status 1 where one is not what is wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from trainables import registry
from trainables.config import ModelConfig, Training
from trainables.datasets.base import BATCH, Split, Splits, load_splits
from trainables.execution import default_data, prepare
from trainables.training import Trainer

SIZE = 128  # images a step
SLOWER, FASTER = 1.05, 1.5  # ours is at most so much slower than bare, at least so much faster

Contestant = Callable[[], None]


class Normalized(nn.Sequential):
    """Layers whose inputs are normalised first, as our classifier's are."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images - self.mean) / self.std)


class Digits(Dataset[tuple[Any, int]]):
    """mnist5k as torchvision shows MNIST: each image a PIL image that is transformed."""

    def __init__(self, split: Split, transform: Callable[[Any], Tensor]) -> None:
        self.split = split
        self.transform = transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.split.pixels[index, 0].numpy())
        return self.transform(image), int(self.split.labels[index])


def bare(config: ModelConfig, splits: Splits) -> Contestant:
    """An epoch of a loop written out."""
    layers = config.backbone.build(config.dataset.shape)
    last = nn.Linear(config.backbone.width, config.dataset.classes)
    net = Normalized(config.dataset.mean, config.dataset.std, layers, last)
    net = net.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    order = torch.randperm(len(splits.train))
    batches = [splits.train.batch(index) for index in order.split(SIZE)]
    held_out = [(images, labels) for images, labels, _ in splits.validation.batches(BATCH)]

    def epoch() -> None:
        net.train()
        losses = []
        for images, labels in batches:
            loss = F.cross_entropy(net(images), labels)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        torch.stack(losses).mean().item()
        validate(net, held_out)

    return epoch


def usual(config: ModelConfig, splits: Splits, root: Path | None, workers: int) -> Contestant:
    """An epoch as tutorials have it."""
    shown = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Normalize(config.dataset.mean, config.dataset.std),
        ]
    )
    whole: Any = Digits(splits.train, shown)
    if root is not None:
        whole = torchvision.datasets.MNIST(root, train=True, download=True, transform=shown)
    n, held_out = len(splits.train), len(splits.validation)
    how = {"num_workers": workers, "persistent_workers": workers > 0}
    train = DataLoader(Subset(whole, range(n)), batch_size=SIZE, shuffle=True, **how)
    rest = Subset(whole, range(len(whole) - held_out, len(whole)))
    validation = DataLoader(rest, batch_size=BATCH, **how)
    layers = config.backbone.build(config.dataset.shape)
    net = nn.Sequential(layers, nn.Linear(config.backbone.width, config.dataset.classes))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)

    def epoch() -> None:
        net.train()
        total = 0.0
        for images, labels in train:
            adam.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            adam.step()
            total += loss.item()
        validate(net, validation)

    return epoch


@torch.no_grad()
def validate(net: nn.Module, batches: Iterable[Any]) -> float:
    """Accuracy over batches."""
    net.eval()
    right = [(net(images).argmax(dim=1) == labels).double().mean() for images, labels in batches]
    return float(torch.stack(right).mean())


def config_of(dataset: Any, backbone: str) -> ModelConfig:
    """Cross entropy on a data set."""
    chosen = {"dataset": dataset, "backbone": backbone, "loss": "sce", "regime": "standard"}
    parts: dict[str, Any] = {
        kind: registry.build(kind, spec) for kind, spec in {**chosen, "transform": "none"}.items()
    }
    training = Training(epochs=10**6, batch_size=SIZE)
    return ModelConfig(**parts, training=training, seed=0)


def race(contestants: dict[str, Contestant], turns: int) -> dict[str, list[float]]:
    """Seconds of each one's epochs; the first turn warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        names = list(contestants)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - started)
    return {name: found[1:] for name, found in seconds.items()}


def show(title: str, seconds: dict[str, list[float]], steps: int) -> dict[str, float]:
    """Prints a table; the ratios of everyone's seconds to ours."""
    print(f"\n{title}\n\n| | s an epoch, median | least | ms a step | ours is faster by |")
    print("| --- | --- | --- | --- | --- |")
    ratios = {}
    for name, found in seconds.items():
        pairs = zip(found, seconds["ours"], strict=True)
        ratios[name] = statistics.median(other / ours for other, ours in pairs)
        median, least = statistics.median(found), min(found)
        step = 1000 * median / steps
        print(f"| {name} | {median:.2f} | {least:.2f} | {step:.1f} | {ratios[name]:.2f} |")
    return ratios


def compete(
    kind: str, dataset: Any, backbone: str, root: Path | None, options: argparse.Namespace
) -> dict[str, Any]:
    """All contestants on one model."""
    config = config_of(dataset, backbone)
    execution = prepare(threads=1, gpu=0, channels_last=True, data=str(options.data))
    splits = load_splits(config.dataset, execution)
    trainer = Trainer(config, splits, execution)

    def ours() -> None:
        trainer.epoch()

    contestants: dict[str, Contestant] = {"ours": ours, "bare": bare(config, splits)}
    if kind == "lenet5":
        contestants["usual"] = usual(config, splits, root, workers=0)
        contestants["usual, 2 workers"] = usual(config, splits, root, workers=2)
    seconds = race(contestants, options.turns)
    n, held_out = len(splits.train), len(splits.validation)
    title = f"{backbone} on {config.dataset.name}, {n} images and {held_out} for validation"
    return {"seconds": seconds, "ratios": show(title, seconds, -(-n // SIZE))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data().expanduser())
    parser.add_argument("--images", type=int, default=12800, help="of LeNet-5's epoch")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print({"cores": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__})
    there = {name: (options.data / name).exists() for name in ("MNIST", "cifar-10-batches-py")}
    with tempfile.TemporaryDirectory() as folder:
        root, digits, colours = None, "mnist5k", "mnist5k"
        if there["MNIST"]:
            root, digits = Path(folder), "mnist"  # torchvision unpacks where it reads
            shutil.copytree(options.data / "MNIST", root / "MNIST")
        if there["cifar-10-batches-py"]:
            colours = "cifar10"
        sizes = {"train": min(options.images, 55000 if root else 4000), "validation": 500}
        few = {"train": 10 * SIZE, "validation": SIZE}
        found = {
            "lenet5": compete("lenet5", {"name": digits, "subset": sizes}, "lenet5", root, options),
            "resnet32": compete(
                "resnet32", {"name": colours, "subset": few}, "resnet32", None, options
            ),
        }
    wanted = {
        f"{name} at most {SLOWER} times as slow as bare": run["ratios"]["bare"] >= 1 / SLOWER
        for name, run in found.items()
    }
    lead = found["lenet5"]["ratios"]["usual"]
    wanted[f"lenet5 at least {FASTER} times as fast as usual"] = lead >= FASTER
    print(
        "\n" + "\n".join(f"{'holds ' if holds else 'MISSED'}  {w}" for w, holds in wanted.items())
    )
    if options.json:
        found["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0 if all(wanted.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
