"""One driver a study."""

import json
import os
import subprocess
import sys
import time

import pytest

from study import lock as lock_module
from study.lock import LEASE_SECONDS, StudyLock, living_holder
from trainables.errors import BadAddress, StudyIsRunning
from trainables.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def held_by(store, **changes):
    """A lock as another driver would have left it."""
    holder = {"host": "elsewhere", "pid": 1, "user": "ann", "token": "x", "beat": time.time()}
    store.put("studies/a/lock.json", json.dumps({**holder, **changes}).encode())


def test_a_second_driver_is_told_who_holds_it(store):
    with StudyLock(store, "a"), pytest.raises(StudyIsRunning, match=f"process {os.getpid()}"):
        StudyLock(store, "a").__enter__()


def test_a_living_holder_is_told_and_a_dead_one_is_not(store):
    assert living_holder(store, "a") is None
    with StudyLock(store, "a"):
        assert f"process {os.getpid()}, last heard" in living_holder(store, "a")
        assert living_holder(store, "b") is None
    assert living_holder(store, "a") is None
    held_by(store, beat=time.time() - LEASE_SECONDS - 1)
    assert living_holder(store, "a") is None


def test_other_studies_are_free_and_release_frees(store):
    with StudyLock(store, "a"), StudyLock(store, "b"):
        pass
    with StudyLock(store, "a"):
        pass


def test_a_dead_process_on_this_host_holds_nothing(store):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    held_by(store, host=os.uname().nodename, pid=process.pid, process_started=0.0)
    with StudyLock(store, "a"):
        pass


def test_a_reused_process_number_holds_nothing(store):
    held_by(store, host=os.uname().nodename, pid=os.getpid(), process_started=1.0)
    with StudyLock(store, "a"):
        pass


def test_a_lease_on_another_host_runs_out(store):
    held_by(store)
    with pytest.raises(StudyIsRunning, match="ann@elsewhere"):
        StudyLock(store, "a").__enter__()
    held_by(store, beat=time.time() - LEASE_SECONDS - 1)
    with StudyLock(store, "a"):
        pass


def test_a_clock_that_was_set_kills_nobody(store):
    with StudyLock(store, "a") as lock:
        mine = {**lock._mine, "process_started": lock._mine["process_started"] + 2}
        held_by(store, **mine)
        with pytest.raises(StudyIsRunning):
            StudyLock(store, "a").__enter__()


def test_of_two_who_find_a_dead_holder_one_wins(store):
    held_by(store, beat=0.0)
    slow = StudyLock(store, "a")
    seen = slow._holder()
    with StudyLock(store, "a") as fast:
        with pytest.raises(StudyIsRunning, match=f"process {os.getpid()}"):
            slow._bury(seen)
        assert fast._held()


def test_a_store_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadAddress, match="cannot write"):
        StudyLock(Store(str(tmp_path / "file")), "a").__enter__()


def test_half_a_lock_is_a_dead_one(store):
    store.put("studies/a/lock.json", b'{"ho')
    with StudyLock(store, "a"):
        pass


def test_a_holder_beats_and_notices_that_it_was_robbed(store, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.01)
    with StudyLock(store, "a") as lock:
        held_by(store)
        lock._thread.join(timeout=60)
        assert lock.lost
    assert json.loads(store.get("studies/a/lock.json"))["token"] == "x"


def test_a_heartbeat_renews_the_lease(store, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.01)
    with StudyLock(store, "a"):
        first = json.loads(store.get("studies/a/lock.json"))["beat"]
        deadline = time.monotonic() + 60
        while json.loads(store.get("studies/a/lock.json"))["beat"] <= first:
            assert time.monotonic() < deadline
