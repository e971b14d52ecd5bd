"""What ends a run before its end: Ctrl-C, SIGTERM, and a time that is over.

Put off where it would leave something half done.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from trainables.errors import BadOption

_Handler = Callable[[int, FrameType | None], object]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
stopped_by = [signal.SIGINT]  # the last is what ends the command
_LONGEST = 1e9  # seconds that a timer is set to at most: the system's own limit is not far


def stop(sign: int, frame: FrameType | None) -> None:
    """A handler that ends as tidily as Ctrl-C, and like it: Ray makes any SystemExit exit 1."""
    stopped_by.append(signal.Signals(sign))
    raise KeyboardInterrupt


def stop_once_more() -> None:
    """Raises what `stop` has raised before, in case somebody's code was called and has lost it.

    For work that goes on in steps: within a callback from C, or a finalizer, an exception goes
    nowhere, and the study would go on as if nobody had stopped it.
    """
    if len(stopped_by) > 1:
        raise KeyboardInterrupt


def seconds_of(duration: str) -> float:
    """Reads a time such as `3h50m`, `90m`, `45s` or `1.5d`.

    Raises:
        BadOption: it is none, or no time at all.
    """
    number = r"\d+(?:\.\d+)?"
    parts = re.fullmatch("".join(f"(?:({number}){unit})?" for unit in _SECONDS), duration.strip())
    found = parts.groups(default="0") if parts else ()
    seconds = sum(float(n) * unit for n, unit in zip(found, _SECONDS.values(), strict=False))
    if seconds <= 0:
        raise BadOption(
            f"--stop-after: expected a time such as 3h50m, 90m or 45s, found {duration!r}"
        )
    return seconds


@contextlib.contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """Sends this process SIGALRM when so many seconds have passed within the block."""
    signal.setitimer(signal.ITIMER_REAL, min(seconds or 0, _LONGEST))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts a signal off to the end of the block; a second one ends it at once.

    A write to MLflow's database that an exception leaves in its midst holds the lock for as long as
    its traceback lives, so that nothing could say any more that the study has stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted by signals
        return
    handlers = {sign: signal.getsignal(sign) for sign in _SIGNALS}
    waiting: list[int] = []

    def put_off(sign: int, frame: FrameType | None) -> None:
        if waiting:
            _handle(handlers[signal.Signals(sign)], sign, frame)
        waiting.append(sign)

    for sign in _SIGNALS:
        signal.signal(sign, put_off)
    try:
        yield
    finally:
        for sign, handler in handlers.items():
            signal.signal(sign, handler)
        if waiting:
            _handle(handlers[signal.Signals(waiting[0])], waiting[0], None)


def _handle(handler: object, sign: int, frame: FrameType | None) -> None:
    """Does what would have been done; a signal that nothing handles is sent again."""
    if callable(handler):
        handler(sign, frame)
    elif handler is signal.SIG_DFL:
        signal.signal(sign, signal.SIG_DFL)
        signal.raise_signal(sign)
