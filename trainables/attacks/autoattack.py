"""AutoAttack: four attacks with nothing to tune, each on what those before it left.

Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (arXiv 2003.01690).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from trainables.attacks.apgd import APGD
from trainables.attacks.base import Attack, Batch, Columns, Crafted, Eps, Steps, in_turn
from trainables.attacks.budgets import BallField, L2RootMeanSquare, Norm
from trainables.attacks.fab import FAB
from trainables.attacks.square import Square
from trainables.attacks.surfaces import EOT, Eot, Surface
from trainables.classifier import Classifier
from trainables.losses.base import Loss
from trainables.registry import component

STEPS = 100  # of APGD and FAB
RIVALS = 9
QUERIES = 5000
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
RAND = ("apgd-ce", "apgd-dlr")
STAGES = {"standard": STANDARD, "rand": RAND, "auto": (*STANDARD, "apgd-dlr")}


@component("autoattack", revision=1)
class AutoAttack(Attack):
    """The ensemble that robustness is reported by, on raw logits whatever is deployed.

    `standard`: APGD on cross entropy; APGD-T on the targeted DLR, then FAB-T, towards the nine
    likeliest wrong classes each; Square. `rand`, for models that draw at random: APGD on cross
    entropy, then on DLR, their gradients averaged over draws. All with 100 steps and one start.

    The targeted DLR needs four classes and DLR three: z_1 - z_3 is the numerator too with
    fewer, the ratio a constant and its gradient zero. The margin stands in there, where the
    original warns and then fails.

    Attributes:
        budget: how eps is read, a ball; `l2_rms` by default, as for `pgd`.
        eps: size of the budget, in its unit, >= 0.
        version: `auto` is `rand` for models that draw at random, `standard` for others.
        queries: of Square; 5000 in the original.
        eot: draws that gradients are averaged over on a model that draws at random.
    """

    budget: BallField = L2RootMeanSquare()
    eps: Eps
    version: Literal["auto", "standard", "rand"] = "auto"
    queries: Steps = QUERIES
    eot: Eot = EOT

    @property
    def norm(self) -> Norm:
        """The budget's norm."""
        return self.budget.norm

    @property
    def stages(self) -> tuple[str, ...]:
        """The attacks it is made of; all that it may be made of while that is open."""
        return STAGES[self.version]

    @property
    def parts(self) -> tuple[Attack, ...]:
        """Its stages."""
        attacks = self._attacks(classes=4)  # with fewer it is only other surfaces
        return tuple(attacks[name] for name in self.stages)

    def radius(self, images: Tensor) -> Tensor:
        """The largest perturbation of each image, (B, 1, 1, 1)."""
        return self.budget.radius(images, self.eps, STEPS)

    def columns(self) -> Columns:
        """Listed with APGD's steps."""
        return Columns(
            budget=self.budget.name,
            norm=self.norm,
            targeted=False,
            surface="raw",
            eps=self.eps,
            steps=STEPS,
            extra={**self.budget.parameters(), **self.extra("budget", "eps")},
        )

    def settled(self, loss: Loss, *, stochastic: bool) -> Attack:
        """With the version that suits the models; `rand` has no queries that could differ."""
        attack = cast(AutoAttack, super().settled(loss, stochastic=stochastic))
        version = attack._version(stochastic)
        queries = attack.queries if version == "standard" else QUERIES
        return replace(attack, version=version, queries=queries)

    def _version(self, stochastic: bool) -> Literal["standard", "rand"]:
        if self.version == "auto":
            return "rand" if stochastic else "standard"
        return self.version

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """One attack after another, on what is unbroken."""
        names = STAGES[self._version(classifier.stochastic)]
        attacks = self._attacks(batch.logits.shape[1])
        attempts = [functools.partial(attacks[name].perturb, classifier) for name in names]
        made = in_turn(classifier, batch, attempts)
        assert made.stage is not None
        places = torch.tensor([self.stages.index(name) for name in names], device=made.stage.device)
        return replace(made, stage=places[made.stage])

    def _attacks(self, classes: int) -> dict[str, Attack]:
        ball: dict[str, Any] = {"budget": self.budget, "eps": self.eps}
        dlr: Surface = "dlr_raw" if classes > 2 else "margin_raw"
        targeted: Surface = "dlr_raw" if classes > 3 else "margin_raw"
        apgd = functools.partial(APGD, **ball, steps=STEPS, eot=self.eot)
        return {
            "apgd-ce": apgd(surface="ce_raw"),
            "apgd-dlr": apgd(surface=dlr),
            "apgd-t": apgd(surface=targeted, rivals=RIVALS),
            "fab-t": FAB(**ball, steps=STEPS, rivals=RIVALS),
            "square": Square(**ball, steps=self.queries),
        }
