"""A search on Ray whose driver is killed: nothing is lost, nothing is tried twice."""

import json
import signal
import sqlite3

from trainables import names

SEARCHED = """\
study: searched
data: {name: mnist5k, subset: {train: 500}}
backbone: lenet5
seeds: 2
evaluate: {validation: 20, test: 20}
training: {epochs: 2}
methods:
  isce:
    loss: {name: isce, s: {loguniform: [1, 8]}, m: {uniform: [0, 0.3]}}
    training: {lr: {loguniform: [1e-5, 1e-2]}}
attacks:
  pgd: {eps: 0.04, steps: 2}
headline: {attack: pgd}
search: {trials: 10, stop: {rule: asha, factor: 2}}
"""


def suggestions(folder):
    """What the store remembers of the search, as it stands."""
    found = list((folder.store / "studies" / "searched").rglob("suggestions.*.json"))
    return json.loads(max(found, key=lambda path: path.stat().st_mtime_ns).read_text())


def in_optuna(folder):
    with sqlite3.connect(folder.path / "results" / "optuna.db") as connection:
        return [state for (state,) in connection.execute("SELECT state FROM trials")]


def killed_amid(process, folder, ended):
    """Kills the driver when so many suggestions have ended and some are under way."""
    for line in process.stdout:
        ended -= "(validation)" in line or "given up" in line
        if ended <= 0 and "open" in {item["state"] for item in suggestions(folder)}:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    return suggestions(folder)


def test_a_search_whose_driver_is_killed_goes_on_where_it_was(folder, running):
    (folder.path / "searched.yaml").write_text(SEARCHED)
    before = killed_amid(running("run", "searched.yaml"), folder, ended=3)
    assert "open" in {item["state"] for item in before}
    assert "RUNNING" in in_optuna(folder)
    ended = [item for item in before if item["state"] != "open"]
    models = folder.entries("models")

    output = folder.study("run", "searched.yaml")
    after = suggestions(folder)
    assert [item["number"] for item in after] == list(range(10))
    assert {item["state"] for item in after} <= {"complete", "stopped"}
    assert "stopped" in {item["state"] for item in after}
    # What had ended stands; what was open is the same point, tried to its end.
    assert [after[item["number"]] for item in ended] == ended
    for item in before:
        assert after[item["number"]]["axes"] == item["axes"]
    assert len({item["model_id"] for item in after}) == 10
    assert models.items() <= folder.entries("models").items()  # none was trained again
    states = in_optuna(folder)  # a zombie is one that was killed before it was kept
    assert states.count("COMPLETE") + states.count("PRUNED") == 10
    assert len(states) - states.count("FAIL") == 10
    assert "RUNNING" not in states
    assert "have all their results" in output

    finalists = folder.runs("searched")
    assert len(finalists) == 2
    assert {run.info.status for run in finalists} == {"FINISHED"}
    best = max((item for item in after if item["state"] == "complete"), key=lambda i: i["robust"])
    assert best["robust"] in {run.data.metrics[names.ROBUST_VAL] for run in finalists}
