"""Studies to judge claims on: accuracies by arm, cell and seed, and what is found of each image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient

from analysis.claims.claim import Claim
from analysis.claims.judge import Finding, judge_claims
from analysis.plan import Plan
from analysis.runs import DONE, Results
from analysis.tables.audit import NONE, Audits
from trainables import names

SCE = {"loss": "sce", "regime": "standard", "transform": "none"}
ISCE = {**SCE, "loss": "isce", "loss.s": "1", "loss.m": "0.1", "loss.normalize": "logits"}
PARAMS = {
    "sce": SCE,
    "mmc": {**SCE, "loss": "mmc"},
    "center": {**SCE, "loss": "center"},
    "isce": ISCE,
    "norm-sce": {**ISCE, "loss.m": "0"},
    "at-l2": {**SCE, "regime": "adversarial"},
    "at-linf": {**SCE, "regime": "adversarial"},
}
BALL = {"attack": "ball", "algorithm": "pgd", "budget": "l2_abs", "norm": "l2", "eps": 1.5}
PATH = {"attack": "pgd", "algorithm": "pgd", "budget": "path_linf", "norm": "", "eps": 0.04}
RMS = {**PATH, "budget": "l2_rms", "norm": "l2"}
DEEPFOOL = {"attack": "deepfool", "algorithm": "deepfool", "budget": "overshoot", "norm": ""}
HEADLINE = "cell/test/ball"
IMAGES, PASSES = 4, 1000


def cell(kind: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """One of the plan's test cells: untargeted, 50 steps, on the deployed scores."""
    plain = {"split": "test", "n": IMAGES, "steps": 50, "surface": "ce_deployed", "check": ""}
    return {**plain, "targeted": False, **kind, **changed}


CELLS = {
    HEADLINE: cell(BALL, surface="margin_raw"),
    "cell/test/clean": {"split": "test", "attack": "clean", "n": IMAGES},
    "path": cell(PATH),
    "path-10": cell(PATH, steps=10),
    "path-tar": cell(PATH, targeted=True),
    "rms": cell(RMS),
    "fool": cell(DEEPFOOL, eps=0.01, surface="raw"),
}

# What `analysis.runs.outcomes` would have downloaded, by run.
OUTCOMES: dict[str, pd.DataFrame] = {}


def study(
    arms: Mapping[str, Sequence[float] | Mapping[str, Sequence[float]]],
    *,
    marks: Mapping[str, str] | None = None,
    params: Mapping[str, Mapping[str, str]] | None = None,
    group: tuple[str, str] = ("mnist", "lenet5"),
    subset: str = "",
    rebuilds: Sequence[int] = (),
    grids: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    **raw: Any,
) -> Results:
    """A study at one place.

    Args:
        arms: Method -> headlines by seed, which are its clean accuracies too; or cell -> those.
        marks: Method -> its headline's mark, else trusted.
        params: Method -> its configuration, else those of `PARAMS`.
        group: Data set and backbone.
        subset: Training images, if they are cut down.
        rebuilds: Tables of the paper.
        grids: Tuned method -> point's label -> headlines by seed, on validation too.
        raw: Further keys of the plan.
    """
    OUTCOMES.clear()
    known = {**PARAMS, **(params or {})}
    rows, trials = [], []
    planned = [(method, method, found) for method, found in arms.items()]
    planned += [(method, label, found) for method, point in (grids or {}).items()
                for label, found in point.items()]  # fmt: skip
    for method, label, found in planned:
        cells = found if isinstance(found, Mapping) else {HEADLINE: found}
        for seed in range(max(map(len, cells.values()))):
            values = {name: v[seed] for name, v in cells.items() if seed < len(v)}
            settings = dict(known.get(label, known.get(method, {**SCE, "loss": "other"})))
            settings |= {"dataset.subset.train": subset} if subset else {}
            mark = (marks or {}).get(label, names.TRUSTED)
            row = _row(method, label, seed, group, values, mark)
            rows.append(row)
            trials.append({**row, "methods": [method], "axes": {}, "params": settings})
    headline = {"label": "PGD in a ball", "test": [HEADLINE], "validation": []}
    about = {"rebuilds": list(rebuilds), "worst_raw": {}}
    protocol = {"headline": headline, "cells": CELLS, **about}
    plan = {
        "study": "t",
        "command": "study run t",
        "methods": [*arms, *(grids or {})],
        "choose": [*(grids or {})],
        "axes": {},
        "protocols": {f"{group[1]}/{group[0]}": protocol},
        "trials": trials,
        **raw,
    }
    return Results(Plan(plan), pd.DataFrame(rows), "", "", client())


def _row(
    method: str,
    label: str,
    seed: int,
    group: tuple[str, str],
    values: Mapping[str, float],
    mark: str,
) -> dict[str, Any]:
    run = f"{label}-{seed}"
    OUTCOMES[run] = outcomes(values)
    headline = values.get(HEADLINE, math.nan)
    return {
        "trial_id": run,
        "run_id": run,
        "dataset": group[0],
        "backbone": group[1],
        "method": method,
        "label": label,
        "arm": label,
        "seed": seed,
        "state": DONE,
        "attack_mark": mark,
        names.ROBUST: headline,
        names.ROBUST_VAL: headline,
        names.CLEAN: values.get("cell/test/clean", headline),
        **values,
    }


def outcomes(values: Mapping[str, float]) -> pd.DataFrame:
    """Every image alike, so that images add nothing to what seeds vary."""
    both = {"cell/test/clean": values.get(HEADLINE, 0.0), **values}
    return pd.DataFrame(
        {"cell": name, "index": i, "passes": PASSES, "correct_after": round(PASSES * value)}
        for name, value in both.items()
        if not math.isnan(value)
        for i in range(IMAGES)
    )


def singly(run: str, name: str, correct: Sequence[int]) -> None:
    """Says of a run which images a cell leaves correct, one pass each."""
    old = OUTCOMES[run]
    index = np.arange(len(correct))
    new = pd.DataFrame({"cell": name, "index": index, "passes": 1, "correct_after": correct})
    OUTCOMES[run] = pd.concat([old[old["cell"] != name], new], ignore_index=True)


@cache
def client() -> MlflowClient:
    """Nothing is asked of it."""
    return MlflowClient("sqlite://")


def findings(results: Results, claim: dict[str, Any], audits: Audits = NONE) -> list[Finding]:
    """What is found of one claim."""
    return judge_claims(results, [Claim.model_validate(claim)], audits)


def judged(results: Results, claim: dict[str, Any]) -> tuple[str, str]:
    """The verdict and reason of a claim of one finding."""
    (finding,) = findings(results, claim)
    return finding.told, finding.reason
