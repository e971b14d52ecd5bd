from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trainables import execution
from trainables.execution import Execution, cores, default_data, prepare


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_prepares_this_process_as_it_is_told(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    execution = prepare(threads=1, gpu=0.0, channels_last=False, data="~/somewhere")
    assert torch.get_num_threads() == 1
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert execution == Execution(channels_last=False, data=Path.home() / "somewhere")


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("gpu", "there"), [(0.5, True), (0.5, False), (0.0, True)])
def test_a_gpu_is_used_where_a_share_is_asked_for_and_there_is_one(monkeypatch, gpu, there):
    bounds = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", bounds.append)
    execution = prepare(threads=1, gpu=gpu, channels_last=True, data="x")
    used = gpu > 0 and there
    assert execution.device.type == ("cuda" if used else "cpu")
    assert execution.gpu == (gpu if used else 0.0)
    assert bounds == ([gpu] if used else [])  # no more of its memory is taken
    prepare(threads=1, gpu=gpu, channels_last=True, data="x", memory=0.375)
    assert bounds[1:] == ([0.375] if used else [])


def test_record_tells_what_a_result_may_depend_on():
    record = Execution().record()
    assert record["device"].startswith("cpu ")
    assert record["torch"] == torch.__version__
    assert record["channels_last"] is True
    assert set(record) == {"device", "threads", "channels_last", "torch", "cuda", "python", "host"}


def test_record_tells_of_a_share_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A100")
    record = Execution(device=torch.device("cuda"), gpu=0.25).record()
    assert (record["device"], record["gpu"]) == ("cuda A100", 0.25)


def test_record_tells_of_packing_where_there_was_any():
    assert Execution().record(packing=4)["packing"] == 4
    assert "packing" not in Execution().record(packing=1)


def test_data_are_kept_in_the_users_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/cache")
    assert default_data() == Path("/somewhere/cache/robust-loss-study/data")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_data().expanduser() == Path.home() / ".cache/robust-loss-study/data"


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(execution, "_quota", lambda: 64.0)
    before = os.sched_getaffinity(0)
    assert cores() == len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    monkeypatch.setattr(execution, "_quota", lambda: 0.5)
    assert cores() == 1
