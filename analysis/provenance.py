"""What must be equal for the numbers to be equal, and what it took to get them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pandas as pd

from analysis.cache import LIBRARIES
from analysis.runs import DONE, ENDED, INCOMPLETE, STARTED, Results
from trainables import names

_HOUR = 3600.0
_SECONDS = (names.TRAIN_SECONDS, names.ATTACK_SECONDS)


def provenance(results: Results, command: str) -> dict[str, Mapping[str, Any]]:
    """Named lists for the page.

    Args:
        results: The study.
        command: How the report was asked for.
    """
    tracked = results.plan.provenance
    frame = results.frame
    return {
        "Commands": {"run": results.plan.command, "report": command},
        "Seeds": {method: _listed(seeds) for method, seeds in results.plan.seeds.items()},
        "Source and machine": {
            "git": tracked.get("git", ""),
            "git of the trials": _listed(sorted(set(frame["git"]) - {""})),
            "devices of the trials": _listed(sorted(set(frame["device"]) - {""})),
            "driver": tracked.get("driver", ""),
            "platform": tracked.get("platform", ""),
            "python": tracked.get("python", ""),
        },
        "Time and cost": cost(results),
        "Versions of the run": tracked.get("versions", {}),
        "Versions of the report": {name: version(name) for name in LIBRARIES},
        "Data digests (SHA-256)": tracked.get("data", {}),
    }


def cost(results: Results) -> dict[str, str]:
    """What the study's trials took, wherever and whenever they ran; nothing before any has.

    Hours of cores and GPUs are a trial's own time by what it was given of them, so pauses do not
    count and other studies' trials on the same models do.
    """
    frame = results.frame
    runs = frame[frame["state"].isin((DONE, INCOMPLETE))].drop_duplicates("trial_id")
    if runs.empty:
        return {}
    train, attack = (float(runs[seconds].sum()) for seconds in _SECONDS)
    cores = results.plan.resources["cpu"]
    shares = pd.to_numeric(runs["gpu"], errors="coerce").fillna(0.0)
    gpu = float((shares * runs[list(_SECONDS)].sum(axis=1)).sum()) / _HOUR
    return {
        "trials": str(len(runs)),
        "first began": _when(runs[STARTED].min()),
        "last ended": _when(runs[ENDED].max()),
        "training": _hours(train),
        "attacks": _hours(attack),
        "core hours": f"{cores * (train + attack) / _HOUR:.2f}",
        **({"GPU hours": f"{gpu:.2f}"} if gpu else {}),
    }


def _when(milliseconds: float) -> str:
    if pd.isna(milliseconds):
        return "unknown"
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _hours(seconds: float) -> str:
    return f"{seconds / _HOUR:.2f} h"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
