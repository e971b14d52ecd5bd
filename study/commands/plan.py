"""What a study is and takes, before it is run: plan, and the budget of `run`."""

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
    Json,
    Overrides,
    Scale,
    Source,
    Storage,
    app,
    command_line,
    examples,
    plan_of,
    print_counts,
)
from study.files import FULL

if TYPE_CHECKING:
    from study.forecast import Forecast
    from study.planned import Plan
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
    from study.cells import left_out
    from study.search import searches
    from trainables.store import Store

    store = Store(storage)
    planned = plan_of(source, overrides, scale, store)
    found = forecast_of(planned, store, probe=probe, workers=workers, price=price)
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
        further = {"estimate": found.as_json(), "left_out": left_out(planned)}
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
    for line in left_out(planned):
        console.print(escape(line))
    for line in found.lines(f"{command_line()} --probe"):
        console.print(line, markup=False, highlight=False)


def forecast_of(
    plan: Plan, store: Store, *, probe: bool, workers: int | None, price: float | None
) -> Forecast:
    """What is left of a plan and what it takes, measured first where that is asked for."""
    from study.forecast import forecast
    from study.ledger import probe as measure
    from study.shares import probe as measure_memory
    from study.site import Site
    from trainables.execution import prepare

    execution = prepare(**Site(store, "", plan.resources, plan.plugins).alone)
    found = forecast(plan, store, execution, workers=workers, price=price)
    if not probe or not (found.estimate.unmeasured or execution.gpu):
        return found
    with _progress(len(found.estimate.unmeasured)) as said:
        failed = measure(store, found.work, execution, said)
        failed |= measure_memory(plan, store, execution)
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


def check_budget(found: Forecast, hours: float | None, cost: float | None, yes: bool) -> None:
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
