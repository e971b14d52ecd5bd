"""What the studies of a store refer to: noted when one is run, tracked again or imported.

Ids are noted, not the file alone: what a study has made stays its own when its file, a preset or
a revision changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from study.planned import Plan, PlannedTrial
from study.search import SEARCHES
from trainables.errors import DamagedEntry
from trainables.store import Store

Wanted = dict[str, set[str]]  # ids of results by the trial's id

NOTES = "refers"  # the folder of a study's notes, one for each thing that it was at a time


def trials_of(plan: Plan) -> dict[str, PlannedTrial]:
    """All models of a plan by id, those that searches only try among them."""
    return {trial.id: trial for trial in (*plan.trials, *plan.candidates)}


def wanted_by(plan: Plan) -> Wanted:
    """What a plan refers to."""
    return {id: trial.result_ids for id, trial in trials_of(plan).items()}


def entries_of(trial_id: str, results: Iterable[str]) -> list[str]:
    """The store's entries of a trial and its results, always in the same order."""
    outcomes = (f"outcomes/{trial_id}/{result}" for result in sorted(results))
    return [f"models/{trial_id}", f"trials/{trial_id}", *outcomes]


def united(parts: Iterable[Wanted]) -> Wanted:
    """What any of several refers to."""
    whole: Wanted = {}
    for part in parts:
        for trial, results in part.items():
            whole[trial] = whole.get(trial, set()) | results
    return whole


def note(plan: Plan, store: Store) -> None:
    """Notes what a plan refers to, unless that is known, so that `study clean` keeps it."""
    if not plan.trials:
        return
    listed = {trial: sorted(results) for trial, results in wanted_by(plan).items()}
    data = json.dumps(listed, sort_keys=True).encode()
    entry = f"studies/{plan.name}/{NOTES}/{hashlib.sha256(data).hexdigest()[:16]}"
    try:
        store.read(entry)
    except (FileNotFoundError, DamagedEntry):
        store.write(entry, {"results.json": data, "study.yaml": plan.file.text.encode()})


def noted(store: Store) -> dict[str, list[Wanted]]:
    """By study, all that it has ever referred to in this store, or that its searches have tried.

    Raises:
        DamagedEntry: a note is damaged; running its study makes it anew.
    """
    parts = [path.split("/") for path in store.files("studies")]
    kept = {part[1] for part in parts if part[2:3] in ([NOTES], [SEARCHES])}
    found: dict[str, list[Wanted]] = {}
    for study in sorted(kept):
        notes, searches = f"studies/{study}/{NOTES}", f"studies/{study}/{SEARCHES}"
        found[study] = [_noted(store, f"{notes}/{name}") for name in sorted(store.entries(notes))]
        found[study] += [_tried(store, f"{searches}/{name}") for name in store.entries(searches)]
    return found


def _noted(store: Store, entry: str) -> Wanted:
    listed = json.loads(store.read(entry)["results.json"])
    return {trial: set(results) for trial, results in listed.items()}


def _tried(store: Store, entry: str) -> Wanted:
    """The models of a search with all their results: a killed driver has noted none of them."""
    tried = {item["model_id"] for item in json.loads(store.read(entry)["suggestions.json"])}
    return {model: store.entries(f"outcomes/{model}") for model in tried}
