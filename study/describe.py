"""A plan as plain data: `plan.json`, what analysis reads beside the tracked runs."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from study.cells import NamedCell
from study.plan import Plan, PlannedTrial, numeric, swept
from trainables import names


def describe(plan: Plan, command: str) -> dict[str, Any]:
    """Everything that analysis has to know of a plan."""
    study = plan.study
    methods = list(study.methods)
    return {
        "study": plan.name,
        "question": study.question,
        "command": command,
        "baseline": study.compare.baseline,
        "controls": study.compare.controls,
        "choose": study.choose.model_dump() if study.choose else None,
        "headline": {
            **{split: list(cells) for split, cells in plan.headline.items()},
            "label": _headline_label(plan),
        },
        "methods": methods,
        "axes": {name: swept(plan.trials, name) for name in methods},
        "seeds": {name: _seeds(plan.trials, name) for name in methods},
        "cells": {cell.name: _describe_cell(plan, cell) for cell in plan.cells},
        "diagnostics": {
            label: cell.probe.name for label, cell in plan.trials[0].diagnostics.items()
        },
        "trials": [_describe_trial(plan, trial) for trial in plan.trials],
        "provenance": _provenance(plan),
    }


def _headline_label(plan: Plan) -> str:
    columns = plan.columns[plan.headline[names.TEST][0]]
    assert columns is not None
    direction = "targeted" if columns.targeted else "untargeted"
    eps = f"{columns.budget} eps {names.number(columns.eps)}"
    return f"{plan.study.headline['attack']} {direction}, {eps}, {columns.steps} steps"


def _seeds(trials: Iterable[PlannedTrial], method: str) -> list[int]:
    return sorted({trial.model.seed for trial in trials if method in trial.methods})


def _describe_cell(plan: Plan, cell: NamedCell) -> dict[str, Any]:
    """`n` is that of most methods; a trial's own stands with the trial."""
    n: int = getattr(plan.study.evaluate, cell.split)
    described = {
        "split": cell.split,
        "attack": cell.label,
        "n": min(n, cell.n or n),
        "check": cell.check,
    }
    if cell.columns is None:
        return described
    return {**described, "algorithm": cell.attack.name, **asdict(cell.columns)}


def _describe_trial(plan: Plan, trial: PlannedTrial) -> dict[str, Any]:
    usual = {cell.name: _describe_cell(plan, cell)["n"] for cell in plan.cells}
    return {
        "trial_id": trial.id,
        "methods": list(trial.methods),
        "arm": trial.arm,
        "labels": trial.labels,
        "name": trial.name,
        "seed": trial.model.seed,
        "dataset": trial.model.dataset.name,
        "backbone": trial.model.backbone.name,
        "axes": numeric(trial.axes),
        "params": trial.params(),
        "evidence": trial.evidence,
        "lacks": [name for name in usual if name not in trial.cells],
        "n": {name: cell.n for name, cell in trial.cells.items() if cell.n != usual[name]},
    }


_REPORTED = ("torch", "ray", "mlflow", "numpy", "robust-loss-study")


def _provenance(plan: Plan) -> dict[str, Any]:
    datasets = {trial.model.dataset.name: trial.model.dataset.checksum for trial in plan.trials}
    return {
        "versions": {name: metadata.version(name) for name in _REPORTED},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_revision(),
        "data": datasets,
    }


def git_revision() -> str:
    """The commit of this package's source tree, `unknown` for an installed one."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
