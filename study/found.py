"""The plan with all that the results have added to it: by searches, and by refinements."""

from __future__ import annotations

from dataclasses import replace

from study.plan import make_plan
from study.planned import Plan
from study.refinements import refinements
from study.search import extras_of, searches
from trainables.store import Store


def with_found(plan: Plan, store: Store) -> Plan:
    """The plan with the points that were found so far beside its grids, made anew for new ones.

    Args:
        plan: of a study file, or of what was found before.
        store: where searches and refinements are kept.
    """
    found = searches(plan, store)
    extras = (
        *refinements(plan, store),
        *(extra for search in found for extra in extras_of(search)),
    )
    described = tuple(search.describe() for search in found)
    whole = plan if extras == plan.extras else make_plan(plan.file, plan.chosen, extras)
    return replace(whole, searches=described)
