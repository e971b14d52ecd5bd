"""What people call a trial or a cell, and which one they mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from study.planned import Plan, PlannedTrial
from trainables.config import ID_LENGTH
from trainables.errors import BadOption, nearest
from trainables.store import Store

T = TypeVar("T")

SHORTEST = 4  # hex digits of an id that are enough where they name one thing alone
_SHOWN = 10  # candidates that a message lists


def find_in_store(store: Store, text: str) -> tuple[str, str | None]:
    """A trial, or a cell of one, by its id or the beginning of it.

    Returns:
        The trial's id, and the cell's if it is one.

    Raises:
        BadOption: there is none, or there are several: they are listed.
    """
    if not is_prefix(text):
        raise BadOption(
            f"{text!r} is no id: expected {SHORTEST} to {ID_LENGTH} hexadecimal digits, or with a "
            "study's file or preset behind it a run's name"
        )
    kinds = ("models", "trials", "progress")
    trials = sorted({id for kind in kinds for id in store.entries(kind) if id.startswith(text)})
    found: dict[str, tuple[str, str | None]] = {f"trial {id}": (id, None) for id in trials}
    for trial, cell in store.pairs("outcomes", text):
        found[f"cell {cell} of {trial}"] = (trial, cell)
    return _the_one(found, f"nothing in {store.url} has an id that begins with {text!r}", text)


def find_trial(plan: Plan, text: str) -> PlannedTrial:
    """One trial of a study, by its run's name, or its id or the beginning of it.

    Raises:
        BadOption: there is none, or there are several: they are listed.
    """
    return _the_one(
        {f"{trial.id}  {trial.name}": trial for trial in _matching(plan, text)},
        _unknown(plan, text),
        text,
    )


def find_arm(plan: Plan, text: str) -> list[PlannedTrial]:
    """All trials that people mean: a method's, a configuration's, or one.

    Args:
        plan: of the study.
        text: a method (`sce`), a label (`isce s=1 m=0.1`), a run's name, or an id or the
            beginning of it.

    Returns:
        Trials of one configuration, which differ in seed, data set and backbone alone.

    Raises:
        BadOption: there is none; or several configurations, which are listed.
    """
    labelled: dict[str, list[PlannedTrial]] = {}
    for trial in plan.trials:
        for method, label in trial.labels.items():
            if text in (method, label):
                labelled.setdefault(label, []).append(trial)
    if labelled:
        return _the_one(labelled, "", text)
    return [find_trial(plan, text)]


def _matching(plan: Plan, text: str) -> list[PlannedTrial]:
    named = [trial for trial in plan.trials if trial.name == text]
    begin = [trial for trial in plan.trials if is_prefix(text) and trial.id.startswith(text)]
    return named or begin


def is_prefix(text: str) -> bool:
    """Whether it may be an id, or the beginning of one."""
    return re.fullmatch(rf"[0-9a-f]{{{SHORTEST},{ID_LENGTH}}}", text) is not None


def _unknown(plan: Plan, text: str) -> str:
    labels = {
        label: None for trial in plan.trials for label in (*trial.labels, *trial.labels.values())
    }
    known = [*labels, *(trial.name for trial in plan.trials)]
    return (
        f"nothing in study {plan.name!r} is called {text!r}{nearest(text, known)} "
        f"(expected one of {_listed(labels)}, a run's name, or the beginning of its id)"
    )


def _the_one(found: Mapping[str, T], none: str, text: str) -> T:
    if not found:
        raise BadOption(none)
    if len(found) > 1:
        raise BadOption(f"{text!r} may be any of {len(found)}: {_listed(found)}")
    return next(iter(found.values()))


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(map(repr, shown)) + (f" and {more} more" if more else "")
