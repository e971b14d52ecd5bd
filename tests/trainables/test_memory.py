"""What work takes of a device's memory is what it takes, is kept, and is asked for once."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from trainables import memory
from trainables.config import Cell, TrialConfig
from trainables.execution import Execution
from trainables.memory import Memory, kept, measured
from trainables.registry import build
from trainables.store import Store
from trainables.trainable import memory_of

CPU = Execution()
MB = 1e6


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def by_a_worker(tmp_path):
    """Measures as a worker does: in a process of its own, which holds nothing of earlier work."""

    def measure(wanted):
        job = {
            "wanted": {kind: example.dump() for kind, example in wanted.items()},
            "storage": str(tmp_path / "store"),
            "execution": {"threads": 1, "gpu": 0.0, "channels_last": True, "data": ""},
            "plugins": (),
        }
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(memory_of, job).result()

    return measure


def training(config):
    return TrialConfig(model=config, cells=())


def attack(config, name="pgd"):
    probe = build("attack", {"name": name, "budget": "linf", "eps": 0.1, "steps": 3})
    return TrialConfig(model=config, cells=(Cell(probe=probe, split="test", n=20),))


def test_the_peak_is_what_was_held_at_once_and_not_what_was_held_before():
    torch.ones(100_000_000)  # 400 MB, which are gone
    before = torch.ones(50_000_000)  # 200 MB, which stay
    gauge = memory._Gauge(torch.device("cpu"))

    def work():
        for _ in range(3):
            torch.ones(25_000_000)  # 100 MB, one after another

    assert gauge.peak(work) == pytest.approx(100 * MB, abs=20 * MB)
    assert gauge.fixed > 200 * MB
    assert gauge.total > gauge.fixed + 100 * MB
    assert len(before) == 50_000_000


def test_a_larger_batch_takes_more_and_so_does_a_larger_network(model_config, by_a_worker):
    wanted = {
        "small": training(model_config(batch_size=16)),
        "batch": training(model_config(batch_size=1024)),
        "network": training(model_config(backbone="resnet32", batch_size=128)),
        "attack": attack(model_config(backbone="resnet32")),
    }
    found, failed = by_a_worker(wanted)
    assert not failed
    own = found.own
    assert own["small"] < own["batch"] < own["network"]
    # 1024 images, and of each the first six maps of 28 x 28 before and after their activation.
    assert own["batch"] - own["small"] > 1024 * (2 * 6 + 1) * 28 * 28 * 4
    # 256 images at a time; a backbone's maps of one are 31 layers of 16 x 32 x 32 floats, halved
    # twice: 1.2 MB at least that have to be kept for the way back.
    assert own["attack"] > 256 * 1.2 * MB
    assert found.total > found.fixed + max(own.values())


def test_what_is_known_is_not_measured_again(model_config, store, monkeypatch):
    wanted = {"a": training(model_config(batch_size=16)), "b": attack(model_config())}
    first, _ = measured({"a": wanted["a"]}, store, CPU)
    assert kept(store, CPU) == first
    worked = []
    monkeypatch.setattr(memory, "_work", lambda example, execution: worked.append(example))
    found, _ = measured(wanted, store, CPU)
    assert worked == [wanted["b"]]
    assert found.own["a"] == first.own["a"]
    assert kept(store, CPU) == found


def test_each_kind_is_kept_before_the_next(model_config, store, monkeypatch):
    def work(example, execution):
        if example.cells:
            raise KeyboardInterrupt

    monkeypatch.setattr(memory, "_work", work)
    wanted = {"a": training(model_config()), "b": attack(model_config())}
    with pytest.raises(KeyboardInterrupt):
        measured(wanted, store, CPU)
    assert set(kept(store, CPU).own) == {"a"}


def test_what_does_not_fit_takes_all_and_what_cannot_be_measured_is_told(
    model_config, store, monkeypatch
):
    def work(example, execution):
        raise ValueError("no such thing") if example.cells else torch.OutOfMemoryError("no room")

    monkeypatch.setattr(memory, "_work", work)
    found, failed = measured(
        {"a": training(model_config()), "b": attack(model_config())}, store, CPU
    )
    assert found.own == {"a": found.total}
    assert failed == {"b": "ValueError: no such thing"}
    # Another process may have had the memory: it is looked at again.
    monkeypatch.setattr(memory, "_work", lambda example, execution: None)
    again, _ = measured({"a": training(model_config())}, store, CPU)
    assert again.own["a"] < found.total


def test_what_diverges_on_noise_has_taken_its_memory(model_config, by_a_worker):
    found, failed = by_a_worker({"a": training(model_config(lr=1e9, batch_size=64))})
    assert not failed
    assert 0 < found.own["a"] < found.total


def test_a_damaged_entry_is_as_none(model_config, store):
    measured({"a": training(model_config(batch_size=16))}, store, CPU)
    for path in store.fs.find(f"{store.root}/memory"):
        if "manifest" not in path:
            store.fs.pipe_file(path, b"{")
    assert kept(store, CPU) is None


def test_kinds_of_machine_are_known_apart(model_config, store):
    measured({"a": training(model_config(batch_size=16))}, store, CPU)
    assert kept(store, Execution(channels_last=False)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_what_the_allocator_held(model_config, store):
    execution = Execution(device=torch.device("cuda"), gpu=1.0)
    wanted = {str(n): training(model_config(batch_size=n)) for n in (16, 1024)}
    found, failed = measured(wanted, store, execution)
    assert not failed
    assert found.own["16"] < found.own["1024"] < found.total - found.fixed
    assert isinstance(found, Memory)
