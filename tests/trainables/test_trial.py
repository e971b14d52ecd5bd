"""A trial's life: interrupted anywhere, it ends with the same bits; damage is mended."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from trainables import store as store_module
from trainables import trial as trial_module
from trainables.attacks.base import Attack
from trainables.attacks.clean import Clean
from trainables.attacks.deepfool import DeepFool
from trainables.attacks.pgd import PGD
from trainables.config import Cell, TrialConfig
from trainables.datasets.base import Splits
from trainables.errors import DamagedEntry
from trainables.evaluation import measure
from trainables.execution import Execution, is_out_of_memory
from trainables.store import MANIFEST, Store
from trainables.training import Trainer
from trainables.trial import Trial, failure_of, load_model, note_failure, record_of

CPU = Execution()
FOREVER = 1e9
EPOCHS = 3
CELLS = (
    Cell(probe=Clean(), split="validation", n=50),
    Cell(
        probe=PGD(budget="l2_abs", eps=1.0, steps=3, targeted=True, random_start=True),
        split="test",
        n=30,
    ),
    Cell(probe=DeepFool(steps=3), split="test", n=20, seed=1),
)
EXTRA = Cell(probe=PGD(budget="linf", eps=0.1, steps=2), split="test", n=20)


@pytest.fixture(autouse=True)
def small_data(monkeypatch, splits):
    """300 training images, so that a life is short."""
    few = Splits(train=splits.train.first(300), validation=splits.validation, test=splits.test)
    monkeypatch.setattr(trial_module, "load_splits", lambda *_: few)


@pytest.fixture(scope="module")
def config(model_config):
    model = model_config({"name": "isce", "s": 1.0, "m": 0.1}, epochs=EPOCHS)
    return TrialConfig(model=model, cells=CELLS)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def live(config, store, seconds=FOREVER):
    """One Trial to its end, at most a hundred steps."""
    trial, reports = Trial(config, store, CPU), []
    for _ in range(100):
        reports.append(trial.advance(seconds))
        if reports[-1].done:
            return reports
    raise AssertionError(f"not done after {len(reports)} steps: {reports[-1]}")


def result(config, store):
    """Everything that a trial leaves, less what the clock and the machine say."""
    model_id = config.model.id
    outcomes = store.entries(f"outcomes/{model_id}")
    history = store.read_json(f"trials/{model_id}", "record.json")["history"]
    return {
        "weights": store.read(f"models/{model_id}")["weights.safetensors"],
        "model": store.read(f"models/{model_id}")["config.json"],
        "outcomes": {
            cell: {
                name: data
                for name, data in store.read(f"outcomes/{model_id}/{cell}").items()
                if name != "execution.json"
            }
            for cell in outcomes
        },
        "history": [
            {key: value for key, value in epoch.items() if key not in ("seconds", "time")}
            for epoch in history
        ],
    }


@pytest.fixture(scope="module")
def whole(config, splits, tmp_path_factory):
    """The store of an uninterrupted life, to be copied, and what it holds."""
    folder = tmp_path_factory.mktemp("whole")
    store = Store(str(folder))
    few = Splits(train=splits.train.first(300), validation=splits.validation, test=splits.test)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_module, "load_splits", lambda *_: few)
        live(config, store)
    return folder, result(config, store)


@pytest.fixture
def finished(whole, store):
    """A store with a finished trial, of the test's own."""
    shutil.copytree(whole[0], store.root)
    return store


def spoil(store, entry, name):
    """Damages one object, or the manifest, of an entry."""
    folder = store._path(entry)
    file = json.loads(store.fs.cat_file(f"{folder}/{MANIFEST}"))["objects"].get(name, {})
    store.fs.pipe_file(f"{folder}/{file.get('file', MANIFEST)}", b"spoilt")


def never(*_args, **_options):
    raise AssertionError("this was done before and must not be done again")


def test_leaves_model_outcomes_and_record(config, store):
    reports = live(config, store)
    assert [report.failed for report in reports] == [None] * len(reports)
    assert store.has(f"models/{config.model.id}")
    ids = {cell.id(config.model.id) for cell in CELLS}
    assert store.entries(f"outcomes/{config.model.id}") == ids
    assert not store.has(f"progress/{config.model.id}")
    record = store.read_json(f"trials/{config.model.id}", "record.json")
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3]
    assert set(record["cell_seconds"]) == ids
    assert record["failures"] == []
    assert record["execution"]["threads"] == torch.get_num_threads()
    assert record["execution"]["torch"] == torch.__version__


def test_everything_stored_is_safetensors_or_json_never_pickle(finished):
    files = finished.fs.find(finished.root)
    assert len(files) > 10
    for path in files:
        data = finished.fs.cat_file(path)
        assert path.endswith((".safetensors", ".json"))
        if path.endswith(".json"):
            json.loads(data)
        else:
            assert data[8:9] == b"{"  # the format's header


def test_reports_every_epoch_once_and_counts_up(config, store):
    reports = live(config, store, seconds=0.0)
    assert [epoch["epoch"] for report in reports for epoch in report.epochs] == [1, 2, 3]
    assert [report.epoch for report in reports] == [1, 2, 3, 3, 3, 3]
    assert [report.cells for report in reports] == [0, 0, 0, 1, 2, 3]
    assert [report.done for report in reports] == [False] * 5 + [True]
    assert {report.trial_id for report in reports} == {config.model.id}


def test_report_is_plain_data(config, store):
    for report in live(config, store, seconds=0.0):
        json.dumps(dataclasses.asdict(report))


def test_ends_a_step_after_the_time_it_is_given(config, store):
    assert [len(report.epochs) for report in live(config, store)] == [3, 0]


def test_interrupted_after_every_step_it_ends_with_the_same_bits(config, store, whole):
    for _ in range(EPOCHS + len(CELLS)):
        report = Trial(config, store, CPU).advance(seconds=0.0)
    assert report.done
    assert result(config, store) == whole[1]


@pytest.mark.parametrize("after", range(1, EPOCHS + len(CELLS)))
def test_interrupted_after_one_step_it_ends_with_the_same_bits(config, store, whole, after):
    first = Trial(config, store, CPU)
    for _ in range(after):
        first.advance(seconds=0.0)
    live(config, store)
    assert result(config, store) == whole[1]


def test_killed_before_any_write_it_ends_with_the_same_bits(config, tmp_path, whole, monkeypatch):
    real, kill_at = Store._put, 0
    while True:
        store, calls = Store(str(tmp_path / str(kill_at))), []

        def put(self, path, data, calls=calls, kill_at=kill_at):
            calls.append(path)
            if len(calls) == kill_at + 1:
                raise KeyboardInterrupt
            real(self, path, data)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "_put", put)
            try:
                live(config, store, seconds=0.0)
            except KeyboardInterrupt:
                pass
            else:
                break  # there was no such write: all have been tried
        live(config, store)
        assert result(config, store) == whole[1], calls[-1]
        assert not store.has(f"progress/{config.model.id}"), calls[-1]
        kill_at += 1
    assert kill_at > 20


def test_killed_within_an_epoch_it_ends_with_the_same_bits(config, store, whole, monkeypatch):
    regime, seen = type(config.model.regime), []
    real = regime.training_pass

    def training_pass(self, classifier, images, labels, draws):
        seen.append(len(labels))
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(self, classifier, images, labels, draws)

    with monkeypatch.context() as patch:
        patch.setattr(regime, "training_pass", training_pass)
        with pytest.raises(KeyboardInterrupt):
            live(config, store)
    live(config, store)
    assert result(config, store) == whole[1]


def test_progress_is_removed_though_a_crash_fell_between_model_and_removal(
    config, store, monkeypatch
):
    def crash(self, entry):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", crash)
        with pytest.raises(KeyboardInterrupt):
            live(config, store)
    assert store.has(f"models/{config.model.id}")
    live(config, store)
    assert not store.has(f"progress/{config.model.id}")


def test_finished_trial_does_nothing(config, finished, monkeypatch):
    monkeypatch.setattr(Trainer, "epoch", never)
    monkeypatch.setattr(trial_module, "measure", never)
    reports = live(config, finished)
    assert len(reports) == 1
    assert (reports[0].failed, reports[0].epoch, reports[0].cells) == (None, 3, 3)


def test_added_cell_is_measured_without_training(config, finished, whole, monkeypatch):
    monkeypatch.setattr(Trainer, "epoch", never)
    more = dataclasses.replace(config, cells=(EXTRA, *CELLS))
    reports = live(more, finished)
    assert reports[-1].failed is None
    assert reports[-1].cells == 4
    after = result(more, finished)
    new = EXTRA.id(config.model.id)
    assert set(after["outcomes"]) == {new, *whole[1]["outcomes"]}
    del after["outcomes"][new]
    assert after == whole[1]


def test_cell_is_the_same_whether_measured_first_or_later(config, store, finished, whole):
    backwards = dataclasses.replace(config, cells=CELLS[::-1])
    other = Store(f"{store.root}-backwards")
    live(backwards, other)
    assert result(backwards, other) == whole[1]


def test_trial_without_cells_only_trains(config, store):
    reports = live(dataclasses.replace(config, cells=()), store)
    assert store.has(f"models/{config.model.id}")
    assert reports[-1].done


def test_damaged_model_is_trained_again_to_the_same_bits(config, finished, whole):
    more = dataclasses.replace(config, cells=(*CELLS, EXTRA))
    spoil(finished, f"models/{config.model.id}", "weights.safetensors")
    reports = live(more, finished)
    assert [report.failed for report in reports] == [None] * len(reports)
    warnings = [report.warning for report in reports if report.warning]
    assert len(warnings) == 1
    assert f"models/{config.model.id} is damaged" in warnings[0]
    after = result(more, finished)
    assert after["weights"] == whole[1]["weights"]
    assert after["history"] == whole[1]["history"]
    assert EXTRA.id(config.model.id) in after["outcomes"]


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "optimizer.safetensors", "progress.json", MANIFEST]
)
def test_damaged_progress_is_trained_again_to_the_same_bits(config, store, whole, name):
    Trial(config, store, CPU).advance(seconds=0.0)
    spoil(store, f"progress/{config.model.id}", name)
    reports = live(config, store)
    assert "is damaged" in reports[0].warning
    assert [report.failed for report in reports] == [None] * len(reports)
    assert result(config, store) == whole[1]


def test_damaged_outcome_is_measured_again_once_a_reader_met_it(config, finished, whole):
    entry = f"outcomes/{config.model.id}/{CELLS[1].id(config.model.id)}"
    spoil(finished, entry, "outcome.safetensors")
    with pytest.raises(DamagedEntry):
        finished.read(entry)
    live(config, finished)
    assert result(config, finished) == whole[1]


def test_damaged_record_does_not_stop_the_trial(config, finished, monkeypatch):
    monkeypatch.setattr(Trainer, "epoch", never)
    spoil(finished, f"trials/{config.model.id}", "record.json")
    reports = live(config, finished)
    assert "is damaged" in reports[0].warning
    assert reports[-1].failed is None


@pytest.fixture
def diverging(model_config):
    return TrialConfig(model=model_config(lr=1e37, epochs=EPOCHS), cells=CELLS)


def test_non_finite_loss_fails_the_trial_and_says_where(diverging, store):
    (report,) = live(diverging, store)
    assert report.done
    assert report.failed.startswith("NonFiniteLoss: non-finite loss")
    assert "at epoch 1, step" in report.failed
    assert not store.has(f"models/{diverging.model.id}")
    assert not store.has(f"progress/{diverging.model.id}")
    assert store.entries(f"outcomes/{diverging.model.id}") == set()


def test_failure_is_recorded_with_its_traceback(diverging, store):
    (report,) = live(diverging, store)
    (failure,) = store.read_json(f"trials/{diverging.model.id}", "record.json")["failures"]
    assert failure["reason"] == report.failed
    assert "Traceback" in failure["traceback"]
    assert "training.py" in failure["traceback"]
    live(diverging, store)
    record = store.read_json(f"trials/{diverging.model.id}", "record.json")
    assert len(record["failures"]) == 2


def test_failed_cell_keeps_the_model_and_the_cells_before(config, store, whole, monkeypatch):
    real = trial_module.measure

    def fails(classifier, cells, *rest, **options):
        if CELLS[2] in cells:
            raise RuntimeError("no such kernel")
        return real(classifier, cells, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "measure", fails)
        report = live(config, store)[-1]
    assert report.failed == "RuntimeError: no such kernel"
    assert store.has(f"models/{config.model.id}")
    assert len(store.entries(f"outcomes/{config.model.id}")) == 2
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", never)
        assert live(config, store)[-1].failed is None
    assert result(config, store) == whole[1]


def outcomes_of(result):
    """The tensors of all outcomes; which images are right is whole numbers."""
    return {
        f"{cell} {name}": tensor
        for cell, objects in result["outcomes"].items()
        for name, tensor in safetensors.torch.load(objects["outcome.safetensors"]).items()
    }


def scarce(monkeypatch, most):
    """Memory for attacks on so many images at a time; returns the sizes that were tried."""
    tried, real = [], trial_module.measure

    def measure(*rest, batch):
        tried.append(batch)
        if batch > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*rest, batch=batch)

    monkeypatch.setattr(trial_module, "measure", measure)
    return tried


def test_where_memory_is_short_fewer_images_at_a_time_give_the_same_outcomes(
    config, store, whole, monkeypatch
):
    tried = scarce(monkeypatch, most=5)
    reports = live(config, store)
    assert reports[-1].failed is reports[-1].starved is None
    assert tried[:7] == [256, 128, 64, 32, 16, 8, 4]
    assert set(tried[7:]) == {4}  # remembered
    assert [r.warning for r in reports if r.warning] == [
        "out of memory: attacked 4 images at a time from now on"
    ]
    expected, found = (outcomes_of(each) for each in (whole[1], result(config, store)))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_by_single_images_asks_for_more_room(config, store, whole, monkeypatch):
    with monkeypatch.context() as patch:
        scarce(patch, most=0)
        report = live(config, store)[-1]
    assert (report.done, report.failed) == (True, None)
    assert report.starved == "OutOfMemoryError: CUDA out of memory"
    assert failure_of(record_of(store, config.model.id))["reason"] == report.starved
    assert live(config, store)[-1].starved is None
    assert result(config, store) == whole[1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: invalid argument"), False),
        (ValueError(), False),
    ],
    ids=str,
)
def test_want_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


def test_memory_really_runs_out():
    with pytest.raises(Exception) as caught:
        torch.empty(2**46)
    assert is_out_of_memory(caught.value)


def test_a_failure_stands_until_the_trial_goes_on(config, store, monkeypatch):
    assert failure_of(record_of(store, config.model.id)) is None
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "measure", never)
        live(config, store)
    failure = failure_of(record_of(store, config.model.id))
    assert "Traceback" in failure["traceback"]
    live(config, store)
    record = record_of(store, config.model.id)
    assert failure_of(record) is None
    assert [each["reason"] for each in record["failures"]] == [failure["reason"]]
    note_failure(store, config.model.id, "its worker died", "on node 3")
    assert failure_of(record_of(store, config.model.id))["traceback"] == "on node 3"
    assert record_of(store, config.model.id)["history"] == record["history"]
    spoil(store, f"trials/{config.model.id}", "record.json")
    assert failure_of(record_of(store, config.model.id)) is None


@pytest.fixture
def one_error(config, monkeypatch):
    """Training fails at its fifth batch, in the middle of an epoch, and never again."""
    regime, seen = type(config.model.regime), []
    real = regime.training_pass

    def training_pass(self, classifier, images, labels, draws):
        seen.append(len(labels))
        if len(seen) == 5:
            raise MemoryError("just now")
        return real(self, classifier, images, labels, draws)

    monkeypatch.setattr(regime, "training_pass", training_pass)


@pytest.mark.usefixtures("one_error")
def test_transient_error_in_training_costs_no_bits(config, store, whole):
    report = live(config, store)[-1]
    assert (report.starved, report.failed) == ("MemoryError: just now", None)
    assert live(config, store)[-1].failed is None
    assert result(config, store) == whole[1]


@pytest.mark.usefixtures("one_error")
def test_one_trial_object_goes_on_from_the_store_after_an_error(config, store, whole):
    # Half an epoch is in its weights by then: it must not be built upon.
    trial = Trial(config, store, CPU)
    assert trial.advance(FOREVER).starved
    while not trial.advance(FOREVER).done:
        pass
    assert result(config, store) == whole[1]


def test_two_losses_share_initial_weights_in_their_trials(model_config):
    configs = [model_config(loss) for loss in ("sce", "isce")]
    one, other = (trial_module.new_classifier(config, CPU).state_dict() for config in configs)
    assert all(torch.equal(one[name], other[name]) for name in one)


# One run answers all three: their steps are of one length.
GROUP = tuple(
    Cell(
        probe=PGD(budget="linf", eps=0.1, steps=steps, alpha=0.03, random_start=True),
        split="test",
        n=20,
    )
    for steps in (2, 6, 4)
)


def test_cells_of_one_run_are_measured_together(config, finished, monkeypatch):
    asked, real = [], trial_module.measure

    def counts(classifier, cells, *rest, **options):
        asked.append(cells)
        return real(classifier, cells, *rest, **options)

    monkeypatch.setattr(trial_module, "measure", counts)
    more = dataclasses.replace(config, cells=(GROUP[0], EXTRA, *GROUP[1:]))
    reports = live(more, finished, seconds=0.0)
    assert asked == [list(GROUP), [EXTRA]]
    assert [report.cells for report in reports] == [3, 4]
    seconds = finished.read_json(f"trials/{config.model.id}", "record.json")["cell_seconds"]
    assert {cell.id(config.model.id) for cell in more.cells} <= set(seconds)


def test_cells_of_one_run_are_byte_for_byte_those_measured_alone(config, finished):
    alone = Store(f"{finished.root}-alone")
    shutil.copytree(finished.root, alone.root)
    live(dataclasses.replace(config, cells=GROUP), finished)
    for cell in GROUP:
        live(dataclasses.replace(config, cells=(cell,)), alone)
    outcomes = result(config, finished)["outcomes"]
    assert outcomes == result(config, alone)["outcomes"]
    kept = [outcomes[cell.id(config.model.id)]["outcome.safetensors"] for cell in GROUP]
    assert len(set(kept)) == 3


def test_what_is_missing_of_a_run_is_measured_alone(config, finished, monkeypatch):
    live(dataclasses.replace(config, cells=GROUP[:2]), finished)
    before = result(config, finished)["outcomes"]
    asked, real = [], trial_module.measure
    monkeypatch.setattr(
        trial_module,
        "measure",
        lambda model, cells, *rest, **options: (
            asked.append(cells) or real(model, cells, *rest, **options)
        ),
    )
    live(dataclasses.replace(config, cells=GROUP), finished)
    assert asked == [[GROUP[2]]]
    after = result(config, finished)["outcomes"]
    assert {cell: after[cell] for cell in before} == before


@dataclasses.dataclass(frozen=True)
class Borrowing(Attack):
    """Attacks another model than the one that is judged."""

    name, revision = "borrowing", 1  # never registered
    source: str

    @property
    def sources(self):
        return (self.source,)

    def identity(self):
        return {"component": "attack/borrowing", "parameters": {"source": self.source}}

    def columns(self):
        return None

    def perturb(self, classifier, batch):
        return PGD(budget="l2_abs", eps=2.0, steps=3).perturb(batch.models[self.source], batch)


@pytest.fixture
def other(model_config):
    """Another model, which the store does not have yet."""
    return TrialConfig(model=model_config("sce", epochs=1), cells=())


@pytest.fixture
def borrowing(config, other):
    """The trial with a cell that needs the other model."""
    cell = Cell(probe=Borrowing(other.model.id), split="test", n=20)
    return dataclasses.replace(config, cells=(*CELLS, cell))


def test_cell_waits_for_the_model_that_it_needs(borrowing, other, store, whole, monkeypatch):
    *others, last = live(borrowing, store)
    assert not any(report.waits for report in others)
    assert (last.done, last.failed, last.waits, last.cells) == (True, None, True, 3)
    assert result(borrowing, store) == whole[1]  # all but the one
    (again,) = live(borrowing, store)
    assert again.waits

    assert not live(other, store)[-1].waits
    monkeypatch.setattr(Trainer, "epoch", never)
    (report,) = live(borrowing, store)
    assert (report.done, report.failed, report.waits, report.cells) == (True, None, False, 4)
    (cell,) = borrowing.cells[3:]
    kept = result(borrowing, store)["outcomes"].pop(cell.id(borrowing.model.id))
    models = [load_model(store, each.model.id, CPU) for each in (borrowing, other)]
    splits = trial_module.load_splits()
    (expected,) = measure(models[0], [cell], splits, {other.model.id: models[1]})
    assert {name: kept[name] for name in expected} == expected


def test_cell_whose_model_is_there_does_not_wait(borrowing, other, store):
    live(other, store)
    reports = live(borrowing, store, seconds=0.0)
    assert [report.cells for report in reports] == [0, 0, 0, 1, 2, 3, 4]
    assert not any(report.waits for report in reports)


def test_damaged_source_is_waited_for_again(borrowing, other, finished, whole):
    live(other, finished)
    spoil(finished, f"models/{other.model.id}", "weights.safetensors")
    reports = live(borrowing, finished)
    assert f"models/{other.model.id} is damaged" in reports[0].warning
    assert [report.failed for report in reports] == [None] * len(reports)
    assert reports[-1].waits
    assert result(borrowing, finished) == whole[1]


class Outage:
    """A storage that is away after each epoch, until somebody has waited for it."""

    def __init__(self, store, monkeypatch, lasts=0.0):
        self.root, self.hidden = Path(store.root), Path(store.root).with_name("hidden")
        self.now, self.lasts, self.epochs = 0.0, lasts, 0
        real = Trainer.epoch

        def epoch(trainer):
            record = real(trainer)
            self.epochs += 1
            self.root.mkdir(exist_ok=True)
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


def test_a_storage_that_is_away_for_a_while_costs_no_epoch(config, store, whole, monkeypatch):
    outage = Outage(store, monkeypatch)
    reports = live(config, Store(store.url, patience=60), seconds=0.0)
    assert [report.failed or report.away for report in reports] == [None] * len(reports)
    assert outage.epochs == EPOCHS
    warnings = [report.warning for report in reports if report.warning]
    assert len(warnings) == EPOCHS
    assert all(text.startswith("the storage was away for 1 s: Too many") for text in warnings)
    assert result(config, store) == whole[1]


def test_a_storage_that_is_away_for_too_long_fails_no_trial(config, store, whole, monkeypatch):
    with monkeypatch.context() as patch:
        outage = Outage(store, patch, lasts=1e9)
        report = Trial(config, Store(store.url, patience=60), CPU).advance(FOREVER)
    assert (report.done, report.failed, report.starved, report.warning) == (True, None, None, None)
    assert report.away.startswith(f"the storage {store.url} is still away after 60 s: Too many")
    assert "the same command" not in report.away  # the driver tries it again
    assert outage.now == 60
    outage.end()
    assert failure_of(record_of(store, config.model.id)) is None
    live(config, store)
    assert result(config, store) == whole[1]
