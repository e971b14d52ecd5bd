"""What a search remembers, and what it makes of it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.cost import workload
from study.found import with_found
from study.plan import candidate
from study.search import Suggestion, ahead, best, searches
from study.spec import Search as Settings
from trainables import names
from trainables.names import COMPLETE, FAILED, STOPPED_EARLY
from trainables.store import Store

METHODS = {
    "sce": {"loss": "sce"},
    "arcface": {"loss": {"name": "arcface", "s": [1, 8, 30], "m": [0, 0.5]}},
    "isce": {"loss": {"name": "isce", "s": {"loguniform": [1, 8]}, "m": {"uniform": [0, 0.3]}}},
}
KEYS = {"methods": METHODS, "seeds": 3, "search": {"methods": "isce", "trials": 2}}
POINTS = ({"loss.s": 1.5, "loss.m": 0.1}, {"loss.s": 4.25, "loss.m": 0.2})


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def tried(plan, store, robust):
    """The plan's one search, after as many suggestions as there are values."""
    (search,) = searches(plan, store)
    for number, value in enumerate(robust):
        suggestion = Suggestion(number, POINTS[number], model_id="")
        model = candidate(plan, search.extra(suggestion)).id
        search.suggested(replace(suggestion, model_id=model))
        search.ended(model, COMPLETE, robust=value, clean=0.9)
    return search


def test_a_searched_method_has_no_trials_before_anything_is_found(plan_of, store):
    plan = with_found(plan_of(**KEYS), store)
    assert not [trial for trial in plan.trials if "isce" in trial.methods]
    assert plan.choose == ["isce"]
    (described,) = plan.searches
    assert (described["budget"], described["suggestions"], described["best"]) == (2, [], [])


def test_a_candidate_has_the_first_seed_and_validation_images_alone(plan_of, store):
    plan = plan_of(**KEYS)
    (search,) = searches(plan, store)
    trial = candidate(plan, search.extra(Suggestion(0, POINTS[0], model_id="")))
    assert trial.candidate
    assert trial.model.seed == 0
    assert trial.label == "isce s=1.5 m=0.1"
    assert {cell.split for cell in trial.cells.values()} == {names.VALIDATION}
    assert not trial.diagnostics


def test_the_best_gets_every_seed_and_all_images_once_the_search_is_done(plan_of, store):
    plan = plan_of(**KEYS)
    tried(plan, store, [0.5])
    assert not [trial for trial in with_found(plan, store).trials if "isce" in trial.methods]
    tried(plan, Store(store.url), [])  # what was kept is found again
    (search,) = searches(plan, store)
    suggestion = Suggestion(1, POINTS[1], model_id="")
    model = candidate(plan, search.extra(suggestion)).id
    search.suggested(replace(suggestion, model_id=model))
    search.ended(model, COMPLETE, robust=0.75, clean=0.9)
    found = with_found(plan, store)
    finalists = [trial for trial in found.trials if "isce" in trial.methods]
    assert [(trial.axes["isce"], trial.model.seed) for trial in finalists] == [
        (POINTS[1], seed) for seed in range(3)
    ]
    assert {cell.split for trial in finalists for cell in trial.cells.values()} == {
        names.TEST,
        names.VALIDATION,
    }
    # Its first seed is the candidate's model, trained already; the other stays a candidate.
    assert finalists[0].id == model
    assert [trial.axes["isce"] for trial in found.candidates] == [POINTS[0]]
    assert found.searches[0]["best"] == [1]


def test_a_budget_as_large_as_a_grid(plan_of, store):
    keys = {**KEYS, "search": {"methods": "isce", "trials": "arcface"}}
    (search,) = searches(plan_of(**keys), store)
    assert search.budget == 6  # points, however many seeds they have


def test_a_larger_budget_goes_on_and_another_space_begins_anew(plan_of, store):
    tried(plan_of(**KEYS), store, [0.5, 0.75])
    (longer,) = searches(plan_of(**{**KEYS, "search": {"methods": "isce", "trials": 5}}), store)
    assert len(longer.suggestions) == 2
    assert longer.left == 3
    assert not longer.done
    isce = {"loss": {**METHODS["isce"]["loss"], "s": {"loguniform": [1, 9]}}}
    for changed in (
        {"methods": {**METHODS, "isce": isce}},
        {"training": {"epochs": 3}},
        {"evaluate": {"validation": 30}},
        {"search": {**KEYS["search"], "sampler": "random"}},
        {"search": {**KEYS["search"], "seed": 1}},
    ):
        (other,) = searches(plan_of(**{**KEYS, **changed}), store)
        assert not other.suggestions, changed


def test_what_is_described_is_plain_data(plan_of, store):
    plan = plan_of(**KEYS)
    tried(plan, store, [0.5, 0.75])
    (described,) = with_found(plan, store).searches
    assert json.loads(json.dumps(described)) == described


def test_what_is_ahead_is_part_of_the_estimate(plan_of, store):
    plan = plan_of(**{**KEYS, "search": {"methods": "isce", "trials": 9, "finalists": 2}})
    bare = workload(plan, set(), {})
    found = workload(plan, set(), {}, ahead(plan, store))
    assert found.trials.total() == bare.trials.total() + 9 + 2 * 3
    tried(plan, store, [0.5, 0.75])
    found = workload(plan, set(), {}, ahead(plan, store))
    assert found.trials.total() == bare.trials.total() + 7 + 2 * 3
    assert found.models == bare.models  # which they are nobody knows


ONE = Settings(trials=5)
TWO = Settings(trials=5, objective=["clean", "robust"], sampler="nsga2", finalists=100)

values = st.integers(0, 4).map(lambda value: value / 4)
suggestions = st.lists(st.tuples(values, values, st.integers(0, 3)), max_size=12).map(
    lambda drawn: [
        Suggestion(number, {}, str(number), COMPLETE if state else FAILED, robust, clean)
        for number, (robust, clean, state) in enumerate(drawn)
    ]
)


@given(suggestions)
def test_the_best_of_one_objective(tried):
    complete = [item for item in tried if item.state == COMPLETE]
    found = best(tried, ONE)
    assert len(found) == min(1, len(complete))
    for winner in found:
        rank = (winner.robust, winner.clean, -winner.number)
        assert rank == max((item.robust, item.clean, -item.number) for item in complete)


@given(suggestions)
def test_the_best_of_two_objectives_are_those_that_none_beats(tried):
    complete = [item for item in tried if item.state == COMPLETE]
    found = {item.number for item in best(tried, TWO)}
    for item in complete:
        beaten = any(
            other.robust >= item.robust
            and other.clean >= item.clean
            and (other.robust, other.clean) != (item.robust, item.clean)
            for other in complete
        )
        assert (item.number in found) is not beaten


def test_a_model_that_was_suggested_twice_is_one_finalist():
    twice = [
        Suggestion(number, {"loss.s": s}, model, COMPLETE, robust, 0.9)
        for number, (s, model, robust) in enumerate([(1, "a", 0.9), (1, "a", 0.9), (2, "b", 0.5)])
    ]
    found = best(twice, Settings(trials=3, finalists=2))
    assert [item.number for item in found] == [0, 2]


def test_stopped_and_failed_suggestions_are_no_finalists():
    ended = [
        Suggestion(0, {}, "a", STOPPED_EARLY, epoch=2),
        Suggestion(1, {}, "b", FAILED, reason="nan"),
    ]
    assert best(ended, ONE) == []
