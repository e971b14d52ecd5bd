"""Findings as a table for CSV, and counted for a first page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.claims.claim import CLEAN, HEADLINE
from analysis.claims.compare import Comparison
from analysis.claims.judge import FORMULA, Finding

# Readings by the words that readers see; those of eps speak for themselves.
READING_TITLES = {
    HEADLINE: "Under the headline attack, which leads",
    CLEAN: "Without an attack",
    FORMULA: "Formulas, with nothing trained",
}


def tally(findings: Sequence[Finding]) -> dict[str, Counter[str]]:
    """Reading -> how many findings of each verdict; readings in order, formulas last.

    Verdicts are those of `Finding.told`. What no reading was found for stands under the empty one.
    """
    counts: dict[str, Counter[str]] = {}
    for finding in sorted(findings, key=lambda finding: finding.reading == FORMULA):
        counts.setdefault(finding.reading, Counter())[finding.told] += 1
    return counts


def claims_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """A row a claim, place, reading and comparison; accuracies' differences in points."""
    records = []
    for finding in findings:
        about = {
            "claim": finding.claim.id,
            "text": finding.claim.claim,
            "source": finding.claim.source,
            "place": str(finding.group or ""),
            "reading": finding.reading,
            "verdict": finding.told,
            "reason": finding.reason,
            "notes": " ".join(finding.notes),
            "numbers": _numbers(finding.numbers),
        }
        compared = [_record(comparison) for comparison in finding.comparisons]
        records += [{**about, **record} for record in compared or [{}]]
    return pd.DataFrame(records)


def _numbers(found: Mapping[str, float]) -> str:
    return "; ".join(f"{key} {value:.6g}" for key, value in found.items())


def _record(comparison: Comparison) -> dict[str, float | str]:
    value, unit = comparison.difference.estimate, comparison.yardstick.unit
    low, high = (round(unit * end, 6) for end in comparison.crossed)
    return {
        "cell": comparison.yardstick.title,
        "metric": comparison.yardstick.metric,
        "arm": comparison.arm,
        "other": comparison.other,
        "difference": round(unit * value.mean, 6),
        "half_width": round(unit * value.half_width, 6),
        "crossed_low": low,
        "crossed_high": high,
        "unit": "points" if comparison.yardstick.cells else "number",
        "seeds": value.seeds,
        "p_adjusted": comparison.p,
        "smallest_detectable": round(unit * comparison.difference.detectable, 6),
        "outcome": comparison.outcome,
        "why_open": comparison.why,
    }
