"""`study run` as users meet it: results, reuse, crashes, second drivers."""

import json
import signal
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from trainables import names

from .conftest import NO_RAY, copy_of


def test_one_finished_run_a_trial_with_all_it_should_show(finished):
    runs = finished.runs()
    assert [run.info.status for run in runs] == ["FINISHED"] * 5
    assert len({run.data.tags[names.TRIAL_ID] for run in runs}) == 5
    run = next(run for run in runs if run.data.params["loss"] == "isce")
    assert run.data.params.keys() >= {"method", "dataset", "backbone", "seed", "loss.s", "loss.m"}
    shown = {names.CLEAN, names.ROBUST, names.ROBUST_VAL, names.WORST_CASE, names.MASKING_GAP}
    shown |= {names.N, names.TRAIN_SECONDS, names.ATTACK_SECONDS}
    assert run.data.metrics.keys() >= shown | {"hp/loss.s"}
    assert run.data.tags[names.EVIDENCE] == names.EXPLORATORY
    assert run.info.run_name == (
        f"isce s={run.data.params['loss.s']} m={run.data.params['loss.m']}"
        " · lenet5/mnist5k · seed 0"
    )


def test_training_curves_have_a_point_an_epoch(finished):
    client = MlflowClient(f"sqlite:///{finished.path}/results/mlflow.db")
    for run in finished.runs():
        for curve in (names.TRAIN_LOSS, names.TRAIN_ACCURACY, names.VALIDATION_ACCURACY):
            points = client.get_metric_history(run.info.run_id, curve)
            assert sorted(point.step for point in points) == [1, 2]


def test_tracked_accuracies_are_those_of_the_outcomes(finished):
    client = MlflowClient(f"sqlite:///{finished.path}/results/mlflow.db")
    for run in finished.runs():
        artifact = Path(run.info.artifact_uri.removeprefix("file://"))
        frame = pd.read_parquet(artifact / names.OUTCOMES_FILE)
        cells = json.loads((artifact / names.CELLS_FILE).read_text())
        accuracy = frame.groupby("cell")["correct_after"].mean()
        assert set(accuracy.index) == {*cells, names.WORST_CASE}
        for cell, value in accuracy.items():
            assert run.data.metrics[cell] == pytest.approx(value)
        test = frame[frame["cell"].str.startswith("cell/test/pgd")]
        worst = test.groupby("index")["correct_after"].min().mean()
        assert run.data.metrics[names.WORST_CASE] == pytest.approx(worst)
    assert client.get_experiment_by_name("tiny").tags["mlflow.note.content"].startswith("Does it")


def test_a_complete_study_does_nothing_and_starts_no_ray(finished):
    before = finished.entries(".")
    output = finished.study("run", "tiny.yaml", **NO_RAY)
    assert "5 of 5 trials have all their results" in output
    assert finished.entries(".") == before


def test_in_process_and_on_ray_give_the_same_results(finished, folder):
    output = folder.study("run", "tiny.yaml", "--local", **NO_RAY)
    assert "[5/5]" in output
    assert folder.outcomes() == finished.outcomes()

    def shown(where):
        times = (names.TRAIN_SECONDS, names.ATTACK_SECONDS)
        return {
            run.data.tags[names.TRIAL_ID]: {
                **run.data.params,
                **{k: v for k, v in run.data.metrics.items() if k not in times},
            }
            for run in where.runs()
        }

    assert shown(folder) == shown(finished)


def test_an_added_attack_trains_no_model_again(finished, folder):
    copy_of(finished, folder)
    models, outcomes = folder.entries("models"), folder.entries("outcomes")
    folder.file.write_text(
        folder.file.read_text().replace("attacks:", "attacks:\n  deepfool: {steps: 3}")
    )
    folder.study("run", "tiny.yaml", "--local")
    assert folder.entries("models") == models
    after = folder.entries("outcomes")
    assert len(after) == len(outcomes) + 5
    assert {place: after[place] for place in outcomes} == outcomes
    assert all(
        "cell/test/deepfool-overshoot-un-raw-eps0.02-n3" in r.data.metrics for r in folder.runs()
    )


def test_tracking_is_rebuilt_from_the_store(finished, folder):
    copy_of(finished, folder)
    folder.study("run", "tiny.yaml", **NO_RAY)

    def shown(where):
        return {run.data.tags[names.TRIAL_ID]: run.data.metrics for run in where.runs()}

    assert shown(folder) == shown(finished)


def test_a_second_driver_is_refused_and_a_killed_one_is_taken_up(folder, running):
    first = running("run", "tiny.yaml", "--set", "training.epochs=6")
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("[1/5]"):
            break
    second = folder.study("run", "tiny.yaml", expect=2)
    assert f"process {first.pid}" in second
    assert "is being run by" in second
    assert "Traceback" not in second

    first.send_signal(signal.SIGKILL)
    first.communicate()
    models, outcomes = folder.entries("models"), folder.entries("outcomes")
    assert models  # something had been finished
    assert len(models) < 5 or len(outcomes) < 5 * 7

    folder.study("run", "tiny.yaml", "--set", "training.epochs=6")
    after = {**folder.entries("models"), **folder.entries("outcomes")}
    for place, made in {**models, **outcomes}.items():
        assert after[place] == made
    assert Counter(run.info.status for run in folder.runs()) == {"FINISHED": 5}
    assert len({run.data.tags[names.TRIAL_ID] for run in folder.runs()}) == 5
    assert not folder.entries("progress")


def test_a_failed_trial_is_told_and_the_study_goes_on(folder):
    text = folder.file.read_text()
    folder.file.write_text(
        text.replace("sce: {loss: sce}", "sce: {loss: sce, training: {lr: 1e30}}", 1)
    )
    output = folder.study("run", "tiny.yaml", "--set", "resources.pack=4", expect=1)
    assert "4 of 5 trials have all their results" in output
    assert "non-finite loss" in output
    assert "Traceback" not in output
    statuses = {run.data.params["method"]: run for run in folder.runs()}
    assert statuses["sce"].info.status == "FAILED"
    assert "non-finite loss" in statuses["sce"].data.tags[names.REASON]
    assert statuses["isce"].info.status == "FINISHED"
    packing = [
        json.loads(path.read_text()).get("packing", 1)
        for place in folder.entries("models")
        for path in Path(place).glob("execution.*.json")
    ]
    assert packing == [2] * 4  # two workers, two packs


def test_a_damaged_outcome_is_set_aside_and_measured_again(finished, folder):
    copy_of(finished, folder)
    place, content = next(iter(folder.outcomes().items()))
    (folder.store / place).write_bytes(content[:-1])
    output = folder.study("run", "tiny.yaml", "--local")
    assert "is damaged" in output
    assert folder.outcomes() == finished.outcomes()


def test_a_users_own_packages_do_not_shadow_ours(folder):
    for name in ("trainables", "analysis", "study"):
        (folder.path / name).mkdir()
        (folder.path / name / "__init__.py").write_text("raise RuntimeError('shadowed')")
    folder.study(
        "run",
        "tiny.yaml",
        "--set",
        "training.epochs=1",
        "--set",
        "methods={sce: {loss: sce}}",
        "--set",
        "choose=null",
    )


@pytest.mark.parametrize(
    ("sign", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGALRM, 75)],
    ids=["TERM", "INT", "ALRM"],
)
@pytest.mark.parametrize("where", [[], ["--local"]], ids=["ray", "local"])
def test_a_stopped_run_leaves_nothing_running_and_can_go_on(folder, running, sign, status, where):
    process = running("run", "tiny.yaml", *where)
    for line in process.stdout:
        if line.startswith("[1/5]"):
            break
    process.send_signal(sign)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status, output
    assert f"this goes on where it was: {' '.join(['study', 'run', 'tiny.yaml', *where])}" in output
    assert "Traceback" not in output
    assert "RUNNING" not in {run.info.status for run in folder.runs()}
    assert not (folder.store / "studies" / "tiny" / "lock.json").exists()
    folder.study("run", "tiny.yaml", "--local")
    assert {run.info.status for run in folder.runs()} == {"FINISHED"}


def test_more_cores_than_there_are_is_told(folder):
    output = folder.study("run", "tiny.yaml", "--set", "resources.cpu=4096", expect=2)
    assert "resources.cpu: a trial asks for 4096 cores" in output
    assert "Traceback" not in output


def test_a_worker_that_dies_costs_no_trial(folder, running):
    packed = ("--set", "resources.pack=3")
    process = running("run", "tiny.yaml", "--set", "training.epochs=6", *packed)
    for line in process.stdout:
        if line.startswith("[1/5]"):
            break
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in family if "Trainable" in " ".join(child.cmdline())]
    assert workers
    for worker in workers:
        worker.kill()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "its worker died" in output
    assert "5 of 5 trials have all their results" in output
    assert Counter(run.info.status for run in folder.runs()) == {"FINISHED": 5}
