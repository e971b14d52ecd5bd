"""What is deployed: transform, normalisation, backbone and the loss's head in one module."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainables.backbones.base import Backbone
from trainables.datasets.base import Dataset
from trainables.losses.base import Head, Loss, Unknown
from trainables.seeding import Draws, initialise
from trainables.transforms.base import Transform, Transformation


class TrainingPass(NamedTuple):
    """What one pass over a batch gives to training.

    Attributes:
        losses: the label-dependent training loss of each sample, (B,).
        logits: deployed logits, (B, K), without a gradient.
        features: penultimate features, (B, D).
    """

    losses: Tensor
    logits: Tensor
    features: Tensor


Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # means and SDs of the channels


class Classifier(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> deployed logits (B, K).

    Normalisation lives inside, so that attacks see [0, 1]. Attacks may differentiate the
    raw logits, the deployed ones, or the training loss; accuracy is the deployed argmax.

    A transform that draws at random needs to be told its `draws`; others ignore them.

    Attributes:
        autocast: the type that the backbone computes in while it is trained, if not the
            parameters' own. The head and every evaluation keep full precision.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        transform: Transformation,
        backbone: nn.Module,
        head: Head,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.head = head
        self.autocast = autocast
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def stochastic(self) -> bool:
        """Whether the deployed model draws at random."""
        return self.transform.stochastic

    def forward(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Deployed logits, (B, K)."""
        return self.head.deployed(self.raw(images, draws))

    def inputs(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """What the backbone is given: images after the transform, normalised."""
        normalised: Tensor = (self.transform(images, draws) - self.mean) / self.std
        return normalised

    def features(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Penultimate features h, (B, D), in the parameters' precision."""
        inputs = self.inputs(images, draws)
        lower = self.autocast is not None and self.training
        with torch.autocast(inputs.device.type, dtype=self.autocast, enabled=lower):
            features: Tensor = self.backbone(inputs)
        return features.to(inputs.dtype)

    def raw(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Raw logits z, (B, K)."""
        logits: Tensor = self.head(self.features(images, draws))
        return logits

    def training_pass(
        self, images: Tensor, labels: Tensor, draws: Draws | None = None
    ) -> TrainingPass:
        """Training losses, deployed logits and features of a batch."""
        return self.training_pass_from(self.features(images, draws), labels)

    def training_pass_from(self, features: Tensor, labels: Tensor) -> TrainingPass:
        """The same of a batch whose features, (B, D), are there already."""
        with torch.no_grad():
            logits = self.head.deployed(self.head(features))
        return TrainingPass(self.head.loss(features, labels), logits, features)


@contextlib.contextmanager
def frozen(classifier: Classifier, part: nn.Module) -> Iterator[None]:
    """Eval mode of `part` and no gradients on parameters within, everything as it was after."""
    modes = {module: module.training for module in part.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in classifier.parameters()}
    part.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
        for module, mode in modes.items():
            module.training = mode


def refusal(
    *, dataset: Dataset, backbone: Backbone, loss: Loss, transform: Transform
) -> str | None:
    """Why these parts cannot make a model; None if they can."""
    return (
        transform.refuses(dataset.shape)
        or _misfit(backbone, transform, dataset.shape)
        or _without_features(backbone, loss)
        or loss.refuses(backbone.width, dataset.classes)
    )


def _without_features(backbone: Backbone, loss: Loss) -> str | None:
    if backbone.width == 0 and not isinstance(loss, Unknown):
        what = f"{backbone.name} gives logits itself: it is attacked, not trained"
        return f"{what}; give its `checkpoint`, and no loss"
    return None


@functools.cache
def _misfit(backbone: Backbone, transform: Transform, shape: tuple[int, int, int]) -> str | None:
    """Tries one image: whatever a backbone, or a user's own, asks of a size shows here."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers of no size, which fail below
        try:
            network, transformation = backbone.build(shape).eval(), transform.build()
            for training in (True, False):
                transformation.train(training)
                network(transformation(torch.zeros(1, *shape), Draws((0,), torch.zeros(1))))
        except Exception as error:
            size = " x ".join(map(str, shape))
            return f"{backbone.name} cannot take images of {size} ({transform.name}): {error}"
    return None


def build_classifier(
    *,
    dataset: Dataset,
    backbone: Backbone,
    loss: Loss,
    transform: Transform,
    seed: int | None,
    normalisation: Normalisation | None = None,
    autocast: torch.dtype | None = None,
) -> Classifier:
    """A classifier with parameters drawn by (seed, layer name), on the CPU.

    Trials that differ only in the loss start from the same weights. Without a seed, for weights
    that are loaded, they stay as the layers make them. The normalisation is the data set's by
    default.

    Raises:
        ValueError: the parts do not go together.
    """
    reason = refusal(dataset=dataset, backbone=backbone, loss=loss, transform=transform)
    if reason is not None:
        raise ValueError(reason)
    mean, std = normalisation or (dataset.mean, dataset.std)
    classifier = Classifier(
        transform=transform.build(),
        backbone=backbone.build(dataset.shape),
        head=loss.head(backbone.width, dataset.classes),
        mean=mean,
        std=std,
        autocast=autocast,
    )
    if seed is not None:
        initialise(classifier, seed)
    return classifier
