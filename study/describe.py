"""A plan as plain data: `plan.json`, what analysis reads beside the tracked runs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from typing import Any

import psutil

from study.planned import Plan, PlannedTrial, numeric, swept
from study.protocol import NamedCell, Protocol
from study.source import git_revision


def describe(plan: Plan, command: str) -> dict[str, Any]:
    """Everything that analysis has to know of a plan."""
    grids = [trial for trial in plan.trials if not trial.refined]
    return {
        "study": plan.name,
        "scale": plan.file.scale,
        "question": plan.file.question,
        "command": command,
        "baseline": plan.baseline,
        "controls": plan.controls,
        "choose": plan.choose,
        "methods": list(plan.methods),
        "figures": plan.file.figures,
        "axes": {name: swept(grids, name) for name in plan.methods},
        "seeds": {name: _seeds(plan.trials, name) for name in plan.methods},
        "protocols": {place: _describe_protocol(found) for place, found in plan.protocols.items()},
        "diagnostics": {
            label: cell.probe.name
            for trial in plan.trials
            for label, cell in trial.diagnostics.items()
        },
        "trials": [_describe_trial(plan.protocol(trial), trial) for trial in plan.trials],
        "searches": list(plan.searches),
        "resources": plan.resources.model_dump(include={"cpu"}),
        "provenance": provenance(plan),
    }


def _seeds(trials: Iterable[PlannedTrial], method: str) -> list[int]:
    return sorted({trial.model.seed for trial in trials if method in trial.methods})


def _describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """The numbers of images are those of most methods; a trial's own stand with the trial."""
    return {
        "headline": {
            "label": protocol.title,
            **{split: list(cells) for split, cells in protocol.headline.items()},
        },
        "rebuilds": list(protocol.rebuilds),
        "worst_raw": {name: list(cells) for name, cells in protocol.worst_raw.items()},
        "cells": {cell.name: _describe_cell(cell) for cell in protocol.cells},
    }


def _describe_cell(cell: NamedCell) -> dict[str, Any]:
    described = {"split": cell.split, "attack": cell.label, "n": cell.n, "check": cell.check}
    if cell.columns is None:
        return described
    return {**described, "algorithm": cell.attack.name, **asdict(cell.columns)}


def _describe_trial(protocol: Protocol, trial: PlannedTrial) -> dict[str, Any]:
    usual = {cell.name: cell.n for cell in protocol.cells}
    return {
        "trial_id": trial.id,
        "methods": list(trial.methods),
        "arm": trial.arm,
        "labels": trial.labels,
        "name": trial.name,
        "seed": trial.model.seed,
        "dataset": trial.model.dataset.name,
        "backbone": trial.model.backbone.name,
        "axes": numeric(trial.point),
        "params": trial.params(),
        "evidence": trial.evidence,
        "lacks": [name for name in usual if name not in trial.cells],
        "n": {name: cell.n for name, cell in trial.cells.items() if cell.n != usual[name]},
    }


_REPORTED = ("torch", "ray", "mlflow", "numpy", "robust-loss-study")


def provenance(plan: Plan) -> dict[str, Any]:
    """What must be equal for the numbers to be equal: versions, machine, source, data."""
    datasets = {trial.model.dataset.name: trial.model.dataset.checksum for trial in plan.trials}
    return {
        "versions": {name: metadata.version(name) for name in _REPORTED},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "driver": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "git": git_revision(),
        "data": datasets,
    }
