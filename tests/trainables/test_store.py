"""The store: whole entries or none, on local and remote addresses."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import pickle
import resource
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainables import store as store_module
from trainables.errors import BadAddress, DamagedData, DamagedEntry, StorageAway
from trainables.store import MANIFEST, Store, is_away

OLD = {"weights.safetensors": b"old weights", "config.json": b'{"old": 1}'}
NEW = {"weights.safetensors": b"new weights", "history.json": b"[2]"}


@pytest.fixture(params=["local", "memory", "memory root"])
def store(request, tmp_path):
    """An empty store on a local path, and in fsspec's memory."""
    if request.param == "local":
        yield Store(str(tmp_path / "store"))
        return
    made = Store("memory://" if "root" in request.param else f"memory://{uuid.uuid4().hex}")
    made.fs.store.clear()
    made.fs.pseudo_dirs[:] = [""]
    yield made
    made.fs.store.clear()


def spoil(store, entry, name="weights", data=b"spoilt"):
    """Replaces the bytes of the object whose file begins with `name`."""
    (path,) = (p for p in store.fs.ls(store._path(entry), detail=False) if f"/{name}" in p)
    store.fs.pipe_file(path, data)


def test_reads_what_was_written(store):
    store.write("models/a", OLD)
    assert store.has("models/a")
    assert store.read("models/a") == OLD


def test_replaces_an_entry_whole(store):
    store.write("models/a", OLD)
    store.write("models/a", NEW)
    assert store.read("models/a") == NEW


def test_replaced_objects_leave_no_files_behind(store):
    for _ in range(3):
        store.write("models/a", OLD)
        store.write("models/a", NEW)


def test_absent_entry_is_absent(store):
    assert not store.has("models/a")
    assert store.entries("models") == set()
    assert store.read_json("models/a", "x.json") is None
    with pytest.raises(FileNotFoundError):
        store.read("models/a")
    store.remove("models/a")


def test_entries_are_those_directly_under_a_folder(store):
    for entry in ("outcomes/m/a", "outcomes/m/b", "outcomes/other/c", "models/m"):
        store.write(entry, OLD)
    assert store.entries("outcomes/m") == {"a", "b"}
    assert store.entries("models") == {"m"}
    assert store.entries("outcomes") == set()


def test_nested_entries_are_those_two_folders_down(store):
    assert store.nested("outcomes") == {}
    for entry in ("outcomes/m/a", "outcomes/m/b", "outcomes/other/c", "outcomes/d", "models/m"):
        store.write(entry, OLD)
    store.write("outcomes/deep/er/entry", OLD)
    store.put("outcomes/m/half/weights.bin", b"half")
    store.put("outcomes/a file", b"")
    assert store.nested("outcomes") == {"m": {"a", "b"}, "other": {"c"}}


def test_objects_without_a_manifest_are_no_entry(store):
    store.put("outcomes/m/a/weights.bin", b"half")
    assert not store.has("outcomes/m/a")
    assert store.entries("outcomes/m") == set()


def test_removed_entry_is_gone(store):
    store.write("models/a", OLD)
    store.write("models/b", NEW)
    store.remove("models/a")
    assert not store.has("models/a")
    assert store.entries("models") == {"b"}
    assert not store.fs.exists(store._path("models/a"))


def test_removal_takes_the_manifest_first(store, monkeypatch):
    store.write("models/a", OLD)

    def rm(path, *rest, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.fs, "rm", rm)
    with pytest.raises(KeyboardInterrupt):
        store.remove("models/a")
    assert not store.has("models/a")


def test_read_json_reads_one_object(store):
    store.write("models/a", OLD)
    assert store.read_json("models/a", "config.json") == {"old": 1}


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("call", range(len(NEW) + 1))
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_crash_while_writing_leaves_the_old_entry_or_the_new(
    store, monkeypatch, replaced, call, late
):
    if replaced:
        store.write("models/a", OLD)
    real, calls = Store._put, []

    def put(self, path, data):
        calls.append(path)
        if len(calls) <= call + late:
            real(self, path, data)
        if len(calls) == call + 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_put", put)
        with pytest.raises(KeyboardInterrupt):
            store.write("models/a", NEW)
    whole = late and call == len(NEW)  # the manifest is the last thing written
    assert calls[-1].endswith(MANIFEST) == (call == len(NEW))
    if whole or replaced:
        assert store.read("models/a") == (NEW if whole else OLD)
    else:
        assert not store.has("models/a")
    store.write("models/a", NEW)
    assert store.read("models/a") == NEW


def test_crash_while_dropping_old_objects_leaves_the_new_entry(store, monkeypatch):
    store.write("models/a", OLD)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.write("models/a", NEW)
    assert store.read("models/a") == NEW


def test_a_replaced_entry_keeps_no_old_object(store):
    store.write("models/a", OLD)
    store.write("models/a", NEW)
    assert len(store.fs.ls(store._path("models/a"), detail=False)) == len(NEW) + 1


def test_writers_of_one_entry_do_not_harm_each_other(tmp_path):
    def write(number):
        store = Store(str(tmp_path))
        for turn in range(30):
            store.write("progress/a", {"x.json": f"{number} {turn}".encode(), "y.json": b"same"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    store = Store(str(tmp_path))
    store.write("progress/a", {"x.json": b"last"})
    assert store.read("progress/a") == {"x.json": b"last"}


def test_half_written_local_file_is_never_seen(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.put("studies/s/state.json", b"old")
    real = store.fs.pipe_file

    def half(path, data, **options):
        real(path, data[:1], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(store.fs, "pipe_file", half)
    with pytest.raises(KeyboardInterrupt):
        store.put("studies/s/state.json", b"new")
    assert store.get("studies/s/state.json") == b"old"


def test_reader_beside_a_writer_sees_the_old_entry_or_the_new(store, monkeypatch):
    store.write("trials/a", OLD)
    real, once = Store._checked, []

    def checked(self, entry, item):
        if not once:
            once.append(True)
            Store(store.url).write(entry, NEW)  # lands between the manifest and the objects
        return real(self, entry, item)

    monkeypatch.setattr(Store, "_checked", checked)
    with contextlib.suppress(DamagedEntry):
        assert store.read("trials/a") in (OLD, NEW)
    monkeypatch.undo()
    assert store.has("trials/a"), "a whole entry was set aside as damaged"
    assert store.read("trials/a") == NEW


@pytest.mark.parametrize("data", [b"", b"old weight5", b"old weights and more"])
def test_damaged_object_is_told_and_set_aside(store, data):
    store.write("outcomes/m/a", OLD)
    spoil(store, "outcomes/m/a", data=data)
    with pytest.raises(DamagedEntry, match="outcomes/m/a is damaged") as error:
        store.read("outcomes/m/a")
    assert "expected SHA-256" in str(error.value)
    assert not store.has("outcomes/m/a")
    assert store.entries("outcomes/m") == set()
    aside = str(error.value).split("set aside as ")[1].split(",")[0]
    assert store.has(aside)  # kept for whoever looks into it
    store.write("outcomes/m/a", NEW)
    assert store.read("outcomes/m/a") == NEW


def test_missing_object_is_damage(store):
    store.write("models/a", OLD)
    (path,) = (p for p in store.fs.ls(store._path("models/a"), detail=False) if "/weights" in p)
    store.fs.rm_file(path)
    with pytest.raises(DamagedEntry):
        store.read("models/a")
    assert not store.has("models/a")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"objects": []}',
        b'{"objects": {"a": {}}}',
        b'{"objects": {"a": null}}',
    ],
)
def test_damaged_manifest_is_told_and_set_aside(store, manifest):
    store.write("models/a", OLD)
    store.fs.pipe_file(store._path("models/a", MANIFEST), manifest)
    with pytest.raises(DamagedEntry):
        store.read("models/a")
    assert not store.has("models/a")


def test_damage_again_does_not_overwrite_what_was_set_aside(store):
    asides = set()
    for _ in range(2):
        store.write("models/a", OLD)
        spoil(store, "models/a")
        with pytest.raises(DamagedEntry) as error:
            store.read("models/a")
        asides.add(str(error.value).split("set aside as ")[1].split(",")[0])
    assert len(asides) == 2
    assert all(store.has(aside) for aside in asides)


def test_create_is_exclusive(store):
    assert store.create("studies/s/lock", b"first")
    assert not store.create("studies/s/lock", b"second")
    assert store.get("studies/s/lock") == b"first"
    store.delete("studies/s/lock")
    assert store.create("studies/s/lock", b"third")


def test_one_of_many_creates(tmp_path):
    together = threading.Barrier(8)

    def create(number):
        together.wait()
        return Store(str(tmp_path)).create("lock", str(number).encode())

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        assert won.count(True) == 1
        assert Store(str(tmp_path)).get("lock") == str(won.index(True)).encode()
        Store(str(tmp_path)).delete("lock")
    assert not list(tmp_path.iterdir())


def test_plain_files_are_put_got_and_deleted(store):
    store.put("studies/s/a.json", b"1")
    store.put("studies/s/a.json", b"2")
    assert store.get("studies/s/a.json") == b"2"
    store.delete("studies/s/a.json")
    store.delete("studies/s/a.json")
    with pytest.raises(FileNotFoundError):
        store.get("studies/s/a.json")


def test_plain_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    monkeypatch.chdir("/")
    store.write("models/a", OLD)
    assert (tmp_path / "results" / "models" / "a" / MANIFEST).is_file()
    assert Store(str(tmp_path / "results")).read("models/a") == OLD
    assert Store(f"file://{tmp_path}/results").read("models/a") == OLD


@pytest.mark.parametrize("folder", ["plain", "a b", "run[1]", "what?", "*"])
def test_any_folder_name_will_do(tmp_path, folder):
    store = Store(str(tmp_path / folder))
    store.write("outcomes/m/a", OLD)
    assert store.entries("outcomes/m") == {"a"}
    assert store.read("outcomes/m/a") == OLD


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    objects=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,5})?", fullmatch=True), st.binary(), max_size=4
    )
)
def test_any_objects_round_trip(tmp_path, objects):
    store = Store(str(tmp_path))
    store.write("models/a", objects)
    assert store.read("models/a") == objects


def test_manifest_describes_every_object(store):
    store.write("models/a", OLD)
    manifest = json.loads(store.fs.cat_file(store._path("models/a", MANIFEST)))
    assert set(manifest["objects"]) == set(OLD)
    for name, item in manifest["objects"].items():
        assert item["bytes"] == len(OLD[name])
        assert store.fs.cat_file(store._path("models/a", item["file"])) == OLD[name]


def test_files_are_listed_with_their_sizes(store):
    assert store.files() == {}
    store.put("studies/a/search.json", b"four")
    store.write("models/a", OLD)
    assert store.files("studies") == {"studies/a/search.json": 4}
    assert sorted(size for path, size in store.files().items() if "manifest" not in path) == [
        4, len(OLD["config.json"]), len(OLD["weights.safetensors"]),
    ]  # fmt: skip
    named = {path.rpartition("/")[2] for path in store.files("models/a")}
    assert store.named_in("models/a") == named
    store.put(f"models/a/{MANIFEST}", b"spoilt")
    assert store.named_in("models/a") == set()


def test_a_file_was_written_a_while_ago(store):
    store.put("studies/a/search.json", b"four")
    assert 0 <= store.age("studies/a/search.json") < 600
    assert store.age("studies/a/other.json") == 0


def test_empty_folders_go_as_far_as_they_are_empty(tmp_path):
    store = Store(str(tmp_path))
    store.put("outcomes/m/a/x", b"x")
    store.put("outcomes/n/a/x", b"x")
    store.drop_empty("outcomes/m/a")
    assert (tmp_path / "outcomes/m/a/x").exists()
    store.delete("outcomes/m/a/x")
    store.drop_empty("outcomes/m/a")
    assert [path.name for path in (tmp_path / "outcomes").iterdir()] == ["n"]
    for path in store.files():
        store.delete(path)
    store.drop_empty("outcomes/n/a")
    assert tmp_path.exists()


def test_readers_that_change_nothing_leave_damage_where_it_is(store):
    store.write("models/a", OLD)
    spoil(store, "models/a")
    reader = Store(store.url, set_aside=False)
    before = store.files()
    for _ in range(2):
        with pytest.raises(DamagedEntry, match="models/a is damaged"):
            reader.read("models/a")
    assert store.files() == before


class Remote(MemoryFileSystem):
    """A storage elsewhere, with what it says to any question below a path."""

    protocol = "remote"
    broken = None  # the part of a path
    error = OSError(errno.EIO, "no route to the server")


def _asked(name):
    def asked(self, path, *rest, **options):
        if self.broken is not None and self.broken in str(path):
            raise self.error
        return getattr(MemoryFileSystem, name)(self, path, *rest, **options)

    return asked


for name in "cat_file", "info", "ls", "makedirs", "modified", "mv", "pipe_file", "rm", "rm_file":
    setattr(Remote, name, _asked(name))


class Elsewhere:
    """A storage at an address of fsspec's own, which can be away."""

    def __init__(self):
        fsspec.register_implementation("remote", Remote, clobber=True)
        self.url = f"remote://{uuid.uuid4().hex}"
        self.why = "no route to the server"

    def go(self):
        Remote.broken = ""

    def come_back(self):
        Remote.broken = None


class Mounted:
    """A folder that can be away: what automounters say of a server that is out of reach."""

    def __init__(self, folder):
        self.url, self.folder = str(folder), folder
        self.hidden = folder.with_name("hidden")
        self.why = "Too many levels of symbolic links"
        folder.mkdir()

    def go(self):
        self.folder.rename(self.hidden)
        self.folder.symlink_to(self.folder)

    def come_back(self):
        self.folder.unlink()
        self.hidden.rename(self.folder)


@pytest.fixture(params=["folder", "elsewhere"])
def storage(request, tmp_path):
    """A storage that holds two entries and a plain file, and can be away."""
    made = Mounted(tmp_path / "store") if request.param == "folder" else Elsewhere()
    writer = Store(made.url)
    writer.write("models/a", OLD)
    writer.write("outcomes/m/a", OLD)
    writer.put("studies/s/x", b"1")
    yield made
    Remote.broken = None


class Clock:
    """Time that passes only where somebody waits; something may happen at a time."""

    def __init__(self):
        self.now, self.waits, self.due, self.happens = 0.0, [], float("inf"), None

    def at(self, due, happens):
        self.due, self.happens = due, happens

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds
        if self.now >= self.due:
            self.due = float("inf")
            self.happens()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(store_module, "time", clock)
    return clock


CALLS = {
    "has": lambda store: store.has("models/a"),
    "entries": lambda store: store.entries("outcomes/m"),
    "nested": lambda store: store.nested("outcomes"),
    "pairs": lambda store: store.pairs("outcomes", "a"),
    "write": lambda store: store.write("models/a", NEW),
    "read": lambda store: store.read("models/a"),
    "read_json": lambda store: store.read_json("models/a", "config.json"),
    "recall": lambda store: store.recall("models/a", "config.json"),
    "write_json": lambda store: store.write_json("models/b", "x.json", [1]),
    "remove": lambda store: store.remove("models/a"),
    "files": lambda store: store.files("studies"),
    "named_in": lambda store: store.named_in("models/a"),
    "age": lambda store: store.age("studies/s/x") < 600,
    "put": lambda store: store.put("studies/s/y", b"2"),
    "get": lambda store: store.get("studies/s/x"),
    "take": lambda store: store.take("studies/s/x"),
    "delete": lambda store: store.delete("studies/s/x"),
}

READS = ("has", "entries", "nested", "pairs", "read", "read_json", "recall", "files", "get")


def test_all_that_a_store_does_is_tried_with_the_storage_away():
    does = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if name[0] != "_"}
    assert does - CALLS.keys() == {"create", "drop_empty", "patient", "patiently"}


@pytest.mark.parametrize("name", CALLS)
def test_a_patient_store_outlasts_that_the_storage_is_away(storage, clock, name):
    call, said = CALLS[name], []
    store, plain = Store(storage.url, patience=60, told=said.append), Store(storage.url)
    expected = call(plain) if name in READS else None
    storage.go()
    clock.at(7, storage.come_back)
    found = call(store)
    waited, over = said
    assert f"the storage {storage.url} is away, waiting 60 s at most: {storage.why}" in waited
    assert over.startswith(f"the storage was away for 8 s: {storage.why}")
    assert clock.waits == [1, 1.5, 2.25, 3.375]
    if name in READS:
        assert found
        assert found == expected
    if name == "write":
        assert plain.read("models/a") == NEW
    if name in ("remove", "delete", "take"):
        path = "models/a" if name == "remove" else "studies/s"
        assert plain.files(path) == {}
    if name == "take":
        assert found == b"1"
    assert not [path for path in plain.files() if path.endswith((".tmp", ".taken"))]


@pytest.mark.parametrize("name", CALLS)
def test_patience_is_spent_once(storage, clock, name):
    store = Store(storage.url, patience=60)
    storage.go()
    for waited in (60, 0):
        started = clock.now
        with pytest.raises(StorageAway, match=f"{storage.url} is still away after {waited} s") as e:
            CALLS[name](store)
        assert clock.now - started == waited
        assert storage.why in str(e.value)
        assert "the same command goes on from there" in str(e.value)
    assert max(clock.waits) == 5
    assert isinstance(e.value, OSError)
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)


@pytest.mark.parametrize("name", CALLS)
def test_without_patience_an_error_is_raised_as_it_is(storage, clock, name):
    storage.go()
    with pytest.raises(OSError, match=storage.why) as error:
        CALLS[name](Store(storage.url))
    assert not isinstance(error.value, StorageAway)
    assert not clock.waits


def test_who_is_told_nothing_finds_what_was_waited_for(storage, clock):
    store = Store(storage.url, patience=60)
    assert store.has("models/a")
    assert store.unsaid == []
    storage.go()
    clock.at(3, storage.come_back)
    assert not store.has("models/b")
    assert [line.partition(":")[0] for line in store.unsaid] == ["the storage was away for 5 s"]


def test_a_no_is_an_answer(storage, clock):
    store = Store(storage.url, patience=60)
    with pytest.raises(FileNotFoundError):
        store.read("models/b")
    assert not clock.waits
    storage.go()
    clock.at(3, storage.come_back)
    with pytest.raises(FileNotFoundError):
        store.read("models/b")
    assert len(store.unsaid) == 1
    assert not store.spent


def test_damage_is_no_outage(storage, clock):
    spoil(Store(storage.url), "models/a")
    with pytest.raises(DamagedEntry):
        Store(storage.url, patience=60).read("models/a")
    assert not clock.waits


def test_who_is_interrupted_while_waiting_waits_no_more(storage, clock):
    def interrupt():
        raise KeyboardInterrupt

    store = Store(storage.url, patience=60)
    storage.go()
    clock.at(3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put("studies/s/x", b"2")
    waits = len(clock.waits)
    with pytest.raises(StorageAway):
        store.put("studies/s/x", b"2")
    assert len(clock.waits) == waits


def test_patience_is_of_the_same_store(tmp_path):
    store = Store(str(tmp_path), set_aside=False).patient(60, print)
    assert (store.url, store.set_aside, store.patience) == (str(tmp_path), False, 60)
    assert store.patient(0).told is None


def named(module, *names):
    """An error of a package that is not installed, each class the next one's parent."""
    kind = Exception
    for name in names:
        kind = type(name, (kind,), {"__module__": module})
    return kind("it says so")


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (fsspec.exceptions.FSTimeoutError(), True),
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientPayloadError(), True),
        (named("botocore.exceptions", "ConnectionError", "EndpointConnectionError"), True),
        (named("botocore.exceptions", "HTTPClientError", "ConnectionClosedError"), True),
        (named("botocore.exceptions", "NoCredentialsError"), False),
        (FileNotFoundError(), False),
        (FileExistsError(), False),
        (NotADirectoryError(), False),
        (IsADirectoryError(), False),
        (PermissionError(), False),
        (DamagedEntry(), False),
        (DamagedData(), False),
        (StorageAway(), False),
        (BadAddress(), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_what_may_pass_is_told_from_what_will_not(error, away):
    assert is_away(error) == away


@pytest.mark.parametrize("name", ["take", "read"])
def test_what_was_moved_though_the_answer_was_lost_is_not_lost(clock, monkeypatch, name):
    storage = Elsewhere()
    store, real = Store(storage.url, patience=60), Remote.mv
    store.write("models/a", OLD)
    store.put("studies/s/x", b"1")

    def mv(self, *arguments, **options):
        monkeypatch.setattr(Remote, "mv", real)
        real(self, *arguments, **options)
        raise TimeoutError("no answer")

    monkeypatch.setattr(Remote, "mv", mv)
    if name == "take":
        assert store.take("studies/s/x") == b"1"
        assert store.take("studies/s/x") is None
    else:
        spoil(store, "models/a")
        with pytest.raises(DamagedEntry, match="set aside as damaged/models/a"):
            store.read("models/a")
    assert len(clock.waits) == 1


def test_what_is_done_in_steps_goes_on_where_it_was(clock, monkeypatch):
    storage, real = Elsewhere(), Remote.rm_file
    store = Store(storage.url, patience=60)
    store.write("models/a", OLD)

    def rm_file(self, path):
        monkeypatch.setattr(Remote, "rm_file", real)
        real(self, path)
        storage.go()

    monkeypatch.setattr(Remote, "rm_file", rm_file)
    clock.at(3, storage.come_back)
    store.remove("models/a")
    assert store.files() == {}


def test_a_folder_that_cannot_be_looked_into_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    remote, local = Store(Elsewhere().url), Store(str(tmp_path))
    for store in (remote, local):
        store.write("outcomes/m/a", OLD)
    monkeypatch.setattr(Remote, "broken", "outcomes/m")
    (tmp_path / "outcomes/m/b").symlink_to(tmp_path / "outcomes/m/b")
    for ask in ("files", "nested"):
        with pytest.raises(OSError, match="no route"):
            getattr(remote, ask)("outcomes")
    for ask, folder in (("entries", "outcomes/m"), ("nested", "outcomes")):
        with pytest.raises(OSError, match="Too many levels"):
            getattr(local, ask)(folder)


@contextlib.contextmanager
def full(most=1 << 20):
    """No file of this process can grow larger: its writes fail half way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


LARGE = b"x" * (1 << 21)


@pytest.mark.parametrize("name", ["put", "create", "write"])
def test_a_write_that_fails_leaves_nothing_behind(tmp_path, name):
    store = Store(str(tmp_path))
    data = {"weights.bin": LARGE} if name == "write" else LARGE
    with full(), pytest.raises(OSError, match="File too large"):
        getattr(store, name)("studies/s/x", data)
    assert store.files() == {}


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path, clock):
    store = Store(str(tmp_path), patience=60)
    store.write("models/a", OLD)
    with contextlib.ExitStack() as disk:
        disk.enter_context(full())
        clock.at(7, disk.close)
        store.write("models/a", {"weights.bin": LARGE})
    assert "away for 8 s: File too large" in store.unsaid[0]
    assert store.read("models/a") == {"weights.bin": LARGE}
    assert len(store.files()) == 2


def test_what_cannot_be_deleted_while_the_storage_is_away_is_used_after(
    tmp_path, clock, monkeypatch
):
    storage = Mounted(tmp_path / "store")
    store = Store(storage.url, patience=60)
    real = store.fs.pipe_file

    def pipe_file(path, data):
        monkeypatch.setattr(store.fs, "pipe_file", real)
        real(path, data)
        storage.go()

    monkeypatch.setattr(store.fs, "pipe_file", pipe_file)
    clock.at(3, storage.come_back)
    store.put("studies/s/x", b"1")
    assert list(store.files()) == ["studies/s/x"]
