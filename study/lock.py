"""Who runs a study: one driver, or shards of it; a heartbeat keeps a lease, death gives it up."""

from __future__ import annotations

import contextlib
import getpass
import json
import math
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil

from study.shard import Shard
from trainables.errors import BadAddress, StudyIsRunning
from trainables.store import Store, is_away

BEAT_SECONDS = 5.0
LEASE_SECONDS = 30.0  # a holder that was silent for so long is dead
CLEANING = ".clean"  # in a study's place, and no study's name: held while the store is cleaned


class StudyLock:
    """Held while a study runs; entering it raises if somebody runs it whom that would disturb.

    A driver tolerates nobody; a shard only other shards of the same count, all others having
    trials in common with it. A holder on this host whose process is gone is dead at once; one
    elsewhere is dead when its lease ran out.

    Args:
        store: its patience is that of `check`; all else tells at once that the storage is away.
        study: its name.
        shard: of it that is run, if not all.

    Attributes:
        doing: id of the trial that is worked on, for others to see; may be empty.
        lost: whether somebody has taken us for dead.

    Raises:
        StudyIsRunning: says who runs it, and since when they were last heard.
        BadAddress: the lock cannot be written.
    """

    def __init__(self, store: Store, study: str, shard: Shard | None = None) -> None:
        self.store = store.patient(0.0)
        self._patient = store
        self.study = study
        self.shard = shard
        self.path = _path(study, shard)
        self.doing = ""
        self.lost = False
        self._beaten = math.inf  # when the lease was last renewed
        self._mine = {
            "token": uuid.uuid4().hex,
            "host": platform.node(),
            "pid": os.getpid(),
            "process_started": _started(os.getpid()),
            "user": _user(),
            "since": time.time(),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="study-lock", daemon=True)

    def __enter__(self) -> StudyLock:
        self._beaten = time.monotonic()
        try:
            self._bury(self.path, self._holder())
            if not self.store.create(self.path, self._record()):
                raise StudyIsRunning(self._told(self.path, self._holder() or {}))
            self._exclude()
            self._give_way()
        except Exception as error:
            if not isinstance(error, OSError) and not is_away(error):
                raise
            raise BadAddress(f"cannot write to {self.store.url}: {error}") from error
        self._thread.start()
        return self

    def _give_way(self) -> None:
        """Whoever cleans looks for drivers after it has locked; they look for it after theirs."""
        path = _path(CLEANING, None)
        cleaner = _holder_at(self.store, path)
        if self.study != CLEANING and cleaner and _alive(cleaner):
            self._release()
            raise StudyIsRunning(_told(CLEANING, _who(path, cleaner)))

    def _exclude(self) -> None:
        """Ends the leases of the dead whom we cannot run beside; withdraws if one is alive.

        Ours is there before we look: of two who come at once at least one sees the other.
        """
        try:
            for path in _paths(self.store, self.study):
                if path != self.path and not _go_together(_shard_of(path), self.shard):
                    self._bury(path, _holder_at(self.store, path))
        except BaseException:
            self._release()
            raise

    def _bury(self, path: str, holder: dict[str, Any] | None) -> None:
        """Takes a dead holder's lock away, and nobody else's.

        Between the look and the taking another driver may have buried the same holder and
        locked anew: what was taken then goes back.
        """
        if holder is None:
            return
        if _alive(holder):
            raise StudyIsRunning(self._told(path, holder))
        taken = self.store.take(path)
        if taken is not None and _parsed(taken).get("token") != holder.get("token"):
            self.store.create(path, taken)
            raise StudyIsRunning(self._told(path, _parsed(taken)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._release()

    def _release(self) -> None:
        """Where the storage is away the lock stays, and dies with this process."""
        with contextlib.suppress(Exception):
            if self._held():
                self.store.delete(self.path)

    def check(self) -> None:
        """Makes sure that the study is still ours.

        That is in doubt once the lease has run out, as when the storage was away: then it is
        renewed before anything else is done.

        Raises:
            StudyIsRunning: somebody has taken us for dead.
            StorageAway: it is in doubt, and the store's patience is over.
        """
        if not self.lost and time.monotonic() - self._beaten > LEASE_SECONDS:
            self._patient.patiently(self._renew)
        if self.lost:
            raise StudyIsRunning(
                "another driver took the store over: stopped, clean again"
                if self.study == CLEANING
                else f"study {self.study!r} was taken over by another driver"
            )

    def _beat(self) -> None:
        while not self.lost and not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # the storage is away: tried again, see `check`
                self._renew()

    def _renew(self) -> None:
        """Renews the lease, if it is ours still; nobody's is overwritten after a wait."""
        if self._held():
            self.store.put(self.path, self._record())
            self._beaten = time.monotonic()
        else:
            self.lost = True

    def _held(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.get("token") == self._mine["token"]

    def _record(self) -> bytes:
        return json.dumps({**self._mine, "doing": self.doing, "beat": time.time()}).encode()

    def _holder(self) -> dict[str, Any] | None:
        return _holder_at(self.store, self.path)

    def _told(self, path: str, holder: dict[str, Any]) -> str:
        theirs, ours = _shard_of(path), self.shard
        why = ""
        if theirs and ours and theirs.count != ours.count:
            why = f" (some trials of {ours} are its as well)"
        return _told(self.study, f"{_who(path, holder)}{why}")


@contextlib.contextmanager
def cleaning(store: Store) -> Iterator[StudyLock]:
    """Held while a store is cleaned: no study of it is run meanwhile.

    Raises:
        StudyIsRunning: one is being run, or somebody else cleans.
    """
    with StudyLock(store, CLEANING) as lock:
        studies = {path.split("/")[1] for path in store.files("studies")} - {CLEANING}
        for study in sorted(studies):
            for holder in living_holders(store, study):
                raise StudyIsRunning(_told(study, holder.who))
        yield lock


def _told(study: str, who: str) -> str:
    what = "the store is being cleaned" if study == CLEANING else f"study {study!r} is being run"
    return f"{what} by {who}; nothing was started. Wait for it, or stop it and run again"


@dataclass(frozen=True)
class Holder:
    """Somebody who runs a study, or a shard of it.

    Attributes:
        who: they, and since when they were last heard, for people.
        doing: id of the trial that they were last heard to work on; may be empty.
    """

    who: str
    doing: str


def living_holders(store: Store, study: str) -> tuple[Holder, ...]:
    """Who runs a study now; one at most unless they are shards. Changes nothing."""
    found = [(path, _holder_at(store, path)) for path in _paths(store, study)]
    return tuple(
        Holder(_who(path, holder), str(holder.get("doing", "")))
        for path, holder in found
        if holder and _alive(holder)
    )


def _go_together(one: Shard | None, other: Shard | None) -> bool:
    """Whether two may run at once: only different shards of the same count have no trial both."""
    return one is not None and other is not None and one.count == other.count and one != other


def _path(study: str, shard: Shard | None) -> str:
    name = "lock" if shard is None else f"shards/{shard.index}-of-{shard.count}"
    return f"studies/{study}/{name}.json"


def _paths(store: Store, study: str) -> list[str]:
    """Where locks of a study may be: the driver's, and all shards' that there are."""
    beside = store.files(f"studies/{study}/shards")
    return [_path(study, None), *(path for path in beside if _shard_of(path))]


def _shard_of(path: str) -> Shard | None:
    """Whose lock it is; None for a driver's, and for a file that is being written."""
    found = re.search(r"/(\d+)-of-(\d+)\.json$", path)
    return Shard(*map(int, found.groups())) if found else None


def _holder_at(store: Store, path: str) -> dict[str, Any] | None:
    try:
        return _parsed(store.get(path))
    except FileNotFoundError:
        return None


def _who(path: str, holder: dict[str, Any]) -> str:
    silent = time.time() - holder.get("beat", time.time())
    shard = _shard_of(path)
    return (
        f"{holder.get('user')}@{holder.get('host')}, process {holder.get('pid')}, "
        f"{f'shard {shard}, ' if shard else ''}last heard {silent:.0f} s ago"
    )


def _parsed(lock: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(lock))
    except (ValueError, TypeError):  # its writer died
        return {}


def _alive(holder: dict[str, Any]) -> bool:
    if holder.get("host") == platform.node():
        started = _started(int(holder.get("pid", 0)))
        # The clock may have been set since: start times are told by it.
        return started is not None and abs(started - holder.get("process_started", 0)) < 5
    return time.time() - float(holder.get("beat", 0)) < LEASE_SECONDS


def _started(pid: int) -> float | None:
    """When a process began, so that a reused number is not taken for the old one."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
