"""From a plan to results: run, retry."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from study.commands.options import (
    DEFAULT_STORAGE,
    RESULTS,
    TIME_OVER,
    Data,
    Overrides,
    Scale,
    Source,
    Storage,
    TrackingUri,
    app,
    command_line,
    data_folder,
    examples,
    plan_of,
    study_command,
    tracking_of,
)
from study.commands.plan import Price, Workers, check_budget, forecast_of
from study.files import FULL
from study.interrupts import alarm, seconds_of, stopped_by

if TYPE_CHECKING:
    from study.driver import Result
    from study.planned import Plan
    from study.shard import Shard
    from trainables.store import Store

Local = Annotated[bool, typer.Option("--local", help="In this process, without Ray.")]
StopAfter = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="End cleanly when so much time is over: 3h50m, 90m, 45s."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only how it ended.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="With the tracebacks of what has failed.")
]


@app.command(
    epilog=examples(
        "run quickstart",
        "run figure3 --scale small --set seeds=3",
        "run table5 --data /data --storage s3://bucket/results",
        "run table5 --shard 3/16 --stop-after 3h50m",
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
    local: Local = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Slice I of N in this process, while others run theirs on the same storage; "
            "`study sync` tracks them.",
        ),
    ] = None,
    stop_after: StopAfter = None,
    max_hours: Annotated[
        float | None, typer.Option(min=0, help="Ask before a run that is to take more.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="The same of what it costs at --price.")
    ] = None,
    workers: Workers = None,
    price: Price = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run it, whatever it takes.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Trains and attacks everything that is missing, and tracks it in MLflow."""
    from study.shard import Shard
    from trainables.store import Store

    part = Shard.parse(shard) if shard else None
    if max_cost is not None and price is None:
        raise typer.BadParameter("expected --price beside --max-cost")
    with _stoppable(stop_after, command_line()):
        store = Store(storage)
        planned = plan_of(source, overrides, scale, store)
        if max_hours is not None or max_cost is not None:
            at_a_time = 1 if local or part else workers
            found = forecast_of(planned, store, probe=True, workers=at_a_time, price=price)
            check_budget(found, max_hours, max_cost, yes)
        ended = _run(
            planned, store, command_line(), data, tracking_uri, quiet, local=local, shard=part
        )
    if not ended.planned and not part:
        print(f"{planned.name}: nothing to train; `study report` draws it")
        return
    _tell(planned, store, ended, verbose)
    if part:
        sync = study_command("sync", source, overrides, scale, storage, tracking_uri)
        print(f"MLflow shows none of it before this, when all {part.count} are done: {sync}")
    if ended.failed or ended.waiting:
        raise typer.Exit(1)


@app.command(epilog=examples("retry quickstart --failed", "retry table5 --scale small --local"))
def retry(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    data: Data = None,
    tracking_uri: TrackingUri = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="The trials that have failed: what it is for.")
    ] = True,
    local: Local = False,
    stop_after: StopAfter = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Runs those trials again that have failed, and no others."""
    from study.choice import with_choices
    from study.results import is_complete
    from trainables.store import Store
    from trainables.trial import failure_of, is_final, record_of

    command = command_line("run").replace(" --failed", "")
    with _stoppable(stop_after, command):  # what was begun has not failed any more
        store = Store(storage)
        planned = with_choices(plan_of(source, overrides, scale, store), store)
        lacking = [trial for trial in planned.trials if not is_complete(trial, store)]
        found = {trial.id: failure_of(record_of(store, trial.id)) for trial in lacking}
        reasons = {id: failure["reason"] for id, failure in found.items() if failure}
        if not reasons:
            print(f"{planned.name}: no trial has failed, {len(lacking)} lack results")
            return
        for id, reason in reasons.items():
            if is_final(reason):
                print(
                    f"{planned.by_id[id].name}: will fail again unless code has changed: {reason}"
                )
        ended = _run(planned, store, command, data, tracking_uri, quiet, local=local, only=reasons)
    _tell(planned, store, ended, verbose)
    if ended.failed or ended.waiting:
        raise typer.Exit(1)


@contextlib.contextmanager
def _stoppable(stop_after: str | None, command: str) -> Iterator[None]:
    """Lets Ctrl-C, SIGTERM or the end of the time end the block, and says what goes on."""
    seconds = seconds_of(stop_after) if stop_after else None
    try:
        with alarm(seconds):
            yield
    except KeyboardInterrupt:
        sign = stopped_by[-1]
        why = f"{stop_after} are over" if sign == signal.SIGALRM else "stopped"
        Console(soft_wrap=True).print(f"{why}; this goes on where it was: {escape(command)}")
        raise typer.Exit(TIME_OVER if sign == signal.SIGALRM else 128 + sign) from None


def _run(
    planned: Plan,
    store: Store,
    command: str,
    data: str | None,
    tracking_uri: str | None,
    quiet: bool,
    *,
    local: bool,
    only: Collection[str] | None = None,
    shard: Shard | None = None,
) -> Result:
    """What `run` and `retry` have in common."""
    from study.driver import run_study
    from study.progress import Display

    return run_study(
        planned,
        store=store,
        data=data_folder(data),
        tracking_uri=tracking_of(tracking_uri),
        artifacts=RESULTS / "artifacts",
        command=command,
        local=local,
        display=Display(Console(soft_wrap=True, quiet=quiet)),
        only=only,
        shard=shard,
    )


def _tell(planned: Plan, store: Store, ended: Result, verbose: bool) -> None:
    """How a run has ended."""
    from trainables.trial import failure_of, record_of

    console = Console(soft_wrap=True)
    done = ended.planned - len(ended.failed) - len(ended.waiting)
    console.print(f"{planned.name}: {done} of {ended.planned} trials have all their results")
    if ended.account is not None:
        console.print(str(ended.account), highlight=False)
    for trial_id, reason in ended.failed.items():
        told = planned.by_id.get(trial_id)  # of a search's suggestion the id says enough
        console.print(f"  failed: {escape(f'{told.name if told else trial_id}: {reason}')}")
        if verbose and (failure := failure_of(record_of(store, trial_id))):
            console.print(escape(failure["traceback"]))
    if ended.waiting:
        console.print(f"  {len(ended.waiting)} wait for models of others: run again after those")
