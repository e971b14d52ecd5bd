"""Slices of a study in processes that share the store alone, as a Slurm array runs them."""

import json
import re
import signal
import time

from trainables import names
from trainables.store import Store
from trainables.trial import record_of

from .conftest import NO_RAY

TIMES = (names.TRAIN_SECONDS, names.ATTACK_SECONDS)


def shown(folder):
    return {
        run.data.tags[names.TRIAL_ID]: {
            name: value for name, value in run.data.metrics.items() if name not in TIMES
        }
        for run in folder.runs()
    }


def test_shards_at_once_do_what_one_run_does(finished, folder, running):
    shards = [running("run", "tiny.yaml", "--shard", f"{index}/3") for index in (1, 2, 3)]
    outputs = [shard.communicate(timeout=600)[0] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0, 0], outputs
    trained = [line for out in outputs for line in re.findall(r"^\[\d/\d\] (.*?): ", out, re.M)]
    assert len(trained) == len(set(trained)) == 5  # none of them twice
    assert folder.outcomes() == finished.outcomes()
    assert not (folder.path / "results" / "mlflow.db").exists()
    assert "study sync tiny.yaml" in outputs[0]
    left = [path.name for path in (folder.store / "studies" / "tiny").rglob("*.json")]
    assert "lock.json" not in left
    assert not [name for name in left if "-of-" in name]  # of a shard

    output = folder.study("sync", "tiny.yaml", **NO_RAY)
    assert "tiny: 5 of 5 trials are tracked" in output
    assert shown(folder) == shown(finished)


ONE = ("--set", "methods={sce: {loss: sce}}", "--set", "choose=null")
LONG = (*ONE, "--set", "data={name: mnist5k, subset: {train: 300}}", "--set", "training.epochs=200")


def test_a_killed_shard_is_seen_running_and_taken_up_where_it_was(folder, running):
    shard = running("run", "tiny.yaml", "--shard", "1/1", *LONG)
    assert shard.stdout.readline() == "1 of 1 trials to run, 0 done already\n"
    refused = folder.study("run", "tiny.yaml", *LONG, expect=2)
    assert f"process {shard.pid}, shard 1/1, last heard" in refused
    found = json.loads(folder.study("status", "tiny.yaml", "--json", *LONG))
    assert f"process {shard.pid}, shard 1/1, last heard" in found["run_by"][0]
    assert found["counts"]["running"] == 1, found
    shard.send_signal(signal.SIGKILL)
    shard.communicate()
    killed = time.time()
    (progress,) = folder.entries("progress")

    output = folder.study("run", "tiny.yaml", "--shard", "1/1", *LONG)
    assert "1 of 1 trials have all their results" in output
    record = record_of(Store(str(folder.store)), progress.rsplit("/", 1)[1])
    assert [epoch["epoch"] for epoch in record["history"]] == list(range(1, 201))
    assert record["history"][0]["time"] < killed < record["history"][-1]["time"]
    assert not folder.entries("progress")


def test_when_the_time_is_over_a_run_ends_and_says_how_to_go_on(folder):
    output = folder.study("run", "tiny.yaml", "--local", "--stop-after", "0.1s", expect=75)
    assert output == (
        "0.1s are over; this goes on where it was: study run tiny.yaml --local --stop-after 0.1s\n"
    )
    assert not (folder.store / "studies" / "tiny" / "lock.json").exists()
