"""The command `study`: each command imports what it needs when it runs."""

from __future__ import annotations

import gc
import signal
import sys

from rich.console import Console
from rich.markup import escape

# In the order in which `study --help` shows them.
# isort: off
from study.commands import files, plan, run, cluster, refine, status, results, inspect, store, data  # noqa: F401

# isort: on
from study.commands.options import app
from study.interrupts import stop
from trainables.errors import StudyError


def main() -> None:
    """Runs the command; a user's mistake is one message and exit status 2."""
    # Plans are many objects that live long: looking for garbage after every 700 of them took a
    # fifth of the time of planning 10,000 trials.
    gc.set_threshold(50_000)
    for sign in (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
        if signal.getsignal(sign) is signal.SIG_DFL:  # nohup stands
            signal.signal(sign, stop)
    try:
        app()
    except StudyError as error:
        Console(stderr=True).print(f"[red]study:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_status)
