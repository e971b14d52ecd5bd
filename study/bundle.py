"""A study's results as one file, from which another machine rebuilds every table offline."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import uuid
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from study.bars import along
from study.choice import with_choices
from study.describe import provenance
from study.files import CannotWrite, read_study, standalone
from study.found import with_found
from study.lock import StudyLock
from study.plan import make_plan
from study.planned import Plan
from study.references import entries_of, note, trials_of, wanted_by
from study.refinements import REFINEMENTS
from study.search import SEARCHES, searches
from trainables.config import ID_LENGTH
from trainables.errors import (
    BadBundle,
    Contradiction,
    DamagedEntry,
    IncompleteStudy,
    StudyError,
    plainly,
)
from trainables.store import MANIFEST, Store
from trainables.trial import record_of

SCHEMA: Literal[1] = 1
SUFFIX = ".study.zip"
WEIGHTS = "weights.safetensors"

_TOLD = 5  # contradictions that are told one by one
_LONGEST_MANIFEST = 2**30  # bytes
# What a study's folder has that results hang on; locks and what a run took are of one machine.
_RECORDS = (SEARCHES, REFINEMENTS)
# What reading a damaged, an encrypted or a strangely packed zip file raises.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
# Objects that say how a result was made, not what it is: they differ where all else is equal.
_CIRCUMSTANCES = ("execution.json", "history.json", "record.json")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Member(_Part):
    """One file of a bundle.

    Attributes:
        path: in the bundle, and but for the study's own files in the store.
        bytes: its size.
        sha256: its digest.
    """

    path: str
    bytes: int
    sha256: str


class About(_Part):
    """The study of a bundle.

    Attributes:
        name: its name, with its scale's.
        file: its leading file.
        scale, overrides: what the file is to be read with.
        plugins: packages that it takes its components from; needed on the other machine too.
    """

    name: str
    file: str
    scale: str
    overrides: list[str]
    plugins: list[str]


class Contents(_Part):
    """What `manifest.json` says.

    Attributes:
        bundle: the schema.
        study: what the results are of.
        lacking: planned results that are not in it.
        measured: when the last result was made, UTC; the time of the export would make
            two bundles of the same results differ.
        provenance: versions, machine, source and data of the export.
        files: all others of the bundle.
    """

    bundle: Literal[1]
    study: About
    lacking: int
    measured: str
    provenance: dict[str, Any]
    files: list[Member]


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        results, planned: results in the bundle, and those that the study wants.
        weights: bytes of the models' weights in the store, whether or not they are in it.
        size: bytes of the bundle.
    """

    results: int
    planned: int
    weights: int
    size: int


def export(plan: Plan, store: Store, output: Path, *, models: bool, partial: bool) -> Exported:
    """Writes a study's results, configurations, versions and digests to a file, all or nothing.

    The same results give the same bytes on the same machine.

    Args:
        plan: the study, with what its searches have found and validation has chosen.
        store: where its results are.
        output: the file; one that is there is replaced.
        models: with the models' weights.
        partial: a study that lacks results, too.

    Raises:
        IncompleteStudy: results are lacking.
        BadBundle: it has checkpoints from elsewhere.
        DamagedEntry: a result is damaged.
        CannotWrite: the file cannot be written.
    """
    planned = sum(len(trial.result_ids) for trial in plan.trials)
    results = sum(
        len(trial.result_ids & store.entries(f"outcomes/{trial.id}")) for trial in plan.trials
    )
    if not planned:
        raise IncompleteStudy(f"{plan.name} trains nothing: `study report` draws it anywhere")
    if given := sorted({trial.label for trial in plan.trials if trial.checkpoint is not None}):
        raise BadBundle(
            f"{plan.name} has checkpoints ({', '.join(given)}): a bundle holds no weights from "
            "elsewhere, without which such a study cannot be planned; nothing was written"
        )
    over = all(found.done for found in searches(plan, store))
    if not results or (not partial and (results < planned or not over)):
        hint = ", or export what there is with --partial" if results else ""
        searching = "" if over else ", and its search is not over"
        raise IncompleteStudy(
            f"{plan.name} lacks {planned - results} of {planned} results in {store.url}"
            f"{searching}; nothing was written: run it to its end{hint}"
        )
    temporary = output.with_name(f"{output.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            members = _members(plan, store, models=models)
            files = [_add(archive, path, data) for path, data in members]
            contents = _contents(plan, store, files)
            _add(archive, MANIFEST, contents.model_dump_json(indent=1).encode())
        os.replace(temporary, output)
    except StudyError:
        raise
    except OSError as error:
        raise CannotWrite(f"cannot write {str(output)!r}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return Exported(results, planned, _weights(plan, store), output.stat().st_size)


def _contents(plan: Plan, store: Store, files: list[Member]) -> Contents:
    times = [record_of(store, id).get("time", 0.0) for id in trials_of(plan)]
    return Contents(
        bundle=SCHEMA,
        study=About(
            name=plan.name,
            file=next(iter(standalone(plan.file))),
            scale=plan.file.scale,
            overrides=list(plan.file.overrides),
            plugins=list(plan.plugins),
        ),
        lacking=_lacking(with_found(make_plan(plan.file), store), {file.path for file in files}),
        measured=f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M:%S}",
        provenance=provenance(plan),
        files=files,
    )


def _lacking(plan: Plan, paths: set[str]) -> int:
    """How many results that a plan wants are not among a bundle's files."""
    entries = {path.rpartition("/")[0] for path in paths}
    wanted = (
        f"outcomes/{trial.id}/{result}" for trial in plan.trials for result in trial.result_ids
    )
    return sum(entry not in entries for entry in wanted)


def _members(plan: Plan, store: Store, *, models: bool) -> Iterator[tuple[str, bytes]]:
    """All files of a bundle but its manifest, always in the same order."""
    for name, text in standalone(plan.file).items():
        yield f"study/{name}", text.encode()
    for path in store.files(f"studies/{plan.name}"):
        if _allowed(plan.name).fullmatch(path) and not path.endswith(".tmp"):
            yield path, store.get(path)
    for id, results in along(sorted(wanted_by(plan).items()), "exporting"):
        for entry in entries_of(id, results):
            with contextlib.suppress(FileNotFoundError):  # a partial one
                for name, data in sorted(store.read(entry).items()):
                    if models or name != WEIGHTS:
                        yield f"{entry}/{name}", data


def _add(archive: zipfile.ZipFile, path: str, data: bytes) -> Member:
    info = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(info, data)
    return Member(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _weights(plan: Plan, store: Store) -> int:
    return sum(
        size
        for id in trials_of(plan)
        for path, size in store.files(f"models/{id}").items()
        if path.endswith(".safetensors")
    )


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        plan: the study.
        lacking: planned results that the bundle does not have.
        written, known: store entries that were added, and those that were there already.
        file: the study's leading file in the folder.
        differing: files of the study that lay there already, and say something else.
    """

    plan: Plan
    lacking: int
    written: int
    known: int
    file: Path
    differing: tuple[Path, ...]


def import_bundle(path: Path, store: Store, folder: Path) -> Imported:
    """Adds a bundle's results to a store, and its study file to a folder.

    Everything is checked before anything is written: the paths, sizes and digests of all files,
    that this version gives the results the same ids, and that they contradict none of the store.
    A result that is there already is kept, and has to be equal but for how it was measured.

    Raises:
        BadBundle: it is no whole bundle, or one of a version that names results otherwise.
        InvalidStudy: its study file cannot be planned here, as for want of a plugin.
        Contradiction: the store has other results under the same ids.
        StudyIsRunning: the study is being run in this store.
    """
    with _opened(path) as bundle:
        bundle.check()
        plan = _planned(bundle)
        entries, plain = bundle.entries()
        known = _known(bundle, store, entries, plain)
        with StudyLock(store, plan.name):
            new = [entry for entry in entries if entry not in known]
            for entry in along(new, "importing"):
                store.write(entry, bundle.objects(entries[entry]))
            for name in sorted(plain, key=lambda name: name.endswith(f"/{MANIFEST}")):
                store.put(name, bundle.data(name))
            note(with_choices(with_found(plan, store), store), store)
        differing = _put_beside(bundle, folder)
    contents = bundle.contents
    file = folder / contents.study.file
    return Imported(plan, contents.lacking, len(new), len(entries) - len(new), file, differing)


class _Bundle:
    """A bundle that is read."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.contents = self._contents()
        self.members = {member.path: member for member in self.contents.files}

    def bad(self, what: str) -> BadBundle:
        """The error that says what is wrong with it."""
        return BadBundle(f"{self.path}: {what}; nothing was imported")

    def check(self) -> None:
        """Looks at all paths, sizes and digests.

        Raises:
            BadBundle: says which file is not what it should be.
        """
        names = self.archive.namelist()
        listed = [member.path for member in self.contents.files]
        twice = {name for found in (names, listed) for name, n in Counter(found).items() if n > 1}
        odd = twice | (set(names) ^ {*listed, MANIFEST})
        if odd:
            what = ", ".join(sorted(odd)[:_TOLD])
            raise self.bad(f"its files are not those that its manifest lists: {what}")
        for name in listed:
            if not _allowed(self.contents.study.name).fullmatch(name):
                raise self.bad(f"{name!r} is no place for a result")
        for name in along(listed, "checking"):
            self.data(name)

    def data(self, name: str) -> bytes:
        """A file's bytes, which are those that the manifest promises."""
        member = self.members[name]
        try:
            with self.archive.open(name) as file:
                data = file.read(member.bytes + 1)
        except _UNREADABLE as error:
            raise self.bad(f"{name} cannot be read ({error})") from None
        if len(data) != member.bytes:
            found = "more" if len(data) > member.bytes else f"{len(data)}"
            raise self.bad(f"{name}: expected {member.bytes} bytes, found {found}")
        found = hashlib.sha256(data).hexdigest()
        if found != member.sha256:
            raise self.bad(f"{name}: expected SHA-256 {member.sha256}, found {found}")
        return data

    def objects(self, names: Mapping[str, str]) -> dict[str, bytes]:
        """The objects of an entry."""
        return {name: self.data(path) for name, path in names.items()}

    def entries(self) -> tuple[dict[str, dict[str, str]], list[str]]:
        """The store's entries, each with the paths of its objects by name; and its plain files.

        A model without weights is none: its configuration is for those who read the bundle.
        """
        found: dict[str, dict[str, str]] = defaultdict(dict)
        plain = [path for path in self.members if path.startswith("studies/")]
        for path in self.members:
            if not path.startswith(("studies/", "study/")):
                entry, _, name = path.rpartition("/")
                found[entry][name] = path
        whole = {
            entry: names
            for entry, names in found.items()
            if not entry.startswith("models/") or WEIGHTS in names
        }
        return whole, plain

    def _contents(self) -> Contents:
        try:
            with self.archive.open(MANIFEST) as file:
                raw = json.loads(file.read(_LONGEST_MANIFEST))
        except (KeyError, ValueError, *_UNREADABLE) as error:
            raise self.bad(f"it has no readable {MANIFEST} ({error})") from None
        if isinstance(raw, dict) and isinstance(found := raw.get("bundle"), int) and found > SCHEMA:
            raise self.bad(f"it is of schema {found}, this version reads {SCHEMA}")
        try:
            return Contents.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or MANIFEST
            raise self.bad(
                f"{MANIFEST}, {where}: {plainly(first, Contents.model_fields)}"
            ) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Bundle]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        what = error.strerror if isinstance(error, OSError) else "no zip file, or half of one"
        raise BadBundle(
            f"cannot read {str(path)!r}: {what}; expected what `study export` writes"
        ) from None
    with archive:
        yield _Bundle(path, archive)


def _allowed(study: str) -> re.Pattern[str]:
    """The paths that a bundle may hold; no part of one begins with a dot."""
    id, name = rf"[0-9a-f]{{{ID_LENGTH}}}", r"[A-Za-z0-9][A-Za-z0-9_.@-]*"
    kinds = (
        rf"study/{name}\.yaml",
        rf"studies/{re.escape(study)}/(?:{'|'.join(_RECORDS)})/(?:{name}/)*{name}",
        rf"models/{id}/{name}",
        rf"trials/{id}/record\.json",
        rf"outcomes/{id}/{id}/{name}",
    )
    return re.compile("|".join(kinds))


def _planned(bundle: _Bundle) -> Plan:
    """The bundle's study as this version plans it, which has to name the same results."""
    about, contents = bundle.contents.study, bundle.contents
    if f"study/{about.file}" not in bundle.members:
        raise bundle.bad(f"its study file {about.file!r} is not in it")
    with tempfile.TemporaryDirectory() as folder:
        _put_beside(bundle, Path(folder))
        file = read_study(str(Path(folder, about.file)), about.overrides, about.scale)
        records = Store(str(Path(folder, "records")))  # of searches and refinements
        for path in bundle.members:
            if path.startswith("studies/"):
                records.put(path, bundle.data(path))
        plan = with_found(make_plan(file), records)
    if plan.name != about.name:
        raise bundle.bad(f"expected the study {about.name!r}, found {plan.name!r}")
    trials = {path.split("/")[1] for path in bundle.members if path.startswith("trials/")}
    strange = trials - trials_of(plan).keys()
    lacking = _lacking(plan, set(bundle.members))
    if strange or lacking != contents.lacking:
        made = contents.provenance.get("versions", {}).get("robust-loss-study", "unknown")
        raise bundle.bad(
            f"this version gives other ids to {len(strange) or lacking} of its "
            f"{'models' if strange else 'results'}: it was made by version {made}, "
            f"source {contents.provenance.get('git', 'unknown')}"
        )
    return plan


def _known(
    bundle: _Bundle, store: Store, entries: Mapping[str, Mapping[str, str]], plain: list[str]
) -> set[str]:
    """The entries that the store has already; refuses a bundle that contradicts any of them."""
    known, differing = set(), []
    reader = Store(store.url, set_aside=False)
    for entry in along([entry for entry in entries if store.has(entry)], "comparing"):
        try:
            mine = reader.read(entry)
        except DamagedEntry:  # written anew
            continue
        known.add(entry)
        if _essence(mine) != _essence(bundle.objects(entries[entry])):
            differing.append(entry)
    for path in plain:
        with contextlib.suppress(FileNotFoundError):
            if store.get(path) != bundle.data(path):
                differing.append(path)
    if differing:
        told = "\n".join(f"  {entry}" for entry in differing[:_TOLD])
        more = f"\n  and {len(differing) - _TOLD} more" if len(differing) > _TOLD else ""
        raise Contradiction(
            f"{bundle.path}: {store.url} has other results under the same ids, as another machine "
            "measures them; nothing was imported. Import it into a store of its own (--storage)\n"
            f"{told}{more}"
        )
    return known


def _essence(objects: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a result is, less how it was made."""
    return {name: data for name, data in objects.items() if name not in _CIRCUMSTANCES}


def _put_beside(bundle: _Bundle, folder: Path) -> tuple[Path, ...]:
    """Writes the study's files, but over none; hands back those that are others already."""
    differing = []
    for path in bundle.members:
        if not path.startswith("study/"):
            continue
        file, data = folder / path.removeprefix("study/"), bundle.data(path)
        try:
            with file.open("xb") as new:
                new.write(data)
        except FileExistsError:
            if file.read_bytes() != data:
                differing.append(file)
        except OSError as error:
            raise CannotWrite(f"cannot write {str(file)!r}: {error.strerror}") from None
    return tuple(differing)
