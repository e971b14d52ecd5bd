"""One driver a study, or shards of it."""

import errno
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study import lock as lock_module
from study.lock import LEASE_SECONDS, StudyLock, cleaning, living_holders
from study.shard import Shard
from trainables import store as store_module
from trainables.errors import BadAddress, StorageAway, StudyIsRunning
from trainables.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def held_by(store, path="lock", **changes):
    """A lock as another driver would have left it."""
    holder = {"host": "elsewhere", "pid": 1, "user": "ann", "token": "x", "beat": time.time()}
    store.put(f"studies/a/{path}.json", json.dumps({**holder, **changes}).encode())


def test_a_second_driver_is_told_who_holds_it(store):
    with StudyLock(store, "a"), pytest.raises(StudyIsRunning, match=f"process {os.getpid()}"):
        StudyLock(store, "a").__enter__()


def test_living_holders_are_told_and_dead_ones_are_not(store):
    assert living_holders(store, "a") == ()
    with StudyLock(store, "a"):
        (holder,) = living_holders(store, "a")
        assert f"process {os.getpid()}, last heard" in holder.who
        assert living_holders(store, "b") == ()
    assert living_holders(store, "a") == ()
    held_by(store, beat=time.time() - LEASE_SECONDS - 1)
    assert living_holders(store, "a") == ()


def test_shards_of_one_count_run_at_once_and_say_what_they_do(store, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.01)
    with StudyLock(store, "a", Shard(1, 12)), StudyLock(store, "a", Shard(12, 12)) as last:
        last.doing = "1a2b"
        deadline = time.monotonic() + 60
        while living_holders(store, "a")[1].doing != "1a2b":
            assert time.monotonic() < deadline
        first, second = living_holders(store, "a")
        assert ", shard 1/12, last heard" in first.who
        assert ", shard 12/12, last heard" in second.who
        assert first.doing == ""
    assert living_holders(store, "a") == ()


@pytest.mark.parametrize(
    ("holder", "comer", "told"),
    [
        (None, Shard(1, 2), "is being run by"),
        (Shard(2, 2), None, "shard 2/2"),
        (Shard(1, 2), Shard(1, 2), "shard 1/2"),
        (Shard(1, 2), Shard(3, 3), r"shard 1/2, last heard 0 s ago \(some trials of 3/3"),
    ],
    ids=str,
)
def test_two_with_trials_in_common_exclude_each_other(store, holder, comer, told):
    with StudyLock(store, "a", holder) as held:
        with pytest.raises(StudyIsRunning, match=told):
            StudyLock(store, "a", comer).__enter__()
        assert len(living_holders(store, "a")) == 1  # the comer has left nothing
        assert held._held()
    with StudyLock(store, "a", comer):
        pass


@pytest.mark.parametrize("comer", [None, Shard(1, 2)], ids=str)
def test_of_two_who_come_at_once_one_goes(store, comer, monkeypatch):
    """The other comes between our look at our own place and our look around."""
    other, create = StudyLock(store, "a", Shard(3, 3)), Store.create

    def create_after_the_other(*arguments):
        monkeypatch.setattr(Store, "create", create)
        other.__enter__()
        return create(*arguments)

    monkeypatch.setattr(Store, "create", create_after_the_other)
    with pytest.raises(StudyIsRunning, match="shard 3/3"):
        StudyLock(store, "a", comer).__enter__()
    other.__exit__(None, None, None)
    assert living_holders(store, "a") == ()


@pytest.mark.parametrize(
    ("dead", "comer"),
    [("lock", Shard(1, 2)), ("shards/1-of-3", Shard(1, 2)), ("shards/1-of-3", None)],
)
def test_the_dead_are_buried_so_that_they_cannot_come_back(store, dead, comer, monkeypatch):
    """A machine that slept wakes up and believes that it still runs the study."""
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.01)
    asleep = None if dead == "lock" else Shard(1, 3)
    with StudyLock(store, "a", asleep) as sleeper:
        with monkeypatch.context() as patch:
            patch.setattr(lock_module, "_alive", lambda holder: False)
            with StudyLock(store, "a", comer):
                sleeper._thread.join(timeout=60)
        assert sleeper.lost


def test_files_that_are_no_locks_disturb_nobody(store):
    store.put("studies/a/shards/1-of-2.json.1f.tmp", b"{")
    store.put("studies/a/trials.json", b"{")
    with StudyLock(store, "a"):
        assert len(living_holders(store, "a")) == 1


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
            slow._bury(slow.path, seen)
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


class Outage:
    """A storage that can be away, as automounters show it; whoever waits for it brings it back."""

    def __init__(self, store, monkeypatch):
        self.root, self.hidden = Path(store.root), Path(store.root).with_name("hidden")
        self.now, self.brings_back = 0.0, True
        self.hidden.mkdir()
        self.end()
        monkeypatch.setattr(store_module, "time", self)

    def begin(self):
        self._lead_to(self.root)

    def end(self):
        self._lead_to(self.hidden)

    def _lead_to(self, place):
        """In one step: a thread that looks in between would find nothing, which is no outage."""
        link = self.root.with_name("link")
        link.symlink_to(place)
        link.replace(self.root)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.brings_back:
            self.end()


@pytest.fixture
def outage(store, monkeypatch):
    """Of the storage; heartbeats come often, and the thread's own leave the lease to `check`."""
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.001)
    return Outage(store, monkeypatch)


def until(happened):
    """Waits for the thread of a lock."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline


def silent(lock):
    """Makes a lock's lease run out, as long as the storage is away."""
    lock._beaten = -math.inf


def test_an_outage_longer_than_the_lease_is_outlasted(store, outage, monkeypatch):
    monkeypatch.setattr(lock_module, "LEASE_SECONDS", 0.05)
    with StudyLock(store.patient(60), "a") as lock:
        outage.begin()
        last = lock._beaten
        until(lambda: time.monotonic() - last > 2 * lock_module.LEASE_SECONDS)
        assert not lock.lost
        outage.end()
        until(lambda: lock._beaten > last)
        lock.check()
        assert lock._held()
    assert outage.now == 0  # the storage was back before anybody had to wait
    assert living_holders(store, "a") == ()


def test_in_doubt_nothing_goes_on_before_the_storage_is_back(store, outage):
    said = []
    with StudyLock(store.patient(60, said.append), "a") as lock:
        outage.begin()
        lock.check()  # the lease has not run out
        assert said == []
        silent(lock)
        lock.check()
        assert [line.split(":")[0].split(",")[0] for line in said] == [
            f"the storage {store.url} is away",
            "the storage was away for 1 s",
        ]
        assert lock._held()


def test_who_was_robbed_meanwhile_stops_and_overwrites_nothing(store, outage, monkeypatch):
    def robbed(seconds):
        outage.end()
        held_by(store)

    with StudyLock(store.patient(60), "a") as lock:
        outage.begin()
        silent(lock)
        outage.sleep = robbed
        with pytest.raises(StudyIsRunning, match="study 'a' was taken over by another driver"):
            lock.check()
    assert json.loads(store.get("studies/a/lock.json"))["token"] == "x"


def test_in_doubt_for_too_long_is_told_as_what_it_is(store, outage):
    outage.brings_back = False
    with StudyLock(store.patient(60), "a") as lock:
        outage.begin()
        silent(lock)
        with pytest.raises(StorageAway, match="still away after 60 s"):
            lock.check()
        assert not lock.lost
    outage.end()
    assert json.loads(store.get("studies/a/lock.json"))["token"] == lock._mine["token"]


def test_a_cleaner_in_doubt_does_not_wait(store, outage):
    outage.brings_back = False
    with cleaning(store) as lock:
        outage.begin()
        silent(lock)
        with pytest.raises(StorageAway):
            lock.check()
    assert outage.now == 0


def test_the_end_of_a_run_hides_nothing_behind_a_storage_that_is_away(store, outage):
    with pytest.raises(ZeroDivisionError), StudyLock(store.patient(60), "a"):
        outage.begin()
        raise ZeroDivisionError
    assert outage.now == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, "Read-only file system"),
        type("HTTPClientError", (Exception,), {"__module__": "botocore.exceptions"})("refused"),
    ],
    ids=repr,
)
def test_a_storage_that_is_away_at_the_start_is_told_at_once(store, outage, monkeypatch, error):
    def create(*_):
        raise error

    monkeypatch.setattr(Store, "create", create)
    with pytest.raises(BadAddress, match=f"cannot write to {store.url}: .*(Read-only|refused)"):
        StudyLock(store.patient(60), "a").__enter__()
    assert outage.now == 0


def test_a_disk_that_is_full_at_a_heartbeat_keeps_the_lock(store, outage, monkeypatch):
    with StudyLock(store, "a") as lock:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))  # bytes that a file may have
        try:
            with pytest.raises(OSError, match="File too large"):
                lock._renew()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not lock.lost
        assert lock._held()
        monkeypatch.undo()
        lock._stop.set()
        lock._thread.join()
        assert list(store.files()) == ["studies/a/lock.json"]
