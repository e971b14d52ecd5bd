"""What no study refers to: found, told and removed."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from study.bars import along
from study.lock import StudyLock
from study.references import NOTES, Wanted, noted, united
from trainables.config import ID_LENGTH
from trainables.errors import NothingKept, UnknownStudy, nearest
from trainables.store import MANIFEST, Store

YOUNG = 3600.0  # seconds; what is half written may be under way for so long

_DEPTH = {"models": 1, "outcomes": 2, "progress": 1, "trials": 1}  # parts of an entry's name
_HALF = "half-written"
KINDS = (*_DEPTH, "studies", "damaged", _HALF)  # of what is removed, in the order that is told
_PASSING = (".tmp", ".taken")  # names of files that are renamed or removed at once
_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")
_OBJECT = re.compile(r"(?P<stem>.*)\.[0-9a-f]{8}(?P<suffix>\.[^.]*)?$")  # as the store names them


@dataclass(frozen=True)
class Item:
    """Something that is to be removed.

    Attributes:
        kind: one of `KINDS`.
        files: paths in the store with sizes in bytes, in the order of their removal.
    """

    kind: str
    files: Mapping[str, int]


@dataclass(frozen=True)
class Found:
    """What a store holds.

    Attributes:
        studies: studies that are kept, with the number of models each refers to.
        items: what no study refers to.
        young: half-written files that somebody may be writing, and that are left.
    """

    studies: Mapping[str, int]
    items: tuple[Item, ...]
    young: int

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Items and bytes by kind, kinds without any left out."""
        items, sizes = Counter[str](), Counter[str]()
        for item in self.items:
            items[item.kind] += 1
            sizes[item.kind] += sum(item.files.values())
        return {kind: {"items": items[kind], "bytes": sizes[kind]} for kind in KINDS if items[kind]}


def look(store: Store, keep: Mapping[str, Wanted], forget: Collection[str]) -> Found:
    """What a store holds that no study refers to; changes nothing.

    Args:
        store: where to look.
        keep: what studies refer to that are named, by their names.
        forget: names of studies whose notes do not count.

    Raises:
        NothingKept: the store knows of no study and none is named, so that all would go.
        UnknownStudy: the store knows none of a name in `forget`.
        DamagedEntry: the note of what a study refers to is damaged.
    """
    notes = noted(store)
    for name in forget:
        if name not in notes:
            known = ", ".join(notes) or "none"
            raise UnknownStudy(f"no study {name!r} here{nearest(name, notes)} (there are: {known})")
    kept = {name: united(wanted) for name, wanted in notes.items() if name not in forget}
    for name, wanted in keep.items():
        kept[name] = united([kept.get(name, {}), wanted])
    files = store.files()
    if not kept and not forget and any(path.split("/")[0] in _DEPTH for path in files):
        raise NothingKept(
            f"{store.url} does not say which studies its results are of (they are older than its "
            "notes): name the files and presets to keep, or run or sync each once"
        )
    items = [*_entries(files, united(kept.values())), *_remains(files, _given_up(keep, forget))]
    gone = {path for item in items for path in item.files}
    items += _stale_objects(store, {path: n for path, n in files.items() if path not in gone})
    ripe = [item for item in items if item.kind != _HALF or _age(store, item) > YOUNG]
    young = sum(len(item.files) for item in items) - sum(len(item.files) for item in ripe)
    studies = {name: len(wanted) for name, wanted in sorted(kept.items())}
    return Found(studies, tuple(ripe), young)


def remove(store: Store, items: Collection[Item], lock: StudyLock) -> None:
    """Deletes items, of each the manifest first: a crash leaves nothing that looks whole."""
    for item in along(list(items), "cleaning"):
        lock.check()
        for path in item.files:
            store.delete(path)
        for folder in {posixpath.dirname(path) for path in item.files}:
            store.drop_empty(folder)


def _entries(files: Mapping[str, int], wanted: Wanted) -> Iterator[Item]:
    """Entries that nothing refers to, and what has no manifest and so is none."""
    grouped: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in files.items():
        kind, *rest = path.split("/")
        if kind in _DEPTH and len(rest) == _DEPTH[kind] + 1 and all(map(_ID.fullmatch, rest[:-1])):
            grouped[posixpath.dirname(path)][path] = size
    for entry, held in grouped.items():
        kind, trial, *result = entry.split("/")
        manifest = f"{entry}/{MANIFEST}"
        if manifest not in held:
            yield Item(_HALF, held)
        elif trial not in wanted or (result and result[0] not in wanted[trial]):
            yield Item(kind, {manifest: held.pop(manifest), **held})


def _stale_objects(store: Store, files: Mapping[str, int]) -> Iterator[Item]:
    """Files in whole entries that their manifests do not name, as a crash leaves them."""
    versions: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in files:
        folder, name = posixpath.split(path)
        if f"{folder}/{MANIFEST}" not in files or path.split("/")[0] not in (*_DEPTH, "studies"):
            continue
        if name.endswith(_PASSING):
            yield Item(_HALF, {path: files[path]})
        elif found := _OBJECT.match(name):
            versions[folder, found["stem"] + (found["suffix"] or "")].append(path)
    for (folder, _), paths in versions.items():
        if len(paths) > 1 and (named := store.named_in(folder)):
            for path in paths:
                if posixpath.basename(path) not in named:
                    yield Item(_HALF, {path: files[path]})


def _given_up(keep: Collection[str], forget: Collection[str]) -> tuple[str, ...]:
    """The folders of studies that are forgotten: only the notes of one whose file is named."""
    return tuple(f"studies/{name}/{NOTES if name in keep else ''}" for name in forget)


def _remains(files: Mapping[str, int], given_up: tuple[str, ...]) -> Iterator[Item]:
    """What was set aside, what is left of studies that are forgotten, and of writers that died."""
    for path in sorted(files, key=lambda path: (posixpath.basename(path) != MANIFEST, path)):
        kind = path.partition("/")[0]
        if kind == "damaged" or path.startswith(given_up):
            yield Item(kind, {path: files[path]})
        elif kind == "studies" and path.endswith(_PASSING):
            yield Item(_HALF, {path: files[path]})


def _age(store: Store, item: Item) -> float:
    """Seconds since anything of it was written."""
    return min(store.age(path) for path in item.files)
