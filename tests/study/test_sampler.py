"""Optuna as a search sees it: every sampler, and a database that was lost or left behind."""

import sqlite3

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from study.sampler import NUMBER, Sampler, distribution
from study.search import Suggestion, searches
from study.space import Range
from trainables.names import COMPLETE, FAILED, STOPPED_EARLY
from trainables.store import Store

METHOD = {
    "loss": {"name": "isce", "s": {"loguniform": [1, 8]}, "m": {"uniform": [0, 0.3]}},
    "training": {"lr": [1e-3, 3e-3, 1e-2], "epochs": {"integers": [1, 4]}},
}


@pytest.fixture
def search_of(plan_of, tmp_path):
    """A search of one method, with what it remembers in one place."""

    def make(**search):
        keys = {"methods": {"isce": METHOD}, "search": {"trials": 30, **search}}
        return searches(plan_of(**keys), Store(str(tmp_path / "store")))[0]

    return make


def value(axes):
    """Something to be made large."""
    return 1 - abs(axes["loss.m"] - 0.2) - 0.01 * axes["training.epochs"]


def tries(sampler, count):
    """Suggestions as a run makes them, all of which come to something."""
    search, made = sampler.search, []
    for _ in range(count):
        number, axes = sampler.suggest()
        search.suggested(Suggestion(number, axes, model_id=f"m{number}"))
        for ended in search.ended(f"m{number}", COMPLETE, robust=value(axes), clean=0.5):
            sampler.tell(ended, [0.25, 0.5])
        made.append(axes)
    return made


def states(database):
    with sqlite3.connect(database) as connection:
        return [
            state for (state,) in connection.execute("SELECT state FROM trials ORDER BY number")
        ]


BOTH = {"sampler": "nsga2", "objective": ["clean", "robust"]}
SAMPLERS = [{"sampler": name} for name in ("random", "tpe", "gp", "cmaes")]


@pytest.mark.parametrize("settings", [*SAMPLERS, BOTH], ids=lambda item: item["sampler"])
def test_every_sampler_keeps_to_the_axes_and_learns(search_of, tmp_path, settings):
    sampler = Sampler(search_of(**settings), tmp_path / "optuna.db")
    made = tries(sampler, 14)
    for axes in made:
        assert list(axes) == ["loss.s", "loss.m", "training.lr", "training.epochs"]
        assert 1 <= axes["loss.s"] <= 8
        assert 0 <= axes["loss.m"] <= 0.3
        assert float(f"{axes['loss.s']:.6g}") == axes["loss.s"]  # what is shown can be typed
        assert axes["training.lr"] in METHOD["training"]["lr"]
        assert axes["training.epochs"] in (1, 2, 3, 4)
    assert len({tuple(axes.values()) for axes in made}) > 10
    assert states(tmp_path / "optuna.db") == ["COMPLETE"] * 14


@pytest.mark.parametrize("settings", [*SAMPLERS, BOTH], ids=lambda item: item["sampler"])
def test_after_a_crash_it_suggests_what_it_would_have_without(search_of, tmp_path, settings):
    whole = tries(Sampler(search_of(**settings), tmp_path / "whole.db"), 12)
    Store(str(tmp_path / "store")).remove(search_of(**settings)._entry)
    first = tries(Sampler(search_of(**settings), tmp_path / "parts.db"), 7)
    second = tries(Sampler(search_of(**settings), tmp_path / "parts.db"), 5)
    assert first + second == whole


def test_a_lost_database_is_made_anew(search_of, tmp_path):
    tries(Sampler(search_of(), tmp_path / "optuna.db"), 5)
    search = search_of()
    search.suggested(Suggestion(5, {**search.suggestions[0].axes, "loss.m": 0.25}, "open"))
    search.suggested(Suggestion(6, search.suggestions[1].axes, "stopped", STOPPED_EARLY, epoch=2))
    again = Sampler(search_of(), tmp_path / "other.db")
    assert states(tmp_path / "other.db") == ["COMPLETE"] * 5 + ["RUNNING", "PRUNED"]
    trials = again.study.get_trials(deepcopy=False)
    assert [trial.params["loss.m"] for trial in trials] == [
        suggestion.axes["loss.m"] for suggestion in search_of().suggestions
    ]
    assert again.suggest()[0] == 7


def test_what_was_killed_before_it_was_kept_is_told_to_have_failed(search_of, tmp_path):
    sampler = Sampler(search_of(), tmp_path / "optuna.db")
    tries(sampler, 2)
    sampler.suggest()  # and the driver dies here
    again = Sampler(search_of(), tmp_path / "optuna.db")
    assert states(tmp_path / "optuna.db") == ["COMPLETE", "COMPLETE", "FAIL"]
    number, axes = again.suggest()
    assert number == 2
    search = again.search
    search.suggested(Suggestion(number, axes, "m2"))
    (ended,) = search.ended("m2", FAILED, reason="NonFiniteLoss")
    again.tell(ended)
    assert states(tmp_path / "optuna.db") == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]


def test_what_the_record_knows_and_optuna_was_not_told_is_told_now(search_of, tmp_path):
    sampler = Sampler(search_of(), tmp_path / "optuna.db")
    number, axes = sampler.suggest()
    sampler.search.suggested(Suggestion(number, axes, "m0"))
    sampler.search.ended("m0", COMPLETE, robust=0.5, clean=0.75)  # and the driver dies here
    again = Sampler(search_of(), tmp_path / "optuna.db")
    (trial,) = again.study.get_trials()
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.values == [0.5]
    assert trial.user_attrs[NUMBER] == 0


def test_the_dashboard_sees_how_each_training_went(search_of, tmp_path):
    sampler = Sampler(search_of(), tmp_path / "optuna.db")
    number, axes = sampler.suggest()
    sampler.search.suggested(Suggestion(number, axes, "m0"))
    (ended,) = sampler.search.ended("m0", STOPPED_EARLY, epoch=2)
    sampler.tell(ended, [0.25, 0.5])
    (trial,) = sampler.study.get_trials()
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.25, 2: 0.5}


def test_evenly_spaced_choices_are_numbers_in_an_order():
    even = FloatDistribution(1, 2.5, step=0.5)
    assert distribution((1, 1.5, 2, 2.5)) == even
    assert distribution((1, 10, 100)) == CategoricalDistribution((1, 10, 100))
    assert distribution(Range(1, 4, whole=True)) == IntDistribution(1, 4)
    assert distribution(Range(1, 4, log=True)) == FloatDistribution(1, 4, log=True)
