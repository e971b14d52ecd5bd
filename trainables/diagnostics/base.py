"""What a diagnostic is: something to know of a trained model that is no accuracy."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainables.attacks.base import Attack
from trainables.backbones.base import Backbone
from trainables.classifier import Classifier
from trainables.datasets.base import Split
from trainables.losses.base import Loss
from trainables.registry import Component


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a diagnostic found.

    Attributes:
        arrays: by name, on the CPU; what figures are drawn from.
        numbers: by name, finite; what the run list shows.
    """

    arrays: dict[str, Tensor]
    numbers: dict[str, float]


class Diagnostic(Component):
    """Planned, stored and tracked like an attack, so that analysis needs no torch."""

    kind: ClassVar[str] = "diagnostic"

    def filled(self, loss: Loss, headline: Attack, *, stochastic: bool) -> Diagnostic:
        """The same with what it leaves to the study: the model's loss, the leading attack."""
        return self

    def refuses(self, backbone: Backbone) -> str | None:
        """Why it cannot be had of models with this backbone; None if it can."""
        return None

    @abstractmethod
    def examine(self, classifier: Classifier, split: Split, seed: int) -> Findings:
        """Looks at a model, which is in eval mode.

        Args:
            classifier: the trained model.
            split: the images to look at, in their fixed order.
            seed: of whatever is drawn.
        """
