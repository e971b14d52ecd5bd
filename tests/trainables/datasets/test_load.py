"""Data sets beside the results: given by one machine, taken by those that lack them."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from study import driver
from study.cli import app
from trainables import registry
from trainables.datasets.load import FOLDER, give, load_splits, take
from trainables.errors import DamagedData, MissingData
from trainables.execution import Execution
from trainables.store import Store

LOCK = ".{}.shared.lock"


def below(folder):
    """Every file below a folder, with what a change of it would change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def bytes_below(folder):
    """What a data folder holds, but for locks."""
    return {path: (folder / path).read_bytes() for path in below(folder) if path[0] != "."}


def held_by(store):
    """The data that a store holds, laid out as a data folder is."""
    found = store.files(FOLDER)
    return {path.removeprefix(f"{FOLDER}/"): store.get(path) for path in found}


def same(splits, others):
    return all(
        torch.equal(getattr(getattr(splits, part), what), getattr(getattr(others, part), what))
        for part in ("train", "validation", "test")
        for what in ("pixels", "labels")
    )


@pytest.fixture
def here(tmp_path):
    """The data folder of the machine that gives."""
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path):
    """Where a machine that has no data looks for them."""
    return tmp_path / "there" / "data"


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def given(small, here, store):
    """Each small data set in turn, in the store; to be downloaded from nowhere."""
    give(small.dataset, small.write(here), store)
    return small


@pytest.fixture
def mnist(make, here, store):
    """The same of one data set, for what does not depend on its format."""
    small = make("mnist")
    give(small.dataset, small.write(here), store)
    return small


def on(folder, store):
    """How a trial is computed by a machine with that data folder."""
    return Execution(data=folder, storage=store.url)


def test_what_one_machine_gives_another_reads_without_a_download(given, here, there, store, capfd):
    assert held_by(store) == given.content
    splits = load_splits(given.dataset, on(there, store))
    assert bytes_below(there) == given.content
    assert same(splits, given.dataset.read(here))
    assert "downloading" not in capfd.readouterr().err


def test_a_store_elsewhere_will_do(make, here, there):
    small, store = make("cifar10"), Store(f"memory://{uuid.uuid4().hex}")
    give(small.dataset, small.write(here), store)
    load_splits(small.dataset, on(there, store))
    assert bytes_below(there) == small.content


def test_the_drivers_machine_takes_too(mnist, there, store, model_config, capfd):
    driver.fetch([model_config(dataset="mnist")] * 2, there, store)
    assert bytes_below(there) == mnist.content
    assert "downloading" not in capfd.readouterr().err


def test_files_are_given_once(given, here, store, tmp_path):
    before = below(tmp_path / "store")
    assert give(given.dataset, here, store) == len(given.content)
    assert give(given.dataset, tmp_path / "absent", store) == len(given.content)
    assert below(tmp_path / "store") == before


def test_only_what_the_store_lacks_is_given(mnist, here, store, tmp_path):
    absent = list(mnist.content)[1]
    store.delete(f"{FOLDER}/{absent}")
    before = below(tmp_path / "store")
    give(mnist.dataset, here, store)
    after = below(tmp_path / "store")
    assert {path: after[path] for path in before} == before
    assert held_by(store) == mnist.content


def test_only_what_is_missing_is_taken(given, there, store):
    absent = list(given.content)[-1]
    given.write(there, without={absent})
    before = below(there)
    take(given.dataset, there, store)
    after = below(there)
    assert {path: after[path] for path in before} == before
    assert after.keys() - before.keys() == {absent, LOCK.format(given.dataset.name)}
    assert (there / absent).read_bytes() == given.content[absent]


def test_who_has_all_asks_the_store_nothing_and_leaves_nothing(given, there, store, monkeypatch):
    given.write(there)
    before = below(there)
    for asked in ("files", "get"):
        monkeypatch.delattr(Store, asked)
    load_splits(given.dataset, on(there, store))
    assert below(there) == before


def test_what_the_store_lacks_is_downloaded(mnist, serve, there, store):
    server = serve(mnist)
    absent = list(mnist.content)[2]
    store.delete(f"{FOLDER}/{absent}")
    load_splits(mnist.dataset, on(there, store))
    assert bytes_below(there) == mnist.content
    assert set(server.asked) == {Path(absent).name}


def test_who_has_no_store_downloads_and_gives_nothing(mnist, serve, there, store):
    server = serve(mnist)
    for path in store.files(FOLDER):
        store.delete(path)
    load_splits(mnist.dataset, Execution(data=there))
    assert set(server.asked) == {Path(path).name for path in mnist.content}
    assert store.files() == {}


@pytest.mark.parametrize("damage", [b"", b"not these"], ids=["empty", "another"])
def test_a_damaged_file_of_the_store_is_never_taken(given, serve, there, store, damage):
    victim = list(given.content)[1]
    store.put(f"{FOLDER}/{victim}", damage)
    with pytest.raises(MissingData) as error:  # and can be downloaded from nowhere
        load_splits(given.dataset, on(there, store))
    assert victim in str(error.value)
    assert not [path for path in given.content if path in str(error.value) and path != victim]
    serve(given)
    load_splits(given.dataset, on(there, store))
    assert bytes_below(there).items() >= given.content.items()


def test_a_damaged_file_of_the_store_is_given_anew(mnist, here, there, store):
    victim = list(mnist.content)[1]
    store.put(f"{FOLDER}/{victim}", b"not these")
    give(mnist.dataset, here, store)
    load_splits(mnist.dataset, on(there, store))
    assert held_by(store) == bytes_below(there) == mnist.content


def test_a_damaged_file_of_the_machine_is_told_and_kept(mnist, there, store):
    victim = list(mnist.content)[1]
    mnist.write(there)
    (there / victim).write_bytes(b"not these")
    with pytest.raises(DamagedData, match=re.escape(f"{there / victim} is not the published")):
        load_splits(mnist.dataset, on(there, store))
    assert (there / victim).read_bytes() == b"not these"


def test_an_embedded_data_set_gives_and_takes_nothing(tmp_path, there, store):
    dataset = registry.build("dataset", "mnist5k")
    assert give(dataset, tmp_path, store) == 0
    take(dataset, there, store)
    assert not list(tmp_path.iterdir())


def interrupted(self, data, real=Path.write_bytes):
    real(self, data[: len(data) // 2])
    raise KeyboardInterrupt


def test_a_crash_while_a_file_is_taken_leaves_no_half_of_it(given, there, store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            take(given.dataset, there, store)
    assert not set(below(there)) & set(given.content)
    load_splits(given.dataset, on(there, store))
    assert bytes_below(there) == given.content


def test_a_full_disk_leaves_no_half_of_a_file(given, there, store):
    sizes = [len(content) for content in given.content.values()]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(sizes) // 2, before[1]))  # bytes, a file
    try:
        with pytest.raises(OSError, match="File too large"):
            take(given.dataset, there, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert bytes_below(there) == {}
    take(given.dataset, there, store)
    assert bytes_below(there) == given.content


def test_a_crash_while_a_file_is_given_leaves_no_half_of_it(mnist, here, there, store, monkeypatch):
    absent = list(mnist.content)[1]
    store.delete(f"{FOLDER}/{absent}")
    real = store.fs.pipe_file

    def half(path, data, **options):
        real(path, data[: len(data) // 2], **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.fs, "pipe_file", half)
        with pytest.raises(KeyboardInterrupt):
            give(mnist.dataset, here, store)
    assert f"{FOLDER}/{absent}" not in store.files(FOLDER)
    give(mnist.dataset, here, store)
    load_splits(mnist.dataset, on(there, store))
    assert bytes_below(there) == mnist.content


# Says each file that it gets before it has it, and goes on when it is told to, or after a pause.
TAKE = """
import json, sys, time
from pathlib import Path
from trainables import registry
from trainables.datasets.load import take
from trainables.store import Store

folder, url, pause, name, tables = sys.argv[1:]

class Slow(Store):
    def get(self, path):
        print(path, flush=True)
        time.sleep(float(pause)) if pause else sys.stdin.readline()
        return super().get(path)

dataset = registry.build("dataset", name)
for part, files in json.loads(tables).items():
    setattr(type(dataset), f"{part}_files", files)
print("ready", flush=True)
sys.stdin.readline()
take(dataset, Path(folder), Slow(url))
missing = dataset._missing(Path(folder))  # refuses what is not whole
print(f"lacks {missing}" if missing else "whole", flush=True)
"""


@pytest.fixture
def taking():
    """Starts processes of this machine that are about to take a data set."""
    with contextlib.ExitStack() as ended:

        def start(small, folder, store, *, pause=""):
            tables = {"train": small.cls.train_files, "test": small.cls.test_files}
            words = [folder, store.url, pause, small.dataset.name, json.dumps(tables)]
            process = subprocess.Popen(
                [sys.executable, "-c", TAKE, *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ended.enter_context(process)
            ended.callback(process.kill)
            return process

        yield start


def test_of_several_at_once_one_takes_each_file(mnist, there, store, taking):
    processes = [taking(mnist, there, store, pause=0.1) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [lines.pop() for lines in said] == ["whole"] * 3
    got = [path for lines in said for path in lines]
    assert sorted(got) == sorted(f"{FOLDER}/{path}" for path in mnist.content)
    assert bytes_below(there) == mnist.content


def test_who_is_killed_while_it_takes_keeps_nobody_waiting(mnist, there, store, taking):
    process, first = taking(mnist, there, store), next(iter(mnist.content))
    process.stdin.write("\n\n")  # takes the first file, and asks for the second
    process.stdin.flush()
    said = [process.stdout.readline().strip() for _ in range(3)]
    assert said[:2] == ["ready", f"{FOLDER}/{first}"]
    process.kill()
    process.wait()
    assert bytes_below(there) == {first: mnist.content[first]}
    take(mnist.dataset, there, store)
    assert bytes_below(there) == mnist.content


def fetch(*words):
    done = CliRunner().invoke(app, ["data", "fetch", *map(str, words)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_the_command_shares_what_it_has_fetched(make, serve, here, there, tmp_path):
    mnist, svhn = make("mnist"), make("svhn")
    asked = [serve(mnist).asked, serve(svhn).asked]
    place = ("--data", here, "--share", "--storage", tmp_path / "store")
    said = fetch("mnist", "mnist5k", "svhn", *place)
    assert said.splitlines() == [
        f"mnist: whole, in {here}",
        f"mnist: whole, in {tmp_path / 'store'}",
        "mnist5k: nothing to download",
        f"svhn: whole, in {here}",
        f"svhn: whole, in {tmp_path / 'store'}",
    ]
    store = Store(str(tmp_path / "store"))
    assert held_by(store) == {**mnist.content, **svhn.content}
    before, counts = below(tmp_path / "store"), [dict(count) for count in asked]
    assert fetch("mnist", "mnist5k", "svhn", *place) == said
    assert below(tmp_path / "store") == before
    load_splits(svhn.dataset, on(there, store))
    assert [dict(count) for count in asked] == counts


def test_the_command_shares_nothing_unless_it_is_told_to(make, here, tmp_path):
    make("mnist").write(here)
    said = fetch("mnist", "--data", here, "--storage", tmp_path / "store")
    assert said == f"mnist: whole, in {here}\n"
    assert not (tmp_path / "store").exists()


def test_the_command_shares_nothing_that_is_damaged(make, here, tmp_path):
    victim = next(make("mnist").write(here).rglob("*.gz"))
    victim.write_bytes(b"not these")
    with pytest.raises(DamagedData, match=re.escape(str(victim))):
        fetch("mnist", "--data", here, "--share", "--storage", tmp_path / "store")
    assert not (tmp_path / "store").exists()
