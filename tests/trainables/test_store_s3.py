"""The store on S3: the same contract over the real protocol, and a study that is kept there."""

from __future__ import annotations

import io
import itertools
import json
import os
import socket
import time
import uuid

import boto3
import pytest
import s3fs
import yaml
from moto.server import ThreadedMotoServer
from rich.console import Console

from study import lock as lock_module
from study.driver import run_study
from study.files import read_study
from study.lock import LEASE_SECONDS, StudyLock, living_holders
from study.plan import make_plan
from study.progress import Display
from trainables import store as store_module
from trainables.errors import BadAddress, DamagedEntry, StorageAway, StudyIsRunning
from trainables.store import MANIFEST, Store

OLD = {"weights.safetensors": b"old weights", "config.json": b'{"old": 1}'}
NEW = {"weights.safetensors": b"new weights", "history.json": b"[2]"}
BUCKET = "results"
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"


class Server:
    """Speaks S3 on this machine; tells what it was asked for, and can refuse.

    Attributes:
        asked: method and path of each request that was answered.
        refuses: status, code and message of its answers, if any.
        those: methods that it refuses; all where there is none.
    """

    def __init__(self):
        self.asked, self.refuses, self.those = [], None, ()
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.moto.start()
        answer = self.moto._server.app

        def gate(environ, start_response):
            method = environ["REQUEST_METHOD"]
            if self.refuses is None or (self.those and method not in self.those):
                self.asked.append((method, environ["PATH_INFO"]))
                return answer(environ, start_response)
            status, code, message = self.refuses
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = ERROR.format(code, message).encode()
            start_response(f"{status} {code}", [("Content-Length", str(len(body)))])
            return [] if method == "HEAD" else [body]

        self.moto._server.app = gate
        self.url = "http://{}:{}".format(*self.moto.get_host_and_port())


@pytest.fixture(scope="module")
def running():
    """The server, which boto's clients find by their environment."""
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "no secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # of boto; s3fs tries again itself
        patch.setenv("no_proxy", "*")
        patch.setattr(s3fs.S3FileSystem, "retries", 1)  # it would wait for seconds
        s3fs.S3FileSystem.clear_instance_cache()  # each knows its server
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server
        s3fs.S3FileSystem.clear_instance_cache()
    server.moto.stop()


@pytest.fixture
def server(running):
    running.refuses, running.those = None, ()
    running.asked.clear()
    return running


@pytest.fixture
def bucket(server):
    """A bucket's own client, as of another machine."""
    client = boto3.client("s3")
    yield client
    client.close()


@pytest.fixture
def store(server):
    """An empty store in a bucket that has others."""
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}/store")


def key(store, path):
    return {"Bucket": BUCKET, "Key": f"{store.root.partition('/')[2]}/{path}"}


class Clock:
    """Time that passes only where somebody waits, after which something may happen."""

    def __init__(self, happens=lambda: None):
        self.now, self.happens = 0.0, happens

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.happens()


def test_reads_what_was_written_and_replaces_it_whole(store):
    assert not store.has("models/a")
    store.write("models/a", OLD)
    assert store.has("models/a")
    assert store.read("models/a") == OLD
    assert store.read_json("models/a", "config.json") == {"old": 1}
    store.write("models/a", NEW)
    assert store.read("models/a") == NEW
    assert len(store.files()) == len(NEW) + 1  # no old object is left


def test_an_absent_entry_is_absent(store):
    assert store.entries("models") == set()
    assert store.nested("outcomes") == {}
    assert store.files() == store.files("studies") == {}
    assert store.named_in("models/a") == set()
    assert store.read_json("models/a", "x.json") is None
    assert store.age("studies/s/x") == 0
    with pytest.raises(FileNotFoundError):
        store.read("models/a")
    store.remove("models/a")


def test_entries_are_found_by_their_manifests(store):
    for entry in ("outcomes/m/a1", "outcomes/m/a2", "outcomes/other/b", "outcomes/d", "models/m"):
        store.write(entry, OLD)
    store.write("outcomes/deep/er/entry", OLD)
    store.put("outcomes/m/half/weights.bin", b"half")
    assert store.entries("outcomes/m") == {"a1", "a2"}
    assert store.entries("models") == {"m"}
    assert store.entries("outcomes") == {"d"}
    assert store.nested("outcomes") == {"m": {"a1", "a2"}, "other": {"b"}}
    assert store.pairs("outcomes", "a") == [("m", "a1"), ("m", "a2")]
    assert store.pairs("outcomes", "b") == [("other", "b")]


def test_listings_are_whole_however_many_answers_they_take(store, monkeypatch, server):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")  # a thousand, of AWS
    wanted = {f"{number:02}" for number in range(5)}
    for name in wanted:
        store.write(f"outcomes/m/{name}", {"x.json": b"1"})
    server.asked.clear()
    assert store.entries("outcomes/m") == wanted
    assert len(server.asked) == 5
    assert store.nested("outcomes") == {"m": wanted}
    assert len(store.files()) == 10


def test_what_another_machine_writes_is_seen_at_once(store, bucket):
    assert store.entries("models") == set()
    assert not store.has("models/a")
    objects = json.dumps({"objects": {}}).encode()
    bucket.put_object(**key(store, f"models/a/{MANIFEST}"), Body=objects)
    assert store.entries("models") == {"a"}
    assert store.has("models/a")
    assert store.read("models/a") == {}
    bucket.delete_object(**key(store, f"models/a/{MANIFEST}"))
    assert store.entries("models") == set()
    assert not store.has("models/a")


def test_files_are_listed_with_their_sizes(store):
    store.put("studies/a/search.json", b"four")
    store.write("models/a", OLD)
    assert store.files("studies") == {"studies/a/search.json": 4}
    named = {path.rpartition("/")[2] for path in store.files("models/a")}
    assert store.named_in("models/a") == named
    assert len(named) == len(OLD) + 1
    assert list(store.files()) == sorted(store.files())
    assert 0 <= store.age("studies/a/search.json") < 600


def test_stores_of_one_bucket_do_not_see_each_other(store):
    beside = Store(f"{store.url}-2")
    beside.write("models/b", NEW)
    store.write("models/a", OLD)
    assert (store.entries("models"), beside.entries("models")) == ({"a"}, {"b"})
    assert len(store.files()) == len(beside.files()) == 3
    store.remove("models/a")
    assert store.files() == {}
    assert beside.read("models/b") == NEW


def test_a_whole_bucket_will_do(bucket):
    name = uuid.uuid4().hex
    bucket.create_bucket(Bucket=name)
    store = Store(f"s3://{name}")
    store.write("outcomes/m/a", OLD)
    store.put("studies/s/x", b"1")
    assert store.nested("outcomes") == {"m": {"a"}}
    assert store.entries("outcomes/m") == {"a"}
    assert store.files("studies") == {"studies/s/x": 1}
    assert store.read("outcomes/m/a") == OLD


def test_a_removed_entry_is_gone(store):
    store.write("models/a", OLD)
    store.write("models/ab", NEW)
    store.remove("models/a")
    assert not store.has("models/a")
    assert store.files("models/a") == {}
    assert store.entries("models") == {"ab"}
    store.drop_empty("models/a")
    assert store.read("models/ab") == NEW


def test_plain_files_are_put_got_and_deleted(store):
    store.put("studies/s/a.json", b"1")
    store.put("studies/s/a.json", b"22")
    assert store.get("studies/s/a.json") == b"22"
    for _ in range(2):
        store.delete("studies/s/a.json")
        with pytest.raises(FileNotFoundError):
            store.get("studies/s/a.json")


def test_create_is_exclusive(store):
    assert store.create("studies/s/lock", b"first")
    assert not store.create("studies/s/lock", b"second")
    assert store.get("studies/s/lock") == b"first"
    store.delete("studies/s/lock")
    assert store.create("studies/s/lock", b"third")


def test_of_two_who_create_at_once_one_wins(store, monkeypatch):
    """The other comes after all that the first looks at, and before it writes."""
    other, real = Store(store.url), store.fs.pipe_file

    def pipe_file(*arguments, **options):
        monkeypatch.setattr(store.fs, "pipe_file", real)
        assert other.create("studies/s/lock", b"other")
        return real(*arguments, **options)

    monkeypatch.setattr(store.fs, "pipe_file", pipe_file)
    assert not store.create("studies/s/lock", b"first")
    assert store.get("studies/s/lock") == b"other"


@pytest.mark.parametrize(
    "refusal",
    [
        (412, "PreconditionFailed", "At least one of the preconditions did not hold"),  # MinIO's
        (409, "ConditionalRequestConflict", "A conflicting operation is in progress"),  # AWS's
    ],
    ids=lambda refusal: refusal[1],
)
def test_who_is_told_otherwise_that_another_created_it_did_not(store, server, refusal):
    server.refuses, server.those = refusal, ("PUT",)
    assert not store.create("studies/s/lock", b"1")


def test_what_is_taken_is_had_by_one(store):
    store.put("studies/s/lock", b"1")
    assert store.take("studies/s/lock") == b"1"
    assert store.take("studies/s/lock") is None
    assert store.files() == {}


@pytest.mark.parametrize("lost", [False, True], ids=["other bytes", "no bytes"])
def test_a_damaged_object_is_told_and_set_aside(store, bucket, lost):
    store.write("outcomes/m/a", OLD)
    (path,) = (path for path in store.files() if "/weights" in path)
    if lost:
        bucket.delete_object(**key(store, path))
    else:
        bucket.put_object(**key(store, path), Body=b"spoilt")
    reader, before = Store(store.url, set_aside=False), store.files()
    with pytest.raises(DamagedEntry, match="outcomes/m/a is damaged"):
        reader.read("outcomes/m/a")
    assert store.files() == before
    with pytest.raises(DamagedEntry, match="outcomes/m/a is damaged") as error:
        store.read("outcomes/m/a")
    assert not store.has("outcomes/m/a")
    assert store.files("outcomes") == {}
    aside = str(error.value).split("set aside as ")[1].split(",")[0]
    assert store.has(aside)
    store.write("outcomes/m/a", NEW)
    assert store.read("outcomes/m/a") == NEW


def test_a_writer_beside_a_reader_damages_nothing(store, monkeypatch):
    store.write("trials/a", OLD)
    real, once = Store._checked, []

    def checked(self, entry, item):
        if not once:
            once.append(True)
            Store(store.url).write(entry, NEW)  # lands between the manifest and the objects
        return real(self, entry, item)

    monkeypatch.setattr(Store, "_checked", checked)
    assert store.read("trials/a") == NEW


def test_a_second_driver_is_told_who_runs_the_study(store):
    with StudyLock(store, "a") as lock:
        with pytest.raises(StudyIsRunning, match=f"process {os.getpid()}, last heard"):
            StudyLock(Store(store.url), "a").__enter__()
        assert len(living_holders(store, "a")) == 1
        assert list(store.files()) == [lock.path]
        with StudyLock(store, "b"):
            pass
        lock._renew()
        assert not lock.lost
    assert store.files() == {}


def elsewhere(silent):
    """A lock of another machine's, that was not heard for so many seconds."""
    holder = {"host": "elsewhere", "pid": 1, "user": "ann", "token": "x"}
    return json.dumps({**holder, "beat": time.time() - silent}).encode()


def test_who_is_silent_is_taken_over_and_who_is_not_is_not(store):
    store.put("studies/a/lock.json", elsewhere(silent=0))
    with pytest.raises(StudyIsRunning, match="ann@elsewhere"):
        StudyLock(store, "a").__enter__()
    store.put("studies/a/lock.json", elsewhere(silent=LEASE_SECONDS + 1))
    with StudyLock(store, "a") as lock:
        assert lock._held()
        assert list(store.files()) == [lock.path]


def test_who_was_taken_over_stops_and_leaves_the_others_lock(store, monkeypatch):
    monkeypatch.setattr(lock_module, "LEASE_SECONDS", -1.0)
    with StudyLock(store, "a") as lock:
        theirs = elsewhere(silent=0)
        store.put(lock.path, theirs)
        with pytest.raises(StudyIsRunning, match="taken over by another driver"):
            lock.check()
    assert store.get("studies/a/lock.json") == theirs


def test_a_missing_bucket_has_nothing_and_is_not_made(bucket):
    name = uuid.uuid4().hex
    store = Store(f"s3://{name}/store")
    assert not store.has("models/a")
    assert store.read_json("models/a", "x.json") is None
    assert store.entries("models") == set()
    assert store.nested("outcomes") == store.files() == {}
    with pytest.raises(FileNotFoundError):
        store.read("models/a")
    with pytest.raises(FileNotFoundError, match="bucket does not exist"):
        store.write("models/a", OLD)
    with pytest.raises(BadAddress, match=f"cannot write to {store.url}: .*bucket does not exist"):
        StudyLock(store, "a").__enter__()
    assert name not in {found["Name"] for found in bucket.list_buckets()["Buckets"]}


BUSY = 503, "SlowDown", "Please reduce your request rate."
DENIED = 403, "AccessDenied", "Access Denied"

CALLS = {
    "has": lambda store: store.has("models/a"),
    "entries": lambda store: store.entries("models"),
    "nested": lambda store: store.nested("outcomes"),
    "write": lambda store: store.write("models/a", NEW),
    "read": lambda store: store.read("models/a"),
    "remove": lambda store: store.remove("models/a"),
    "files": lambda store: store.files(),
    "age": lambda store: store.age("studies/s/x"),
    "put": lambda store: store.put("studies/s/y", b"2"),
    "get": lambda store: store.get("studies/s/x"),
    "take": lambda store: store.take("studies/s/x"),
    "delete": lambda store: store.delete("studies/s/x"),
}


@pytest.fixture
def filled(store):
    store.write("models/a", OLD)
    store.put("studies/s/x", b"1")
    return store


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_is_busy_is_outlasted(filled, server, name, monkeypatch):
    def come_back():
        server.refuses = None if clock.now > 5 else BUSY

    clock, server.refuses = Clock(come_back), BUSY
    monkeypatch.setattr(store_module, "time", clock)
    store = filled.patient(60)
    CALLS[name](store)
    (said,) = store.unsaid
    assert "the storage was away for 8 s" in said
    assert not [path for path in store.files() if path.endswith(".taken")]


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_refuses_is_told_at_once(filled, server, name, monkeypatch):
    monkeypatch.setattr(store_module, "time", clock := Clock())
    server.refuses = DENIED
    with pytest.raises(PermissionError):
        CALLS[name](filled.patient(60))
    assert clock.now == 0


@pytest.fixture
def deaf(server, monkeypatch):
    """A store on a server that is not there."""
    with socket.socket() as port:  # holds it but does not listen
        port.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port.getsockname()[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        yield Store(f"s3://{BUCKET}/store")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_server_that_is_not_there_is_waited_for_as_long_as_the_store_is_patient(
    deaf, monkeypatch
):
    monkeypatch.setattr(store_module, "time", clock := Clock())
    with pytest.raises(StorageAway, match=r"still away after 3 s: .*Could not connect"):
        deaf.patient(3).has("models/a")
    assert clock.now == 3


def test_a_study_is_not_begun_on_a_server_that_is_not_there(deaf, monkeypatch):
    monkeypatch.setattr(store_module, "time", clock := Clock())
    with pytest.raises(BadAddress, match=f"cannot write to {deaf.url}: Could not connect"):
        StudyLock(deaf.patient(600), "a").__enter__()
    assert clock.now == 0


TINY = {
    "study": "tiny",
    "data": {"name": "mnist5k", "subset": {"train": 100, "validation": 20}},
    "backbone": "lenet5",
    "evaluate": {"validation": 5, "test": 5},
    "training": {"epochs": 2},
    "methods": {"sce": {"loss": "sce"}},
    "attacks": {"pgd": {"eps": 0.04, "steps": 2}},
    "headline": {"attack": "pgd"},
}


def test_a_study_is_run_on_s3_and_a_finished_one_does_nothing(store, server, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    plan = make_plan(read_study(str(tmp_path / "tiny.yaml")))

    def run():
        console = Console(file=io.StringIO(), width=500)
        server.asked.clear()
        result = run_study(
            plan,
            store=store,
            data=str(tmp_path / "data"),
            tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
            artifacts=tmp_path / "artifacts",
            command="study run",
            local=True,
            display=Display(console),
        )
        assert not result.failed
        written = [path for method, path in server.asked if method in ("PUT", "POST")]
        return {path.removeprefix(f"/{store.root}/").split("/")[0] for path in written}

    assert run() >= {"models", "outcomes", "trials", "studies"}
    (trial,) = plan.trials
    assert store.entries("models") == {trial.id}
    assert store.pairs("outcomes", "") == sorted(
        (trial.id, cell.id(trial.id)) for cell in trial.job().cells
    )
    held = {path: store.get(path) for path in store.files()}
    assert not [path for path in held if path.endswith((".tmp", ".taken", "lock.json"))]
    entries = itertools.chain(
        (f"models/{trial.id}", f"trials/{trial.id}"),
        (f"outcomes/{trial.id}/{cell}" for _, cell in store.pairs("outcomes", "")),
    )
    for entry in entries:
        assert store.read(entry)
    assert run() <= {"studies"}  # the lock, and what the study is of
    assert {path: store.get(path) for path in store.files()} == held
