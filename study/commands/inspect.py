"""What there is of a study, looked at closely: show, compare, cite."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from study.commands import complete
from study.commands.options import (
    DEFAULT_STORAGE,
    Json,
    Overrides,
    Scale,
    Source,
    Storage,
    app,
    examples,
    plan_of,
)
from study.files import FULL, read_study

if TYPE_CHECKING:
    from study.compare import Comparison

OfStudy = Annotated[
    str | None,
    typer.Argument(
        metavar="[FILE|PRESET]", help="The study it is of.", autocompletion=complete.studies
    ),
]


@app.command(
    epilog=examples(
        "show 3f2a",
        'show "isce s=1 m=0.1 · lenet5/mnist5k · seed 0" quickstart',
        "show 3f2a --json",
    )
)
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A trial's or a cell's id, its beginning, or a run's name."
        ),
    ],
    source: OfStudy = None,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
) -> None:
    """Tells all that the results hold of one trial, or of one cell; MLflow is not asked."""
    from study.lookup import find_in_store, find_trial, is_prefix
    from study.show import show_cell, show_trial
    from trainables.store import Store

    store = Store(storage)
    plan = plan_of(source, overrides, scale, store) if source else None
    if plan is not None and not is_prefix(what):
        trial_id, cell_id = find_trial(plan, what).id, None
    else:
        trial_id, cell_id = find_in_store(store, what)
    planned = plan.by_id.get(trial_id) if plan else None
    if cell_id is not None:
        found = show_cell(store, trial_id, cell_id, planned)
    else:
        found = show_trial(store, trial_id, planned)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        _print_shown(found)


@app.command(
    epilog=examples(
        "compare quickstart isce sce",
        'compare figure3 "isce s=1 m=0.1" "isce s=2 m=0.1"',
        "compare quickstart 3f2a 77c0",
    )
)
def compare(
    source: Source,
    first: Annotated[
        str, typer.Argument(metavar="A", help="A method, a point of it, a run's name or an id.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="What it is compared with.")],
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
) -> None:
    """Sets two methods or trials side by side: what differs, every cell, and by how much."""
    from study.compare import compare_arms
    from study.lookup import find_arm
    from trainables.store import Store

    store = Store(storage)
    plan = plan_of(source, overrides, scale, store)
    arms = find_arm(plan, first), find_arm(plan, second)
    found = compare_arms(plan, store, *arms)
    if as_json:
        print(json.dumps([comparison.as_json() for comparison in found], indent=1))
        return
    for comparison in found:
        _print_comparison(comparison, first, second)


@app.command(epilog=examples("cite", "cite table5", "cite my-study.yaml"))
def cite(source: OfStudy = None, overrides: Overrides = None, scale: Scale = FULL) -> None:
    """How to cite this software, the paper and, given one, a study: a sentence and BibTeX."""
    from analysis.citation import bibtex, sentence
    from study.source import git_revision

    file = read_study(source, overrides or (), scale) if source else None
    cited = (file.name, file.text, git_revision()) if file else ("", "", git_revision())
    print(f"{sentence(*cited)}\n\n{bibtex(*cited)}")


def _print_shown(found: Mapping[str, Any]) -> None:
    """A trial or a cell as YAML, but for its cells, which are a table."""
    import yaml

    plain = {key: value for key, value in found.items() if value not in (None, [], "")}
    cells = plain.pop("cells", [])
    print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), end="")
    table = Table("cell", "images", "accuracy %", Column("what", overflow="fold"), box=None)
    for cell in cells:
        table.add_row(
            cell["cell"],
            str(cell.get("n", "")),
            f"{100 * cell['accuracy']:.1f}" if "accuracy" in cell else "",
            escape(f"{cell['name']} {cell.get('damaged') or _numbers(cell.get('numbers', {}))}"),
        )
    if cells:
        Console(soft_wrap=True).print(table)


def _numbers(numbers: Mapping[str, float]) -> str:
    return " ".join(f"{key}={value:.4g}" for key, value in numbers.items())


def _print_comparison(comparison: Comparison, first: str, second: str) -> None:
    console = Console(soft_wrap=True)
    seeds = f"{comparison.seeds} seed{'' if comparison.seeds == 1 else 's'} in common"
    console.print(f"{escape(comparison.place)}, {seeds}", style="bold")
    changed = Table("parameter", escape(first), escape(second), box=None)
    for key, (mine, theirs) in comparison.changed.items():
        changed.add_row(escape(key), escape(mine or "-"), escape(theirs or "-"))
    console.print(changed if comparison.changed else "no parameter differs")
    console.print()
    name = Column("accuracy %", overflow="fold")
    cells = Table(escape(first), escape(second), "difference", name, box=None)
    for row in comparison.rows:
        cells.add_row(_percent(row.first), _percent(row.second), row.told, escape(row.name))
    console.print(cells)
    if comparison.seeds > 1:
        console.print(
            "[dim]± is half a paired 95 % t interval of one cell; `study report` judges[/]"
        )
    console.print()


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
