"""From a plan to results: plan, run, status."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from study.forecast import Forecast
    from study.plan import Plan
    from trainables.store import Store

Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Trials at a time; as many as this machine has room for by default."),
]
Price = Annotated[
    float | None,
    typer.Option(min=0, help="Of an hour of this machine, or of one like it, in any currency."),
]


@app.command(
    epilog=examples(
        "plan table5 --scale small",
        "plan my-study.yaml --set seeds=5 --set training.epochs=3",
        "plan quickstart --probe --workers 64 --price 2.5",
    )
)
def plan(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    probe: Annotated[
        bool, typer.Option(help="Measure what has not been measured, on this machine.")
    ] = False,
    workers: Workers = None,
    price: Price = None,
    as_json: Json = False,
) -> None:
    """Shows what a study would train and attack, what is there already and what the rest takes."""
    from study.search import searches
    from trainables.store import Store

    store = Store(storage)
    planned = plan_of(source, overrides, scale, store)
    found = _forecast(planned, store, probe=probe, workers=workers, price=price)
    work = found.work
    methods = {}
    for name in planned.methods:
        trials = [trial for trial in planned.trials if name in trial.methods]
        methods[name] = {
            "models": len(trials),
            "trained": sum(trial.id in work.trained_ids for trial in trials),
            "seeds": len({trial.model.seed for trial in trials}),
            "attacked": sum(trial.id in work.whole for trial in trials),
        }
    if as_json:
        counts = {"models": work.models, "cells": work.cells}
        cached = {"models": work.trained, "cells": work.measured}
        told = {"study": planned.name, **counts, "cached": cached, "runs": work.runs}
        further = {"estimate": found.as_json(), "left_out": planned.left_out}
        print(json.dumps({**told, "methods": methods, **further}, indent=1))
        return
    console = Console(soft_wrap=True)
    console.print(
        f"{planned.name}: {work.models} models ({work.trained} cached), {work.cells} cells "
        f"({work.measured} cached), {work.runs} runs of attacks left"
    )
    print_counts(console, methods)
    for search in searches(planned, store):
        console.print(f"  search: {escape(search.told)}")
    for line in planned.left_out:
        console.print(escape(line))
    for line in found.lines(f"{command_line()} --probe"):
        console.print(line, markup=False, highlight=False)


def _forecast(
    plan: Plan, store: Store, *, probe: bool, workers: int | None, price: float | None
) -> Forecast:
    """What is left of a plan and what it takes, measured first where that is asked for."""
    from study.forecast import forecast
    from study.ledger import probe as measure
    from trainables.execution import prepare

    asked = plan.resources
    execution = prepare(
        threads=asked.cpu, gpu=asked.gpu, channels_last=asked.channels_last, data=""
    )
    found = forecast(plan, store, execution, workers=workers, price=price)
    if not probe or not found.estimate.unmeasured:
        return found
    with _progress(len(found.estimate.unmeasured)) as said:
        failed = measure(store, found.work, execution, said)
    for kind, reason in failed.items():
        Console(stderr=True).print(f"cannot measure {kind}: {reason}", markup=False)
    return forecast(plan, store, execution, workers=workers, price=price)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on the standard error; what it gives takes it one kind further."""
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=total)

        def said(kind: str) -> None:
            progress.update(task, description=f"measuring {escape(kind)}", advance=1)

        yield said


def _check_budget(found: Forecast, hours: float | None, cost: float | None, yes: bool) -> None:
    """Asks whether to go on with what exceeds a budget, where there is anybody to ask.

    Raises:
        OverBudget: nobody is there, or said no.
    """
    from trainables.errors import OverBudget

    excess = found.excess(hours, cost)
    if excess is None or yes:
        return
    asked = sys.stdin.isatty() and sys.stdout.isatty()
    if asked and typer.confirm(f"{excess}. Run it all the same?"):
        return
    raise OverBudget(
        f"{excess}. Nothing was started; what is started can be stopped, and goes on later. "
        "`--yes` runs it all the same, fewer seeds, images or points of a grid take less"
    )


@app.command(
    epilog=examples(
        "run quickstart",
        "run figure3 --scale small --set seeds=3",
        "run table5 --data /data --storage s3://bucket/results",
        "run quickstart --max-hours 4",
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
    max_hours: Annotated[
        float | None, typer.Option(min=0, help="Ask before a run that is to take more.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="The same of what it costs at --price.")
    ] = None,
    workers: Workers = None,
    price: Price = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run it, whatever it takes.")] = False,
) -> None:
    """Trains and attacks everything that is missing, and tracks it in MLflow."""
    from study.driver import run_study
    from study.progress import Display
    from trainables.store import Store
    from trainables.trial import failure_of, record_of

    if max_cost is not None and price is None:
        raise typer.BadParameter("expected --price beside --max-cost")
    store = Store(storage)
    planned = plan_of(source, overrides, scale, store)
    if max_hours is not None or max_cost is not None:
        at_a_time = 1 if local else workers
        found = _forecast(planned, store, probe=True, workers=at_a_time, price=price)
        _check_budget(found, max_hours, max_cost, yes)
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
    if result.account is not None:
        console.print(str(result.account), highlight=False)
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
    from study.ledger import last_account
    from study.status import FAILED, STATES, status_of
    from trainables.store import Store

    store, uri = Store(storage), tracking_of(tracking_uri)
    planned = plan_of(source, overrides, scale, store)
    found = status_of(planned, store, uri if is_there(uri) else None)
    if as_json:
        last = last_account(store, planned.name)
        cost = None if last is None else last.as_json()
        print(json.dumps({**found.as_json(), "last_run": cost}, indent=1))
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
