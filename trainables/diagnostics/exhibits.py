"""Images before and under attack, to be looked at."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trainables.attacks.base import Attack, AttackField
from trainables.attacks.surfaces import objective
from trainables.classifier import Classifier
from trainables.datasets.base import Split
from trainables.diagnostics.base import Diagnostic, Findings
from trainables.losses.base import Loss
from trainables.registry import component
from trainables.seeding import Draws

FIRST = 32  # from the front of the split
EXTREME = 8  # at either end of the margin under attack


@component("exhibits", revision=1)
class Exhibits(Diagnostic):
    """Clean and attacked pairs: the first 32 images, and the 8 worst and 8 best.

    Worst and best are by the margin z_y - max_{j != y} z_j of the raw logits under attack,
    among images that were right before: most confidently wrong, most safely right.

    Arrays, a row an exhibit: `index` (place in the split), `clean` and `attacked` (C, H, W),
    `label`, `before` and `after` (predicted classes), `margin`, `l2`, `linf`; `first`, `worst`
    and `best` hold rows. Numbers: `accuracy`, under this attack on these images.

    Attributes:
        attack: the study's leading attack by default, on a margin if that is among its surfaces.
    """

    attack: AttackField | None = None

    def filled(self, loss: Loss, headline: Attack, *, stochastic: bool) -> Exhibits:
        """With the leading attack in place of none."""
        attack = (self.attack or headline).settled(loss, stochastic=stochastic)
        return replace(self, attack=attack)

    def examine(self, classifier: Classifier, split: Split, seed: int) -> Findings:
        """Attacks all images, and keeps some."""
        attack = self.attack
        assert attack is not None, "not `filled`"

        def look(images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
            attacked, outcome = attack.craft(classifier, images, labels, indices=index, seed=seed)
            draws = Draws((seed, "judge", 0), index)
            with torch.no_grad():
                before = classifier(images, draws).argmax(dim=1)
                margin, after = objective("margin_raw", classifier, attacked, labels, None, draws)
            return {
                "index": index,
                "clean": images.cpu(),
                "attacked": attacked.cpu(),
                "label": labels.cpu(),
                "before": before.cpu(),
                "after": after.argmax(dim=1).cpu(),
                "margin": -margin.cpu(),
                "l2": outcome.l2,
                "linf": outcome.linf,
                "share": outcome.correct_after / outcome.passes,
            }

        parts = [look(*batch) for batch in split.batches()]
        rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        accuracy = float(rows.pop("share").double().mean())
        return Findings(arrays=_chosen(rows), numbers={"accuracy": accuracy})


def _chosen(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The exhibits' rows, and where the three groups stand among them."""
    right = (rows["before"] == rows["label"]).nonzero().squeeze(1)
    ranked = right[rows["margin"][right].argsort(stable=True)]
    groups = {
        "first": torch.arange(min(FIRST, len(rows["label"]))),
        "worst": ranked[:EXTREME],
        "best": ranked.flip(0)[:EXTREME],
    }
    kept = torch.cat(list(groups.values())).unique()
    places = {name: torch.searchsorted(kept, members) for name, members in groups.items()}
    return {**{name: value[kept] for name, value in rows.items()}, **places}
