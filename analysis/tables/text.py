"""Numbers as readers see them: percent with one decimal, the interval beside it."""

from __future__ import annotations

from analysis.statistics import Estimate

MISSING = "—"
EXPLORATORY_MARK = "†"


def percent(value: Estimate) -> str:
    """`60.3 ± 3.5`, `58.0 †` for one seed, or a dash."""
    if value.is_missing:
        return MISSING
    if value.is_exploratory:
        return f"{100 * value.mean:.1f} {EXPLORATORY_MARK}"
    return f"{100 * value.mean:.1f} ± {100 * value.half_width:.1f}"


def points(value: Estimate) -> str:
    """A difference of accuracies with its sign: `+2.5 ± 3.1`; as `percent` otherwise."""
    if value.is_missing:
        return MISSING
    mean = f"{100 * value.mean:+.1f}".replace("-", "\N{MINUS SIGN}")
    if value.is_exploratory:
        return f"{mean} {EXPLORATORY_MARK}"
    return f"{mean} ± {100 * value.half_width:.1f}"


def share(fraction: float) -> str:
    """A fraction in running text: `60.3 %`."""
    return f"{100 * fraction:.1f} %"
