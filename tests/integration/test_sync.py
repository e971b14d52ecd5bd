"""`study status` and `study sync`: what there is, told and tracked again."""

import json
import shutil

from mlflow import MlflowClient

from trainables import names

from .conftest import NO_RAY, Folder, copy_of


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}


def status(folder, *overrides):
    options = [word for override in overrides for word in ("--set", override)]
    return json.loads(folder.study("status", "tiny.yaml", "--json", *options))


def shown(folder):
    """All that MLflow shows of each trial, by trial id.

    But for its run's own id, and when it was taken up: the driver alone knows that.
    """
    client = MlflowClient(f"sqlite:///{folder.path}/results/mlflow.db")
    found = {}
    for run in folder.runs():
        curves = {
            name: [
                (p.step, p.timestamp, p.value)
                for p in client.get_metric_history(run.info.run_id, name)
            ]
            for name in (names.TRAIN_LOSS, names.VALIDATION_ACCURACY)
        }
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        data = run.data
        found[data.tags[names.TRIAL_ID]] = (
            data.metrics, data.params, data.tags, curves, files, run.info.end_time, run.info.status,
        )  # fmt: skip
    return found


def test_a_lost_database_comes_back_the_same(finished, folder):
    copy_of(finished, folder)
    output = folder.study("sync", "tiny.yaml", **NO_RAY)
    assert output.splitlines()[-1] == "tiny: 5 of 5 trials are tracked"
    assert shown(folder) == shown(finished)
    again = folder.study("sync", "tiny.yaml", **NO_RAY)
    assert again == output.splitlines()[-1] + "\n"  # nothing was left to write
    assert len(folder.runs()) == 5


def test_what_lacks_results_is_counted_and_not_run(finished, folder):
    copy_of(finished, folder)
    partly, wholly = sorted((folder.store / "outcomes").iterdir())[:2]
    shutil.rmtree(next(partly.iterdir()))
    shutil.rmtree(folder.store / "models" / partly.name)
    shutil.rmtree(wholly)
    output = folder.study("sync", "tiny.yaml", **NO_RAY)
    assert output.splitlines()[-2:] == [
        "tiny: 3 of 5 trials are tracked",
        "the other 2 lack results: study run tiny.yaml",
    ]
    assert len(folder.runs()) == 3
    found = status(folder)
    assert found["counts"] == {"done": 3, "running": 0, "failed": 0, "begun": 2, "missing": 0}
    begun = {trial["id"]: trial for trial in found["trials"] if trial["state"] == "begun"}
    assert begun[partly.name]["cells"] == begun[partly.name]["planned_cells"] - 1
    assert begun[wholly.name]["cells"] == 0


def test_status_tells_of_an_untouched_study_and_changes_nothing(folder):
    before = files(folder)
    assert "5 missing" in folder.study("status", "tiny.yaml")
    assert files(folder) == before


def test_status_of_a_finished_study_changes_nothing(finished):
    before = files(finished)
    found = status(finished)
    assert found["counts"]["done"] == len(found["trials"]) == 5
    assert found["run_by"] == []
    assert {trial["id"] for trial in found["trials"]} == shown(finished).keys()
    assert files(finished) == before


def test_status_tells_who_runs_a_study(folder, running):
    process = running("run", "tiny.yaml", "--local", "--set", "training.epochs=100000")
    assert process.stdout.readline() == "5 of 5 trials to run, 0 done already\n"
    (who,) = status(folder, "training.epochs=100000")["run_by"]
    assert f"process {process.pid}, last heard" in who


def test_status_tells_why_trials_failed(folder):
    bad = ("--set", "methods.isce.training.lr=1e30")
    output = folder.study("run", "tiny.yaml", "--local", "--quiet", *bad, expect=1)
    assert len(output.splitlines()) == 2 + 4  # no progress
    output = folder.study("run", "tiny.yaml", "--local", "--verbose", *bad, expect=1)
    assert "4 of 5 trials to run, 1 done already" in output
    assert output.count("Traceback (most recent call last)") == 4
    output = folder.study("status", "tiny.yaml", *bad)
    assert "1 done, 4 failed" in output
    assert "nobody runs it now" in output
    assert output.count("  failed: isce s=") == output.count("NonFiniteLoss: ") == 4
    trained = folder.entries("models")
    output = folder.study("retry", "tiny.yaml", "--local", "--failed", *bad, expect=1)
    assert output.count("will fail again unless code has changed: NonFiniteLoss: ") == 4
    assert "4 of 4 trials to run" in output
    assert "tiny: 0 of 4 trials have all their results" in output
    assert folder.entries("models") == trained
    assert "no trial has failed, 4 lack" in folder.study("retry", "tiny.yaml")


def test_failures_are_told_and_tracked_again_from_the_store(folder, tmp_path_factory):
    bad = ("--set", "methods.isce.training.lr=1e30")
    folder.study("run", "tiny.yaml", "--local", *bad, expect=1)
    before = shown(folder)
    failed = [run for run in before.values() if run[-1] == "FAILED"]
    assert len(failed) == 4
    assert all(names.FAILURE_FILE in run[4] for run in failed)
    # Elsewhere: this process would go on reading a database that is deleted under it.
    again = copy_of(folder, Folder(tmp_path_factory.mktemp("again")))
    output = again.study("status", "tiny.yaml", *bad)
    assert output.count("  failed: isce s=") == output.count("NonFiniteLoss: ") == 4
    assert not (again.path / "results" / "mlflow.db").exists()
    again.study("sync", "tiny.yaml", *bad, **NO_RAY)
    after = shown(again)
    assert {id: (*run[:5], run[6]) for id, run in after.items()} == {
        id: (*run[:5], run[6]) for id, run in before.items()
    }  # but for when MLflow was told of a failure
    again.study("sync", "tiny.yaml", *bad, **NO_RAY)
    assert shown(again) == after  # nothing was left to write
