"""Where test images lie in feature space (the paper's Figure 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from trainables.backbones.base import Backbone
from trainables.classifier import Classifier
from trainables.datasets.base import Split
from trainables.diagnostics.base import Diagnostic, Findings
from trainables.registry import component
from trainables.seeding import Draws


@component("embedding", revision=1)
class Embedding(Diagnostic):
    """Penultimate features of clean images; with `embedding: 3` in the backbone, Figure 4.

    Arrays: `features` (N, D), `labels` (N,), `predicted` (N,). Numbers: `fisher`, the ratio of
    the features' variance between classes to that within (Fisher's criterion, its trace form; none
    where each class is one point);
    `nearest_mean`, the share of images nearest to the mean of their own class.
    """

    def refuses(self, backbone: Backbone) -> str | None:
        """A network that gives logits itself shows no features."""
        return None if backbone.width else f"{backbone.name} shows no features, logits alone"

    def examine(self, classifier: Classifier, split: Split, seed: int) -> Findings:
        """One pass over the images."""

        @torch.no_grad()
        def look(images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            features = classifier.features(images, Draws((seed, "embedding"), index))
            predicted = classifier.head.deployed(classifier.head(features)).argmax(dim=1)
            return features.cpu(), labels.cpu(), predicted.cpu()

        parts = zip(*(look(*batch) for batch in split.batches()), strict=True)
        features, labels, predicted = (torch.cat(part) for part in parts)
        return Findings(
            arrays={"features": features, "labels": labels, "predicted": predicted},
            numbers=_separation(features.double(), labels),
        )


def _separation(features: Tensor, labels: Tensor) -> dict[str, float]:
    present, label = labels.unique(return_inverse=True)
    members = one_hot(label, len(present)).double()
    means = members.T @ features / members.sum(dim=0).unsqueeze(1)
    within = (features - means[label]).square().sum()
    between = (means[label] - features.mean(dim=0)).square().sum()
    nearest = torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    ratio = {"fisher": float(between / within)} if within > 0 else {}
    return {**ratio, "nearest_mean": float((nearest == label).double().mean())}
