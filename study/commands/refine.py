"""After a grid: refine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from study.commands.options import (
    DEFAULT_STORAGE,
    Overrides,
    Scale,
    Source,
    Storage,
    app,
    examples,
    plan_of,
    study_command,
)
from study.files import FULL
from trainables.errors import NothingToRefine, unknown_name


@app.command(
    epilog=examples(
        "refine my-study.yaml", "refine quickstart --method isce --trainings 30 --dry-run"
    )
)
def refine(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    method: Annotated[
        str | None, typer.Option(help="Whose grid.  [default: each that has one]")
    ] = None,
    trainings: Annotated[int, typer.Option(min=1, help="How many models more, of each grid.")] = 20,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what, and keep nothing.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Take back what was decided before.")
    ] = False,
) -> None:
    """Decides where a measured grid needs more seeds and points; `study run` then trains them."""
    from study.lock import StudyLock
    from study.refine import decide, refinable
    from study.refinements import forget as forget_all
    from study.refinements import keep
    from trainables.store import Store

    store, console = Store(storage), Console(soft_wrap=True)
    planned = plan_of(source, overrides, scale, store)
    if forget:
        with StudyLock(store, planned.name):
            forget_all(planned, store)
        console.print(f"{planned.name}: its refinements are forgotten, their results are kept")
        return
    pairs = refinable(planned)
    if method is not None and method not in planned.methods:
        raise NothingToRefine(unknown_name("method", method, planned.methods))
    wanted = [pair for pair in pairs if method in (None, pair[0])]
    if not wanted:
        raise NothingToRefine(f"{method or planned.name} has no grid of numbers to refine")
    decisions = [decide(planned, store, *pair, trainings) for pair in wanted]
    for (name, place), decision in zip(wanted, decisions, strict=True):
        best = f"{decision.best.label} ({100 * decision.best.mean:.1f}"
        interval = f"± {100 * decision.half_width:.1f} % on validation images)"
        console.print(
            escape(
                f"{name} on {place}: {decision.contenders} of {decision.points} points may be "
                f"the best, such as {best} {interval}"
            )
        )
        for extra in decision.extras:
            axes = ", ".join(f"{key} {value:g}" for key, value in extra.axes.items())
            console.print(f"  {axes}: seed {', '.join(map(str, extra.seeds))}")
    models = sum(len(extra.seeds) for decision in decisions for extra in decision.extras)
    if dry_run:
        console.print(f"{models} models; nothing was kept")
        return
    with StudyLock(store, planned.name):
        keep(planned, store, [extra for decision in decisions for extra in decision.extras])
    run = study_command("run", source, overrides, scale, storage, None)
    console.print(f"{models} models more: {escape(run)}")
