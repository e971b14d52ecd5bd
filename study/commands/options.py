"""What the commands share: the application, options, places, and how a command is called again."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study import places
from study.commands import complete
from study.database import database_of
from study.files import FULL, read_study
from trainables.errors import NothingTracked

if TYPE_CHECKING:
    from study.planned import Plan
    from trainables.store import Store

RESULTS, DEFAULT_STORAGE = places.RESULTS, places.STORAGE

TIME_OVER = 75  # "try again" to sysexits.h, which batch systems' scripts can tell from a failure

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Does this loss really help, and for which hyper-parameters? Plan, run, report.",
    epilog="Exit status: 0 when all is there that was asked for; 1 when a trial has failed or "
    "lacks results, or results do not agree; 2 when nothing was done, for a mistake; 75 when the "
    "time of --stop-after was over, or the storage away for too long; 130 or 143 when stopped by "
    "Ctrl-C or by SIGTERM. After any of the last three the same command goes on where it was.",
)


def examples(*commands: str) -> str:
    """What stands below a command's help; a test runs each as far as its arguments go."""
    return "\n\n".join(["Examples:", *(f"study {command}" for command in commands)])


Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE|PRESET",
        help="A study file, or a preset.",
        autocompletion=complete.studies,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.epochs=3."),
]
Scale = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="One of the file's scales, e.g. small for a laptop.",
        autocompletion=complete.scales,
    ),
]
Storage = Annotated[
    str,
    typer.Option(envvar="STUDY_STORAGE", help="Where results are kept: a folder or fsspec URL."),
]
Data = Annotated[
    str | None,
    typer.Option(
        envvar="STUDY_DATA",
        help="Folder of downloaded data sets, laid out as torchvision does.  "
        "[default: ~/.cache/robust-loss-study/data]",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        envvar=["STUDY_TRACKING_URI", "MLFLOW_TRACKING_URI"],
        help="MLflow's tracking URI.  [default: sqlite in results/]",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="As JSON, for other programs.")]


def data_folder(folder: str | None) -> str:
    """Where data sets are; by default in the home of whoever asks, on each machine its own."""
    from trainables.execution import default_data

    return os.path.abspath(os.path.expanduser(folder)) if folder else str(default_data())


def plan_of(
    source: str, overrides: list[str] | None, scale: str, store: Store | None = None
) -> Plan:
    """The plan that a command was asked for, with what the results add to it."""
    with working(f"planning {source}"):
        from study.found import with_found
        from study.plan import make_plan

        plan = make_plan(read_study(source, overrides or (), scale))
        return plan if store is None else with_found(plan, store)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Says on a terminal, and nowhere else, that something takes its time."""
    console = Console(stderr=True)
    if not console.is_terminal or {"--quiet", "-q", "--json"} & set(sys.argv):
        yield
        return
    with console.status(escape(f"{what} …")):
        yield


def print_counts(console: Console, methods: dict[str, dict[str, int]]) -> None:
    """A row of counts a method; nothing without any."""
    if not methods:
        return
    table = Table("method", *next(iter(methods.values())), box=None)
    for name, counts in methods.items():
        table.add_row(escape(name), *map(str, counts.values()))
    console.print(table)


def counted(counts: dict[str, int]) -> str:
    """Counts by state as a line, without those of nothing."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trials"


def is_there(uri: str) -> bool:
    """Whether a database is there; a server may be."""
    path = database_of(uri)
    return path is None or path.exists()


def require_tracked(uri: str) -> None:
    """Readers make no empty database."""
    if not is_there(uri):
        raise NothingTracked(f"nothing is tracked at {uri} yet: `study run quickstart` fills it")


def tracking_of(uri: str | None) -> str:
    """The tracking URI; by default a database in the results' folder."""
    return places.tracking_of(uri)


def program() -> str:
    """How to call this command again: by its path where it is not on the PATH."""
    return "study" if shutil.which("study") else os.path.relpath(sys.argv[0])


def command_line(name: str | None = None) -> str:
    """This command as it was typed; or another one of the same study."""
    return shlex.join(["study", name or sys.argv[1], *sys.argv[2:]])


def study_command(
    name: str,
    source: str,
    overrides: list[str] | None,
    scale: str,
    storage: str,
    tracking_uri: str | None,
) -> str:
    """Another command on the same study and results."""
    words = ["study", name, source, *(word for item in overrides or () for word in ("--set", item))]
    words += ["--scale", scale] if scale != FULL else []
    words += ["--storage", storage] if storage != DEFAULT_STORAGE else []
    words += ["--tracking-uri", tracking_uri] if tracking_uri else []
    return shlex.join(words)
