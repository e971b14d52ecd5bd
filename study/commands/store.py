"""What is kept: export, import, verify, clean."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from study.commands.options import (
    DEFAULT_STORAGE,
    Data,
    Json,
    Overrides,
    Scale,
    Source,
    Storage,
    app,
    data_folder,
    examples,
    plan_of,
    program,
)
from study.files import FULL


@app.command(
    epilog=examples("export quickstart", "export my-study.yaml --models --output mine.zip")
)
def export(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    output: Annotated[
        Path | None, typer.Option(help="The file to write.  [default: STUDY.study.zip]")
    ] = None,
    models: Annotated[bool, typer.Option("--models", help="With the models' weights.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="What there is of a study that lacks results.")
    ] = False,
) -> None:
    """Writes results, configurations, versions and digests to one file for another machine."""
    from study import bundle
    from study.choice import with_choices
    from trainables.store import Store

    store = Store(storage, set_aside=False)
    planned = with_choices(plan_of(source, overrides, scale, store), store)
    target = output or Path(f"{planned.name}{bundle.SUFFIX}")
    made = bundle.export(planned, store, target, models=models, partial=partial)
    weights = f"with {decimal(made.weights)} of weights" if models else "without weights"
    print(f"{target}: {made.results} of {made.planned} results, {decimal(made.size)}, {weights}")
    if made.weights and not models:
        print(f"the models' weights are {decimal(made.weights)} more: --models")
    if planned.plugins:
        print(f"the other machine needs these packages too: {', '.join(planned.plugins)}")


@app.command("import", epilog=examples("import quickstart.study.zip", "import a.zip --storage b"))
def import_(
    bundle_file: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What `study export` has written.")
    ],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Adds an exported study to the results here; its tables are then rebuilt offline."""
    from study.bundle import import_bundle
    from trainables.store import Store

    done = import_bundle(bundle_file, Store(storage), Path())
    file, study = done.plan.file, done.plan.name
    print(f"{study}: {done.written} entries added to {storage}, {done.known} were there already")
    if done.lacking:
        print(f"the study lacks {done.lacking} results")
    print(f"study file: {done.file}")
    for path in done.differing:
        print(f"{path} lay here already and says something else: it was left as it is")
    leading = [str(done.file), *(f"--set={item}" for item in file.overrides)]
    leading += [f"--scale={file.scale}"] * (file.scale != FULL)
    print("tables and figures, without a network:")
    kept = [] if storage == DEFAULT_STORAGE else [f"--storage={storage}"]
    print(f"  {program()} {shlex.join(['sync', *leading, *kept])}")
    print(f"  {program()} {shlex.join(['report', *leading])}")


@app.command(epilog=examples("verify quickstart", "verify my-study.yaml --sample 20 --models 1"))
def verify(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    data: Data = None,
    sample: Annotated[
        str, typer.Option(metavar="SHARE|N", help="How many cells are measured again.")
    ] = "1%",
    models: Annotated[
        str | None, typer.Option(metavar="SHARE|N", help="How many models are trained again.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the sample.")] = 0,
) -> None:
    """Checks all digests, measures random results again and compares; changes nothing."""
    from study import verify as again
    from study.choice import with_choices
    from study.site import Site
    from trainables.store import Store

    store, console = Store(storage, set_aside=False), Console(soft_wrap=True)
    for size in (sample, models or sample):  # a mistake is told before anything is read
        again.sample_size(size, 1)
    planned = plan_of(source, overrides, scale, store)
    checked, damaged = again.damaged_entries(planned, store)
    console.print(f"{planned.name}: the digests of {checked} entries agree")
    for told in damaged:
        console.print(f"  {escape(told)}")
    if damaged:
        console.print(f"{len(damaged)} are damaged: `study run` makes them anew")
        raise typer.Exit(1)
    planned = with_choices(planned, store)
    site = Site(store, data_folder(data), planned.resources, planned.plugins)
    found = list(again.measured_again(planned, site, sample, seed))
    if models:
        found += again.trained_again(planned, site, models, seed)
    table = Table("model", "made again", "images", "differ", "verdict", box=None)
    for one in found:
        images, differ = (f"{one.n}", f"{one.differing:g}") if one.n else ("", "")
        table.add_row(escape(one.trial), escape(one.what), images, differ, one.verdict)
    console.print(table)
    console.print(again.summary(found))
    if not again.agree(found):
        raise typer.Exit(1)


@app.command(epilog=examples("clean", "clean my-study.yaml --forget my-study --yes"))
def clean(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|PRESET]...", help="Studies to keep as they are now, too."),
    ] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option(metavar="STUDY", help="A study whose runs until now are no reason to keep."),
    ] = None,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    yes: Annotated[
        bool, typer.Option("--yes/--dry-run", help="Delete, or only say what would be.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Deletes what no study that was run, tracked or imported here refers to; asks for --yes."""
    from study import clean as cleaner
    from study.choice import with_choices
    from study.lock import cleaning
    from study.references import note, wanted_by
    from trainables.store import Store

    reader, store = Store(storage, set_aside=False), Store(storage)
    plans = [
        with_choices(plan_of(source, overrides, scale, reader), reader) for source in sources or ()
    ]
    keep = {plan.name: wanted_by(plan) for plan in plans}
    found = cleaner.look(reader, keep, forget or ())
    if yes and found.items:
        with cleaning(store) as lock:
            found = cleaner.look(reader, keep, forget or ())
            cleaner.remove(store, found.items, lock)
            for plan in plans:
                note(plan, store)
    if as_json:
        print(json.dumps({"kept": found.studies, "removed" if yes else "to remove": found.counts}))
        return
    console = Console(soft_wrap=True)
    for study, models in found.studies.items():
        console.print(f"kept: {escape(study)}, {models} models")
    if found.young:
        console.print(f"left: {found.young} half-written files that are younger than an hour")
    if not found.items:
        console.print("nothing to clean")
        return
    table = Table("no study refers to", "items", "size", box=None)
    for kind, counts in found.counts.items():
        table.add_row(kind, str(counts["items"]), decimal(counts["bytes"]))
    console.print(table)
    console.print("deleted" if yes else "nothing was deleted: --yes does it")
