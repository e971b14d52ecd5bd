"""The command `study`: a thin layer that imports what a command needs when it runs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.database import database_of
from study.files import FULL, presets, read_study, write_copy
from trainables.errors import NothingTracked, StudyError

if TYPE_CHECKING:
    from study.plan import Plan

RESULTS = Path("results")

# Neither Ray nor MLflow reports home unless the user has said so.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Does this loss really help, and for which hyper-parameters? Plan, run, report.",
    epilog="Exit status: 0 when all is there that was asked for; 1 when a trial has failed or "
    "lacks results; 2 when nothing was done, for a mistake; 130 or 143 when stopped by Ctrl-C or "
    "by SIGTERM, and the same command goes on where it was.",
)


data_app = typer.Typer(no_args_is_help=True, help="Brings data sets to this machine.")
app.add_typer(data_app, name="data")


def _examples(*commands: str) -> str:
    """What stands below a command's help; a test runs each as far as its arguments go."""
    return "\n\n".join(["Examples:", *(f"study {command}" for command in commands)])


Source = Annotated[str, typer.Argument(metavar="FILE|PRESET", help="A study file, or a preset.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.epochs=3."),
]
Scale = Annotated[
    str, typer.Option(metavar="NAME", help="One of the file's scales, e.g. small for a laptop.")
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

DEFAULT_STORAGE = str(RESULTS / "store")


def main() -> None:
    """Runs the command; a user's mistake is one message and exit status 2."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except StudyError as error:
        Console(stderr=True).print(f"[red]study:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_status)


_stopped_by = [signal.SIGINT]


def _terminate(*_: object) -> None:
    """Ends as tidily as Ctrl-C, and like it: Ray makes any SystemExit within a call exit 1."""
    _stopped_by.append(signal.SIGTERM)
    raise KeyboardInterrupt


@app.command("list", epilog=_examples("list", "list --json"))
def list_presets(as_json: Json = False) -> None:
    """Shows the presets and the question that each asks."""
    asked = {name: read_study(name).data.get("question", "") for name in presets()}
    if as_json:
        print(json.dumps(asked, indent=1))
        return
    table = Table("preset", "question", box=None)
    for name, question in asked.items():
        table.add_row(name, question)
    Console().print(table)


@app.command(
    epilog=_examples(
        "plan table5 --scale small", "plan my-study.yaml --set seeds=5 --set training.epochs=3"
    )
)
def plan(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
) -> None:
    """Shows what a study would train and attack, and how much of it is there already."""
    from study.driver import is_complete
    from trainables.store import Store

    planned, store = _planned(source, overrides, scale), Store(storage)
    trained = {trial.id for trial in planned.trials if store.has(f"models/{trial.id}")}
    attacked = {trial.id for trial in planned.trials if is_complete(trial, store)}
    methods = {}
    for name in planned.methods:
        trials = [trial for trial in planned.trials if name in trial.methods]
        methods[name] = {
            "models": len(trials),
            "trained": sum(trial.id in trained for trial in trials),
            "seeds": len({trial.model.seed for trial in trials}),
            "attacked": sum(trial.id in attacked for trial in trials),
        }
    models = len(planned.trials)
    cells = sum(len(trial.job().cells) for trial in planned.trials)
    if as_json:
        found = {"study": planned.name, "models": models, "cells": cells, "methods": methods}
        print(json.dumps(found, indent=1))
        return
    console = Console()
    console.print(f"{planned.name}: {models} models, {cells} cells")
    _print_counts(console, methods)


@app.command(
    epilog=_examples(
        "run quickstart",
        "run figure3 --scale small --set seeds=3",
        "run table5 --data /data --storage s3://bucket/results",
    )
)
def run(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    data: Data = None,
    tracking_uri: TrackingUri = None,
    local: Annotated[bool, typer.Option(help="In this process, without Ray.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only how it ended.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="With the tracebacks of what has failed.")
    ] = False,
) -> None:
    """Trains and attacks everything that is missing, and tracks it in MLflow."""
    from study.driver import run_study
    from study.progress import Display
    from trainables.store import Store
    from trainables.trial import failure_of, record_of

    planned, store = _planned(source, overrides, scale), Store(storage)
    console = Console(soft_wrap=True)
    try:
        result = run_study(
            planned,
            store=store,
            data=_data(data),
            tracking_uri=_tracking(tracking_uri),
            artifacts=RESULTS / "artifacts",
            command=_command(),
            local=local,
            display=Display(Console(soft_wrap=True, quiet=quiet), len(planned.trials)),
        )
    except KeyboardInterrupt:
        console.print(f"{planned.name}: stopped; the same command goes on where it was")
        raise typer.Exit(128 + _stopped_by[-1]) from None
    if not planned.trials:
        console.print(f"{planned.name}: nothing to train; `study report` draws it")
        return
    done = result.planned - len(result.failed)
    console.print(f"{planned.name}: {done} of {result.planned} trials have all their results")
    for trial_id, reason in result.failed.items():
        console.print(f"  failed: {escape(f'{planned.by_id[trial_id].name}: {reason}')}")
        if verbose and (failure := failure_of(record_of(store, trial_id))):
            console.print(escape(failure["traceback"]))
    if result.failed:
        raise typer.Exit(1)


@app.command(epilog=_examples("status quickstart", "status my-study.yaml --json"))
def status(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Shows what is done, running, failed (and why) and missing; changes nothing."""
    from study.status import FAILED, STATES, status_of
    from trainables.store import Store

    planned, uri = _planned(source, overrides, scale), _tracking(tracking_uri)
    found = status_of(planned, Store(storage), uri if _is_there(uri) else None)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
        return
    console = Console(soft_wrap=True)
    console.print(f"{found.study}: {escape(_counted(found.counts))}")
    console.print(f"run by {escape(found.run_by)}" if found.run_by else "nobody runs it now")
    methods = {}
    for name in planned.methods:
        states = [trial.state for trial in found.trials if name in trial.methods]
        methods[name] = {state: states.count(state) for state in STATES}
    _print_counts(console, methods)
    for trial in found.trials:
        if trial.state == FAILED:
            console.print(f"  failed: {escape(f'{trial.name}: {trial.reason}')}")


@app.command(epilog=_examples("sync quickstart", "sync table5 --scale small"))
def sync(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: TrackingUri = None,
) -> None:
    """Tracks in MLflow again what the results hold, such as after its database was lost."""
    from study.driver import sync_study
    from study.progress import Display
    from trainables.store import Store

    planned = _planned(source, overrides, scale)
    console = Console(soft_wrap=True)
    lacking = sync_study(
        planned,
        store=Store(storage),
        tracking_uri=_tracking(tracking_uri),
        artifacts=RESULTS / "artifacts",
        command=_command("run"),
        display=Display(console, len(planned.trials)),
    )
    total = len(planned.trials)
    console.print(f"{planned.name}: {total - lacking} of {total} trials are tracked")
    if lacking:
        console.print(f"the other {lacking} lack results: {escape(_command('run'))}")


def _data(folder: str | None) -> str:
    """Where data sets are; by default in the home of whoever asks, on each machine its own."""
    from trainables.execution import default_data

    return os.path.abspath(os.path.expanduser(folder)) if folder else str(default_data())


def _planned(source: str, overrides: list[str] | None, scale: str) -> Plan:
    """The plan that a command was asked for."""
    from study.plan import make_plan

    return make_plan(read_study(source, overrides or (), scale))


def _print_counts(console: Console, methods: dict[str, dict[str, int]]) -> None:
    """A row of counts a method; nothing without any."""
    if not methods:
        return
    table = Table("method", *next(iter(methods.values())), box=None)
    for name, counts in methods.items():
        table.add_row(escape(name), *map(str, counts.values()))
    console.print(table)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trials"


@app.command(
    epilog=_examples(
        "report quickstart --open",
        "report table5 --scale small --claims my-claims.yaml --output report",
    )
)
def report(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    tracking_uri: TrackingUri = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to.  [default: results/reports/STUDY]")
    ] = None,
    claims: Annotated[
        Path | None, typer.Option(help="A file of claims of your own, judged beside the paper's.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Read all anew: after editing tags in MLflow by hand.")
    ] = False,
) -> None:
    """Draws the figures and tables of what was tracked, and one page with all of it."""
    from analysis.report import write_report

    name, uri = read_study(source, overrides or (), scale).name, _tracking(tracking_uri)
    _require_tracked(uri)
    folder = output or RESULTS / "reports" / name
    written = write_report(uri, name, folder, _command(), claims, fresh=fresh)
    if written.table:
        print(f"{written.table}\n")
    print(f"report: {written.page}")
    print(f"MLflow: {_program()} ui", flush=True)
    if open_page and not webbrowser.open(written.page.absolute().as_uri()):
        print("found no browser to open it in")


@app.command(epilog=_examples("check my-study.yaml", "check table5 --scale small"))
def check(source: Source, overrides: Overrides = None, scale: Scale = FULL) -> None:
    """Says everything that is wrong with a study file, and starts nothing."""
    planned = _planned(source, overrides, scale)
    print(f"{planned.name}: no mistakes, {len(planned.trials)} models")


@app.command(epilog=_examples("describe", "describe isce", "describe pgd"))
def describe(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A component; without it, all of them.")
    ] = None,
    plugins: Annotated[
        list[str] | None,
        typer.Option("--plugin", metavar="MODULE", help="A package of your own components."),
    ] = None,
) -> None:
    """Tells of losses, attacks, backbones, data sets and all else that a study file may name."""
    from study import vocabulary
    from trainables.registry import load_plugin

    for plugin in plugins or ():
        load_plugin(plugin)
    print(vocabulary.describe(name) if name else vocabulary.describe_all())


@app.command(epilog=_examples("init my-study.yaml", "init my-table.yaml --preset table5"))
def init(
    file: Annotated[Path, typer.Argument(help="The file to write; its name is the study's.")],
    preset: Annotated[str, typer.Option(help="Which preset to begin with.")] = "quickstart",
) -> None:
    """Writes a study file of your own to begin with: a preset's, with its comments."""
    write_copy(preset, file)
    print(f"{file}: {preset} under the name {file.stem}; `study plan {file}` says what it is")


@data_app.command(epilog=_examples("data fetch mnist cifar10", "data fetch cifar10 --data /data"))
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Data sets to bring.")],
    data: Data = None,
) -> None:
    """Downloads data sets, and checks them, before a study runs where there is no network."""
    from trainables.datasets.base import Dataset
    from trainables.registry import build

    folder = Path(_data(data)).expanduser()
    datasets = [cast(Dataset, build("dataset", name)) for name in names]
    for dataset in datasets:
        dataset.fetch(folder)
        embedded = type(dataset).fetch is Dataset.fetch
        where = "nothing to download" if embedded else f"whole, in {folder}"
        print(f"{dataset.name}: {where}", flush=True)


@app.command(epilog=_examples("ui", "ui --port 5001"))
def ui(
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Opens MLflow's web page on the tracked runs (on this machine alone)."""
    uri = _tracking(tracking_uri)
    _require_tracked(uri)
    print(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    serve = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    raise typer.Exit(subprocess.call([sys.executable, *serve, "--port", str(port)]))


def _is_there(uri: str) -> bool:
    """Whether a database is there; a server may be."""
    path = database_of(uri)
    return path is None or path.exists()


def _require_tracked(uri: str) -> None:
    """Readers make no empty database."""
    if not _is_there(uri):
        raise NothingTracked(f"nothing is tracked at {uri} yet: `study run quickstart` fills it")


def _tracking(uri: str | None) -> str:
    """The tracking URI; by default a database in the results' folder."""
    return uri or f"sqlite:///{(RESULTS / 'mlflow.db').absolute()}"


def _program() -> str:
    """How to call this command again: by its path where it is not on the PATH."""
    return "study" if shutil.which("study") else os.path.relpath(sys.argv[0])


def _command(name: str | None = None) -> str:
    """This command as it was typed; or another one of the same study."""
    return shlex.join(["study", name or sys.argv[1], *sys.argv[2:]])
