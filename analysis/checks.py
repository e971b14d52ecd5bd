"""The checks of an audit: what gives masked gradients and weak attacks away (METHODS 4).

Each compares a model's outcomes under one attack with those under others, image by image. The
tolerances stand at the top with their sources, the rules in words at the bottom, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.plan import Cell
from trainables import names

Outcomes = Mapping[str, Mapping[str, npt.NDArray[Any]]]
Shares = npt.NDArray[np.float64]

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"
AUTOATTACK = "autoattack"  # the check that a cell is trusted by

# Tolerances as shares of the images, by METHODS 4's rules. None is finer than one image.
CERTIFIED = 0.02  # rule 1: AutoAttack may take so much more
FEWEST_IMAGES = 150  # "Headline": fewer cannot certify that
STANDING = 0.005  # rule 1: Square may break so many that no gradient did
UNSETTLED = 0.01  # rules 2 and 4: more draws, steps or starts may change so much
UNBOUNDED = 0.01  # rule 3: without a bound so many may be left
BEATEN = 0.01  # rules 5 and 7; noise and single steps (Athalye et al. 2018, 3.1) as they
# Section 6, 11: untargeted accuracy so far above targeted is masking. Below it nine targets,
# which follow the same gradients, only search better: as many steps take 2 to 3.5 points more of
# I-SCE and of MMC's margin, where whatever needs no gradient is far behind. "Masked" at 1 point
# (rule 5) would say of an honest margin that it hides its gradients.
FAR_BEATEN = 0.1
OUT_OF_ORDER = 0.01  # a larger ball may leave so many more: as rules 5 and 7
ABOVE = 0.02  # rule 6: a surface may leave so many more than the headline
RESCALED = 0.02  # logits of unit scale may take so many more: as rule 6
GRADIENTLESS = 0.1  # rule 8: of the survivors
FAINT = 1e-10  # rule 8: the share below it is reported
# Of fewer a share says nothing; of 200 images they are 2 points at most, no more than what
# AutoAttack may take.
FEWEST_SURVIVORS = 5

_EXACT = 1e-9  # differences of shares are exact but for float64

HEADLINE, SURFACE, ELSEWHERE = "headline", "surface", "cell"


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: One of `CHECKS`.
        about: Metric of the surface that it speaks of; empty for the headline as a whole.
        rule: What must hold, in words.
        meaning: What a failure means: `masked` or `weak attack`.
        verdict: `pass`, `fail` or `not applicable`.
        numbers: What was compared, as fractions.
        n: Images that all of it was measured on.
        reason: Why it does not apply; empty where it does.
    """

    name: str
    about: str
    rule: str
    meaning: str
    verdict: str
    numbers: Mapping[str, float]
    n: int = 0
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether the rule is broken."""
        return self.verdict == FAIL


@dataclass(frozen=True)
class Subject:
    """What checks speak of.

    Attributes:
        kind: `HEADLINE`, `SURFACE` for a cell in its setting, `ELSEWHERE` for any other.
        metric: The cell's; empty for the headline.
        cells: Whose per-image worst it is.
        leading: Whose per-image worst leads its setting.
    """

    kind: str
    metric: str
    cells: tuple[Cell, ...]
    leading: tuple[Cell, ...]

    @property
    def word(self) -> str:
        """What its accuracy is called."""
        return "headline" if self.kind == HEADLINE else "surface"


class Evidence:
    """The outcomes of one model, and which cell stands for what.

    Args:
        cells: The plan's.
        headline: Metrics of the headline's test cells.
        outcomes: Metric -> arrays, one value an image; see `analysis.audit.judge`.
    """

    def __init__(self, cells: Sequence[Cell], headline: Sequence[str], outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self._audit = [cell for cell in cells if cell.check]
        own = [cell for cell in cells if cell.split == names.TEST and not cell.check]
        self._measured = [cell for cell in own if not cell.is_clean and cell.name in outcomes]
        leading = tuple(cell for cell in self._measured if cell.metric in headline)
        self.headline = Subject(HEADLINE, "", leading, leading)

    def cells(self) -> Iterator[Subject]:
        """Every test cell that has an attack, in the plan's order."""
        leading = self.headline.cells
        for cell in self._measured:
            if leading and cell.setting == leading[0].setting:
                yield Subject(SURFACE, cell.metric, (cell,), leading)
                continue
            peers = [peer for peer in self._measured if peer.setting == cell.setting]
            raw = [peer for peer in peers if peer.is_raw]
            yield Subject(ELSEWHERE, cell.metric, (cell,), tuple(raw or peers))

    def of_check(self, check: str, subject: Subject) -> list[Cell]:
        """The audit's cells for a check: of the subject's surfaces where each has its own."""
        planned = [cell for cell in self._audit if cell.check == check]
        if check in _OF_EACH_SURFACE:
            surfaces = {cell.surface for cell in subject.cells}
            planned = [cell for cell in planned if cell.surface in surfaces]
        if not planned:
            reason = _UNPLANNED.get(check) if self._audit else None
            raise _NotApplicable(reason or _NO_AUDIT)
        if any(cell.name not in self.outcomes for cell in planned):
            raise _NotApplicable(_LACKING.get(check, _INSIDE))
        return planned

    def longer(self) -> list[Cell]:
        """The audit's attacks along gradients in the headline's ball that outlast the headline."""
        planned = [cell for cell in self._audit if cell.check in _LONGER]
        return [cell for cell in planned if cell.name in self.outcomes]

    def worst(self, *groups: Iterable[Cell]) -> list[Shares]:
        """Shares of passes that are right, on each image the worst over a group's cells.

        All groups are cut to the images that all of their cells saw.
        """
        found = [[self._shares(cell) for cell in group] for group in groups]
        n = min(len(shares) for group in found for shares in group)
        return [np.min([shares[:n] for shares in group], axis=0) for group in found]

    def _shares(self, cell: Cell) -> Shares:
        outcome = self.outcomes[cell.name]
        shares: Shares = outcome["correct_after"] / outcome["passes"]
        return shares

    def draws(self, subject: Subject) -> bool:
        """Whether the model draws at random: it is scored over several passes then."""
        return any(self.outcomes[cell.name]["passes"].max() > 1 for cell in subject.cells)

    def leaves_no_less(self, subject: Subject) -> bool:
        """Whether a cell in the headline's setting leaves as much as the headline, or more."""
        if subject.kind != SURFACE:
            return False
        own, headline = self.worst(subject.cells, self.headline.cells)
        return bool(own.mean() >= headline.mean() - _EXACT)


def checks_of(evidence: Evidence, subject: Subject) -> Iterator[Check]:
    """Every check that speaks of such a subject, in the order of `CHECKS`."""
    for name, rule in _RULES.items():
        if subject.kind not in rule.of:
            continue
        stated = Check(name, subject.metric, rule.text, rule.meaning, NOT_APPLICABLE, {})
        try:
            found = rule.look(evidence, subject)
        except _NotApplicable as reason:
            yield replace(stated, reason=str(reason))
            continue
        numbers = {key: float(value) for key, value in found.numbers.items()}
        verdict = FAIL if found.failed else PASS
        meaning = found.meaning or rule.meaning
        yield replace(stated, meaning=meaning, verdict=verdict, numbers=numbers, n=found.n)


class _NotApplicable(Exception):
    """Why a check does not apply."""


@dataclass(frozen=True)
class _Found:
    """What a check found where it applies."""

    numbers: Mapping[str, float]
    n: int
    failed: bool
    meaning: str = ""  # of a failure, where it is another than the rule's


_Look = Callable[[Evidence, Subject], _Found]


@dataclass(frozen=True)
class _Rule:
    """A check before it is made.

    Attributes:
        text: What must hold.
        meaning: What a failure means.
        look: Compares.
        of: The kinds of subject that it speaks of.
    """

    text: str
    meaning: str
    look: _Look
    of: tuple[str, ...] = (HEADLINE, SURFACE)


def _more_than(gap: float, tolerance: float, n: int) -> bool:
    """Whether a difference of shares is more than a tolerance, and more than one image."""
    return bool(gap > max(tolerance, 1 / n) + _EXACT)


def _falls(first: tuple[str, Shares], second: tuple[str, Shares], tolerance: float) -> _Found:
    """The second leaves no less than the first, but for a tolerance."""
    before, after = first[1].mean(), second[1].mean()
    n = len(first[1])
    return _Found({first[0]: before, second[0]: after}, n, _more_than(before - after, tolerance, n))


def _rival(check: str, title: str, tolerance: float) -> _Look:
    """Another attack leaves no less than the subject."""

    def look(evidence: Evidence, subject: Subject) -> _Found:
        own, rival = evidence.worst(subject.cells, evidence.of_check(check, subject))
        return _falls((subject.word, own), (title, rival), tolerance)

    return look


def _autoattack(evidence: Evidence, subject: Subject) -> _Found:
    """Few images certify nothing; what 150 could not pass with, they fail with."""
    found = _rival(AUTOATTACK, "AutoAttack", CERTIFIED)(evidence, subject)
    if found.n >= FEWEST_IMAGES:
        return found
    own, rival = found.numbers.values()
    if found.n * (own - rival) > FEWEST_IMAGES * CERTIFIED + _EXACT:
        return replace(found, failed=True)
    what = f"{found.n} cannot certify {_points(CERTIFIED)}"
    raise _NotApplicable(f"fewer than {FEWEST_IMAGES} images: {what}")


def _square(evidence: Evidence, subject: Subject) -> _Found:
    """Square breaks next to nothing that no gradient did, nor does it do better alone.

    An image that more steps or another target break too was within reach of gradients: the
    headline was too short for it, which rules of their own say.

    Of two attacks on a model that draws at random the one that does better on an image is in
    part the luckier, and that would add up over images: one counts as broken where at least
    half of all passes turn wrong. On other models that is its only pass.
    """
    gradients = [*subject.cells, *evidence.longer()]
    square = evidence.of_check("square", subject)
    own, rival, strongest = evidence.worst(subject.cells, square, gradients)
    alone = _falls((subject.word, own), ("Square", rival), BEATEN)
    broken = float((strongest - rival >= 0.5 - _EXACT).mean())
    numbers = {**alone.numbers, "broken by Square, by no gradient": broken}
    return _Found(numbers, alone.n, alone.failed or _more_than(broken, STANDING, alone.n))


def _targets(evidence: Evidence, subject: Subject) -> _Found:
    found = _rival("targets", "nine targets", BEATEN)(evidence, subject)
    own, rival = found.numbers.values()
    far = _more_than(own - rival, FAR_BEATEN, found.n)
    return replace(found, meaning=names.MASKED if far else "")


def _draws(evidence: Evidence, subject: Subject) -> _Found:
    """Either way: more that are left say that the mean over draws has not settled."""
    if not evidence.draws(subject):
        raise _NotApplicable("the model draws nothing at random")
    own, more = evidence.worst(subject.cells, evidence.of_check("eot", subject))
    found = _falls((subject.word, own), ("twice the draws", more), UNSETTLED)
    change = abs(own.mean() - more.mean())
    return replace(found, failed=_more_than(change, UNSETTLED, found.n))


def _unbounded(evidence: Evidence, subject: Subject) -> _Found:
    (left,) = evidence.worst(evidence.of_check("unbounded", subject))
    failed = _more_than(left.mean(), UNBOUNDED, len(left))
    return _Found({"without a bound": left.mean()}, len(left), failed)


def _steps(evidence: Evidence, subject: Subject) -> _Found:
    cells = evidence.of_check("steps", subject)
    few, many = min(cell.steps for cell in cells), max(cell.steps for cell in cells)
    short, long = evidence.worst(_of_steps(cells, few), _of_steps(cells, many))
    return _falls((f"{few} steps", short), (f"{many} steps", long), UNSETTLED)


def _restarts(evidence: Evidence, subject: Subject) -> _Found:
    """One way: the one start is the image itself, which may be better than random ones."""
    several = evidence.of_check("restarts", subject)
    single = _of_steps(evidence.of_check("steps", subject), several[0].steps)
    once, often = evidence.worst(single, several)
    return _falls(("one start", once), ("several starts", often), UNSETTLED)


def _of_steps(cells: Iterable[Cell], steps: int) -> list[Cell]:
    return [cell for cell in cells if cell.steps == steps]


def _eps(evidence: Evidence, subject: Subject) -> _Found:
    cells, eps = evidence.of_check("eps", subject), subject.cells[0].eps
    smaller = [cell for cell in cells if cell.eps < eps]
    larger = [cell for cell in cells if cell.eps > eps]
    worst = evidence.worst(smaller, subject.cells, larger)
    half, own, double = (shares.mean() for shares in worst)
    numbers = {"half of eps": half, subject.word: own, "twice eps": double}
    n = len(worst[0])
    return _Found(numbers, n, _more_than(max(own - half, double - own), OUT_OF_ORDER, n))


def _rescale(evidence: Evidence, subject: Subject) -> _Found:
    """One surface that is free of scale frees the headline of it."""
    for cell in subject.cells:
        if cell.surface.startswith(("margin", "dlr")):
            raise _NotApplicable(f"{cell.surface} is free of scale")
        if not cell.surface.startswith("ce"):
            raise _NotApplicable(f"{cell.surface} is no cross entropy of logits")
    return _rival("rescale", "logits of unit scale", RESCALED)(evidence, subject)


def _gradients(evidence: Evidence, subject: Subject) -> _Found:
    """Of several surfaces an image's largest gradient counts: it could be followed, and was.

    The share is of the survivors, as METHODS 4 has it: a zero gradient stops an attack, so
    images without one are among them. One image alone never fails.
    """
    if any(cell.algorithm == AUTOATTACK for cell in subject.cells):
        raise _NotApplicable("its attacks have surfaces of their own: one may lack gradients")
    (shares,) = evidence.worst(subject.cells)
    norms = [evidence.outcomes[cell.name]["gradient"][: len(shares)] for cell in subject.cells]
    largest = np.max(norms, axis=0)
    if (largest < 0).all():
        raise _NotApplicable("no gradient was followed")
    survivors = largest[(shares > 0) & (largest >= 0)]
    if len(survivors) < FEWEST_SURVIVORS:
        raise _NotApplicable(
            f"fewer than {FEWEST_SURVIVORS} survivors: a share of them says little"
        )
    without = (survivors == 0).mean()
    numbers = {
        "survivors": len(survivors) / len(shares),
        "of them without a gradient": without,
        f"of them below {FAINT:g}": (survivors < FAINT).mean(),
    }
    return _Found(numbers, len(shares), _more_than(without, GRADIENTLESS, len(survivors)))


def _surfaces(evidence: Evidence, subject: Subject) -> _Found:
    if subject.cells == subject.leading:
        raise _NotApplicable("it leads its setting alone")
    worst, own = evidence.worst(subject.leading, subject.cells)
    found = _falls(("surface", own), ("worst raw surfaces", worst), ABOVE)
    return replace(found, numbers={**found.numbers, "masking gap": own.mean() - worst.mean()})


def _points(share: float) -> str:
    return "1 point" if share == 0.01 else f"{100 * share:g} points"


_LEAVES = f"leaves no less, but for {_points(BEATEN)}"
_RULES = {
    AUTOATTACK: _Rule(
        f"AutoAttack in the same ball takes at most {_points(CERTIFIED)} more, on "
        f"{FEWEST_IMAGES} images or more.",
        names.WEAK,
        _autoattack,
    ),
    "square": _Rule(
        f"Square, which needs no gradient, breaks at most {_points(STANDING)}, or one image, "
        "that neither the headline nor more steps, starts and targets break, and alone "
        f"{_LEAVES}.",
        names.MASKED,
        _square,
        (HEADLINE,),
    ),
    "simba": _Rule(
        f"SimBA, which needs no gradient, {_LEAVES}.",
        names.MASKED,
        _rival("simba", "SimBA", BEATEN),
        (HEADLINE,),
    ),
    "transfer": _Rule(
        f"What was made to mislead another model {_LEAVES}.",
        names.MASKED,
        _rival("transfer", "transfer", BEATEN),
        (HEADLINE,),
    ),
    "targets": _Rule(
        f"Aiming at each of nine wrong classes in turn {_LEAVES}; more than "
        f"{_points(FAR_BEATEN)} less is masking.",
        names.WEAK,
        _targets,
        (HEADLINE,),
    ),
    "noise": _Rule(
        f"Gaussian noise of the same size {_LEAVES}.",
        names.MASKED,
        _rival("noise", "noise", BEATEN),
        (HEADLINE,),
    ),
    "single": _Rule(
        f"A single step {_LEAVES}.",
        names.MASKED,
        _rival("single", "single step", BEATEN),
    ),
    "unbounded": _Rule(
        f"Without a bound on the perturbation at most {100 * UNBOUNDED:g} % is left.",
        names.MASKED,
        _unbounded,
    ),
    "rescale": _Rule(
        f"With logits of unit scale cross entropy takes at most {_points(RESCALED)} more.",
        names.MASKED,
        _rescale,
    ),
    "gradients": _Rule(
        f"Of at most {100 * GRADIENTLESS:g} % of the survivors, or one, a gradient was zero or "
        "not finite.",
        names.MASKED,
        _gradients,
        (HEADLINE, SURFACE, ELSEWHERE),
    ),
    "surfaces": _Rule(
        f"A surface leaves at most {_points(ABOVE)} more than the raw surfaces of its setting, "
        "each image against its worst.",
        names.MASKED,
        _surfaces,
        (SURFACE, ELSEWHERE),
    ),
    "steps": _Rule(
        f"Four times the steps, of one length, take at most {_points(UNSETTLED)} more.",
        names.WEAK,
        _steps,
    ),
    "restarts": _Rule(
        f"Several random starts take at most {_points(UNSETTLED)} more than one start.",
        names.WEAK,
        _restarts,
    ),
    "eps": _Rule(
        f"Half of eps leaves no less and twice eps no more, but for {_points(OUT_OF_ORDER)}.",
        names.WEAK,
        _eps,
    ),
    "eot": _Rule(
        f"Twice the draws in every gradient change at most {_points(UNSETTLED)}.",
        names.WEAK,
        _draws,
    ),
}
CHECKS = tuple(_RULES)
_LONGER = ("steps", "restarts", "targets")
_OF_EACH_SURFACE = ("single", "unbounded", "rescale", "steps", "restarts", "eps", "eot")

# Why there is nothing to compare with.
_NO_AUDIT = "not planned: `audit: {}` in the study file plans it"
_UNPLANNED = {
    "simba": "planned for balls in L2 alone",
    "transfer": "no method to transfer from: `audit: {transfer: …}` in the study file names one",
}
_INSIDE = (
    "not run on this model: its grid's corners, its centre and validation's choice stand for it"
)
_LACKING = {"transfer": "not run on this model: inside a grid, or no other model to transfer from"}
