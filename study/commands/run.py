"""From a plan to results: plan, run, status."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from study.commands.options import (
    DEFAULT_STORAGE,
    RESULTS,
    Data,
    Json,
    Overrides,
    Scale,
    Source,
    Storage,
    TrackingUri,
    app,
    command_line,
    counted,
    data_folder,
    examples,
    is_there,
    plan_of,
    print_counts,
    stopped_by,
    tracking_of,
)
from study.files import FULL


@app.command(
    epilog=examples(
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
    from study.search import searches
    from trainables.store import Store

    store = Store(storage)
    planned = plan_of(source, overrides, scale, store)
    trained = {
        trial.id
        for trial in planned.trials
        if trial.checkpoint is not None or store.has(f"models/{trial.id}")
    }
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
        found = {
            **{"study": planned.name, "models": models, "cells": cells, "methods": methods},
            "left_out": planned.left_out,
        }
        print(json.dumps(found, indent=1))
        return
    console = Console()
    console.print(f"{planned.name}: {models} models, {cells} cells")
    print_counts(console, methods)
    for search in searches(planned, store):
        console.print(f"  search: {escape(search.told)}")
    for line in planned.left_out:
        console.print(escape(line))


@app.command(
    epilog=examples(
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

    store = Store(storage)
    planned = plan_of(source, overrides, scale, store)
    console = Console(soft_wrap=True)
    try:
        result = run_study(
            planned,
            store=store,
            data=data_folder(data),
            tracking_uri=tracking_of(tracking_uri),
            artifacts=RESULTS / "artifacts",
            command=command_line(),
            local=local,
            display=Display(Console(soft_wrap=True, quiet=quiet)),
        )
    except KeyboardInterrupt:
        console.print(f"{planned.name}: stopped; the same command goes on where it was")
        raise typer.Exit(128 + stopped_by[-1]) from None
    if not result.planned:
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


@app.command(epilog=examples("status quickstart", "status my-study.yaml --json"))
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

    store, uri = Store(storage), tracking_of(tracking_uri)
    planned = plan_of(source, overrides, scale, store)
    found = status_of(planned, store, uri if is_there(uri) else None)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
        return
    console = Console(soft_wrap=True)
    console.print(f"{found.study}: {escape(counted(found.counts))}")
    console.print(f"run by {escape(found.run_by)}" if found.run_by else "nobody runs it now")
    methods = {}
    for name in planned.methods:
        states = [trial.state for trial in found.trials if name in trial.methods]
        methods[name] = {state: states.count(state) for state in STATES}
    print_counts(console, methods)
    for told in found.searches:
        console.print(f"  search: {escape(told)}")
    for trial in found.trials:
        if trial.state == FAILED:
            console.print(f"  failed: {escape(f'{trial.name}: {trial.reason}')}")
