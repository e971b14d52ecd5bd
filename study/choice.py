"""What validation chooses from a grid: known only when the grid is measured, and audited whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.choice import choose
from study.plan import make_plan
from study.planned import Plan, PlannedTrial, numeric, swept
from study.results import validated
from trainables import names
from trainables.errors import DamagedEntry
from trainables.store import Store


def with_choices(plan: Plan, store: Store, without: Collection[str] = ()) -> Plan:
    """The plan with the whole audit of what validation chooses, beside corners and centre.

    Nothing is chosen from a grid while a point of it lacks its results, so that the same store
    always gives the same plan.

    Args:
        plan: of a study; without an audit it is handed back as it is.
        store: where the results are.
        without: ids of trials that failed: the choice is among the others.
    """
    if not plan.is_audited:
        return plan
    chosen = frozenset(
        arm
        for method in plan.choose
        for place in dict.fromkeys(trial.place for trial in plan.trials)
        for arm in _chosen(plan, store, method, place, without)
    )
    if chosen == plan.chosen:
        return plan
    return replace(make_plan(plan.file, chosen, plan.extras), searches=plan.searches)


def _chosen(
    plan: Plan, store: Store, method: str, place: str, without: Collection[str]
) -> Iterator[str]:
    """The id of the arm that is chosen, as `analysis.choice` chooses it, if there is one."""
    trials = [trial for trial in plan.trials if method in trial.methods and trial.place == place]
    axes = list(swept(plan.trials, method))
    if not axes:
        return
    try:
        rows = [_row(plan, store, trial, method) for trial in trials if trial.id not in without]
    except (FileNotFoundError, DamagedEntry):  # not there yet, or to be made anew
        return
    choice = choose(pd.DataFrame(rows), axes=axes) if rows else None
    if choice is not None:
        yield choice.arm


def _row(plan: Plan, store: Store, trial: PlannedTrial, method: str) -> dict[str, Any]:
    """What a choice needs to know of a trial."""
    found = validated(store, plan.protocol(trial), trial)
    return {
        "method": method,
        "arm": trial.model.arm_id,
        "label": trial.labels[method],
        **numeric(trial.axes[method]),
        names.clean_name(names.VALIDATION): found.clean,
        names.ROBUST_VAL: found.robust,
    }
