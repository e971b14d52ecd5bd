"""A search as it is run, in this process: what is tried, given up, found, and tracked."""

import json
import math
import shutil
import sqlite3
from types import SimpleNamespace

import pytest
import yaml
from mlflow import MlflowClient
from ray.tune.schedulers import TrialScheduler
from typer.testing import CliRunner

import study
from study.bundle import export, import_bundle
from study.choice import with_choices
from study.clean import look
from study.cli import app
from study.driver import sync_study
from study.files import read_study
from study.found import with_found
from study.launch import Known, stop_rule
from study.plan import make_plan
from study.progress import Display
from study.search import searches
from study.spec import Stop
from study.status import status_of
from trainables import names
from trainables.names import COMPLETE, FAILED, STOPPED_EARLY
from trainables.store import Store
from trainables.trial import record_of

STUDY = {
    "study": "small",
    "data": {"name": "mnist5k", "subset": {"train": 500}},
    "backbone": "lenet5",
    "seeds": 2,
    "evaluate": {"validation": 40, "test": 20},
    "training": {"epochs": 3},
    "methods": {
        "sce": {"loss": "sce", "seeds": 1},
        "grid": {"loss": "isce", "training": {"lr": 3e-3}, "seeds": 1},
        "isce": {"loss": {"name": "isce", "s": [1, 2]}, "training": {"lr": [1e-5, 3e-3]}},
        "wild": {
            "loss": {"name": "center", "weight": {"loguniform": [1e38, 3e38]}},
            "seeds": 1,
        },
    },
    "attacks": {"pgd": {"eps": 0.04, "steps": 2}, "cheap": {"attack": "fgsm", "eps": 0.04}},
    "headline": {"attack": "pgd"},
    "search": {
        "methods": ["isce", "wild"],
        "trials": 7,
        "sampler": "random",
        "finalists": 2,
        "stop": {"rule": "asha", "factor": 2, "by": "cheap"},
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory, run_plan):
    """A study with two searches, one of what always diverges, that has been run."""
    folder = tmp_path_factory.mktemp("found")
    (folder / "small.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    bare = make_plan(read_study(str(folder / "small.yaml")))
    result, said = run_plan(bare, folder)
    store = Store(str(folder / "store"))
    return SimpleNamespace(
        folder=folder,
        bare=bare,
        result=result,
        said=said,
        store=store,
        plan=with_found(bare, store),
        searches={search.method: search for search in searches(bare, store)},
    )


def runs(uri):
    client = MlflowClient(uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "small")
    return client.search_runs([experiment.experiment_id], max_results=1000)


def test_every_suggestion_has_ended(found):
    states = [item.state for item in found.searches["isce"].suggestions]
    assert len(states) == 7
    assert set(states) == {COMPLETE, STOPPED_EARLY}  # a rung keeps the better half
    assert all(search.done for search in found.searches.values())


def test_what_was_given_up_has_no_model_and_no_outcome(found):
    for item in found.searches["isce"].suggestions:
        if item.state == STOPPED_EARLY:
            assert item.epoch in (1, 2)
            assert len(record_of(found.store, item.model_id)["history"]) == item.epoch
            assert not found.store.has(f"models/{item.model_id}")
            assert not found.store.entries(f"outcomes/{item.model_id}")


def test_the_attack_that_a_training_is_given_up_by_is_measured_each_epoch(found):
    for item in found.searches["isce"].suggestions:
        history = record_of(found.store, item.model_id)["history"]
        if item.model_id not in found.plan.by_id:  # a grid's point is trained without
            assert all(0 <= epoch["watched"] <= 1 for epoch in history)
            assert any(epoch["watched"] != epoch["validation_accuracy"] for epoch in history)


def test_a_point_that_diverges_is_no_failure_of_the_study(found):
    assert [item.state for item in found.searches["wild"].suggestions] == [FAILED] * 7
    assert all(
        item.reason.startswith("NonFiniteLoss") for item in found.searches["wild"].suggestions
    )
    assert not found.result.failed
    assert not [trial for trial in found.plan.trials if "wild" in trial.methods]


def test_what_a_grid_has_trained_is_not_trained_again(found):
    grid = next(trial for trial in found.plan.trials if "grid" in trial.methods)
    same = [item for item in found.searches["isce"].suggestions if item.model_id == grid.id]
    assert same  # else this tests nothing: another seed of the search
    assert {item.state for item in same} == {COMPLETE}
    assert len(record_of(found.store, grid.id)["history"]) == 3


def test_the_best_are_whole_with_every_seed(found):
    finalists = [trial for trial in found.plan.trials if "isce" in trial.methods]
    complete = {item.model_id for item in found.searches["isce"].suggestions}
    points = {tuple(trial.axes["isce"].values()) for trial in finalists}
    assert 1 <= len(points) <= 2
    assert len(finalists) == 2 * len(points)
    assert {trial.id for trial in finalists if trial.model.seed == 0} <= complete
    for trial in finalists:
        assert trial.result_ids <= found.store.entries(f"outcomes/{trial.id}")


def test_one_run_of_each_in_mlflow_none_running(found):
    tracked = runs(f"sqlite:///{found.folder}/mlflow.db")
    ids = [run.data.tags.get(names.TRIAL_ID) for run in tracked]
    ids = [trial_id for trial_id in ids if trial_id]
    assert len(ids) == len(set(ids)) == len(found.plan.trials) + len(found.plan.candidates)
    assert "RUNNING" not in {run.info.status for run in tracked}
    states = {
        item.model_id: item for search in found.searches.values() for item in search.suggestions
    }
    for run in tracked:
        if run.data.tags[names.ROLE] != names.CANDIDATE:
            continue
        item = states[run.data.tags[names.TRIAL_ID]]
        assert run.info.status == ("FAILED" if item.state == FAILED else "FINISHED")
        if item.state == STOPPED_EARLY:
            assert run.data.tags[names.STOPPED] == f"epoch {item.epoch}"
        if item.state == COMPLETE:
            assert run.data.metrics[names.ROBUST_VAL] == item.robust
            assert names.ROBUST not in run.data.metrics


def test_running_it_again_does_nothing(found, run_plan):
    before = {path: path.stat().st_mtime_ns for path in (found.folder / "store").rglob("*.json")}
    _, said = run_plan(found.bare, found.folder)
    assert said == ""
    after = {path: path.stat().st_mtime_ns for path in (found.folder / "store").rglob("*.json")}
    assert after == before


def test_a_lost_database_shows_the_same_again(found, tmp_path):
    shutil.copytree(found.folder / "store", tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    lacking = sync_study(
        found.bare,
        store=store,
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        artifacts=tmp_path / "artifacts",
        command="study run",
        display=SimpleNamespace(
            **{
                name: lambda *_: None
                for name in dir(Display)
                if not name.startswith("_") and callable(getattr(Display, name))
            }
        ),
    )
    assert lacking == 0

    def shown(uri):
        return {
            (run.data.tags.get(names.TRIAL_ID), run.data.tags[names.ROLE], run.info.status): (
                run.data.tags.get(names.STOPPED),
                run.data.metrics,
            )
            for run in runs(uri)
        }

    assert shown(f"sqlite:///{tmp_path}/mlflow.db") == shown(f"sqlite:///{found.folder}/mlflow.db")


def test_optuna_has_every_suggestion_ended(found):
    with sqlite3.connect(found.folder / "optuna.db") as connection:
        rows = connection.execute(
            "SELECT study_name, state FROM trials JOIN studies USING (study_id)"
        ).fetchall()
    assert sorted(state for name, state in rows if "/wild/" in name) == ["FAIL"] * 7
    assert {state for name, state in rows if "/isce/" in name} == {"COMPLETE", "PRUNED"}


def test_the_status_tells_how_it_stands(found):
    told = status_of(found.plan, found.store, None).searches
    assert told[0].startswith("isce on lenet5/mnist5k, random: 7 of 7 suggestions, ")
    assert told[1] == "wild on lenet5/mnist5k, random: 7 of 7 suggestions, 7 failed"


def test_a_choice_keeps_what_was_found(found):
    path = str(found.folder / "small.yaml")
    audited = with_found(make_plan(read_study(path, ["audit={n: 20}"])), found.store)
    chosen = with_choices(audited, found.store)
    assert chosen.chosen  # validation has chosen
    assert [trial.id for trial in chosen.trials] == [trial.id for trial in found.plan.trials]
    assert chosen.searches == found.plan.searches


def test_python_and_the_command_see_what_was_found(found):
    path, store = str(found.folder / "small.yaml"), found.store.url
    opened = study.open(path, storage=store, tracking_uri=f"sqlite:///{found.folder}/mlflow.db")
    assert opened.plan.trials == found.plan.trials
    finalist = next(trial for trial in found.plan.trials if trial.id not in found.bare.by_id)
    shown = CliRunner().invoke(app, ["show", finalist.name, path, "--storage", store, "--json"])
    assert json.loads(shown.output)["trial"] == finalist.id
    both = CliRunner().invoke(app, ["compare", path, "sce", finalist.id, "--storage", store])
    assert both.exit_code == 0, both.output


def test_the_plan_tells_the_analysis(found):
    described = {search["method"]: search for search in found.plan.searches}
    assert len(described["isce"]["suggestions"]) == 7
    assert json.dumps(described)


def searching(stop, histories, epochs=9):
    return SimpleNamespace(stop=stop, epochs=epochs, histories=lambda: histories)


def decisions(rule, trial, accuracies, start=1):
    """What a rule says after each epoch."""
    return [
        rule.on_trial_result(None, trial, {"epoch": epoch, "accuracy": accuracy})
        for epoch, accuracy in enumerate(accuracies, start=start)
    ]


CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        # 0.5 at epoch 1 is below the better half, whose edge is 0.6, of 0.4, 0.6, 0.8 and itself.
        (Stop(rule="asha", factor=2), [STOP]),
        (Stop(rule="asha", factor=2, grace=2), [CONTINUE, STOP]),
        (Stop(rule="median", grace=1), [STOP]),
        (Stop(rule="median", grace=3), [CONTINUE, CONTINUE, STOP]),
    ],
    ids=str,
)
def test_a_rule_goes_by_the_trainings_of_earlier_runs(stop, expected):
    histories = [("a", [0.4] * 9), ("b", [0.6] * 9), ("c", [0.8] * 9)]
    rule, trial = stop_rule(searching(stop, histories)), Known("new")
    rule.on_trial_add(None, trial)
    assert decisions(rule, trial, [0.5] * len(expected)) == expected
    fresh = stop_rule(searching(stop, []))
    fresh.on_trial_add(None, trial)
    assert decisions(fresh, trial, [0.5] * len(expected)) == [CONTINUE] * len(expected)


def test_the_last_rung_lets_what_survives_be_measured():
    rule, trial = stop_rule(searching(Stop(rule="asha", factor=3), [])), Known("only")
    rule.on_trial_add(None, trial)
    assert decisions(rule, trial, [0.5] * 9 + [math.nan]) == [CONTINUE] * 10


def test_without_a_rule_nothing_is_given_up():
    rule = stop_rule(searching(None, [("a", [1.0])]))
    rule.on_trial_add(None, Known("new"))
    assert decisions(rule, Known("new"), [0.0] * 9) == [CONTINUE] * 9


def test_a_bundle_has_what_was_tried_and_found_and_nothing_is_run_there(found, run_plan, tmp_path):
    export(found.plan, found.store, tmp_path / "a.zip", models=False, partial=False)
    (tmp_path / "there").mkdir()
    there = Store(str(tmp_path / "there" / "store"))
    done = import_bundle(tmp_path / "a.zip", there, tmp_path / "there")
    plan = with_found(make_plan(read_study(str(done.file))), there)
    assert (plan.trials, plan.candidates) == (found.plan.trials, found.plan.candidates)
    assert plan.searches == found.plan.searches
    _, said = run_plan(plan, tmp_path / "there")
    assert "to run" not in said
    assert look(there, {}, []).items == ()
    assert look(found.store, {}, []).items == ()
