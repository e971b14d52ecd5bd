"""Numbers as readers see them: rounded, the interval beside them."""

from __future__ import annotations

import math

from analysis.statistics import Estimate
from trainables import names

MISSING = "—"
EXPLORATORY_MARK = "†"
EXPLORATORY_NOTE = f"{EXPLORATORY_MARK} one seed: exploratory, no interval and no claim."

# What an attack aims at, in words.
GOALS = {"un": "untargeted", "tar": "targeted", "": ""}

# How far an attack is to be believed, beside its number and in words.
MARK_SIGNS = {
    names.TRUSTED: "✓",
    names.WEAK: "↓",
    names.MASKED: "✗",
    names.UNAUDITED: "?",
    names.NO_THREAT_MODEL: "○",
}
MARK_MEANINGS = {
    names.TRUSTED: "AutoAttack takes at most 2 points more, and no check fails",
    names.WEAK: "a stronger one leaves less",
    names.MASKED: "it misses what there is to find and says nothing of robustness",
    names.UNAUDITED: "a stronger one may leave less; `audit: {}` in the study file audits the "
    "headline's setting, on 150 images or more",
    names.NO_THREAT_MODEL: "the attack keeps to no ball",
}


def percent(value: Estimate) -> str:
    """`60.3 ± 3.5`, `58.0 †` for one seed, or a dash."""
    return _beside(value, f"{100 * value.mean:.1f}", f"{100 * value.half_width:.1f}")


def marked(value: Estimate, mark: str) -> str:
    """`percent` and the sign of the attack's mark, if it has one: `60.3 ± 3.5 ✓`."""
    sign = "" if value.is_missing else MARK_SIGNS.get(mark, "")
    return f"{percent(value)} {sign}".rstrip()


def plain(value: Estimate) -> str:
    """What is no share, its interval as fine as its mean: `0.935 ± 0.057`."""
    form = _form(value.mean, 3)
    return _beside(value, format(value.mean, form), format(value.half_width, form))


def points(value: Estimate) -> str:
    """A difference of accuracies with its sign: `+2.5 ± 3.1`; as `percent` otherwise."""
    return _beside(value, f"{100 * value.mean:+.1f}", f"{100 * value.half_width:.1f}")


def share(fraction: float) -> str:
    """A fraction in running text: `60.3 %`."""
    return f"{100 * fraction:.1f} %"


def digits(value: float, significant: int) -> str:
    """A number to so many significant digits, whole ones in full: `0.94`, `283`."""
    return signed(format(value, _form(value, significant)))


def _form(value: float, significant: int) -> str:
    """How to format a number, and what is to be as fine: decimals, unless they would be many."""
    if not 1e-4 <= abs(value) < 1e7:
        return f".{significant}g"
    return f".{max(significant - 1 - math.floor(math.log10(abs(value))), 0)}f"


def signed(text: str) -> str:
    """With the minus sign that readers know."""
    return text.replace("-", "\N{MINUS SIGN}")


def _beside(value: Estimate, mean: str, half_width: str) -> str:
    """The mean's text and the interval's, or the mark of what there is in its place."""
    if value.is_missing:
        return MISSING
    return signed(
        f"{mean} {EXPLORATORY_MARK}" if value.is_exploratory else f"{mean} ± {half_width}"
    )
