"""What refinements have decided: kept in the store, and part of the plan from then on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from study.planned import Extra, Plan, PlannedTrial, numeric
from trainables.store import Store

REFINEMENTS = "refinements"  # the entry of a study's decisions, `studies/<study>/refinements`


def refinements(plan: Plan, store: Store) -> list[Extra]:
    """What was decided before and still is of the study's methods and axes."""
    found = store.read_json(_entry(plan.name), "points.json")
    if not found:
        return []
    extras = [Extra(**{**item, "seeds": tuple(item["seeds"])}) for item in found]
    axes = {
        (name, str(place)): _axes_of(plan, name, str(place))
        for place, study in plan.placed
        for name in study.methods
    }
    return [extra for extra in extras if set(extra.axes) == axes.get((extra.method, extra.place))]


def keep(plan: Plan, store: Store, extras: Iterable[Extra]) -> None:
    """Adds a decision to those that were made before."""
    kept = [asdict(extra) for extra in [*refinements(plan, store), *extras]]
    store.write_json(_entry(plan.name), "points.json", kept)


def forget(plan: Plan, store: Store) -> None:
    """Takes all decisions back; what was trained for them stays in the store."""
    store.remove(_entry(plan.name))


def points_of(plan: Plan, method: str, place: str) -> dict[str, list[PlannedTrial]]:
    """A method's trials by arm, where all that is swept are numbers."""
    arms: dict[str, list[PlannedTrial]] = {}
    for trial in plan.trials:
        if method in trial.methods and trial.place == place:
            axes = trial.axes[method]
            if axes and numeric(axes) == axes:
                arms.setdefault(trial.model.arm_id, []).append(trial)
    return arms


def _axes_of(plan: Plan, method: str, place: str) -> set[str]:
    return {
        key for trials in points_of(plan, method, place).values() for key in trials[0].axes[method]
    }


def _entry(study: str) -> str:
    return f"studies/{study}/{REFINEMENTS}"
