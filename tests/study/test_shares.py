"""A trial's share of a GPU is what its study says, or what it was measured to need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.cost import Kinds, cells_of
from study.shares import LABEL, SPARE, Shares, as_many, probe
from trainables.execution import Execution
from trainables.memory import Memory, kept
from trainables.store import Store

TINY = {"data": {"name": "mnist5k", "subset": {"train": 100, "validation": 20, "test": 80}}}
DATA = 200 * (28 * 28 + LABEL)  # bytes of these images
TWO = {"sce": {"loss": "sce"}, "isce": {"loss": {"name": "isce", "s": [1.0, 2.0], "m": 0.1}}}


def needs(trial):
    kinds = Kinds()
    training = kinds.training(trial.model).kind
    return training, [run.kind for run in kinds.runs(trial.model, cells_of(trial))]


def memory(trials, training, attack, total=1000 * DATA, fixed=50 * DATA):
    """Of the trials' kinds, in sizes of their data set."""
    own = {}
    for trial in trials:
        first, runs = needs(trial)
        own |= {first: training * DATA, **dict.fromkeys(runs, attack * DATA)}
    return Memory(total=total, fixed=fixed, own=own)


def learned(asked, plan, *memories, more=1):
    shares = Shares(asked, more)
    shares.learn(memories, plan.trials)
    return shares


@pytest.mark.parametrize(("more", "share"), [(1, 0.3), (2, 0.6), (4, 1.0)])
def test_a_share_that_is_given_stands_until_memory_is_short(plan_of, more, share):
    plan = plan_of(**TINY)
    shares = learned(0.3, plan, memory(plan.trials, 900, 900), more=more)
    assert shares.examples(plan.trials) == {}  # nothing is to be measured
    assert shares.of(plan.trials) == share


@pytest.mark.parametrize(
    ("training", "attack", "fit"),
    [
        (100, 20, 1000 // (50 + 1 + SPARE * 100)),  # 6
        (20, 100, 6),  # the larger of both
        (10, 10, 1000 // (51 + SPARE * 10)),  # 16
        (500, 0, 1),
        (2000, 0, 1),
    ],
)
def test_as_many_as_fit_have_equal_shares(plan_of, training, attack, fit):
    plan = plan_of(**TINY)
    shares = learned("auto", plan, memory(plan.trials, training, attack))
    assert shares.of(plan.trials) == 1 / fit


def test_what_is_trained_at_once_adds_up_and_attacks_do_not(plan_of):
    plan = plan_of(**TINY, seeds=3)
    few = learned("auto", plan, memory(plan.trials, 100, 10))
    assert few.of(plan.trials) == 1 / (1000 // (51 + SPARE * 300))
    many = learned("auto", plan, memory(plan.trials, 1, 100))
    assert many.of(plan.trials) == many.of(plan.trials[:1])


def test_the_smallest_gpu_counts(plan_of):
    plan = plan_of(**TINY)
    large, small = (memory(plan.trials, 100, 10, total=total * DATA) for total in (16_000, 1000))
    assert learned("auto", plan, large, small).of(plan.trials) == 1 / 6
    assert learned("auto", plan, large).of(plan.trials) < 1 / 90


def test_where_nothing_is_known_it_is_all_of_a_gpu(plan_of):
    plan = plan_of(**TINY, methods=TWO)
    assert learned("auto", plan).of(plan.trials[:1]) == 1.0
    assert learned("auto", plan, Memory(total=0, fixed=0)).of(plan.trials[:1]) == 1.0
    some = learned("auto", plan, memory(plan.trials[:1], 10, 10))
    assert some.of(plan.trials[:1]) < 0.1
    # Of another loss, which no one foresaw: as much as the largest that is known.
    assert some.of(plan.trials[1:2]) == some.of(plan.trials[:1])


def test_tensors_have_what_libraries_leave_of_a_share(plan_of):
    plan = plan_of(**TINY)
    small, large = (memory(plan.trials, 9, 9, total=total * DATA) for total in (1000, 16_000))
    assert learned("auto", plan, large, small).room(0.25) == pytest.approx(0.25 - 0.05)
    assert learned("auto", plan, small).room(0.06) == 0.03  # no less than half of it
    assert learned(0.25, plan).room(0.25) == 0.25


@given(st.integers(1, 5000))
def test_as_many_shares_fit_as_a_gpu_is_cut_into(count):
    assert as_many(1 / count) == count


def test_each_kind_is_measured_once_with_the_cell_that_takes_all(plan_of):
    attacks = {"pgd": {"eps": 0.04, "steps": [3, 9], "alpha": 0.02}}
    plan = plan_of(**TINY, methods=TWO, attacks=attacks, headline={"attack": "pgd", "steps": 3})
    found = Shares("auto").examples(plan.trials)
    assert len(plan.trials) == 3
    assert set(found) == {kind for trial in plan.trials for kind in _all(trial)}
    trainings = [example for example in found.values() if not example.cells]
    assert [example.model.loss.name for example in trainings] == ["sce", "isce"]
    attacked = [example.cells[0].probe for example in found.values() if example.cells]
    # On validation images the headline alone; on test images one run answers both.
    assert sorted(probe.steps for probe in attacked if probe.name == "pgd") == [3, 3, 9, 9]


def _all(trial):
    training, runs = needs(trial)
    return [training, *runs]


def test_a_given_model_needs_no_room_for_a_training(plan_of, tmp_path):
    plan = plan_of(**TINY)
    (trial,) = plan.trials
    shares = learned("auto", plan, memory(plan.trials, 900, 10))
    object.__setattr__(trial, "checkpoint", tmp_path)
    assert shares.of([trial]) < 0.1


def test_a_probe_measures_this_machines_gpu_and_no_processor(plan_of, tmp_path):
    store, plan = Store(str(tmp_path / "store")), plan_of(**TINY)
    assert probe(plan, store, Execution()) == {}
    assert kept(store, Execution()) is None
    alone = Execution(gpu=1.0)  # as on a GPU; what is measured is the processor's
    assert probe(plan, store, alone) == {}
    assert set(kept(store, alone).own) == set(_all(plan.trials[0]))
    assert probe(plan_of(**TINY, resources={"gpu": 0.5}, study="other"), store, alone) == {}
