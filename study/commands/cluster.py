"""Studies on a `ray up` cluster: submit."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from study.commands.options import (
    DEFAULT_STORAGE,
    RESULTS,
    Overrides,
    Scale,
    Source,
    app,
    examples,
    plan_of,
    study_command,
    working,
)
from study.files import FULL, read_study
from study.interrupts import stopped_by
from trainables.errors import NoCluster

ClusterFile = Annotated[
    Path, typer.Option("--cluster", metavar="FILE", help="What `ray up` was given.")
]


@app.command(
    epilog=examples(
        "submit quickstart",
        "submit table5 --scale small --cluster cluster.local.yaml --detach",
        "submit table5 --scale small --attach",
        "submit table5 --scale small --cancel",
    )
)
def submit(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    cluster: ClusterFile = Path("cluster.yaml"),
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Start it, and look no further.")
    ] = False,
    attach: Annotated[
        bool, typer.Option("--attach", help="Start nothing: follow what was submitted.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Start nothing: end what was submitted, cleanly.")
    ] = False,
) -> None:
    """Runs a study on a cluster's head, where it goes on when this machine is closed."""
    from study.cluster import HOME, Cluster

    if detach + attach + cancel > 1:
        raise typer.BadParameter("expected one of --detach, --attach and --cancel")
    place = Cluster(cluster)
    file = read_study(source, overrides or (), scale)
    plan = None if attach or cancel else plan_of(source, overrides, scale)  # its mistakes, here
    with working(f"reaching the cluster of {cluster}"):
        from study.jobs import follow, jobs_on  # Ray takes a second to import
    again = study_command("submit", source, overrides, scale, DEFAULT_STORAGE, None)
    again += f" --cluster {shlex.quote(str(cluster))}"
    with jobs_on(place) as jobs:
        if cancel:
            ended = jobs.cancel(file.name)
            print(f"{file.name}: {'ended; submitted again it goes on' if ended else 'had ended'}")
            return
        job = jobs.find(file.name) if plan is None else jobs.submit(file, plan)
        if plan is not None:
            print(f"{file.name}: submitted as {job}; it goes on when this ends", flush=True)
        if detach:
            print(f"to follow it: {again} --attach")
            return
    try:
        status = follow(place, job, _say, again=attach)
    except KeyboardInterrupt:
        print(f"\ndetached, {job} goes on; to follow it: {again} --attach")
        raise typer.Exit(128 + stopped_by[-1]) from None
    folder = RESULTS / "reports" / file.name
    try:
        place.get(f"{HOME}/{folder}", folder)
        print(f"report: {folder / 'index.html'}")
    except NoCluster as error:
        if status == 0:
            raise
        print(f"it has left no report here: {error}")
    raise typer.Exit(status)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
