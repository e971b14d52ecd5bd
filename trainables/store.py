"""Results by content id, on any fsspec address.

An entry is a folder: its objects first, then `manifest.json` with their checksums. No
manifest, no entry, so a crash at any moment leaves either the old entry or the new one.
Kinds: `models/<id>`, `outcomes/<model_id>/<cell_id>`, `progress/<id>`, `trials/<id>`,
`studies/<name>`; what was damaged is set aside under `damaged/`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from trainables.errors import BadAddress, DamagedEntry

MANIFEST = "manifest.json"
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)  # what a damaged manifest raises


class Store:
    """A content-addressed folder of entries.

    Args:
        url: any fsspec address; a plain path is made absolute, because workers do not
            share the driver's working folder.
        set_aside: whether a damaged entry that is read is set aside; those who must change
            nothing leave it where it is.

    Raises:
        BadAddress: no file system goes by that address, or its driver is not installed.
    """

    def __init__(self, url: str, *, set_aside: bool = True) -> None:
        self.set_aside = set_aside
        self.url = url if "://" in url else os.path.abspath(url)
        try:  # a listing that is cached would not show what workers have written since
            self.fs, self.root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise BadAddress(f"cannot keep results at {url!r}: {error}") from None

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def has(self, entry: str) -> bool:
        """Whether the entry is complete."""
        return bool(self.fs.exists(self._path(entry, MANIFEST)))

    def entries(self, folder: str) -> set[str]:
        """The names of all complete entries directly under a folder."""
        if isinstance(self.fs, LocalFileSystem):
            return _complete(self._path(folder))
        return {names[0] for names in self._found(folder, depth=1)}

    def nested(self, folder: str) -> dict[str, set[str]]:
        """The names of all complete entries two folders down, by the folder between; one listing.

        Where there are thousands this is far quicker than `entries` of each.
        """
        found: dict[str, set[str]] = {}
        if isinstance(self.fs, LocalFileSystem):
            top = self._path(folder)
            between = os.listdir(top) if os.path.isdir(top) else []
            found = {name: _complete(os.path.join(top, name)) for name in between}
        else:
            for name, entry in self._found(folder, depth=2):
                found.setdefault(name, set()).add(entry)
        return {name: entries for name, entries in found.items() if entries}

    def _found(self, folder: str, depth: int) -> Iterator[list[str]]:
        """The folders on the way to each complete entry so far below a folder, its own last."""
        above = f"{self._path(folder).strip('/')}/"
        for path in self.fs.find(self._path(folder), maxdepth=depth + 1):
            *names, last = path.strip("/").removeprefix(above).split("/")
            if last == MANIFEST and len(names) == depth:
                yield names

    def pairs(self, folder: str, start: str) -> list[tuple[str, str]]:
        """Complete entries two levels under a folder whose name begins so, each with its parent."""
        found = self.fs.glob(self._path(folder, "*", f"{start}*", MANIFEST))
        return sorted((path.split("/")[-3], path.split("/")[-2]) for path in found)

    def write(self, entry: str, objects: Mapping[str, bytes]) -> None:
        """Makes or replaces an entry; readers see the old one until the new one is whole."""
        before = self._files(entry)
        described: dict[str, dict[str, Any]] = {}
        for name, data in objects.items():
            digest = hashlib.sha256(data).hexdigest()
            stem, suffix = posixpath.splitext(name)
            file = f"{stem}.{digest[:8]}{suffix}"  # a new content never overwrites an old one
            self._put(self._path(entry, file), data)
            described[name] = {"file": file, "sha256": digest, "bytes": len(data)}
        manifest = json.dumps({"objects": described}, indent=1, sort_keys=True)
        self._put(self._path(entry, MANIFEST), manifest.encode())
        # Only what this manifest replaced: another writer's files are not ours to delete.
        for file in before - {item["file"] for item in described.values()}:
            self.delete(f"{entry}/{file}")

    def read(self, entry: str) -> dict[str, bytes]:
        """All objects of an entry, each checked against its checksum.

        Raises:
            FileNotFoundError: there is no such entry.
            DamagedEntry: the bytes are not those promised; the entry is set aside, so that
                the next run makes it anew.
        """
        while True:
            manifest = self.fs.cat_file(self._path(entry, MANIFEST))
            try:
                described = json.loads(manifest)["objects"]
                return {name: self._checked(entry, item) for name, item in described.items()}
            except (*_MALFORMED, FileNotFoundError) as error:
                if self.fs.cat_file(self._path(entry, MANIFEST)) != manifest:
                    continue  # a writer replaced it meanwhile: read the new one
                if not self.set_aside:
                    raise DamagedEntry(f"store entry {entry} is damaged ({error})") from error
                aside = self._set_aside(entry)
                raise DamagedEntry(
                    f"store entry {entry} is damaged ({error}); set aside as {aside}, "
                    "run the study again to make it anew"
                ) from error

    def read_json(self, entry: str, name: str) -> Any:
        """One JSON object of an entry, or None where there is no such entry."""
        try:
            return json.loads(self.read(entry)[name])
        except FileNotFoundError:
            return None

    def recall(self, entry: str, name: str) -> Any:
        """The same of what may be lost, such as statistics: None for a damaged one as well."""
        with contextlib.suppress(DamagedEntry):
            return self.read_json(entry, name)
        return None

    def write_json(self, entry: str, name: str, value: Any) -> None:
        """An entry of one JSON object."""
        self.write(entry, {name: json.dumps(value, indent=1).encode()})

    def remove(self, entry: str) -> None:
        """Deletes an entry, its manifest first."""
        self.delete(f"{entry}/{MANIFEST}")
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self._path(entry), recursive=True)

    def files(self, folder: str = "") -> dict[str, int]:
        """Every file below a folder, by its path in the store, with its size in bytes."""
        found = self.fs.find(self._path(folder), detail=True)
        start = len(self.root.rstrip("/")) + 1
        return {path[start:]: int(info["size"]) for path, info in found.items()}

    def named_in(self, entry: str) -> set[str]:
        """The files that a complete entry consists of; none where its manifest is damaged."""
        named = self._files(entry)
        return named | {MANIFEST} if named else set()

    def age(self, path: str) -> float:
        """Seconds since a plain file was written; 0 where the file system does not tell."""
        try:
            written = self.fs.modified(self._path(path))
        except (NotImplementedError, FileNotFoundError):
            return 0.0
        return float((datetime.now(UTC) - written).total_seconds())

    def put(self, path: str, data: bytes) -> None:
        """Writes one plain file (a lock, a search's state), replacing it at once."""
        self._put(self._path(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Writes one plain file unless it is there; whether it did."""
        target = self._path(path)
        self.fs.makedirs(posixpath.dirname(target), exist_ok=True)
        try:
            if isinstance(self.fs, LocalFileSystem):
                self._link(target, data)
            else:
                self.fs.pipe_file(target, data, mode="create")
        except FileExistsError:
            return False
        return True

    def _link(self, target: str, data: bytes) -> None:
        """Nobody sees the file before it is whole."""
        temporary = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
        self.fs.pipe_file(temporary, data)
        try:
            os.link(temporary, target)
        finally:
            os.remove(temporary)

    def get(self, path: str) -> bytes:
        """Reads one plain file.

        Raises:
            FileNotFoundError: it is not there.
        """
        data: bytes = self.fs.cat_file(self._path(path))
        return data

    def take(self, path: str) -> bytes | None:
        """Removes one plain file and returns what it held; None if somebody else was faster."""
        aside = self._path(f"{path}.{uuid.uuid4().hex[:8]}.taken")
        try:
            self.fs.mv(self._path(path), aside)
        except FileNotFoundError:
            return None
        data: bytes = self.fs.cat_file(aside)
        self.fs.rm_file(aside)
        return data

    def delete(self, path: str) -> None:
        """Deletes one plain file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._path(path))

    def drop_empty(self, folder: str) -> None:
        """Removes a folder and those above it, as far as nothing is in them.

        Object stores have no folders.
        """
        while folder and isinstance(self.fs, LocalFileSystem):
            try:
                os.rmdir(self._path(folder))
            except OSError:  # it is not empty
                return
            folder = posixpath.dirname(folder)

    def _checked(self, entry: str, item: Mapping[str, Any]) -> bytes:
        data: bytes = self.fs.cat_file(self._path(entry, item["file"]))
        found = hashlib.sha256(data).hexdigest()
        if found != item["sha256"]:
            raise ValueError(f"{item['file']}: expected SHA-256 {item['sha256']}, found {found}")
        return data

    def _set_aside(self, entry: str) -> str:
        aside = f"damaged/{entry}-{uuid.uuid4().hex[:8]}"
        self.fs.makedirs(posixpath.dirname(self._path(aside)), exist_ok=True)
        self.fs.mv(self._path(entry), self._path(aside), recursive=True)
        return aside

    def _put(self, path: str, data: bytes) -> None:
        """Writes a file at once: by renaming where there is a rename, else by one put."""
        self.fs.makedirs(posixpath.dirname(path), exist_ok=True)
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(path, data)
            return
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        self.fs.pipe_file(temporary, data)
        os.replace(temporary, path)

    def _files(self, entry: str) -> set[str]:
        """The files that an entry's manifest names; none where it is missing or damaged."""
        try:
            objects = json.loads(self.get(f"{entry}/{MANIFEST}"))["objects"]
            return {item["file"] for item in objects.values()}
        except (*_MALFORMED, FileNotFoundError):
            return set()

    def _path(self, *parts: str) -> str:
        return posixpath.join(self.root, *parts)


def _complete(folder: str) -> set[str]:
    """The names of the entries in a folder of this machine."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {name for name in names if os.path.exists(f"{folder}/{name}/{MANIFEST}")}
