"""The loop of a run, where what surrounds it fails."""

import contextlib

import pytest
import torch
from mlflow.exceptions import MlflowException

from study.choice import with_choices
from study.local import Local
from study.lock import StudyLock
from study.results import is_complete, read_outcome, worst
from study.shard import Shard
from study.tracking import Tracker
from study.untracked import Untracked
from study.watcher import TRIES
from trainables import names
from trainables import store as store_module
from trainables import trial as trial_module
from trainables.errors import StorageAway, StudyIsRunning
from trainables.execution import prepare
from trainables.store import Store
from trainables.training import Trainer
from trainables.trial import Report, failure_of, record_of

KEYS = {
    "evaluate": {"validation": 5, "test": 5},
    "training": {"epochs": 1, "batch_size": 1000},
    "attacks": {"pgd": {"eps": 0.04, "steps": 1}},
}


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Waits for no MLflow that does not come back."""
    monkeypatch.setattr("study.watcher.MLFLOW_SECONDS", 0.0)
    monkeypatch.setattr("study.watcher.MLFLOW_PAUSE", 0.0)


@pytest.fixture
def run(plan_of, run_plan, tmp_path):
    """Runs a tiny study in process; gives the result and what was said."""

    def start(only=None, shard=None, local=True, **keys):
        plan = plan_of(**{**KEYS, **keys})
        return run_plan(plan, tmp_path, only=only, shard=shard, local=local)

    return start


def failing(monkeypatch, name, times):
    """Makes a method of the tracker fail its first calls, as a server that is away does."""
    real, calls = getattr(Tracker, name), []

    def method(*arguments):
        calls.append(arguments)
        if len(calls) <= times:
            raise MlflowException("database is locked")
        return real(*arguments)

    monkeypatch.setattr(Tracker, name, method)


@pytest.mark.parametrize("name", ["started", "epochs", "finished"])
def test_mlflow_may_be_away_for_a_while(run, monkeypatch, name):
    failing(monkeypatch, name, times=1)
    result, said = run()
    assert not result.failed
    assert "database is locked" in said
    assert "clean" in said


def test_mlflow_that_is_away_is_told_nothing_for_a_while_and_all_at_the_end(run, monkeypatch):
    monkeypatch.setattr("study.watcher.MLFLOW_SECONDS", 60.0)
    failing(monkeypatch, "started", times=1)
    failing(monkeypatch, "finished", times=2)
    result, said = run()
    assert not result.failed
    assert said.count("did not take it") == 3
    assert said.count("clean") == 1


def test_results_that_could_not_be_tracked_are_told(run, monkeypatch):
    failing(monkeypatch, "finished", times=10**6)
    result, said = run()
    assert list(result.failed.values()) == ["its results are there, but MLflow did not take them"]
    assert "FAILED" in said


def test_the_next_run_tracks_them(run, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, "finished", times=10**6)
        run()
    result, said = run()
    assert not result.failed
    assert "to run" not in said  # nothing was computed again


def test_a_driver_that_was_robbed_of_its_lock_stops(run, monkeypatch):
    enter = StudyLock.__enter__

    def robbed(lock):
        enter(lock)
        lock.lost = True
        return lock

    monkeypatch.setattr(StudyLock, "__enter__", robbed)
    with pytest.raises(StudyIsRunning, match="taken over"):
        run()


class Outage:
    """A storage that is away after each epoch, until somebody has waited for it."""

    def __init__(self, folder, monkeypatch, lasts=0.0):
        self.root, self.hidden = folder / "store", folder / "hidden"
        self.now, self.lasts = 0.0, lasts
        real = Trainer.epoch

        def epoch(trainer):
            record = real(trainer)
            self.root.rename(self.hidden)
            self.root.symlink_to(self.root)
            return record

        monkeypatch.setattr(Trainer, "epoch", epoch)
        monkeypatch.setattr(store_module, "time", self)

    def end(self):
        self.root.unlink()
        self.hidden.rename(self.root)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.now >= self.lasts:
            self.end()


def test_a_run_outlasts_a_storage_that_is_away(run, tmp_path, monkeypatch):
    outage = Outage(tmp_path, monkeypatch, lasts=599)
    result, said = run()
    assert not result.failed
    assert outage.now == 600
    assert f"the storage {tmp_path}/store is away, waiting 600 s at most: Too many levels" in said
    assert said.count("the storage was away for 600 s: Too many levels") == 1
    assert "FAILED" not in said
    assert "tried again" not in said


def test_a_run_that_waits_for_too_long_says_that_nothing_is_lost(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        outage = Outage(tmp_path, patch, lasts=1e9)
        with pytest.raises(StorageAway, match="what is finished is kept, the same command goes"):
            run()
    assert outage.now == 600
    outage.end()
    (tmp_path / "store/studies/small/lock.json").unlink()  # which dies with the process
    result, _ = run()
    assert not result.failed


def test_an_added_diagnostic_is_measured_and_nothing_else(run, tmp_path):
    run()
    store = Store(str(tmp_path / "store"))
    (trial,) = store.entries("models")
    before = store.entries(f"outcomes/{trial}")
    result, said = run(diagnostics={"embedding": {}})
    assert not result.failed
    assert "1 of 1 trials to run" in said
    assert store.entries("models") == {trial}
    assert len(store.entries(f"outcomes/{trial}") - before) == 1


def test_results_under_other_ids_are_no_results(run, monkeypatch, tmp_path):
    # As from a worker whose plugin is of another version than the driver's.
    monkeypatch.setattr("study.watcher.is_complete", lambda trial, store: False)
    result, said = run()
    (reason,) = result.failed.values()
    assert "bear other ids" in reason
    assert "no result after 4 tries" in said
    store = Store(str(tmp_path / "store"))
    (trial,) = store.entries("models")
    assert failure_of(record_of(store, trial))["reason"] == reason


def test_what_lacks_memory_is_tried_again_with_more_of_the_gpu(run, monkeypatch, tmp_path):
    shares, measure = [], trial_module.measure

    def prepared(**options):
        shares.append(options["gpu"])
        return prepare(**options)

    def measured(*rest, **options):
        if shares[-1] < 0.8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return measure(*rest, **options)

    monkeypatch.setattr("study.local.prepare", prepared)
    monkeypatch.setattr(trial_module, "measure", measured)
    result, said = run(resources={"gpu": 0.3})
    assert not result.failed
    assert shares == [0.3, 0.6, 1.0]
    assert said.count("CUDA out of memory; it will be tried again") == 2
    (trial,) = Store(str(tmp_path / "store")).entries("models")
    record = record_of(Store(str(tmp_path / "store")), trial)
    assert (failure_of(record), len(record["failures"])) == (None, 2)


def test_what_never_fits_fails_in_the_end(run, monkeypatch):
    def measured(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial_module, "measure", measured)
    result, said = run()
    (reason,) = result.failed.values()
    assert reason == "no result after 4 tries: OutOfMemoryError: CUDA out of memory"
    assert said.count("it will be tried again") == 4


def test_a_trial_whose_worker_waited_for_too_long_is_tried_again(run, monkeypatch):
    real = Local().run

    def away_at_first(trials, site, listener):
        monkeypatch.setattr(Local, "run", staticmethod(real))
        for trial in trials:
            listener.started(trial.id)
            listener.reported(Report(trial_id=trial.id, done=True, away="the storage is away"))

    monkeypatch.setattr(Local, "run", staticmethod(away_at_first))
    result, said = run()
    assert not result.failed
    assert said.count("the storage is away; it will be tried again") == 1


def test_trials_that_die_with_their_machine_are_tried_without_end(run, monkeypatch):
    real, rounds = Local().run, []

    def on_machines_that_die(trials, site, listener):
        rounds.append(trials)
        if len(rounds) > 2 * TRIES:
            return real(trials, site, listener)
        for trial in trials:
            listener.started(trial.id)
            listener.lost(trial.id, "its worker died")
            listener.excused(trial.id)

    monkeypatch.setattr(Local, "run", staticmethod(on_machines_that_die))
    result, said = run()
    assert not result.failed
    assert said.count("its worker died; it will be tried again") == 2 * TRIES


def test_workers_that_die_on_machines_that_stand_are_tried_so_often(run, monkeypatch):
    def dying(trials, site, listener):
        for trial in trials:
            listener.started(trial.id)
            listener.lost(trial.id, "its worker died")

    monkeypatch.setattr(Local, "run", staticmethod(dying))
    result, said = run()
    assert list(result.failed.values()) == [f"no result after {TRIES} tries: its worker died"]
    assert said.count("it will be tried again") == TRIES


def test_all_steps_of_a_run_have_one_ray_and_none_where_nothing_is_left(run, monkeypatch):
    opened = []

    @contextlib.contextmanager
    def on_ray(resources):
        opened.append("began")
        yield Local()
        opened.append("ended")

    monkeypatch.setattr("study.launch.on_ray", on_ray)
    search = {"trials": 2, "sampler": "random"}
    methods = {"sce": {"loss": "sce"}, "isce": {"loss": {"name": "isce", "s": {"uniform": [1, 2]}}}}
    for _ in range(2):
        result, _ = run(local=False, methods=methods, search=search)
        assert not result.failed
        assert opened == ["began", "ended"]


PACKED = {
    "methods": {
        "sce": {"loss": "sce"},
        "isce": {"loss": {"name": "isce", "s": 1, "m": [0.1, 0.2]}},
    },
    "attacks": {"pgd": {"eps": 0.5, "budget": "l2_abs", "steps": 1}},
}


def test_a_pack_gives_the_same_results_under_the_same_ids(run, plan_of, tmp_path):
    plan = plan_of(**{**KEYS, **PACKED})
    found = {}
    for size in (1, 3):
        result, _ = run(**PACKED, resources={"pack": size})
        assert not result.failed
        store = Store(str(tmp_path / "store"))
        found[size] = {
            (trial.id, name): read_outcome(store, trial.id, cell).accuracy
            for trial in plan.trials
            for name, cell in trial.cell_ids.items()
        }
        histories = [record_of(store, trial.id)["history"][0] for trial in plan.trials]
        found[size]["loss"] = [epoch["train_loss"] for epoch in histories]
        records = [record_of(store, trial.id)["execution"] for trial in plan.trials]
        assert [record.get("packing", 1) for record in records] == [size] * 3
        (tmp_path / "store").rename(tmp_path / f"store-{size}")
    assert found[1].pop("loss") == pytest.approx(found[3].pop("loss"), rel=1e-4)
    assert found[1] == found[3]


def test_a_trial_that_failed_is_not_lost_with_its_pack(run, monkeypatch):
    real = Local().run

    def dying(trials, site, listener):
        real(trials, site, listener)
        for trial in trials:
            listener.lost(trial.id, "its worker died")

    def epoch(trainer):
        raise RuntimeError("no luck")

    monkeypatch.setattr(Trainer, "epoch", epoch)
    monkeypatch.setattr(Local, "run", staticmethod(dying))
    result, said = run()
    assert list(result.failed.values()) == ["RuntimeError: no luck"]
    assert "will be tried again" not in said


def test_what_is_tried_again_is_tried_alone(run, monkeypatch):
    sizes = []

    def dying(trials, site, listener):
        sizes.append(site.resources.pack)
        for trial in trials:
            listener.started(trial.id)
            listener.lost(trial.id, "its worker died")

    monkeypatch.setattr(Local, "run", staticmethod(dying))
    result, _ = run(resources={"pack": 3})
    assert sizes == [3, 1, 1, 1]
    assert list(result.failed.values()) == ["no result after 4 tries: its worker died"]


TRANSFER = {
    "pgd": {"eps": 0.04, "steps": 1},
    "transfer": {"source": "isce", "using": {"name": "pgd", "eps": 0.04, "steps": 1}},
}
TWO = {"sce": {"loss": "sce"}, "isce": {"loss": "isce"}}


def test_a_transfer_runs_when_its_source_exists(run, tmp_path):
    result, said = run(methods=TWO, attacks=TRANSFER)  # the source is trained last
    assert not result.failed
    assert "2 of 2 trials to run" in said
    assert "1 of 2 trials to run" in said
    store = Store(str(tmp_path / "store"))
    assert sorted(len(store.entries(f"outcomes/{id}")) for id in store.entries("models")) == [4, 5]


def test_a_transfer_whose_source_fails_says_so(run, monkeypatch):
    real = Trainer.epoch

    def epoch(trainer):
        if trainer.config.loss.name == "isce":
            raise RuntimeError("no luck")
        return real(trainer)

    monkeypatch.setattr(Trainer, "epoch", epoch)
    result, _ = run(methods=TWO, attacks=TRANSFER)
    assert sorted(result.failed.values()) == [
        "RuntimeError: no luck",
        "no result after 4 tries: it needs a model that is not there, and could not be made",
    ]


def test_a_shard_waits_for_the_model_of_another_and_then_goes_on(run, plan_of, tmp_path):
    plan = plan_of(**{**KEYS, "methods": TWO, "attacks": TRANSFER})
    source = next(trial.id for trial in plan.trials if trial.methods == ("isce",))
    needy, provider = (Shard(1, 2), Shard(2, 2))
    if source in needy.of(plan.by_id):
        needy, provider = provider, needy
    study = {"methods": TWO, "attacks": TRANSFER}
    store = Store(str(tmp_path / "store"))

    result, said = run(**study, shard=needy)
    (waiting,) = result.waiting
    assert (result.planned, result.failed) == (1, {})
    assert said.count("to run") == 1  # nothing is gained by trying again
    assert failure_of(record_of(store, waiting)) is None
    assert store.entries("models") == {waiting}
    result, said = run(**study, shard=provider)
    assert (result.planned, result.failed, result.waiting) == (1, {}, [])
    assert "isce · lenet5/mnist5k · seed 0: clean" in said
    result, said = run(**study, shard=needy)
    assert (result.failed, result.waiting) == ({}, [])
    assert all(is_complete(trial, store) for trial in plan.trials)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_shard_measures_a_damaged_outcome_again(run, tmp_path, monkeypatch):
    real = Untracked.finished

    def damaged_at_first(tracker, trial):
        monkeypatch.setattr(Untracked, "finished", real)
        (file,) = (tmp_path / "store" / "outcomes" / trial.id).glob(
            f"{trial.cell_ids[names.clean_name(names.TEST)]}/outcome.*.safetensors"
        )
        file.write_bytes(b"")
        return real(tracker, trial)

    monkeypatch.setattr(Untracked, "finished", damaged_at_first)
    result, said = run(shard=Shard(1, 1))
    assert not result.failed
    assert "is damaged" in said
    assert "sce · lenet5/mnist5k · seed 0: clean" in said


def test_a_source_whose_model_was_lost_is_trained_again(run, tmp_path):
    run(methods=TWO, attacks={"pgd": TRANSFER["pgd"]})
    store = Store(str(tmp_path / "store"))
    lost = store.entries("models")
    for model in lost:
        store.remove(f"models/{model}")
    result, _ = run(methods=TWO, attacks=TRANSFER)
    assert not result.failed
    assert store.entries("models") == lost


GRID = {
    "methods": {
        "sce": {"loss": "sce"},
        "isce": {"loss": {"name": "isce", "s": 1, "m": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}},
    },
    "choose": {"method": "isce"},
    "audit": {"n": 2, "queries": 2},
    "evaluate": {"validation": 30, "test": 2},
}
STANDING_OUT = {0, 0.3, 0.6}


def test_what_validation_chooses_is_audited_whole(run, plan_of, tmp_path, monkeypatch):
    for name, value in (("STEPS", (2, 3)), ("HUGE_STEPS", 2), ("SEARCH", 2)):
        monkeypatch.setattr(f"study.audit.{name}", value)
    monkeypatch.setattr("trainables.attacks.autoattack.STEPS", 2)
    result, said = run(**GRID)
    assert not result.failed

    store = Store(str(tmp_path / "store"))
    planned = plan_of(**{**KEYS, **GRID})
    plan = with_choices(planned, store)
    (arm,) = plan.chosen
    validation = {
        trial.point["loss.m"]: chosen_by(plan, trial, store)
        for trial in plan.trials
        if "isce" in trial.methods
    }
    best = max(validation, key=lambda m: (validation[m], -m))
    whole = {trial.point.get("loss.m") for trial in plan.trials if whole_audit(trial)}
    assert whole == {None, best, *STANDING_OUT}
    assert {trial.model.arm_id for trial in plan.trials if trial.point.get("loss.m") == best} == {
        arm
    }
    assert all(is_complete(trial, store) for trial in plan.trials)
    assert ("what it chose is audited whole" in said) == (best not in STANDING_OUT)

    again, said = run(**GRID)
    assert not again.failed
    assert "to run" not in said


def chosen_by(plan, trial, store):
    """What validation goes by: the headline, then clean accuracy."""
    names_of = (
        *plan.protocol(trial).headline[names.VALIDATION],
        names.clean_name(names.VALIDATION),
    )
    found = [read_outcome(store, trial.id, trial.cell_ids[name]) for name in names_of]
    return worst(found[:-1]), found[-1].accuracy


def whole_audit(trial):
    return any("autoattack" in name for name in trial.cells)


def test_nothing_is_chosen_before_the_grid_is_measured(plan_of, tmp_path):
    plan = plan_of(**{**KEYS, **GRID})
    assert with_choices(plan, Store(str(tmp_path / "store"))) is plan
