"""MLflow as a projection of the store."""

import contextlib
import json
import sqlite3

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from mlflow.artifacts import load_text
from mlflow.entities import ViewType

from analysis.audit import Audit
from study import results, tracking
from study.tracking import Tracked, Tracker, clipped
from trainables import names
from trainables.errors import BrokenInvariant
from trainables.execution import Execution
from trainables.store import Store
from trainables.trial import Trial, note_failure, record_of

KEYS = {
    "evaluate": {"validation": 10, "test": 20},
    "training": {"epochs": 2, "batch_size": 512},
    "attacks": {
        "pgd": {
            "eps": [0.02, 0.04],
            "steps": [1, 2],
            "targeted": [False, True],
            "surface": ["ce_deployed", "margin_raw"],
        },
        "deepfool": {"steps": 3},
    },
    "headline": {"attack": "pgd", "eps": 0.04, "steps": 2, "targeted": False},
    "methods": {"isce": {"loss": {"name": "isce", "s": [1.5], "m": [0.1]}}},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store in which the study's one trial is whole."""
    return Store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def tracked(plan_of, store, tmp_path):
    """Tracks a study anew: its tracker, its trial, and a look at the runs."""

    def track(**keys):
        plan = plan_of(**{**KEYS, **keys})
        (trial,) = plan.trials
        life = Trial(trial.job(), store, Execution())
        while not life.advance().done:
            pass
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        return Tracker(uri, plan, store, tmp_path / "artifacts", "study run"), trial

    return track


def runs(tracker, role=names.TRIAL):
    found = tracker.client.search_runs([tracker.experiment])
    return [run for run in found if run.data.tags[names.ROLE] == role]


def test_a_finished_run_shows_every_cell_and_the_headline(tracked, store):
    tracker, trial = tracked()
    summary = tracker.finished(trial)
    (run,) = runs(tracker)
    metrics = run.data.metrics
    assert run.info.status == "FINISHED"
    assert set(trial.cells) <= set(metrics)
    outcome = {
        name: results.read_outcome(store, trial.id, cell_id).arrays["correct_after"]
        for name, cell_id in trial.cell_ids.items()
    }
    pgd = "cell/test/pgd-l2_rms-un-{}-eps0.04-n2"
    raw, deployed = outcome[pgd.format("margin_raw")], outcome[pgd.format("ce_deployed")]
    assert metrics[names.ROBUST] == summary.robust == pytest.approx(raw.mean())
    assert metrics[names.MASKING_GAP] == pytest.approx(max(deployed.mean() - raw.mean(), 0))
    assert metrics[names.CLEAN] == summary.clean == pytest.approx(outcome["cell/test/clean"].mean())
    bounded = [value for name, value in outcome.items() if name.startswith("cell/test/pgd")]
    assert metrics[names.WORST_CASE] == pytest.approx(np.min(bounded, axis=0).mean())
    assert metrics[names.N] == 20
    assert metrics["hp/loss.s"] == 1.5


def test_targeted_cells_have_a_hit_rate_and_untargeted_ones_none(tracked):
    tracker, trial = tracked()
    tracker.finished(trial)
    metrics = runs(tracker)[0].data.metrics
    for name in trial.cells:
        own = name.startswith("cell/test/")  # of others the table of outcomes has them
        assert (name + names.HIT in metrics) == ("-tar-" in name and own)
        assert (name + names.L2_MEDIAN in metrics) == ("clean" not in name and own)


def test_series_have_a_point_a_step_count_and_an_eps(tracked):
    tracker, trial = tracked()
    tracker.finished(trial)
    (run,) = runs(tracker)

    def steps(metric):
        points = tracker.client.get_metric_history(run.info.run_id, metric)
        return sorted(point.step for point in points)

    assert steps("by_steps/pgd-l2_rms-un-margin_raw") == [1, 2]
    assert steps("by_eps/pgd-l2_rms-tar-ce_deployed") == [20, 40]
    assert steps(names.TRAIN_LOSS) == [1, 2]


def test_writing_twice_changes_nothing(tracked):
    tracker, trial = tracked()
    tracker.finished(trial)
    first = runs(tracker)[0].data.to_dictionary()
    assert not tracker.stale(trial)
    tracker.finished(trial)
    (run,) = runs(tracker)
    assert run.data.to_dictionary() == first
    history = tracker.client.get_metric_history(run.info.run_id, names.TRAIN_LOSS)
    assert len(history) == 2


def sent(tracker, monkeypatch):
    """What the tracker asks of MLflow from now on: calls, and the curves' points by epoch."""
    calls, points = [], []

    def spied(name, real):
        def call(*arguments, **options):
            calls.append(name)
            if name == "log_batch":
                metrics = arguments[1]
                points.extend(m.step for m in metrics if m.key == names.TRAIN_LOSS)
            return real(*arguments, **options)

        return call

    for name in dir(tracker.client):
        real = getattr(tracker.client, name)
        if not name.startswith("_") and callable(real):
            monkeypatch.setattr(tracker.client, name, spied(name, real))
    return calls, points


def test_a_trial_takes_few_calls(tracked, store, monkeypatch):
    """Each costs milliseconds, and the driver makes them for all workers."""
    tracker, trial = tracked()
    calls, points = sent(tracker, monkeypatch)
    tracker.started(trial)
    tracker.epochs(trial, record_of(store, trial.id)["history"])
    tracker.finished(trial)
    assert calls == [
        *("set_tag", "create_run", "log_batch", "log_batch"),
        *("set_tag", "log_batch", "log_inputs", "set_terminated"),
    ]
    assert points == [1, 2]


def test_what_mlflow_may_lack_of_a_curve_is_sent(tracked, store, monkeypatch):
    """Of a model that was trained again, or that an earlier driver has followed."""
    history = record_of(store, tracked()[1].id)["history"]
    tracker, trial = tracked()
    _, points = sent(tracker, monkeypatch)
    tracker.epochs(trial, [{**history[0], "time": 1.0}, history[1]])
    tracker.finished(trial)
    assert points == [1, 2, 1]
    again, _ = tracked()
    _, points = sent(again, monkeypatch)
    again.finished(trial)
    assert points == [1, 2]


def test_a_long_study_file_is_noted_as_far_as_mlflow_keeps_it(tracked):
    tracker, _ = tracked(question="Does it help?\n" * 2_000)
    tags = tracker.client.get_experiment(tracker.experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    note = tags["mlflow.note.content"]
    assert len(note) <= 20_000 and note.endswith("\n…")


@given(st.text(st.sampled_from("ab\n"), max_size=30), st.integers(2, 30))
def test_what_is_clipped_are_whole_lines(text, longest):
    kept = clipped(text, longest)
    assert len(kept) <= longest
    if kept != text:
        *lines, last = kept.split("\n")
        assert last == "…"
        assert lines in (text.split("\n")[: len(lines)], [""])


def test_a_new_tracker_knows_what_is_tracked(tracked, monkeypatch):
    tracker, trial = tracked()
    assert tracker.stale(trial)
    tracker.finished(trial)
    again, trial = tracked()
    assert not again.stale(trial)
    monkeypatch.setattr(tracking, "REVISION", -1)
    assert again.stale(trial)


def test_a_run_written_later_tells_when_the_trial_ran(tracked):
    tracker, trial = tracked()
    tracker.finished(trial)
    (run,) = runs(tracker)
    curve = tracker.client.get_metric_history(run.info.run_id, names.TRAIN_LOSS)
    assert run.info.start_time < min(point.timestamp for point in curve)
    assert run.info.end_time >= max(point.timestamp for point in curve)


@pytest.mark.parametrize(("further", "share"), [({}, "0"), ({"gpu": 0.125}, "0.125")])
def test_a_run_says_what_share_of_a_gpu_it_had(tracked, store, further, share):
    tracker, trial = tracked()
    whole = store.read_json(f"trials/{trial.id}", "record.json")
    told = {**whole, "execution": {**whole["execution"], **further}}
    store.write(f"trials/{trial.id}", {"record.json": json.dumps(told).encode()})
    tracker.finished(trial)
    store.write(f"trials/{trial.id}", {"record.json": json.dumps(whole).encode()})
    (run,) = runs(tracker)
    assert run.data.tags["gpu"] == share


def test_a_renamed_method_replaces_the_run(tracked):
    tracker, trial = tracked()
    tracker.finished(trial)
    loss = KEYS["methods"]["isce"]
    again, renamed = tracked(methods={"margin": loss})
    assert renamed.id == trial.id
    assert again.stale(renamed)
    again.finished(renamed)
    (run,) = runs(again)
    assert run.data.params["method"] == "margin"


def test_an_earlier_plan_leaves_nothing_behind(tracked):
    """Of several values of a metric MLflow shows the largest, so old ones must go."""
    small = {"attack": "pgd", "eps": 0.02, "steps": 2, "targeted": False}
    shown = []
    for headline in (KEYS["headline"], small, KEYS["headline"]):
        tracker, trial = tracked(headline=headline)
        tracker.finished(trial)
        (run,) = runs(tracker)
        shown.append(run.data.metrics)
    assert shown[0] == shown[2]
    assert shown[0][names.ROBUST] < shown[1][names.ROBUST]
    assert {name for name in shown[2] if name.startswith("cell/validation/pgd")} == {
        "cell/validation/pgd-l2_rms-un-margin_raw-eps0.04-n2",
    }


def test_nothing_is_left_running(tracked):
    tracker, trial = tracked()
    tracker.started(trial)
    assert runs(tracker)[0].info.status == "RUNNING"
    accuracies = {names.TRAIN_ACCURACY: 0.1, names.VALIDATION_ACCURACY: 0.2}
    tracker.epochs(trial, [{"epoch": 1, "time": 1.0, names.TRAIN_LOSS: 2.0, **accuracies}])
    tracker.stopped()
    (run,) = runs(tracker)
    assert run.info.status == "KILLED"
    assert run.data.metrics[names.TRAIN_LOSS] == 2.0


def stamp(tracker):
    (run,) = runs(tracker, names.REPORT)
    return run.data.tags.get(names.STAMP, "")


def test_a_tidy_end_stamps_what_was_written(tracked):
    tracker, trial = tracked()
    tracker.finished(trial)
    assert stamp(tracker) == ""
    tracker.stopped()
    first = stamp(tracker)
    assert first
    again, _ = tracked()
    assert not again.stale(trial)
    again.stopped()
    assert stamp(again) == first  # nothing was written


def test_a_tidy_end_lets_sqlite_count_its_indices(tracked, tmp_path):
    tracker, trial = tracked()
    tracker.finished(trial)
    tracker.stopped()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        counted = {name for (name,) in database.execute("SELECT tbl FROM sqlite_stat1")}
    assert {"metrics", "latest_metrics", "params", "tags"} <= counted


@pytest.mark.parametrize("end", ["started", "finished", "failed"])
def test_what_a_driver_knows_of_a_run_is_what_mlflow_says(tracked, end):
    tracker, trial = tracked()
    getattr(tracker, end)(trial, *(["why"] if end == "failed" else []))
    known = tracker._runs[trial.id]
    assert known == Tracked.of(runs(tracker)[0])
    again, _ = tracked()
    assert again._runs[trial.id] == known


@pytest.mark.parametrize("write", ["started", "finished", "failed"])
def test_whatever_is_written_takes_the_stamp_away_first(tracked, write, monkeypatch):
    tracker, trial = tracked()
    tracker.stopped()
    first = stamp(tracker)
    arguments = (trial, "why") if write == "failed" else (trial,)
    with monkeypatch.context() as patched:  # nothing of a trial is written before it
        patched.setattr(tracker, "_run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            getattr(tracker, write)(*arguments)
    assert stamp(tracker) == ""
    getattr(tracker, write)(*arguments)
    tracker.stopped()
    assert stamp(tracker) not in ("", first)


def test_a_killed_driver_leaves_no_stamp_until_another_has_ended(tracked):
    killed, trial = tracked()
    killed.stopped()
    killed.finished(trial)
    assert stamp(killed) == ""
    tracker, _ = tracked()
    assert not tracker.stale(trial)
    tracker.stopped()
    assert stamp(tracker)


def test_a_driver_that_another_overtook_takes_its_stamp_away(tracked):
    slow, trial = tracked()
    slow.started(trial)
    tracker, _ = tracked()
    tracker.stopped()
    assert stamp(tracker)
    slow.finished(trial)
    assert stamp(tracker) == ""


def test_runs_that_the_driver_replaces_do_not_look_deleted_by_users(tracked):
    tracker, trial = tracked()
    tracker.finished(trial)
    again, renamed = tracked(methods={"margin": KEYS["methods"]["isce"]})
    again.finished(renamed)
    deleted = again.client.search_runs([again.experiment], "", ViewType.DELETED_ONLY)
    assert [run.data.tags[names.ROLE] for run in deleted] == [names.REPLACED]
    again.client.restore_run(deleted[0].info.run_id)
    last, _ = tracked(methods={"margin": KEYS["methods"]["isce"]})
    assert not last.stale(renamed)  # a run that was replaced is nobody's


def test_a_failure_says_why_and_success_forgets_it(tracked):
    tracker, trial = tracked()
    tracker.started(trial)
    tracker.failed(trial, "NonFiniteLoss: at epoch 1")
    (run,) = runs(tracker)
    assert (run.info.status, run.data.tags[names.REASON]) == (
        "FAILED",
        "NonFiniteLoss: at epoch 1",
    )
    tracker.finished(trial)
    (run,) = runs(tracker)
    assert (run.info.status, run.data.tags[names.REASON]) == ("FINISHED", "")


def test_a_failure_keeps_what_the_store_knows_of_it(tracked, tmp_path):
    tracker, trial = tracked()
    tracker.store, finished = Store(str(tmp_path / "other")), tracker.store
    tracker.failed(trial, "its worker died")
    assert failure_text(tracker).endswith("\ndone: 0 epochs, 0 cells\non: unknown\n\n\n")
    tracker.store.write(f"trials/{trial.id}", finished.read(f"trials/{trial.id}"))
    note_failure(tracker.store, trial.id, "its worker died", "on node 3")
    tracker.failed(trial, "no result after 3 tries: its worker died")
    told, when, done, where, _, details, *_ = failure_text(tracker).split("\n")
    assert told == "no result after 3 tries: its worker died"
    assert when.startswith("20")
    cells = len(record_of(finished, trial.id)["cell_seconds"])  # other tests' among them
    assert cells >= len(trial.cells)
    assert done == f"done: 2 epochs, {cells} cells"
    assert where.startswith("on: device cpu ")
    assert details == "on node 3"


def failure_text(tracker):
    (run,) = runs(tracker)
    return load_text(f"{run.info.artifact_uri}/{names.FAILURE_FILE}")


def test_the_plan_stands_in_one_report_run(tracked):
    tracker, _ = tracked()
    tracker, _ = tracked()
    (run,) = runs(tracker, names.REPORT)
    files = {item.path for item in tracker.client.list_artifacts(run.info.run_id)}
    assert files == {names.PLAN_FILE, names.STUDY_FILE}


def test_diagnostics_are_shown_as_numbers_and_arrays(tracked, tmp_path):
    wanted = {"embedding": {}, "shown": {"diagnostic": "exhibits"}, "theory": {"s": 2}}
    tracker, trial = tracked(diagnostics=wanted)
    assert list(trial.diagnostics) == list(wanted)
    tracker.finished(trial)
    (run,) = runs(tracker)
    numbers = {key for key in run.data.metrics if key.startswith(names.DIAGNOSTIC)}
    assert numbers >= {
        *("diagnostic/embedding/fisher", "diagnostic/embedding/nearest_mean"),
        *("diagnostic/shown/accuracy", "diagnostic/theory/broken", "diagnostic/theory/holds"),
    }
    assert run.data.metrics["diagnostic/shown/accuracy"] == run.data.metrics[names.ROBUST]
    folder = tmp_path / "artifacts" / "small" / run.info.run_id / "artifacts" / "diagnostics"
    arrays = {
        label: safetensors.numpy.load_file(folder / f"{label}.safetensors") for label in wanted
    }
    assert arrays["embedding"]["features"].shape == (20, 84)
    assert arrays["shown"]["clean"].shape == (20, 1, 28, 28)
    assert len(arrays["theory"]["z"]) == run.data.metrics["diagnostic/theory/broken"]


def test_an_added_diagnostic_writes_the_run_anew(tracked):
    tracker, trial = tracked()
    tracker.finished(trial)
    assert not tracker.stale(trial)
    other, same = tracked(diagnostics={"embedding": {}})
    assert same.id == trial.id
    assert other.stale(same)


def test_hit_rate_of_a_random_model_is_a_share_of_its_passes(tracked, store):
    transform = {"name": "random_resize_pad"}
    tracker, trial = tracked(methods={"random": {"loss": "sce", "transform": transform}})
    tracker.finished(trial)
    (run,) = runs(tracker)
    name = "cell/test/pgd-l2_rms-tar-margin_raw-eps0.04-n2"
    outcome = results.read_outcome(store, trial.id, trial.cell_ids[name]).arrays
    assert outcome["passes"].tolist() == [10] * 20
    assert outcome["hit"].max() > 1
    assert run.data.metrics[name + names.HIT] == pytest.approx(outcome["hit"].mean() / 10)


def test_the_verdict_is_a_tag_a_number_and_a_file(tracked, tmp_path):
    tracker, trial = tracked()
    tracker.finished(trial)
    (run,) = runs(tracker)
    folder = tmp_path / "artifacts" / "small" / run.info.run_id / "artifacts"
    verdict = Audit.from_json((folder / names.AUDIT_FILE).read_text())
    assert run.data.tags[names.ATTACK_MARK] == verdict.mark != ""
    assert run.data.metrics[names.AUDIT_FAILED] == verdict.failed
    assert verdict.marks["cell/test/deepfool-overshoot-un-raw-eps0.02-n3"] == names.NO_THREAT_MODEL


def test_outcomes_that_contradict_each_other_are_a_bug_of_ours(tracked, monkeypatch):
    tracker, trial = tracked()
    real = tracking.read_outcome

    def read(store, trial_id, cell_id):
        outcome = real(store, trial_id, cell_id)
        outcome.arrays["correct_after"] = outcome.arrays["correct_before"] + 1
        return outcome

    monkeypatch.setattr(tracking, "read_outcome", read)
    with pytest.raises(BrokenInvariant):
        tracker.finished(trial)
