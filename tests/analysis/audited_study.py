"""A study whose audit has every verdict in it, tracked as the driver tracks one."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from analysis.plan import Cell
from trainables import names

from .audited import CLEAN, EACH, ONCE, OWN, Case, N, cell

SMALLER = {surface: cell(surface, eps=0.5) for surface in OWN}  # another setting
PATH = cell("margin_raw", budget="path_l2", norm="")
FEW = 50  # images of the method that draws at random
THOROUGH = [
    *(ONCE[name] for name in ("autoattack", "square", "simba", "transfer", "targets")),
    *(cells[name] for cells in EACH.values() for name in ("short", "long", "restarts")),
]


def sound(case: Case) -> None:
    """Every check passes."""


def outdone(case: Case) -> None:
    """AutoAttack takes 5 points more."""
    case.set(ONCE["autoattack"], 90)


def saturated(case: Case) -> None:
    """Cross entropy is blind; the margin is not."""
    for surface in ("ce_deployed", "ce_raw"):
        case.set(OWN[surface], 180, gradient=0.0)
        for name in ("single", "unbounded", "half", "double", "short", "long", "restarts"):
            case.set(EACH[surface][name], 180, gradient=0.0)
        case.set(EACH[surface]["rescale"], 101)


def quantised(case: Case) -> None:
    """Nothing has a gradient, and what needs none breaks it."""
    for surface, own in OWN.items():
        for found in (own, SMALLER[surface], PATH, *EACH[surface].values()):
            case.set(found, 190, gradient=0.0)


def random(case: Case) -> None:
    """On fewer images; twice the draws take more."""
    for found in case.cells:
        kept = case.outcomes[found.name]["correct_after"].sum() / 10
        case.set(found, kept * FEW / N, n=FEW)
    for surface in OWN:
        case.set(EACH[surface]["eot"], 20, n=FEW)


def inside(case: Case) -> None:
    """A point within a grid: spared what is slow."""
    for found in THOROUGH:
        del case.outcomes[found.name]


@dataclass(frozen=True)
class Trial:
    """One model of the study."""

    method: str
    seed: int
    change: Callable[[Case], None]
    passes: int = 1
    tracked: bool = True  # whether its run has an audit

    @property
    def trial_id(self) -> str:
        """Unique within the study."""
        return f"{self.method}-{self.seed}"

    def case(self) -> Case:
        """Its outcomes."""
        case = Case(passes=self.passes)
        case.cells += [*SMALLER.values(), PATH]
        for own, kept in zip((*SMALLER.values(), PATH), (125, 121, 120, 60), strict=True):
            case.set(own, kept)
        self.change(case)
        return case


TRIALS = (
    Trial("sce", 0, sound),
    Trial("sce", 1, sound),
    Trial("sce", 2, outdone),
    *(Trial("at", seed, sound) for seed in range(5)),
    Trial("mmc", 0, saturated),
    Trial("mmc", 1, saturated),
    Trial("quantised", 0, quantised),
    Trial("quantised", 1, quantised),
    Trial("random", 0, random, passes=10),
    Trial("isce", 0, inside),
    Trial("older", 0, sound, tracked=False),
)


def track_audited(uri: str, folder: Path, study: str) -> None:
    """Writes the study to the tracking server."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment(study, artifact_location=(folder / study).as_uri())
    for trial in TRIALS:
        _track(client, experiment, trial)
    run = client.create_run(experiment, tags={names.ROLE: names.REPORT}).info.run_id
    client.log_text(run, json.dumps(_plan(study)), names.PLAN_FILE)
    client.log_text(run, f"study: {study}\naudit: {{}}\n", names.STUDY_FILE)
    client.set_terminated(run)


def _track(client: MlflowClient, experiment: str, trial: Trial) -> None:
    case = trial.case()
    audit = case.audit()
    assert not audit.broken_invariants
    mark = audit.mark if trial.tracked else names.UNAUDITED
    tags = {
        names.ROLE: names.TRIAL,
        names.TRIAL_ID: trial.trial_id,
        names.ATTACK_MARK: mark,
        names.METHODS: json.dumps([trial.method]),
        "git": "abc123",
        "device": "cpu",
    }
    run = client.create_run(experiment).info.run_id
    client.log_batch(
        run,
        [Metric(name, value, 0, 0) for name, value in _metrics(case).items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    if trial.tracked:
        client.log_text(run, audit.to_json(), names.AUDIT_FILE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, names.OUTCOMES_FILE)
        _outcomes(case).to_parquet(file, index=False)
        client.log_artifact(run, str(file))
    client.set_terminated(run)


def _outcomes(case: Case) -> pd.DataFrame:
    frames = [
        pd.DataFrame(found).assign(cell=name, index=np.arange(len(found["labels"])))
        for name, found in case.outcomes.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _metrics(case: Case) -> dict[str, float]:
    shares = {
        name: outcome["correct_after"] / outcome["passes"]
        for name, outcome in case.outcomes.items()
    }
    accuracies = {name: float(share.mean()) for name, share in shares.items()}
    robust = float(np.min([shares[name] for name in case.headline], axis=0).mean())
    deployed = [accuracies[own.name] for own in OWN.values()]
    spreads = {own.name + names.SPREAD: 0.012 for own in OWN.values()} if case.passes > 1 else {}
    return {
        **accuracies,
        **spreads,
        names.CLEAN: accuracies[CLEAN.name],
        names.ROBUST: robust,
        names.ROBUST_VAL: robust,
        names.WORST_CASE: robust,
        names.MASKING_GAP: max(deployed) - robust,
        names.N: float(len(shares[CLEAN.name])),
    }


def _plan(study: str) -> dict[str, Any]:
    cells = Trial("", 0, sound).case().cells
    methods = list(dict.fromkeys(trial.method for trial in TRIALS))
    return {
        "study": study,
        "question": "Which of these numbers can be believed?",
        "command": f"study run {study}",
        "baseline": "sce",
        "controls": {"at": ["sce"]},
        "choose": [],
        "protocols": {
            "lenet5/mnist5k": {
                "headline": {
                    "test": [OWN["ce_raw"].name, OWN["margin_raw"].name],
                    "validation": [],
                    "label": "PGD untargeted, l2_abs eps 1, 20 steps",
                },
                "worst_raw": {},
                "cells": {found.name: _described(found) for found in cells},
            }
        },
        "methods": methods,
        "axes": {},
        "trials": [_described_trial(trial, cells) for trial in TRIALS],
        "seeds": {
            method: [trial.seed for trial in TRIALS if trial.method == method] for method in methods
        },
    }


def _described(found: Cell) -> dict[str, Any]:
    raw = dataclasses.asdict(found) | {"extra": dict(found.extra)}
    return {key: value for key, value in raw.items() if key != "name"}


def _described_trial(trial: Trial, cells: list[Cell]) -> Mapping[str, Any]:
    outcomes = trial.case().outcomes
    sizes = {name: len(outcome["labels"]) for name, outcome in outcomes.items()}
    return {
        "trial_id": trial.trial_id,
        "methods": [trial.method],
        "arm": trial.method,
        "labels": {trial.method: trial.method},
        "name": f"{trial.method} · lenet5/mnist5k · seed {trial.seed}",
        "seed": trial.seed,
        "dataset": "mnist5k",
        "backbone": "lenet5",
        "axes": {},
        "params": {},
        "evidence": "",
        "lacks": [found.name for found in cells if found.name not in outcomes],
        "n": {name: n for name, n in sizes.items() if n != N},
    }
