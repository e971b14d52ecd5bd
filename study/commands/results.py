"""What was tracked: sync, report, ui."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import webbrowser
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from study.commands.options import (
    DEFAULT_STORAGE,
    RESULTS,
    Overrides,
    Scale,
    Source,
    Storage,
    TrackingUri,
    app,
    command_line,
    examples,
    plan_of,
    program,
    require_tracked,
    tracking_of,
    working,
)
from study.files import FULL, read_study
from trainables.errors import NoCluster


@app.command(epilog=examples("sync quickstart", "sync table5 --scale small"))
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

    store = Store(storage)
    planned = plan_of(source, overrides, scale, store)
    console = Console(soft_wrap=True)
    lacking = sync_study(
        planned,
        store=store,
        tracking_uri=tracking_of(tracking_uri),
        artifacts=RESULTS / "artifacts",
        command=command_line("run"),
        display=Display(console),
    )
    total = len(planned.trials)
    console.print(f"{planned.name}: {total - lacking} of {total} trials are tracked")
    if lacking:
        console.print(f"the other {lacking} lack results: {escape(command_line('run'))}")


@app.command(
    epilog=examples(
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

    name, uri = read_study(source, overrides or (), scale).name, tracking_of(tracking_uri)
    require_tracked(uri)
    folder = output or RESULTS / "reports" / name
    with working(f"reading and drawing {name}"):
        written = write_report(uri, name, folder, command_line(), claims, fresh=fresh)
    if written.table:
        print(f"{written.table}\n")
    print(f"report: {written.page}")
    print(f"MLflow: {program()} ui", flush=True)
    if open_page and not webbrowser.open(written.page.absolute().as_uri()):
        print("found no browser to open it in")


@app.command(epilog=examples("ui", "ui --port 5001", "ui --cluster cluster.yaml"))
def ui(
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    cluster: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Of the cluster that `ray up FILE` started: Ray's pages too."
        ),
    ] = None,
) -> None:
    """Opens MLflow's web page on the tracked runs (on this machine alone)."""
    if cluster is not None:
        _forward(cluster, port)
    uri = tracking_of(tracking_uri)
    require_tracked(uri)
    print(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    serve = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    raise typer.Exit(subprocess.call([sys.executable, *serve, "--port", str(port)]))


def _forward(file: Path, port: int) -> NoReturn:
    """Shows the pages of a cluster's head, until Ctrl-C."""
    from study.cluster import DASHBOARD, MLFLOW, Cluster, answers

    cluster = Cluster(file)
    with contextlib.ExitStack() as open_ways:
        with working(f"reaching the cluster of {file}"):
            pages = {"MLflow": open_ways.enter_context(cluster.reach(MLFLOW, port))}
            pages["Ray"] = open_ways.enter_context(cluster.reach(DASHBOARD, DASHBOARD))
            if (searches := cluster.start_optuna()) is not None:
                pages["Optuna"] = open_ways.enter_context(cluster.reach(searches, searches))
        for name, here in pages.items():
            print(f"{name} on http://127.0.0.1:{here}")
        print("Ray asks for the token that `ray get-auth-token` shows. Ctrl-C ends it", flush=True)
        while all(map(answers, pages.values())):
            time.sleep(5.0)
    raise NoCluster("the connection to the cluster was lost")
