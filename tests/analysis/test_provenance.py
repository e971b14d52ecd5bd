"""Where numbers came from, and what they took."""

from __future__ import annotations

from dataclasses import replace

from analysis.plan import Plan
from analysis.provenance import cost, provenance
from analysis.runs import ENDED, STARTED, Results
from trainables import names


def timed(results: Results, device: str, gpu: object = "0", **raw: object) -> Results:
    """Each trial trained for a minute and was attacked for nine, one after the other."""
    count = len(results.frame)
    frame = results.frame.assign(
        **{
            names.TRAIN_SECONDS: 60.0,
            names.ATTACK_SECONDS: 540.0,
            STARTED: [1_000_000_000_000 + 600_000 * i for i in range(count)],
            ENDED: [1_000_000_600_000 + 600_000 * i for i in range(count)],
            "device": device,
            "gpu": gpu,
        }
    )
    return replace(results, frame=frame, plan=Plan({**results.plan.raw, **raw}))


def test_cost_is_the_trials_own_time_by_what_they_were_given(small: Results) -> None:
    """Ten of twelve trials are done: the sixth never ran and the tenth failed."""
    told = cost(timed(small, "cpu x86_64", resources={"cpu": 2}))
    assert told == {
        "trials": "10",
        "first began": "2001-09-09 01:46 UTC",
        "last ended": "2001-09-09 03:46 UTC",
        "training": "0.17 h",
        "attacks": "1.50 h",
        "core hours": "3.33",
    }


def test_gpus_are_counted_where_there_are_some(small: Results) -> None:
    told = cost(timed(small, "cuda Tesla", gpu=["0.25", "0.5"] * 6, resources={"cpu": 1}))
    assert told["GPU hours"] == f"{(4 * 0.25 + 5 * 0.5) * 600 / 3600:.2f}"


def test_a_model_that_answers_for_two_methods_costs_once(flat: Results) -> None:
    assert cost(timed(flat, "cpu"))["trials"] == "2"


def test_before_any_trial_has_ended_there_is_no_cost(small: Results) -> None:
    assert cost(replace(small, frame=small.frame.assign(state="running"))) == {}


def test_plans_of_a_time_before_resources_were_told_count_cores(small: Results) -> None:
    lists = provenance(timed(small, "cpu"), "study report small")
    assert lists["Time and cost"]["core hours"] == "1.67"
    assert lists["Commands"] == {"run": "study run small", "report": "study report small"}
