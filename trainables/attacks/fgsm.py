"""The fast gradient sign method (Goodfellow et al. 2015) and its L2 form (Miyato et al. 2017)."""

from __future__ import annotations

from torch import Tensor

from trainables.attacks.base import Attack, Batch, Columns, Crafted, Eps
from trainables.attacks.budgets import BallField, L2RootMeanSquare, Norm
from trainables.attacks.pgd import PGD
from trainables.attacks.surfaces import EOT, Eot, Surface
from trainables.classifier import Classifier
from trainables.registry import component


@component("fgsm", revision=1)
class FGSM(Attack):
    """x <- clip(x + radius * steepest(grad J(x))): one step to the ball's surface.

    Linf: radius sign(g) (Goodfellow et al. 2015, "Explaining and harnessing adversarial
    examples", their section 4). L2: radius g / |g|_2 (FGM; Miyato et al. 2017, "Adversarial
    training methods for semi-supervised text classification", eq. 3). The optimum on a linear
    model; on others the weakest that follows a gradient.

    Attributes:
        budget: how eps is read, a ball; `l2_rms` by default, as for `pgd`.
        eps: size of the budget, in its unit, >= 0.
        targeted: towards a wrong class drawn once an image.
        surface: what is differentiated; the original's is `ce_raw`.
        eot: draws that the gradient is averaged over on a model that draws at random.
    """

    budget: BallField = L2RootMeanSquare()
    eps: Eps
    targeted: bool = False
    surface: Surface = "margin_raw"
    eot: Eot = EOT

    @property
    def norm(self) -> Norm:
        """The budget's norm."""
        return self.budget.norm

    def radius(self, images: Tensor) -> Tensor:
        """How far the step goes, (B, 1, 1, 1)."""
        return self._step.radius(images)

    def columns(self) -> Columns:
        """Listed as PGD of one step."""
        return self._step.columns()

    @property
    def _step(self) -> PGD:
        """PGD of one step: its usual length, 2.5 radii, is projected onto the ball's surface."""
        return PGD(
            budget=self.budget,
            eps=self.eps,
            steps=1,
            targeted=self.targeted,
            surface=self.surface,
            eot=self.eot,
        )

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """The one step, at one query (a model that draws at random: at `eot`)."""
        return self._step.perturb(classifier, batch)
