"""Where further trainings say most about a grid."""

import math
from itertools import combinations

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from study.files import read_study
from study.found import with_found
from study.plan import make_plan
from study.refine import Arm, decide, half_widths, refinable
from study.refinements import forget, keep
from study.results import read_outcome, worst
from trainables import names
from trainables.errors import NothingToRefine
from trainables.store import Store

from .conftest import BASE

KEYS = {
    "data": {"name": "mnist5k", "subset": {"train": 1000}},
    "evaluate": {"validation": 30, "test": 10},
    "training": {"epochs": 1},
    "seeds": 2,
    "methods": {
        "sce": {"loss": "sce"},
        "isce": {
            "loss": {"name": "isce", "s": [1, 2, 4]},
            "training": {"lr": {"logspace": [1e-6, 1e-2, 3]}},
        },
    },
    "attacks": {"pgd": {"eps": 0.01, "steps": 1}},
    "choose": {"method": "isce"},
}
HERE = ("isce", "lenet5/mnist5k")


@pytest.fixture(scope="module")
def measured(tmp_path_factory, run_plan):
    """The folder of a grid that has been run."""
    folder = tmp_path_factory.mktemp("grid")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**BASE, **KEYS}, sort_keys=False))
    plan = make_plan(read_study(str(path)))
    run_plan(plan, folder)
    return folder, plan


@pytest.fixture
def store(measured):
    """Its results, without any refinement."""
    folder, plan = measured
    store = Store(str(folder / "store"))
    forget(plan, store)
    return store


def headline(plan, store, trial):
    found = plan.protocol(trial).headline[names.VALIDATION]
    return worst([read_outcome(store, trial.id, trial.cell_ids[name]) for name in found])


def test_half_the_trainings_are_seeds_of_contenders_and_half_new_points(measured, store):
    _, plan = measured
    decision = decide(plan, store, *HERE, 8)
    grid = {tuple(t.axes["isce"].values()) for t in plan.trials if "isce" in t.methods}
    seeds = [extra for extra in decision.extras if tuple(extra.axes.values()) in grid]
    points = [extra for extra in decision.extras if tuple(extra.axes.values()) not in grid]
    assert sum(len(extra.seeds) for extra in seeds) == 4
    assert all(min(extra.seeds) >= 2 for extra in seeds)  # further ones
    assert [extra.seeds for extra in points] == [(0, 1)] * 2
    assert decision.points == 9


def test_the_best_is_the_one_with_the_largest_mean(measured, store):
    _, plan = measured
    means = {}
    for trial in plan.trials:
        if "isce" in trial.methods:
            means.setdefault(trial.label, []).append(headline(plan, store, trial))
    decision = decide(plan, store, *HERE, 2)
    assert decision.best.mean == max(map(np.mean, means.values()))
    assert np.mean(means[decision.best.label]) == decision.best.mean


def test_points_that_cannot_be_the_best_get_nothing(measured, store):
    # At a learning rate of 1e-6 nothing is learnt in an epoch.
    _, plan = measured
    decision = decide(plan, store, *HERE, 8)
    assert decision.contenders < decision.points
    assert all(extra.axes["training.lr"] > 1e-6 for extra in decision.extras)


def test_new_points_lie_beside_contenders_however_many_there_may_be(measured, store):
    _, plan = measured
    decision = decide(plan, store, *HERE, 400)
    assert decision.contenders < decision.points
    lrs = [extra.axes["training.lr"] for extra in decision.extras if extra.seeds == (0, 1)]
    assert lrs
    assert min(lrs) > 1e-6


def test_new_points_are_halfway_by_the_spacing_of_the_axis(measured, store):
    _, plan = measured
    decision = decide(plan, store, *HERE, 40)
    lrs = {extra.axes["training.lr"] for extra in decision.extras}
    assert 0.001 in lrs  # by ratio
    assert {extra.axes["loss.s"] for extra in decision.extras} & {1.41421, 2.82843}


def test_what_was_decided_is_planned_run_and_taken_back(measured, store, run_plan):
    folder, plan = measured
    keep(plan, store, decide(plan, store, *HERE, 4).extras)
    more = with_found(plan, store)
    added = [trial for trial in more.trials if trial.id not in plan.by_id]
    assert len(added) == 4
    assert more.by_id.keys() > plan.by_id.keys()
    beside = [trial for trial in added if trial.refined]
    assert len(beside) == 2  # one point, two seeds
    assert not any(trial.refined for trial in plan.trials)
    for trial in added:
        assert not trial.candidate
        assert trial.cells.keys() == plan.trials[-1].cells.keys()
    result, _ = run_plan(plan, folder)
    assert not result.failed
    assert all(store.has(f"models/{trial.id}") for trial in added)
    forget(plan, store)
    assert with_found(plan, store).trials == plan.trials


def test_rounds_add_up(measured, store):
    _, plan = measured
    first = decide(plan, store, *HERE, 4).extras
    keep(plan, store, first)
    keep(plan, store, first[:1])
    assert len(with_found(plan, store).extras) == len(first) + 1
    assert len(with_found(plan, store).trials) == len(plan.trials) + 4


def test_what_was_decided_of_axes_that_are_gone_is_not_planned(measured, store, plan_of):
    _, plan = measured
    keep(plan, store, decide(plan, store, *HERE, 4).extras)
    isce = {"loss": {"name": "isce", "s": [1, 2, 4]}}
    other = plan_of(**{**KEYS, "methods": {**KEYS["methods"], "isce": isce}})
    assert with_found(other, store).trials == other.trials


def test_a_grid_that_is_not_measured_is_told(plan_of, tmp_path):
    plan = plan_of(**KEYS)
    with pytest.raises(NothingToRefine, match="has no result yet: run the study first"):
        decide(plan, Store(str(tmp_path)), *HERE, 4)


def test_what_has_no_grid_of_numbers_cannot_be_refined(plan_of):
    plan = plan_of(methods={"sce": {"loss": "sce"}, "any": {"loss": ["sce", "mmc"]}})
    assert refinable(plan) == []
    assert refinable(plan_of(**KEYS)) == [HERE]


counts = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=2, max_size=6)


@given(counts)
def test_intervals_are_pooled_t_intervals_or_those_of_images(counted):
    arms = [
        Arm({}, "", n=10, values={seed: c / 10 for seed, c in enumerate(row)}) for row in counted
    ]
    widths = half_widths(arms)
    free = sum(len(row) - 1 for row in counted)
    squares = sum(
        (a - b) ** 2 / (100 * len(row)) for row in counted for a, b in combinations(row, 2)
    )
    for arm, width in zip(arms, widths, strict=True):
        of_images = 1.959964 * math.sqrt(arm.mean * (1 - arm.mean) / arm.n)
        of_seeds = 0.0
        if free:
            t = float(stats.t.interval(0.95, free)[1])
            of_seeds = t * math.sqrt(squares / free / len(arm.values))
        assert width == pytest.approx(max(of_images, of_seeds), rel=1e-5)
