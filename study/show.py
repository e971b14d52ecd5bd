"""Everything that the store knows of one trial or one cell, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from study.planned import PlannedTrial
from study.protocol import metric_name
from study.results import is_complete, read_outcome
from trainables import names
from trainables.attacks.base import Attack
from trainables.config import cell_from
from trainables.errors import DamagedEntry, StudyError
from trainables.store import Store
from trainables.trial import failure_of, record_of

_ABOUT = "execution.json"  # of a model or an outcome: what it was computed on


def show_trial(store: Store, trial_id: str, planned: PlannedTrial | None) -> dict[str, Any]:
    """A trial: what it is, how far it is, what was found, and where that is kept.

    Args:
        store: where results are.
        trial_id: its id, which is its model's.
        planned: the same as a study has it, which knows its name and what its cells are called.
    """
    record = record_of(store, trial_id)
    model, kept = f"models/{trial_id}", store.has(f"models/{trial_id}")
    objects = _objects(store, model) if kept else {}
    config = objects.get("config.json") or (planned.model.spec() if planned else None)
    measured = sorted(store.entries(f"outcomes/{trial_id}"))
    called = _names(planned)
    seconds = record["cell_seconds"]
    failure = failure_of(record)
    epochs = record["history"]
    return {
        "trial": trial_id,
        **({"name": planned.name} if planned else {}),
        "state": _state(store, trial_id, planned, kept=kept, failed=bool(failure)),
        "configuration": config,
        "epochs": len(epochs),
        "last_epoch": epochs[-1] if epochs else None,
        "train_seconds": round(sum(epoch["seconds"] for epoch in epochs), 3),
        "attack_seconds": round(sum(seconds.get(id, 0) for id in measured), 3),
        "cells": [_cell(store, trial_id, id, called.get(id, "")) for id in measured],
        "missing": sorted(name for id, name in called.items() if id not in measured),
        "failures": [{k: f[k] for k in ("reason", "time")} for f in record["failures"]],
        "execution": objects.get(_ABOUT) or record.get("execution"),
        "where": [f"{store.url}/{kind}/{trial_id}" for kind in ("models", "outcomes", "trials")],
    }


def show_cell(
    store: Store, trial_id: str, cell_id: str, planned: PlannedTrial | None
) -> dict[str, Any]:
    """A cell: what was done to which images, and what came of it; arguments as of `show_trial`."""
    place = f"outcomes/{trial_id}/{cell_id}"
    return {
        **_cell(store, trial_id, cell_id, _names(planned).get(cell_id, "")),
        "trial": trial_id,
        **({"run": planned.name} if planned else {}),
        "seconds": record_of(store, trial_id)["cell_seconds"].get(cell_id),
        "configuration": _objects(store, place)["cell.json"],
        "execution": _objects(store, place)[_ABOUT],
        "where": f"{store.url}/{place}",
    }


def _state(
    store: Store, trial_id: str, planned: PlannedTrial | None, *, kept: bool, failed: bool
) -> str:
    if failed:
        return "failed"
    if not kept:
        return "training" if store.has(f"progress/{trial_id}") else "nothing trained"
    if planned is None:
        return "trained"
    return "done" if is_complete(planned, store) else "trained, cells are missing"


def _names(planned: PlannedTrial | None) -> dict[str, str]:
    """What a study calls its cells and diagnostics, by id."""
    if planned is None:
        return {}
    named = [*planned.cell_ids.items(), *planned.diagnostic_ids.items()]
    return {id: name for name, id in named}


def _cell(store: Store, trial_id: str, cell_id: str, name: str) -> dict[str, Any]:
    """One row: what it is, and its accuracy, or the numbers of a diagnostic."""
    try:
        objects = _objects(store, f"outcomes/{trial_id}/{cell_id}")
    except DamagedEntry as error:
        return {"cell": cell_id, "name": name, "damaged": str(error)}
    spec = objects["cell.json"]
    row = {
        "cell": cell_id,
        "name": name or _title(spec),
        "split": spec["split"],
        "n": spec["n"],
    }
    if "numbers.json" in objects:
        return {**row, "numbers": objects["numbers.json"]}
    return {**row, "accuracy": read_outcome(store, trial_id, cell_id).accuracy}


def _title(spec: Mapping[str, Any]) -> str:
    """What a study would call it that gave the attack no name of its own."""
    try:
        probe = cell_from(spec).probe
    except (StudyError, ValueError):  # of a plugin, which only its study knows
        return str((spec.get("attack") or spec["diagnostic"])["name"])
    columns = probe.columns() if isinstance(probe, Attack) else None
    return metric_name(f"{names.CELL}{spec['split']}/", probe.name, columns)


def _objects(store: Store, entry: str) -> dict[str, Any]:
    """The JSON objects of an entry."""
    found = store.read(entry)
    return {name: json.loads(data) for name, data in found.items() if name.endswith(".json")}
