"""Ctrl-C and SIGTERM, put off where they would leave something half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
