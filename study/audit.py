"""The attacks of an audit: what has to be run before a headline can be believed (METHODS 4).

Trainables run them as they run any attack; `analysis.audit` compares their outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from study.check import matching
from study.spec import Audit, Study
from trainables.attacks.autoattack import AutoAttack
from trainables.attacks.base import Attack
from trainables.attacks.fgsm import FGSM
from trainables.attacks.gaussian import Gaussian
from trainables.attacks.pgd import PGD
from trainables.attacks.simba import SimBA
from trainables.attacks.square import Square
from trainables.attacks.surfaces import EOT
from trainables.attacks.transfer import Transfer
from trainables.errors import Mistake

STEPS = (50, 200)  # at one step length
RESTARTS = 5
RIVALS = 9
SEARCH = 300  # SimBA's queries
# Unbounded, for practical purposes: 10 in L2 on 28 x 28 pixels, 19.8 on CIFAR-10.
HUGE = {"l2": {"budget": "l2_rms", "eps": 10 / 28}, "linf": {"budget": "linf", "eps": 1.0}}
HUGE_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One attack of an audit.

    Attributes:
        check: what it is for, as `analysis.audit` knows it.
        attack: what is run.
        thorough: whether it is too slow for every point of a grid.
        draws: whether it is for models that draw at random alone.
    """

    check: str
    attack: Attack
    thorough: bool = False
    draws: bool = False


def audit_attacks(
    study: Study, settings: Sequence[Attack], mistakes: list[Mistake]
) -> Iterator[Planned]:
    """The audit of the headline, over all surfaces that the study attacks in its setting.

    Args:
        study: names the headline and the audit's sizes.
        settings: every setting of the headline's attack.
        mistakes: what keeps it from being audited is added here.
    """
    audit = study.audit
    found = matching(study.headline, settings)
    surfaces = [attack for attack in found if isinstance(attack, PGD) and attack.budget.threat]
    if audit is None or not found:
        return
    if len(surfaces) < len(found) or any(attack.targeted for attack in surfaces):
        what = "expected an untargeted pgd in a ball as the headline: nothing else is audited yet"
        mistakes.append(Mistake("audit", what))
        return
    yield from _once(surfaces[0], audit, audit.transfer or study.compare.baseline)
    for attack in surfaces:
        yield from _each(attack)


def _once(headline: PGD, audit: Audit, source: str | None) -> Iterator[Planned]:
    """What is run once in the headline's ball."""
    ball: dict[str, Any] = {"budget": headline.budget, "eps": headline.eps}
    longer = PGD(**ball, steps=STEPS[0], surface="margin_raw")
    yield Planned(check="noise", attack=Gaussian(**ball))
    yield Planned(
        check="autoattack", attack=AutoAttack(**ball, queries=audit.queries), thorough=True
    )
    yield Planned(check="square", attack=Square(**ball, steps=audit.queries), thorough=True)
    targets = replace(headline, surface="margin_raw", rivals=RIVALS)  # as long as the headline
    yield Planned(check="targets", attack=targets, thorough=True)
    if headline.norm == "l2":
        simba = SimBA(**ball, basis="dct", steps=SEARCH)
        yield Planned(check="simba", attack=simba, thorough=True)
    if source is not None:
        transfer = Transfer(source=source, using=replace(longer, stop="last"))
        yield Planned(check="transfer", attack=transfer, thorough=True)


def _each(attack: PGD) -> Iterator[Planned]:
    """What is run for each surface."""
    ball: dict[str, Any] = {"budget": attack.budget, "eps": attack.eps, "surface": attack.surface}
    huge: dict[str, Any] = {**HUGE[attack.norm], "steps": HUGE_STEPS}
    yield Planned(check="single", attack=FGSM(**ball))
    yield Planned(check="unbounded", attack=replace(attack, **huge, alpha=None, alpha_for=None))
    for factor in (0.5, 2):
        yield Planned(check="eps", attack=replace(attack, eps=factor * attack.eps))
    if attack.surface.startswith("ce"):
        yield Planned(check="rescale", attack=replace(attack, rescale="unit"))
    yield Planned(check="eot", attack=replace(attack, eot=2 * EOT), draws=True)
    held = PGD(**ball, steps=STEPS[0], alpha_for=STEPS[0])
    for steps in STEPS:
        yield Planned(check="steps", attack=replace(held, steps=steps), thorough=True)
    restarts = replace(held, restarts=RESTARTS, random_start=True)
    yield Planned(check="restarts", attack=restarts, thorough=True)
