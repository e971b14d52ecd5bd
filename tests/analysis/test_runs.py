"""MLflow -> frame."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from analysis import runs
from analysis.plan import Group, Plan
from analysis.runs import Results, load
from trainables import names
from trainables.errors import NothingTracked

from .tracked_study import DEEPFOOL, MARGIN_RAW, MODELS, WORST_RAW


def row(results: Results, label: str, seed: int) -> pd.Series:
    """The first row of a trial."""
    frame = results.frame
    return frame[(frame["label"] == label) & (frame["seed"] == seed)].iloc[0]


def test_rows_are_the_plans_trials_in_order(small: Results) -> None:
    assert list(small.frame["trial_id"]) == [model.trial_id for model in MODELS]


def test_trial_of_two_methods_has_a_row_for_each(flat: Results) -> None:
    assert list(flat.frame["method"]) == ["sce", "sce", "plain", "plain"]
    assert len(flat.unfinished) == 1


def test_trials_are_those_of_a_place_once_each(store: str, flat: Results, group: Group) -> None:
    assert list(flat.trials(group)["trial_id"]) == ["sce-mnist5k-0", "sce-mnist5k-1"]
    assert flat.trials(Group(group.dataset, "cnn8")).empty
    assert set(load(store, "double").trials(group)["dataset"]) == {group.dataset}


def test_values_and_tags(small: Results) -> None:
    found = row(small, "isce s=1.5 m=0.1", 0)
    assert found[names.ROBUST] == 0.5
    assert found[MARGIN_RAW] == 0.6
    assert found["loss.s"] == 1.5
    assert found["attack_mark"] == names.UNAUDITED
    assert found["state"] == runs.DONE


def test_many_runs_are_read_in_parts_to_the_same_frame(
    store: str, small: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_MANY", len(MODELS) - 1)
    monkeypatch.setattr(runs, "_STARTS", "ilns01")  # of these trials' ids
    found = load(store, "small", fresh=True)
    pd.testing.assert_frame_equal(found.frame, small.frame)
    monkeypatch.setattr(runs, "_STARTS", "il")
    some = load(store, "small", fresh=True).frame
    assert set(some.loc[some["state"] == runs.MISSING, "trial_id"]) > {"sce-mnist5k-0"}


def test_failed_trial_shows_its_reason_and_no_number(small: Results) -> None:
    found = row(small, "isce s=1 m=0.1", 0)
    assert (found["state"], found["reason"]) == (runs.FAILED, "NonFiniteLoss: <i>nan</i>")
    assert math.isnan(found[names.ROBUST])


def test_trial_that_never_started_is_missing(small: Results) -> None:
    assert row(small, "norm-sce", 2)["state"] == runs.MISSING
    assert len(small.unfinished) == 2


def test_finished_attempt_outlives_a_newer_failure(small: Results) -> None:
    assert row(small, "sce", 0)["state"] == runs.DONE


def test_finished_trial_without_a_planned_cell_is_incomplete(flat: Results) -> None:
    found = row(flat, "sce", 1)
    assert found["state"] == runs.INCOMPLETE
    assert DEEPFOOL in found["reason"]
    assert found[names.CLEAN] == 0.9


def test_pages_are_read_to_the_end(
    store: str, small: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_PAGE", 2)
    pd.testing.assert_frame_equal(load(store, "small").frame, small.frame)


def test_unknown_study_suggests_the_nearest(store: str) -> None:
    with pytest.raises(NothingTracked, match="did you mean 'small'"):
        load(store, "smal")


def test_study_without_a_plan(store: str) -> None:
    with pytest.raises(NothingTracked, match="`study run empty`"):
        load(store, "empty")


def test_a_plan_of_an_earlier_version_is_told(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = '{"study": "small", "command": "study run small"}'
    monkeypatch.setattr(runs, "_artifact_text", lambda *_: old)
    with pytest.raises(NothingTracked, match="`study run small` brings it up to date"):
        load(store, "small")


def test_a_plan_that_describes_no_worst_cases_is_of_an_earlier_version(
    store: str, small: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.loads(json.dumps(small.plan.raw))
    for protocol in raw["protocols"].values():
        del protocol["worst_raw"]
    monkeypatch.setattr(runs, "_artifact_text", lambda *_: json.dumps(raw))
    with pytest.raises(NothingTracked, match="`study run small` brings it up to date"):
        load(store, "small")


def test_a_worst_case_without_a_result_is_told(small: Results) -> None:
    (name, cells), *_ = WORST_RAW.items()
    tracked = pd.DataFrame(
        {"run_id": "1", "state": runs.DONE, **dict.fromkeys(_planned(small) - {name}, 0.5)},
        [trial["trial_id"] for trial in small.plan.trials],
    )
    found = runs._frame(small.plan, tracked)
    assert set(found["state"]) == {runs.INCOMPLETE}
    assert set(found["reason"]) == {f"no result for {name}"}
    lacking = [{**trial, "lacks": [cells[0]]} for trial in small.plan.trials]
    plan = Plan({**small.plan.raw, "trials": lacking})
    assert set(runs._frame(plan, tracked)["state"]) == {runs.DONE}


@pytest.mark.parametrize(("without", "other"), [("mnist", "mnist5k"), ("mnist5k", "mnist")])
def test_a_trial_lacks_only_what_its_own_place_measures(
    store: str, without: str, other: str
) -> None:
    double = load(store, "double")
    raw = json.loads(json.dumps(double.plan.raw))
    del raw["protocols"][f"lenet5/{without}"]["cells"][DEEPFOOL]
    tracked = pd.DataFrame(
        {"run_id": "1", "state": runs.DONE, **dict.fromkeys(_planned(double) - {DEEPFOOL}, 0.5)},
        [trial["trial_id"] for trial in double.plan.trials],
    )
    frame = runs._frame(Plan(raw), tracked)
    found = {name: set(part["state"]) for name, part in frame.groupby("dataset")}
    assert found == {without: {runs.DONE}, other: {runs.INCOMPLETE}}


def _planned(results: Results) -> set[str]:
    return {name for group in results.plan.groups for name in results.plan.protocol(group).metrics}
