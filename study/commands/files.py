"""Study files and what may stand in them: list, check, describe, init."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from study.commands import complete
from study.commands.options import Json, Overrides, Scale, Source, app, examples, plan_of
from study.files import FULL, presets, read_study, write_copy


@app.command("list", epilog=examples("list", "list --json"))
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


@app.command(epilog=examples("check my-study.yaml", "check table5 --scale small"))
def check(source: Source, overrides: Overrides = None, scale: Scale = FULL) -> None:
    """Says everything that is wrong with a study file, and starts nothing."""
    planned = plan_of(source, overrides, scale)
    print(f"{planned.name}: no mistakes, {len(planned.trials)} models")


@app.command(epilog=examples("describe", "describe isce", "describe pgd"))
def describe(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A component; without it, all of them.",
            autocompletion=complete.components,
        ),
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


@app.command(epilog=examples("init my-study.yaml", "init my-table.yaml --preset table5"))
def init(
    file: Annotated[Path, typer.Argument(help="The file to write; its name is the study's.")],
    preset: Annotated[
        str, typer.Option(help="Which preset to begin with.", autocompletion=complete.presets)
    ] = "quickstart",
) -> None:
    """Writes a study file of your own to begin with: a preset's, with its comments."""
    write_copy(preset, file)
    print(f"{file}: {preset} under the name {file.stem}; `study plan {file}` says what it is")
