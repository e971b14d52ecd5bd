"""Transfer: adversarial images made on another trained model (Papernot et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from trainables.attacks.base import Attack, AttackField, Batch, Columns, Crafted, SourceModel
from trainables.attacks.budgets import Norm
from trainables.classifier import Classifier
from trainables.registry import component


@component("transfer", revision=1)
class Transfer(Attack):
    """What misleads the source is shown to this model, which the adversary never looks into.

    Attributes:
        source: the method of the study whose model is attacked, trained on the same data with
            the same backbone and seed; another seed where it would be the model itself. A
            planned cell has the model's id here, and runs when that model exists.
        using: the attack on it. `stop: last` goes on after the source is misled, which
            transfers better.
    """

    source: str
    using: AttackField

    @property
    def targeted(self) -> bool:
        """As the attack on the source."""
        return self.using.targeted

    @property
    def norm(self) -> Norm | None:
        """As of the attack on the source."""
        return self.using.norm

    @property
    def sources(self) -> tuple[str, ...]:
        """The one model."""
        return (self.source,)

    def radius(self, images: Tensor) -> Tensor | None:
        """As of the attack on the source."""
        return self.using.radius(images)

    def columns(self) -> Columns | None:
        """Listed as the attack on the source, whose name stands beside the source's."""
        columns = self.using.columns()
        if columns is None:
            return None
        inner = {"source": self.source, "using": self.using.name}
        return replace(columns, extra={**inner, **columns.extra})

    def aimed(self, find: Callable[[str], SourceModel | None]) -> Transfer | None:
        """At the id of the source's model, with an attack that suits its loss."""
        model = find(self.source)
        if model is None:
            return None
        attack = self.using.settled(model.loss, stochastic=model.stochastic)
        return replace(self, source=model.id, using=attack)

    def alike(self) -> Transfer:
        """One source, and attacks on it that one run can answer."""
        return replace(self, using=self.using.alike())

    def aims(self, logits: Tensor, labels: Tensor, indices: Tensor, seed: int) -> Tensor:
        """As the attack on the source."""
        return self.using.aims(logits, labels, indices, seed)

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """Attacks the source."""
        return self.perturb_each([self], classifier, batch)[0]

    def perturb_each(
        self, peers: Sequence[Self], classifier: Classifier, batch: Batch
    ) -> list[Crafted]:
        """Attacks the source once for all of them."""
        source = batch.models[self.source]
        with torch.no_grad():
            logits = source(batch.images, batch.draws.at("source"))
        attacks = [peer.using for peer in peers]
        return self.using.perturb_each(attacks, source, replace(batch, logits=logits))
