"""One driver a study: a lease in the store that a heartbeat keeps, and death gives up."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import psutil

from trainables.errors import BadAddress, StudyIsRunning
from trainables.store import Store

BEAT_SECONDS = 5.0
LEASE_SECONDS = 30.0  # a holder that was silent for so long is dead
CLEANING = ".clean"  # in a study's place, and no study's name: held while the store is cleaned


class StudyLock:
    """Held while a study runs; entering it raises if somebody else holds it.

    A holder on this host whose process is gone is dead at once; one elsewhere is dead when
    its lease ran out.

    Raises:
        StudyIsRunning: says who holds it, and since when it was last heard.
    """

    def __init__(self, store: Store, study: str) -> None:
        self.store = store
        self.study = study
        self.path = _path(study)
        self.lost = False
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
        try:
            holder = self._holder()
            if holder is not None:
                self._bury(holder)
            if not self.store.create(self.path, self._record()):
                raise StudyIsRunning(self._told(self._holder() or {}))
            self._give_way()
        except OSError as error:
            raise BadAddress(f"cannot write to {self.store.url}: {error}") from error
        self._thread.start()
        return self

    def _give_way(self) -> None:
        """Whoever cleans looks for drivers after it has locked; they look for it after theirs."""
        cleaner = _holder_at(self.store, _path(CLEANING))
        if self.study != CLEANING and cleaner and _alive(cleaner):
            self.store.delete(self.path)
            raise StudyIsRunning(_told(CLEANING, cleaner))

    def _bury(self, holder: dict[str, Any]) -> None:
        """Takes a dead holder's lock away, and nobody else's.

        Between the look and the taking another driver may have buried the same holder and
        locked anew: what was taken then goes back.
        """
        if _alive(holder):
            raise StudyIsRunning(self._told(holder))
        taken = self.store.take(self.path)
        if taken is not None and _parsed(taken).get("token") != holder.get("token"):
            self.store.create(self.path, taken)
            raise StudyIsRunning(self._told(_parsed(taken)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._held():
            self.store.delete(self.path)

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # a store out of reach is tried again …
                if not self._held():
                    self.lost = True
                    return
                self.store.put(self.path, self._record())
                last = time.monotonic()
            if time.monotonic() - last > LEASE_SECONDS:  # … until others may take us for dead
                self.lost = True
                return

    def _held(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.get("token") == self._mine["token"]

    def _record(self) -> bytes:
        return json.dumps({**self._mine, "beat": time.time()}).encode()

    def _holder(self) -> dict[str, Any] | None:
        return _holder_at(self.store, self.path)

    def _told(self, holder: dict[str, Any]) -> str:
        return _told(self.study, holder)


@contextlib.contextmanager
def cleaning(store: Store) -> Iterator[StudyLock]:
    """Held while a store is cleaned: no study of it is run meanwhile.

    Raises:
        StudyIsRunning: one is being run, or somebody else cleans.
    """
    with StudyLock(store, CLEANING) as lock:
        for path in store.files("studies"):
            _, study, *rest = path.split("/")
            holder = _holder_at(store, path) if rest == [_FILE] and study != CLEANING else None
            if holder and _alive(holder):
                raise StudyIsRunning(_told(study, holder))
        yield lock


def living_holder(store: Store, study: str) -> str | None:
    """Who runs a study now, for people; None where nobody does. Changes nothing."""
    holder = _holder_at(store, _path(study))
    return _who(holder) if holder and _alive(holder) else None


_FILE = "lock.json"


def _path(study: str) -> str:
    return f"studies/{study}/{_FILE}"


def _told(study: str, holder: dict[str, Any]) -> str:
    what = "the store is being cleaned" if study == CLEANING else f"study {study!r} is being run"
    return f"{what} by {_who(holder)}; nothing was started. Wait for it, or stop it and run again"


def _holder_at(store: Store, path: str) -> dict[str, Any] | None:
    try:
        return _parsed(store.get(path))
    except FileNotFoundError:
        return None


def _who(holder: dict[str, Any]) -> str:
    silent = time.time() - holder.get("beat", time.time())
    return (
        f"{holder.get('user')}@{holder.get('host')}, process {holder.get('pid')}, "
        f"last heard {silent:.0f} s ago"
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
