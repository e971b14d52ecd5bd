"""Data sets on this machine: data fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from study.commands import complete
from study.commands.options import (
    DEFAULT_STORAGE,
    Data,
    Storage,
    app,
    data_folder,
    examples,
    working,
)

data_app = typer.Typer(no_args_is_help=True, help="Brings data sets to this machine.")
app.add_typer(data_app, name="data")


@data_app.command(
    epilog=examples(
        "data fetch mnist cifar10",
        "data fetch cifar10 --data /data",
        "data fetch cifar10 --share --storage s3://bucket/results",
    )
)
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Data sets to bring.", autocompletion=complete.datasets
        ),
    ],
    data: Data = None,
    share: Annotated[
        bool,
        typer.Option("--share", help="Put them into the results' storage too, for all machines."),
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Downloads data sets, and checks them, before a study runs where there is no network."""
    from trainables.datasets.base import Dataset
    from trainables.datasets.load import give
    from trainables.registry import build
    from trainables.store import Store

    folder = Path(data_folder(data)).expanduser()
    datasets = [cast(Dataset, build("dataset", name)) for name in names]
    for dataset in datasets:
        with working(f"checking {dataset.name}"):
            dataset.fetch(folder)
        embedded = type(dataset).fetch is Dataset.fetch
        where = "nothing to download" if embedded else f"whole, in {folder}"
        print(f"{dataset.name}: {where}", flush=True)
        if share and give(dataset, folder, (store := Store(storage))):
            print(f"{dataset.name}: whole, in {store.url}", flush=True)
