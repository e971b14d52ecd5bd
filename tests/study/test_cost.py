"""What work is of one kind, and what is added up of it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.cost import (
    Account,
    Estimate,
    Kinds,
    Need,
    Rate,
    Tally,
    Workload,
    cells_of,
    duration,
    estimate,
    taken,
    together,
    told,
    workload,
)
from trainables.training import Epoch

POSITIVE = st.floats(1e-3, 1e6)
NEEDS = st.builds(Need, kind=st.sampled_from("abc"), units=POSITIVE)
WORK = st.dictionaries(st.lists(NEEDS, min_size=1, max_size=4).map(tuple), st.integers(1, 9))
RATES = st.dictionaries(st.sampled_from("abc"), st.builds(Rate, POSITIVE, POSITIVE))


def work_of(trials):
    work = Workload()
    work.trials.update(trials)
    return work


def kinds_of(plan):
    return sorted(told(kind) for kind in workload(plan, (), {}).units)


def test_all_points_of_a_grid_are_one_kind_of_training_and_of_each_attack(plan_of):
    grid = {"name": "isce", "s": [1, 2, 3], "m": [0, 0.05, 0.1]}
    attacks = {"pgd": {"eps": [0.02, 0.04], "steps": [3, 5], "surface": "margin_raw"}}
    headline = {"attack": "pgd", "eps": 0.04, "steps": 5}
    methods = {"isce": {"loss": grid, "seeds": 2}}
    plan = plan_of(methods=methods, attacks=attacks, headline=headline)
    assert len(plan.trials) == 18
    assert kinds_of(plan) == [
        "clean of isce on lenet5/mnist5k",
        "pgd of isce on lenet5/mnist5k",  # 3 steps
        "pgd of isce on lenet5/mnist5k",  # 5 steps
        "training of isce on lenet5/mnist5k",
    ]


@pytest.mark.parametrize(
    ("keys", "more"),
    [
        ({"training": {"lr": 0.01, "epochs": 3, "schedule": "cosine"}}, 0),
        ({"data": {"name": "mnist5k", "subset": {"train": 100}}}, 0),
        ({"training": {"batch_size": 32}}, 1),
        ({"loss": "center"}, 3),
        ({"backbone": {"name": "lenet5", "embedding": 16}}, 3),
        ({"transform": "random_resize_pad"}, 3),
        ({"regime": {"name": "adversarial", "budget": "linf", "eps": 0.1, "steps": 2}}, 3),
    ],
)
def test_what_makes_another_kind(plan_of, keys, more):
    methods = {"sce": {"loss": "sce"}, "other": {"loss": "sce", **keys}}
    assert len(kinds_of(plan_of(methods=methods))) == 3 + more


def test_sizes_of_an_attack_are_no_kinds_and_steps_of_one_run_are_its_longest(plan_of):
    path = {"eps": [0.02, 0.04], "budget": "path_l2", "steps": [3, 9], "surface": "margin_raw"}
    plan = plan_of(attacks={"pgd": path}, headline={"attack": "pgd", "eps": 0.04, "steps": 9})
    work = workload(plan, (), {})
    pgd = [need for need in next(iter(work.trials)) if '"pgd"' in need.kind]
    assert len({need.kind for need in pgd}) == 1
    assert '"steps":9.0' in pgd[0].kind
    # Each eps on the test images, 3 and 9 steps together; the headline on validation images.
    assert sorted((need.units, need.cells) for need in pgd) == [(20, 1), (50, 2), (50, 2)]


def test_the_models_that_attacks_need_make_no_kinds(plan_of):
    using = {"name": "pgd", "eps": 0.04, "steps": 2}
    attacks = {"pgd": {"eps": 0.04, "steps": 3}, "transfer": {"source": "sce", "using": using}}
    methods = {"sce": {"loss": "sce"}, "isce": {"loss": "isce"}}
    kinds = kinds_of(plan_of(methods=methods, attacks=attacks, seeds=3))
    assert kinds.count("transfer of isce on lenet5/mnist5k") == 1


def test_units_are_images(plan_of):
    plan = plan_of(training={"epochs": 4}, data={"name": "mnist5k", "subset": {"train": 300}})
    (trial,) = plan.trials
    assert Kinds().training(trial.model).units == pytest.approx(4 * (300 + 500 / 3))


def test_what_the_store_holds_is_not_needed(plan_of):
    plan = plan_of(seeds=3)
    first, second, third = plan.trials
    outcomes = {trial.id: set(trial.cell_ids.values()) for trial in (first, second)}
    missing = outcomes[second.id].pop()
    work = workload(plan, {first.id, second.id}, outcomes)
    assert (work.models, work.trained, work.whole) == (3, 2, {first.id})
    cells = len(first.cell_ids)
    assert (work.cells, work.measured) == (3 * cells, 2 * cells - 1)
    assert sorted(len(needs) for needs in work.trials) == [1, 1 + cells]
    assert work.runs == 1 + cells
    outcomes[second.id].add(missing)
    outcomes[third.id] = set(third.cell_ids.values())
    assert not workload(plan, (), outcomes).trials


def test_every_kind_has_a_trial_and_a_cell_to_measure_it_by(plan_of):
    plan = plan_of(diagnostics={"embedding": {}})
    work = workload(plan, (), {})
    assert work.examples.keys() == work.units.keys()
    kinds = Kinds()
    for kind, (trial, cell) in work.examples.items():
        if cell is None:
            assert kinds.training(trial.model).kind == kind
        else:
            assert kinds.runs(trial.model, [cell])[0].kind == kind


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=20), st.data())
def test_a_tally_is_a_mean_over_units_and_its_spread_in_any_order(trials, data):
    cut = data.draw(st.integers(0, len(trials)))
    tally = sum((Tally().with_run(*trial) for trial in trials[:cut]), Tally())
    tally += sum((Tally().with_run(*trial) for trial in trials[cut:]), Tally())
    rate, units = tally.rate, sum(units for units, _ in trials)
    mean = sum(seconds for _, seconds in trials) / units
    variance = sum(units * (seconds / units - mean) ** 2 for units, seconds in trials)
    largest = max(seconds / units for units, seconds in trials)
    assert rate.seconds == pytest.approx(mean)
    assert rate.spread == pytest.approx(
        math.sqrt(variance / sum(u for u, _ in trials)), abs=1e-6 * largest
    )
    assert rate.runs == len(trials)


@given(WORK, RATES)
def test_an_estimate_adds_up_what_is_known(trials, rates):
    found = estimate(work_of(trials), rates)
    items = [(need, count) for needs, count in trials.items() for need in needs]
    known = [(need, count) for need, count in items if need.kind in rates]
    expected = sum(count * need.units * rates[need.kind].seconds for need, count in known)
    assert found.seconds == pytest.approx(expected)
    assert found.low <= found.seconds <= found.high
    assert found.longest <= found.seconds * (1 + 1e-9)
    assert set(found.unmeasured) == {need.kind for need, _ in items} - rates.keys()
    assert found.kinds == len({need.kind for need, _ in items})


@given(WORK, RATES, st.integers(1, 100), st.floats(0.01, 100))
def test_more_at_a_time_take_less_by_the_clock_and_cost_the_same(trials, rates, slots, price):
    found = estimate(work_of(trials), rates)
    assert found.wall(1) == pytest.approx(found.seconds)
    assert found.wall(slots + 1) <= found.wall(slots)
    assert found.wall(slots) >= max(found.longest, found.seconds / slots)
    # A machine of so many slots at the price, and one of one slot at its share.
    assert found.price(slots, price) == pytest.approx(found.price(1, price / slots))


def test_a_price_is_of_an_hour_of_a_machine():
    day = Estimate(86400.0, 0, 0, 0, (), 0, 1)
    assert day.price(slots=8, price=2.0) == pytest.approx(6.0)  # three hours of its eight slots


def test_what_a_trial_took_stands_in_its_record(plan_of):
    plan = plan_of(training={"epochs": 2})
    (trial,) = plan.trials
    epochs = [vars(Epoch(number, 0, 0, 0, seconds=1.5, time=0)) for number in (1, 2)]
    ids = list(trial.cell_ids.values())
    record = {"history": epochs, "cell_seconds": {id: 2.0 for id in [*ids, "an older plan's"]}}
    done = list(taken(trial, record, Kinds(), trained=False, measured=()))
    assert [seconds for _, seconds in done] == [3.0] + [2.0] * len(ids)
    assert sum(need.cells for need, _ in done) == len(cells_of(trial))
    later = list(taken(trial, record, Kinds(), trained=True, measured=ids[1:]))
    assert [seconds for _, seconds in later] == [2.0]


def test_cells_of_one_run_are_one_item(plan_of):
    path = {"eps": 0.04, "budget": "path_l2", "steps": [3, 9], "surface": "margin_raw"}
    plan = plan_of(attacks={"pgd": path}, headline={"attack": "pgd", "steps": 9})
    (trial,) = plan.trials
    record = {"history": [], "cell_seconds": dict.fromkeys(trial.cell_ids.values(), 2.0)}
    done = list(taken(trial, record, Kinds(), trained=True, measured=()))
    assert sorted(seconds for _, seconds in done) == [2.0, 2.0, 2.0, 4.0]
    lost = next(iter(trial.cell_ids.values()))
    del record["cell_seconds"][lost]
    assert len(list(taken(trial, record, Kinds(), trained=True, measured=()))) == 3


def test_accounts_say_how_far_off_the_estimate_was():
    first = Account(trials=2, seconds=720, estimated=600, wall=360, time=1)
    assert str(first) == "took 12.0 min of work, estimated 10.0 min (x1.2), 6.0 min by the clock"
    unknown = Account(trials=1, seconds=60, estimated=None, wall=60, time=2)
    assert "estimated" not in str(together(first, unknown))
    both = together(first, first)
    assert (both.trials, both.seconds, both.estimated) == (4, 1440, 1200)
    assert together(None, first) is first
    assert together(None, None) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.25, "0.2 s"), (42, "42 s"), (90, "1.5 min"), (5400, "1.5 h"), (1e6, "11.6 d")],
)
def test_durations_are_in_the_largest_unit(seconds, text):
    assert duration(seconds) == text
