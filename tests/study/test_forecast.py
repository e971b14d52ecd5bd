"""What finished trials took is kept, and tells what others will take."""

import json

import pytest

from study.cost import Rate, Tally, estimate, workload
from study.forecast import forecast, slots
from study.ledger import (
    Meter,
    all_rates,
    keep_account,
    last_account,
    probe,
    probe_seconds,
    rates,
)
from study.local import Local
from study.shares import Shares
from study.shares import probe as probe_memory
from study.site import Site
from study.spec import Resources
from trainables.execution import Execution, cores, machine_of
from trainables.memory import kept
from trainables.store import Store

TINY = {
    "data": {"name": "mnist5k", "subset": {"train": 100, "validation": 20}},
    "evaluate": {"validation": 5, "test": 5},
    "training": {"epochs": 1},
}
CPU = Execution()
MACHINE = machine_of(CPU.record())


class Nobody:
    """Hears, and does nothing."""

    def started(self, trial_id): ...

    def reported(self, report):
        assert not report.failed

    def lost(self, trial_id, reason, details=""): ...


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def metered(store):
    """Runs a plan in this process; what it took."""

    def run(plan):
        with Meter(plan, store) as meter:
            Local().run(plan.trials, Site(store, "", Resources(), ()), Nobody())
            for trial in plan.trials:
                meter.finished(trial)
                meter.finished(trial)  # as when it is tracked again
        return meter.account

    return run


def test_what_trials_took_is_what_their_like_will_take(plan_of, store, metered):
    first = metered(plan_of(**TINY))
    assert first.trials == 1
    assert first.estimated is None  # nothing was known
    assert first.wall >= first.seconds > 0
    two = plan_of(**TINY, seeds=2)
    found = forecast(two, store, CPU, workers=1)
    assert found.estimate.seconds == pytest.approx(first.seconds)
    assert (found.estimate.unmeasured, found.estimate.probed) == ((), 0)
    assert (found.work.trained, found.work.models) == (1, 2)
    second = metered(two)
    assert second.trials == 1
    assert second.estimated == pytest.approx(first.seconds)
    found = all_rates(store).values()
    # The headline and the clean cell are measured on two splits.
    assert sorted(rate.runs for known in found for rate in known.values()) == [2, 4, 4]


def test_a_run_that_finishes_nothing_keeps_nothing(plan_of, store, metered):
    plan = plan_of(**TINY)
    metered(plan)
    before = {path: store.fs.modified(path) for path in store.fs.find(store.root)}
    assert metered(plan) is None
    kept = [path for path in store.fs.find(store.root) if "/costs/" in path]
    assert kept
    assert all(store.fs.modified(path) == before[path] for path in kept)


def test_tallies_of_all_studies_count_and_probes_where_there_are_none(store):
    tally = Tally(runs=1, units=10, seconds=20, squares=40)
    for study in ("one", "two"):
        place = f"costs/cpu-x-1-thread/{study}"
        store.write(place, {"cost.json": json.dumps({"a": vars(tally)}).encode()})
    probes = {kind: {"seconds": 9.0, "took": 3.0} for kind in "ab"}
    store.write("probes/cpu-x-1-thread", {"cost.json": json.dumps(probes).encode()})
    found = rates(store, "cpu x, 1 thread")
    assert found == {"a": Rate(2.0, 0.0, runs=2), "b": Rate(9.0)}
    assert probe_seconds(store, "cpu x, 1 thread") == 3.0
    assert rates(store, "cpu x, 2 threads") == {}


def test_a_damaged_tally_is_no_tally(plan_of, store, metered):
    metered(plan_of(**TINY))
    for path in store.fs.find(f"{store.root}/costs"):
        if "manifest" not in path:
            store.fs.pipe_file(path, b"{")
    assert rates(store, MACHINE) == {}


def test_machines_differ_in_device_and_threads():
    record = CPU.record()
    machines = {
        machine_of({**record, **change})
        for change in ({}, {"threads": 64}, {"device": "cuda A100"}, {"channels_last": False})
    }
    assert len(machines) == 4
    assert machine_of({**record, "host": "elsewhere", "torch": "0"}) == MACHINE


def test_a_probe_measures_what_is_not_known_and_says_what_it_cannot(plan_of, store, monkeypatch):
    monkeypatch.setattr("trainables.probe.STEPS", 2)
    monkeypatch.setattr("trainables.probe.ENOUGH_SECONDS", 0.0)
    plan = plan_of(**TINY)
    heard = []
    assert probe(store, workload(plan, (), {}), CPU, heard.append) == {}
    assert sorted(heard) == [
        "clean of sce on lenet5/mnist5k",
        "pgd of sce on lenet5/mnist5k",
        "training of sce on lenet5/mnist5k",
    ]
    found = estimate(workload(plan, (), {}), rates(store, MACHINE))
    assert (found.unmeasured, found.probed, found.kinds) == ((), 3, 3)
    assert found.seconds > 0
    assert not store.entries("models")

    heard.clear()

    def broken(*_):
        raise RuntimeError("no such layer")

    monkeypatch.setattr("study.ledger.training_rate", broken)
    other = plan_of(**TINY, methods={"sce": {"loss": "sce"}, "center": {"loss": "center"}})
    failed = probe(store, workload(other, (), {}), CPU, heard.append)
    assert len(heard) == 3
    assert failed == {"training of center on lenet5/mnist5k": "RuntimeError: no such layer"}


def test_the_forecast_in_words(plan_of, store, metered):
    plan = plan_of(**TINY)
    (line,) = forecast(plan, store, CPU).lines("study plan x --probe")
    assert line.startswith("no measurement of 3 of 3 kinds of work (training of sce on lenet5")
    assert "`study plan x --probe` measures them, a few seconds each" in line
    account = metered(plan)
    keep_account(store, plan.name, account)
    assert last_account(store, plan.name) == account
    more = forecast(plan_of(**TINY, seeds=3), store, CPU, workers=2, price=3.0)
    left, last = more.lines("")
    assert "with 2 at a time" in left
    assert f"{more.cost:.2f} at 3 an hour" in left
    assert more.cost == pytest.approx(3 * more.estimate.seconds / 3600 / 2)
    assert last == f"the last run {account}"
    assert json.loads(json.dumps(more.as_json()))["last_run"] == account.as_json()
    assert list(forecast(plan, store, CPU).lines("")) == [last]  # nothing is left


def test_what_exceeds_a_budget_is_told_with_what_would_fit(plan_of, store, metered):
    metered(plan_of(**TINY))
    found = forecast(plan_of(**TINY, seeds=11), store, CPU, workers=1, price=3600.0)
    hours = found.wall / 3600
    assert found.excess(1.01 * hours, 1.01 * found.wall) is None
    assert found.excess(None, None) is None
    over = found.excess(hours / 1.9, None)
    assert over.startswith("10 trials with 1 at a time need about ")
    assert f"more than --max-hours {hours / 1.9:g}; about 5 of them would fit" in over
    both = found.excess(hours / 2, found.wall / 4.9)
    assert "--max-cost" in both
    assert both.endswith("about 2 of them would fit")


def test_slots_are_the_cores_over_what_a_trial_takes(plan_of, store):
    assert slots(plan_of(**TINY), store, CPU) == cores()
    assert slots(plan_of(**TINY, resources={"cpu": 4096}), store, CPU) == 1


def test_slots_on_a_gpu_are_the_trials_that_have_room_on_it(plan_of, store, monkeypatch):
    monkeypatch.setattr("study.forecast.cores", lambda: 64)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    plan, on_gpu = plan_of(**TINY), Execution(gpu=1.0)
    assert slots(plan, store, on_gpu) == 2  # nothing is known
    probe_memory(plan, store, on_gpu)
    share = Shares("auto")
    share.learn([kept(store, on_gpu)], plan.trials)
    assert slots(plan, store, on_gpu) == min(64, 2 * round(1 / share.of(plan.trials))) > 2
    assert slots(plan_of(**TINY, resources={"gpu": 0.25}), store, on_gpu) == 8
    assert slots(plan_of(**TINY, resources={"gpu": 0}), store, CPU) == 64
    grid = {"isce": {"loss": {"name": "isce", "s": {"uniform": [1, 5]}, "m": 0.1}}}
    searched = plan_of(**TINY, methods=grid, search={"trials": 3})
    assert not searched.trials
    assert slots(searched, store, on_gpu) == 2  # nobody knows what it will try
