"""Does the property of the paper's appendix A.2 hold on a trained model's own images?"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.attacks.base import Attack, AttackField
from trainables.attacks.deepfool import DeepFool
from trainables.classifier import Classifier
from trainables.datasets.base import Split
from trainables.diagnostics.base import Diagnostic, Findings
from trainables.losses.base import Loss
from trainables.losses.isce import ISCE
from trainables.registry import component
from trainables.seeding import Draws
from trainables.theory import check_property


@component("theory", revision=1)
class Theory(Diagnostic):
    """Compares L_I (eq. 7) with L (eq. 6) on images and on what just misleads the model.

    f are the deployed logits, delta is what `attack` finds, DeepFool by default: the paper's
    "minimum perturbation which makes the model just misclassified". Looked at are the images
    that the model gets right and the attack breaks.

    Arrays, a row an image: `index`, `label`, `f_i` (the true class's logit), `others` (sum of
    e^{f_j} over the other classes), `z` (the property's condition), `L`, `L_I`. Numbers:
    `broken`, how many images they are; shares of them for which f_i falls, as the paper takes
    for granted (`falls`), z > 0 (`holds`), z > 0 all along the line from f(x + delta) to f(x)
    (`holds_on_path`), L_I > L (`larger`), and z > 0 with L_I <= L (`violations`); the means of
    `f_i` and `others`, which Figure 5 takes to be 0.97 and 8.

    Attributes:
        s, m: of eq. 2; the model's own for I-SCE, else the paper's choice of 1 and 0.1.
        attack: what finds delta.
    """

    s: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    m: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    attack: AttackField = DeepFool()

    def filled(self, loss: Loss, headline: Attack, *, stochastic: bool) -> Theory:
        """With the s and m of an I-SCE model."""
        own = loss if isinstance(loss, ISCE) else ISCE()
        return replace(
            self,
            s=own.s if self.s is None else self.s,
            m=own.m if self.m is None else self.m,
            attack=self.attack.settled(loss, stochastic=stochastic),
        )

    def examine(self, classifier: Classifier, split: Split, seed: int) -> Findings:
        """Attacks the images, and compares the two intervals on those that break."""
        assert self.s is not None and self.m is not None, "not `filled`"

        def look(images: Tensor, labels: Tensor, index: Tensor) -> list[Tensor]:
            attacked, outcome = self.attack.craft(
                classifier, images, labels, indices=index, seed=seed
            )
            draws = Draws((seed, "judge", 0), index)
            with torch.no_grad():
                f, f_adv = classifier(images, draws).cpu(), classifier(attacked, draws).cpu()
            true = labels.cpu()
            broken = (outcome.correct_after == 0) & (f.argmax(dim=1) == true)
            return [part[broken] for part in (index, true, f, f_adv)]

        parts = zip(*(look(*batch) for batch in split.batches()), strict=True)
        index, labels, f, f_adv = (torch.cat(part) for part in parts)
        found = check_property(f.numpy(), f_adv.numpy(), labels.numpy(), self.s, self.m)
        own = torch.nn.functional.one_hot(labels, f.shape[1]).to(torch.bool)
        others = f.double().masked_fill(own, -torch.inf).logsumexp(dim=1).exp()
        arrays = {
            "index": index,
            "label": labels,
            "f_i": f[own].double(),
            "others": others,
            **{name: torch.from_numpy(getattr(found, name)) for name in ("z", "L", "L_I")},
        }
        counts = found.counts()
        broken = counts.pop("n")
        numbers = {name: count / broken for name, count in counts.items() if broken}
        means = {name: float(arrays[name].mean()) for name in ("f_i", "others") if broken}
        finite = {name: value for name, value in means.items() if value < float("inf")}
        return Findings(arrays=arrays, numbers={"broken": float(broken), **numbers, **finite})
