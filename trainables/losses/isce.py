"""Inference-softmax cross entropy (I-SCE), the paper's loss (its section 3.2, eqs. 2 and 3)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trainables.losses.base import Head, LinearHead, Loss
from trainables.registry import component

Normalize = Literal["logits", "features", "none"]


@component("isce", revision=1)
class ISCE(Loss):
    """CE(g, y) with g_j = f_j and g_y = s f_y + m (eq. 3), f being L2-normalised.

    Deployed logits are f. The sign is that of an anti-margin: ArcFace subtracts from the
    target's logit, I-SCE adds to it. s = 1, m = 0 is cross entropy on f ("norm-SCE").

    Attributes:
        s: scale of the true class's logit, >= 1; 1 is the paper's choice.
        m: added to the true class's logit, >= 0; 0.1 is the paper's choice.
        normalize: what is divided by its L2 norm. `logits`: f = z / |z| (the paper's
            f_i ~ 0.97 and its sum of 8 fit this one); `features`: f = W h/|h| + b (its
            section 3.4); `none`: f = z.
    """

    s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    m: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    normalize: Normalize = "logits"

    def head(self, width: int, classes: int) -> Head:
        """A linear layer, normalised as `normalize` says."""
        return _Head(width, classes, self)

    @property
    def deploys_raw(self) -> bool:
        """Only normalised logits differ from what the linear layer gives."""
        return self.normalize != "logits"

    @property
    def infers_deployed(self) -> bool:
        """Only s = 1, m = 0 puts nothing on the largest logit."""
        return (self.s, self.m) == (1, 0)

    @property
    def trains_deployed(self) -> bool:
        """Only s = 1, m = 0 puts nothing on the true class's logit."""
        return (self.s, self.m) == (1, 0)


class _Head(LinearHead):
    def __init__(self, width: int, classes: int, config: ISCE) -> None:
        super().__init__(width, classes)
        self.config = config

    def forward(self, features: Tensor) -> Tensor:
        if self.config.normalize == "features":
            features = F.normalize(features, dim=1)
        return super().forward(features)

    def deployed(self, raw: Tensor) -> Tensor:
        return F.normalize(raw, dim=1) if self.config.normalize == "logits" else raw

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        f = self.deployed(self(features))
        return F.cross_entropy(self._infer(f, labels), labels, reduction="none")

    def inner(self, features: Tensor, labels: Tensor) -> Tensor:
        """The margin of the raw logits, max_{j != y} z_j - z_y.

        Cross entropy is blind where this loss is smallest with s = 1: f_y stands out, the
        other f_j are equal, and the gradients of CE(f) and CE(z) with respect to z point along
        z itself, which changes its length and no class. The margin names one rival and is
        free of scale; most of its gradient lies across z.
        """
        raw: Tensor = self(features)
        others = raw.masked_fill(_one_hot(labels, raw), -torch.inf)
        rival = others.max(dim=1).values  # one class of those tied: amax averages gradients
        return rival + F.nll_loss(raw, labels, reduction="none")  # nll: -z_y

    def inferred(self, raw: Tensor) -> Tensor:
        """Eq. 2: s and m are put on the largest logit, whichever class that is."""
        f = self.deployed(raw)
        return self._infer(f, f.argmax(dim=1))

    def _infer(self, f: Tensor, index: Tensor) -> Tensor:
        """Puts s f_i + m in place of f_i, i = `index`."""
        return torch.where(_one_hot(index, f), self.config.s * f + self.config.m, f)


def _one_hot(index: Tensor, logits: Tensor) -> Tensor:
    return F.one_hot(index, logits.shape[1]).to(torch.bool)
