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
from types import TracebackType
from typing import Any

import psutil

from trainables.errors import StudyIsRunning
from trainables.store import Store

BEAT_SECONDS = 5.0
LEASE_SECONDS = 30.0  # a holder that was silent for so long is dead


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
        self.path = f"studies/{study}/lock.json"
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
        holder = self._holder()
        if holder is not None:
            if _alive(holder):
                raise StudyIsRunning(self._told(holder))
            self.store.delete(self.path)
        if not self.store.create(self.path, self._record()):
            raise StudyIsRunning(self._told(self._holder() or {}))
        self._thread.start()
        return self

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
        while not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # a store out of reach is tried again
                if not self._held():
                    self.lost = True
                    return
                self.store.put(self.path, self._record())

    def _held(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.get("token") == self._mine["token"]

    def _record(self) -> bytes:
        return json.dumps({**self._mine, "beat": time.time()}).encode()

    def _holder(self) -> dict[str, Any] | None:
        try:
            holder: dict[str, Any] = json.loads(self.store.get(self.path))
            return holder
        except FileNotFoundError:
            return None
        except ValueError:  # half a lock: its writer died
            return {}

    def _told(self, holder: dict[str, Any]) -> str:
        silent = time.time() - holder.get("beat", time.time())
        return (
            f"study {self.study!r} is being run by {holder.get('user')}@{holder.get('host')}, "
            f"process {holder.get('pid')}, last heard {silent:.0f} s ago; nothing was started. "
            f"Wait for it, or stop it and run again"
        )


def _alive(holder: dict[str, Any]) -> bool:
    if holder.get("host") == platform.node():
        started = _started(int(holder.get("pid", 0)))
        return started is not None and started == holder.get("process_started")
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
