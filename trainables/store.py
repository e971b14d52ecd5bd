"""Results by content id, on any fsspec address.

An entry is a folder: its objects first, then `manifest.json` with their checksums. No
manifest, no entry, so a crash at any moment leaves either the old entry or the new one.
Kinds: `models/<id>`, `outcomes/<model_id>/<cell_id>`, `progress/<id>`, `trials/<id>`,
`studies/<name>`; what was damaged is set aside under `damaged/`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import posixpath
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from trainables.errors import BadAddress, DamagedEntry, StorageAway, StudyError

P = ParamSpec("P")
R = TypeVar("R")

MANIFEST = "manifest.json"
PATIENCE = 600.0  # seconds: a server is back after minutes; what takes longer has to be mended
_PAUSES = 1.0, 5.0  # seconds between two tries, the first and the longest
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)  # what a damaged manifest raises
_ABSENT = (FileNotFoundError, NotADirectoryError)
_ANSWERS = (*_ABSENT, FileExistsError, IsADirectoryError, PermissionError)  # of one that is there
# What clients of object stores raise when they have tried often enough; we import none of them.
_AWAY = {
    "aiohttp.client_exceptions.ClientError",
    "azure.core.exceptions.ServiceRequestError",
    "azure.core.exceptions.ServiceResponseError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "gcsfs.retry.HttpError",
    "google.auth.exceptions.TransportError",
    "paramiko.ssh_exception.SSHException",
    "urllib3.exceptions.HTTPError",
}
_NO_ACCESS = {
    "botocore.exceptions.NoCredentialsError",
    "botocore.exceptions.PartialCredentialsError",
    "botocore.exceptions.ProfileNotFound",
    "google.auth.exceptions.DefaultCredentialsError",
}
# What S3 says where a file is there, or another is just making it, and s3fs has no error for.
_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")


def is_away(error: BaseException) -> bool:
    """Whether an error says that the storage is out of reach, full or read-only: it may pass."""
    if isinstance(error, OSError):
        return not isinstance(error, (StudyError, *_ANSWERS))
    return bool(_classes(error) & _AWAY)


def _code(error: BaseException) -> str:
    """What S3 calls an error; nothing where it is another's."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _classes(error: BaseException) -> set[str]:
    """The qualified names of what an error is."""
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}


def _patiently(method: Callable[Concatenate[Store, P], R]) -> Callable[Concatenate[Store, P], R]:
    """Lets a method of a patient store outlast that the storage is away.

    Such a method can be begun anew at any time. It may call another: where that has lost its
    patience, this one does not begin to wait.
    """

    @functools.wraps(method)
    def outlasting(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            if not store.patience:
                return method(store, *args, **kwargs)
            return store.patiently(lambda: method(store, *args, **kwargs))
        except Exception as error:
            if _classes(error) & _NO_ACCESS:
                raise BadAddress(f"cannot use the storage {store.url}: {error}") from error
            raise

    return outlasting


class _Outage:
    """A time for which the storage is away, to one who waits for it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.since: float | None = None  # none as long as all goes well
        self.why = ""
        self.pause = _PAUSES[0]

    def wait(self, error: Exception) -> None:
        """Until the next try; raises `StorageAway` if there is to be none."""
        store, now, self.why = self.store, time.monotonic(), _reason(error)
        if self.since is None:
            self.since = now
            if store.told is not None and not store.spent:
                at_most = f"waiting {store.patience:.0f} s at most"
                store.told(f"the storage {store.url} is away, {at_most}: {self.why}")
        left = 0.0 if store.spent else self.since + store.patience - now
        if left <= 0:
            store.spent = True
            what = f"the storage {store.url} is still away after {now - self.since:.0f} s"
            raise StorageAway(f"{what}: {self.why}") from error
        try:
            time.sleep(min(self.pause, left))
        except BaseException:  # Ctrl-C: what tidies up after it does not wait once more
            store.spent = True
            raise
        self.pause = min(1.5 * self.pause, _PAUSES[1])

    def over(self) -> None:
        """The storage has answered."""
        if self.since is not None:
            seconds = time.monotonic() - self.since
            line = f"the storage was away for {seconds:.0f} s: {self.why}"
            (self.store.told or self.store.unsaid.append)(line)


class Store:
    """A content-addressed folder of entries.

    Args:
        url: any fsspec address; a plain path is made absolute, because workers do not
            share the driver's working folder.
        set_aside: whether a damaged entry that is read is set aside; those who must change
            nothing leave it where it is.
        patience: seconds for which all but `create` outlasts that the storage is away (see
            `is_away`): it is tried again, and told after as `StorageAway`. Without patience
            whatever the file system raises is raised at once.
        told: hears at once that the storage is waited for, and that it is back.

    Attributes:
        spent: whether the patience has been spent, or ended by Ctrl-C. No more is left: a full
            disk can be read, so that an answer says nothing of what comes next.
        unsaid: what was waited for, in words, where nobody is told.

    Raises:
        BadAddress: no file system goes by that address, or its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        set_aside: bool = True,
        patience: float = 0.0,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.set_aside = set_aside
        self.patience = patience
        self.told = told
        self.spent = False
        self.unsaid: list[str] = []
        self.url = url if "://" in url else os.path.abspath(url)
        try:  # a listing that is cached would not show what workers have written since
            self.fs, self.root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise BadAddress(f"cannot keep results at {url!r}: {error}") from None

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def patient(self, seconds: float, told: Callable[[str], None] | None = None) -> Store:
        """The same store, with so much patience."""
        return Store(self.url, set_aside=self.set_aside, patience=seconds, told=told)

    def patiently(self, work: Callable[[], R]) -> R:
        """What work returns or raises, which is done again while it fails for want of the storage.

        Args:
            work: may be done anew at any time.

        Raises:
            StorageAway: that has been so for longer than the store is patient.
        """
        outage = _Outage(self)
        while True:
            try:
                result = work()
            except Exception as error:
                if not is_away(error):
                    outage.over()
                    raise
                outage.wait(error)
            else:
                outage.over()
                return result

    @_patiently
    def has(self, entry: str) -> bool:
        """Whether the entry is complete."""
        return self._is_there(self._path(entry, MANIFEST))

    @_patiently
    def entries(self, folder: str) -> set[str]:
        """The names of all complete entries directly under a folder."""
        if isinstance(self.fs, LocalFileSystem):
            return _complete(self._path(folder))
        return {names[0] for names in self._found(folder, depth=1)}

    @_patiently
    def nested(self, folder: str) -> dict[str, set[str]]:
        """The names of all complete entries two folders down, by the folder between; one listing.

        Where there are thousands this is far quicker than `entries` of each.
        """
        found: dict[str, set[str]] = {}
        if isinstance(self.fs, LocalFileSystem):
            top = self._path(folder)
            found = {name: _complete(os.path.join(top, name)) for name in _names(top)}
        else:
            for name, entry in self._found(folder, depth=2):
                found.setdefault(name, set()).add(entry)
        return {name: entries for name, entries in found.items() if entries}

    def _found(self, folder: str, depth: int) -> Iterator[list[str]]:
        """The folders on the way to each complete entry so far below a folder, its own last."""
        above = f"{self._path(folder).strip('/')}/"
        for path in self._listed(self._path(folder), depth):
            *names, last = path.strip("/").removeprefix(above).split("/")
            if last == MANIFEST and len(names) == depth:
                yield names

    def _listed(self, folder: str, depth: int = -1) -> dict[str, dict[str, Any]]:
        """What fsspec knows of every file below a folder, or at least of those so deep, by path.

        Its own `find` takes a folder that it cannot look into for an empty one, but for object
        stores', which list all keys at once.
        """
        try:
            if self.fs.async_impl:
                found: dict[str, dict[str, Any]] = self.fs.find(folder, detail=True)
                return found
            items = self.fs.ls(folder, detail=True)
        except _ABSENT:
            return {}
        files: dict[str, dict[str, Any]] = {}
        for item in items:
            if item["type"] != "directory":
                files[item["name"]] = item
            elif depth and item["name"].strip("/") != folder.strip("/"):
                files |= self._listed(item["name"], depth - 1)
        return files

    def pairs(self, folder: str, start: str) -> list[tuple[str, str]]:
        """Complete entries two levels under a folder whose name begins so, each with its parent."""
        found = self.nested(folder).items()
        pairs = ((name, entry) for name, entries in found for entry in entries)
        return sorted(pair for pair in pairs if pair[1].startswith(start))

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
            manifest = self.get(f"{entry}/{MANIFEST}")
            try:
                described = json.loads(manifest)["objects"]
                return {name: self._checked(entry, item) for name, item in described.items()}
            except (*_MALFORMED, FileNotFoundError) as error:
                if self.get(f"{entry}/{MANIFEST}") != manifest:
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
        self._remove(entry)

    @_patiently
    def _remove(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self._path(folder), recursive=True)

    @_patiently
    def files(self, folder: str = "") -> dict[str, int]:
        """Every file below a folder, by its path in the store, in order; its size in bytes."""
        found = self._listed(self._path(folder))
        start = len(self.root.rstrip("/")) + 1
        return {path[start:]: int(info["size"]) for path, info in sorted(found.items())}

    def named_in(self, entry: str) -> set[str]:
        """The files that a complete entry consists of; none where its manifest is damaged."""
        named = self._files(entry)
        return named | {MANIFEST} if named else set()

    @_patiently
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
        """Writes one plain file unless it is there; whether it did.

        The one thing that is tried once: a later try could not tell whether an earlier one, whose
        answer was lost, or somebody else has made the file.
        """
        target = self._path(path)
        self._make_folder(posixpath.dirname(target))
        try:
            if isinstance(self.fs, LocalFileSystem):
                self._link(target, data)
            else:
                self.fs.pipe_file(target, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if _code(error) not in _EXISTS:
                raise
            return False
        return True

    def _link(self, target: str, data: bytes) -> None:
        """Nobody sees the file before it is whole."""
        temporary = _temporary(target)
        try:
            self.fs.pipe_file(temporary, data)
            os.link(temporary, target)
        finally:
            _discard(temporary)

    @_patiently
    def get(self, path: str) -> bytes:
        """Reads one plain file.

        Raises:
            FileNotFoundError: it is not there.
        """
        data: bytes = self.fs.cat_file(self._path(path))
        return data

    def take(self, path: str) -> bytes | None:
        """Removes one plain file and returns what it held; None if somebody else was faster."""
        aside = f"{path}.{uuid.uuid4().hex[:8]}.taken"
        try:
            self._move(path, aside)
        except FileNotFoundError:
            return None
        data = self.get(aside)
        self.delete(aside)
        return data

    @_patiently
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
        data = self.get(f"{entry}/{item['file']}")
        found = hashlib.sha256(data).hexdigest()
        if found != item["sha256"]:
            raise ValueError(f"{item['file']}: expected SHA-256 {item['sha256']}, found {found}")
        return data

    def _set_aside(self, entry: str) -> str:
        aside = f"damaged/{entry}-{uuid.uuid4().hex[:8]}"
        self._move(entry, aside, recursive=True)
        return aside

    @_patiently
    def _move(self, path: str, target: str, *, recursive: bool = False) -> None:
        """Moves to where nobody else moves anything: what is there was moved by an earlier try."""
        self._make_folder(posixpath.dirname(self._path(target)))
        try:
            if recursive and not isinstance(self.fs, LocalFileSystem):
                self._move_all(self._path(path), self._path(target))
            else:
                self.fs.mv(self._path(path), self._path(target), recursive=recursive)
        except FileNotFoundError:
            if not self._is_there(self._path(target)):
                raise

    def _move_all(self, folder: str, target: str) -> None:
        """File by file: s3fs looks for a file of the folder's own name, and finds none."""
        for path in self._listed(folder):
            relative = path.strip("/").removeprefix(f"{folder.strip('/')}/")
            self.fs.mv(path, posixpath.join(target, relative))

    def _put(self, path: str, data: bytes) -> None:
        """Writes a file at once: by renaming where there is a rename, else by one put."""
        self._replace(path, data, _temporary(path))

    @_patiently
    def _replace(self, path: str, data: bytes, temporary: str) -> None:
        """All tries share a temporary file: where one could not delete it, the next renames it."""
        self._make_folder(posixpath.dirname(path))
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(path, data)
            return
        try:
            self.fs.pipe_file(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            _discard(temporary)
            raise

    def _make_folder(self, path: str) -> None:
        """Object stores have none, and s3fs would make a bucket of whatever is not there."""
        if not self.fs.async_impl:
            self.fs.makedirs(path, exist_ok=True)

    def _is_there(self, path: str) -> bool:
        """Unlike fsspec's `exists`, which takes any error for a no."""
        try:
            self.fs.info(path)
        except _ABSENT:
            return False
        return True

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
    return {name for name in _names(folder) if _exists(f"{folder}/{name}/{MANIFEST}")}


def _names(folder: str) -> list[str]:
    """What is in a folder of this machine; nothing where there is none."""
    try:
        return os.listdir(folder)
    except _ABSENT:
        return []


def _exists(path: str) -> bool:
    """Unlike `os.path.exists`, which takes any error for a no."""
    try:
        os.stat(path)
    except _ABSENT:
        return False
    return True


def _temporary(path: str) -> str:
    return f"{path}.{uuid.uuid4().hex[:8]}.tmp"


def _discard(temporary: str) -> None:
    """Deletes what nobody misses; where that cannot be done, `study clean` will."""
    with contextlib.suppress(OSError):
        os.remove(temporary)


def _reason(error: Exception) -> str:
    """What an error says, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
