"""What work of each kind took, kept in the store: of finished trials, of probes, of whole runs.

`costs/<machine>/<study>` has the tallies of a study's finished trials and `probes/<machine>` what
probes measured, a machine being what `machine_of` tells of it; `studies/<study>/cost` has what
the study's last run took. Small entries, so that planning reads no trial's record.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from study.cost import (
    Account,
    Kinds,
    Rate,
    Tally,
    Workload,
    estimate,
    taken,
    told,
    workload,
)
from study.planned import Plan, PlannedTrial
from trainables.execution import Execution, entry_name, machine_of
from trainables.probe import attack_rate, training_rate
from trainables.store import Store
from trainables.trial import record_of

FILE = "cost.json"
KEEP_SECONDS = 30.0  # between two writings of a running study's tallies


def held(store: Store) -> tuple[set[str], dict[str, set[str]]]:
    """Ids of the trained models, and of the measured cells by model."""
    return store.entries("models"), store.nested("outcomes")


def all_rates(store: Store) -> dict[str, dict[str, Rate]]:
    """What is known of each kind, by machine's place: of finished trials, else of probes."""
    found = {place: _probed(store, place) for place in store.entries("probes")}
    for place, studies in store.nested("costs").items():
        tallies: dict[str, Tally] = {}
        for study in sorted(studies):
            for kind, tally in _tallies(store, f"costs/{place}/{study}").items():
                tallies[kind] = tallies.get(kind, Tally()) + tally
        found.setdefault(place, {}).update({kind: sums.rate for kind, sums in tallies.items()})
    return found


def _probed(store: Store, place: str) -> dict[str, Rate]:
    return {kind: Rate(item["seconds"]) for kind, item in _read(store, f"probes/{place}").items()}


def rates(store: Store, machine: str) -> dict[str, Rate]:
    """What is known of each kind on one kind of machine."""
    return all_rates(store).get(entry_name(machine), {})


def _tallies(store: Store, entry: str) -> dict[str, Tally]:
    return {kind: Tally(**sums) for kind, sums in _read(store, entry).items()}


def _read(store: Store, entry: str) -> dict[str, Any]:
    """An entry's one object; nothing where it is missing or damaged: it is but statistics."""
    found: dict[str, Any] = store.recall(entry, FILE) or {}
    return found


def _write(store: Store, entry: str, value: Any) -> None:
    store.write_json(entry, FILE, value)


def last_account(store: Store, study: str) -> Account | None:
    """What the study's last run took; None before any did something."""
    found = _read(store, f"studies/{study}/cost")
    return Account(**found) if found else None


def keep_account(store: Store, study: str, account: Account) -> None:
    """Keeps what a run took, for `last_account`."""
    _write(store, f"studies/{study}/cost", account.as_json())


class Meter:
    """Adds up what a run's trials take, beside what was expected of them when it began.

    Args:
        plan: what is run; the tallies are kept under its study's name.
        store: where records and tallies are.

    Attributes:
        account: what the run took, once it is over; None where it finished no trial.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.study, self.store = plan.name, store
        models, self.measured = held(store)
        self.work = workload(plan, models, self.measured)
        self.expected = all_rates(store)
        self.account: Account | None = None
        self._trials, self._seconds, self._estimated = 0, 0.0, 0.0
        self._unexpected = False
        self._counted: set[str] = set()
        self._kinds = Kinds()
        self._tallies: dict[str, dict[str, Tally]] = {}  # by place, what is not kept yet
        self._began = self._kept = time.monotonic()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        """Keeps the last tallies, however the run ended."""
        if not self._trials:
            return
        with contextlib.suppress(OSError):  # they are but statistics; what ended the run is told
            self._keep()
        self.account = Account(
            trials=self._trials,
            seconds=self._seconds,
            estimated=None if self._unexpected else self._estimated,
            wall=time.monotonic() - self._began,
            time=time.time(),
        )

    def finished(self, trial: PlannedTrial) -> None:
        """Counts a trial that has all its results now and had not when the run began."""
        if trial.id in self.work.whole or trial.id in self._counted:
            return
        self._counted.add(trial.id)
        record = record_of(self.store, trial.id)
        if "execution" not in record:
            return
        place = entry_name(machine_of(record["execution"]))
        here = self._tallies.setdefault(place, {})
        expected = self.expected.get(place, {})
        done = taken(
            trial,
            record,
            self._kinds,
            trained=trial.id in self.work.trained_ids,
            measured=self.measured.get(trial.id, ()),
        )
        self._trials += 1
        for need, seconds in done:
            here[need.kind] = here.get(need.kind, Tally()).with_run(need.units, seconds)
            self._seconds += seconds
            if need.kind in expected:
                self._estimated += expected[need.kind].seconds * need.units
            else:
                self._unexpected = True
        if time.monotonic() - self._kept > KEEP_SECONDS:
            self._keep()

    def _keep(self) -> None:
        """Adds this run's tallies to those of the study's earlier ones."""
        for place, tallies in self._tallies.items():
            entry = f"costs/{place}/{self.study}"
            before = _tallies(self.store, entry)
            sums = before | {kind: before.get(kind, Tally()) + new for kind, new in tallies.items()}
            _write(self.store, entry, {kind: asdict(tally) for kind, tally in sums.items()})
        self._tallies, self._kept = {}, time.monotonic()


def probe(
    store: Store,
    work: Workload,
    execution: Execution,
    said: Callable[[str], None],
) -> dict[str, str]:
    """Measures every kind of which nothing is known on this machine, and keeps it.

    Args:
        store: where what is known is kept.
        work: what is to be done.
        execution: of this machine.
        said: hears of each kind, in words, before it is measured.

    Returns:
        Why a kind could not be measured, by kind in words.
    """
    machine = machine_of(execution.record())
    unmeasured = estimate(work, rates(store, machine)).unmeasured
    failed: dict[str, str] = {}
    for kind in unmeasured:
        said(told(kind))
        trial, cell = work.examples[kind]
        started = time.perf_counter()
        try:
            if cell is None:
                seconds = training_rate(trial.model, execution)
            else:
                seconds = attack_rate(trial.model, cell, execution)
        except Exception as error:  # the trial itself will say it again
            failed[told(kind)] = f"{type(error).__name__}: {error}"
            continue
        measured = {"seconds": seconds, "took": time.perf_counter() - started}
        entry = f"probes/{entry_name(machine)}"
        _write(store, entry, _read(store, entry) | {kind: measured})
    return failed


def probe_seconds(store: Store, machine: str) -> float | None:
    """What a probe took on this kind of machine, a mean; None before any."""
    took = [item["took"] for item in _read(store, f"probes/{entry_name(machine)}").values()]
    return sum(took) / len(took) if took else None
