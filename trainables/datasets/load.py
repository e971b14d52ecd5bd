"""Data sets where trials want them, from the store of results where a machine has none itself."""

from __future__ import annotations

import functools
import hashlib
import uuid
from pathlib import Path

from filelock import FileLock

from trainables.datasets.base import Dataset, Splits
from trainables.datasets.files import Downloaded
from trainables.execution import Execution
from trainables.store import PATIENCE, Store

FOLDER = "data"  # in the store, laid out as every data folder is


@functools.lru_cache(maxsize=4)
def load_splits(dataset: Dataset, execution: Execution) -> Splits:
    """The data set where trials want it, read once a process: reused workers find it there."""
    if execution.storage:
        take(dataset, execution.data, Store(execution.storage, patience=PATIENCE))
    return dataset.load(execution.data).to(execution.device)


def give(dataset: Dataset, folder: Path, store: Store) -> int:
    """Puts a data set's files into the store, unless they are there and whole.

    Args:
        dataset: what is given; nothing of one that is no files.
        folder: of the downloaded data sets, which has it whole.
        store: where results are kept.

    Returns:
        How many files it has there.
    """
    files = dataset.files if isinstance(dataset, Downloaded) else {}
    held = store.files(FOLDER)
    for path, md5 in files.items():
        place = f"{FOLDER}/{path}"
        if place not in held or _md5(store.get(place)) != md5:
            store.put(place, (folder / path).read_bytes())
    return len(files)


def take(dataset: Dataset, folder: Path, store: Store) -> None:
    """Brings those files into a folder that it lacks and the store has, one process at a time.

    One that is not the published file is left, to be downloaded.

    Args:
        dataset: what is to be read.
        folder: of this machine's data sets.
        store: where results are kept.
    """
    files = dataset.files if isinstance(dataset, Downloaded) else {}
    if all((folder / path).exists() for path in files):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{dataset.name}.shared.lock"):
        held = store.files(FOLDER)
        for path, md5 in files.items():
            place = f"{FOLDER}/{path}"
            if place in held and not (folder / path).exists():
                data = store.get(place)
                if _md5(data) == md5:
                    _write(folder / path, data)


def _write(path: Path, data: bytes) -> None:
    """Makes a file at once: nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        half.write_bytes(data)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
