"""What is left of a study and what it will take on this machine, and whether that is too much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from study.cost import HOUR, Account, Estimate, Workload, duration, estimate, told, workload
from study.ledger import held, last_account, probe_seconds, rates
from study.planned import Plan
from study.search import ahead
from study.shares import Shares, as_many
from trainables.execution import Execution, cores, machine_of
from trainables.memory import kept
from trainables.store import Store

SHOWN = 3  # kinds without a measurement that are named


@dataclass(frozen=True)
class Forecast:
    """What is left of a study, and what it takes.

    Attributes:
        work: what is left.
        estimate: of it.
        machine: kind of machine that it is for.
        slots: trials at a time.
        cpu: cores of a trial.
        probe_seconds: what the kinds without a measurement take to probe; None where no probe has
            told yet.
        last: what the study's last run took.
        price: of an hour of a machine that runs `slots` trials at a time; None for unknown.
    """

    work: Workload
    estimate: Estimate
    machine: str
    slots: int
    cpu: int
    probe_seconds: float | None
    last: Account | None
    price: float | None = None

    @property
    def wall(self) -> float:
        """Seconds by the clock."""
        return self.estimate.wall(self.slots)

    @property
    def cost(self) -> float | None:
        """What it costs, in the price's currency."""
        return None if self.price is None else self.estimate.price(self.slots, self.price)

    def as_json(self) -> dict[str, Any]:
        """Plain data for other programs; times in seconds."""
        found = self.estimate
        return {
            "machine": self.machine,
            "slots": self.slots,
            "work": {"seconds": found.seconds, "low": found.low, "high": found.high},
            "core_seconds": self.cpu * found.seconds,
            "wall_seconds": self.wall,
            "cost": self.cost,
            "kinds": found.kinds,
            "probed": found.probed,
            "unmeasured": [told(kind) for kind in found.unmeasured],
            "last_run": None if self.last is None else self.last.as_json(),
        }

    def lines(self, command: str) -> Iterator[str]:
        """What a person wants to know.

        Args:
            command: how to ask for probes.
        """
        found = self.estimate
        if found.kinds > len(found.unmeasured):
            yield self._left()
        if found.unmeasured:
            known = self.probe_seconds
            some = "a few seconds each" if known is None else f"about {duration(known)}"
            named = ", ".join(told(kind) for kind in found.unmeasured[:SHOWN])
            more = ", …" if len(found.unmeasured) > SHOWN else ""
            yield (
                f"no measurement of {len(found.unmeasured)} of {found.kinds} kinds of work "
                f"({named}{more}) on {self.machine}: `{command}` measures them, {some}"
            )
        if self.last is not None:
            yield f"the last run {self.last}"

    def _left(self) -> str:
        found = self.estimate
        least = "at least " if found.unmeasured else "about "
        between = ""
        if found.high - found.low > 0.02 * found.seconds:
            between = f" ({duration(found.low)} to {duration(found.high)})"
        cost = "" if self.cost is None else f", {self.cost:.2f} at {self.price:g} an hour"
        probed = f"; {found.probed} of {found.kinds} kinds are probed, attacks at their worst"
        return (
            f"left: {least}{duration(found.seconds)} of work{between}, {duration(self.wall)} with "
            f"{self.slots} at a time{cost}{probed if found.probed else ''}"
        )

    def excess(self, max_hours: float | None, max_cost: float | None) -> str | None:
        """What it needs more of than it may take, and what would fit; None where all does."""
        told, shares = [], []
        if max_hours is not None and self.wall > max_hours * HOUR:
            told.append(f"about {duration(self.wall)}, more than --max-hours {max_hours:g}")
            shares.append(max_hours * HOUR / self.wall)
        if max_cost is not None and self.cost is not None and self.cost > max_cost:
            told.append(f"about {self.cost:.2f}, more than --max-cost {max_cost:g}")
            shares.append(max_cost / self.cost)
        if not told:
            return None
        trials = self.work.trials.total()
        return (
            f"{trials} trials with {self.slots} at a time need {' and '.join(told)}; "
            f"about {int(min(shares) * trials)} of them would fit"
        )


def forecast(
    plan: Plan,
    store: Store,
    execution: Execution,
    *,
    workers: int | None = None,
    price: float | None = None,
) -> Forecast:
    """What is left of a plan, and what that takes.

    Args:
        plan: what is wanted.
        store: where results and what they took are.
        execution: of this machine.
        workers: trials at a time; as many as this machine has room for by default.
        price: of an hour of a machine like this one.
    """
    work = workload(plan, *held(store), list(ahead(plan, store)))
    machine = machine_of(execution.record())
    found = estimate(work, rates(store, machine))
    one = probe_seconds(store, machine)
    return Forecast(
        work=work,
        estimate=found,
        machine=machine,
        slots=workers or slots(plan, store, execution),
        cpu=plan.resources.cpu,
        probe_seconds=None if one is None else one * len(found.unmeasured),
        last=last_account(store, plan.name),
        price=price,
    )


def slots(plan: Plan, store: Store, execution: Execution) -> int:
    """How many trials run at a time on this machine; one at least.

    One a GPU until it is known how much of its memory they take.
    """
    found: int = cores() // plan.resources.cpu
    if execution.gpu:
        shares = Shares(plan.resources.gpu)
        shares.learn(filter(None, [kept(store, execution)]), plan.trials)
        share = max((shares.of([trial]) for trial in plan.trials), default=1.0)
        found = min(found, torch.cuda.device_count() * as_many(share))
    return max(found, 1)
