"""Reading and fetching what torchvision publishes, on small data sets in the same formats."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from trainables import registry
from trainables.datasets import files
from trainables.datasets.base import stratified_order
from trainables.errors import DamagedData, MissingData

MNIST_FILES = {
    f"MNIST/raw/{part}-{what}-ubyte.gz"
    for part in ("train", "t10k")
    for what in ("images-idx3", "labels-idx1")
}


def below(folder):
    """Every file below a folder, with what a change of it would change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def published(name):
    """torchvision's own table: path below the data folder -> MD5, train and test."""
    if name == "svhn":
        table = torchvision.datasets.SVHN.split_list
        return [{table[part][1]: table[part][2]} for part in ("train", "test")]
    if "mnist" in name:
        cls = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
        table = getattr(torchvision.datasets, cls)
        rows = [(f"{cls}/raw/{file}", md5) for file, md5 in table.resources]
        return [dict(rows[:2]), dict(rows[2:])]
    table = getattr(torchvision.datasets, name.upper())
    parts = (table.train_list, table.test_list)
    return [{f"{table.base_folder}/{file}": md5 for file, md5 in part} for part in parts]


NAMES = ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"]


@pytest.mark.parametrize("name", NAMES)
def test_files_and_their_checksums_are_torchvisions(name):
    dataset = registry.build("dataset", name)
    train, test = published(name)
    assert list(dataset.train_files.items()) == list(train.items())
    assert list(dataset.test_files.items()) == list(test.items())
    lines = sorted(f"{path.split('/')[-1]} {md5}" for path, md5 in {**train, **test}.items())
    assert dataset.checksum == hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_torchvisions_and_bring_every_file(name):
    dataset = registry.build("dataset", name)
    sources = {source.path: source for source in dataset.sources()}
    assert all(url.startswith("http") for source in sources.values() for url in source.urls)
    if name.startswith("cifar"):
        table = getattr(torchvision.datasets, name.upper())
        (archive,) = sources.values()
        assert (archive.path, archive.md5) == (table.filename, table.tgz_md5)
        assert archive.urls == (table.url,)
    else:
        assert {path: source.md5 for path, source in sources.items()} == dataset.files
        assert all(url.endswith(Path(s.path).name) for s in sources.values() for url in s.urls)


def test_every_pixel_and_label_is_read_back(small, tmp_path):
    splits = small.dataset.read(small.write(tmp_path))
    pixels, labels = small.train
    order = stratified_order(torch.tensor(labels)).numpy()
    expected = {
        "validation": (pixels[order[:40]], labels[order[:40]]),
        "train": (pixels[order[40:]], labels[order[40:]]),
    }
    order = stratified_order(torch.tensor(small.test[1])).numpy()
    expected["test"] = (small.test[0][order], small.test[1][order])
    for name, (pixels, labels) in expected.items():
        part = getattr(splits, name)
        assert part.pixels.dtype == torch.uint8
        assert part.pixels.is_contiguous()
        assert part.labels.dtype == torch.int64
        assert np.array_equal(part.pixels.numpy(), pixels)
        assert np.array_equal(part.labels.numpy(), labels)


def test_read_only_folder_is_read_and_left_as_it_was(small, tmp_path):
    small.write(tmp_path)
    before = below(tmp_path)
    folders = [tmp_path, *filter(Path.is_dir, tmp_path.rglob("*"))]
    for folder in folders:
        folder.chmod(0o555)
    try:
        small.dataset.fetch(tmp_path)
        assert len(small.dataset.read(tmp_path).test) == 50
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert below(tmp_path) == before


def test_each_file_is_hashed_once_a_read(small, tmp_path, monkeypatch):
    hashed, real = [], files.md5_of
    monkeypatch.setattr(files, "md5_of", lambda path: hashed.append(path) or real(path))
    small.dataset.read(small.write(tmp_path))
    assert sorted(hashed) == sorted(tmp_path / path for path in small.content)


def test_reading_does_not_import_torchvision():
    code = (
        "import sys; from trainables import registry; registry.names('dataset'); "
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_damaged_file_is_told_and_kept(small, serve, tmp_path):
    server = serve(small)
    for victim in small.content:
        small.write(tmp_path)
        damaged = small.content[victim][:-1] + b"?"
        (tmp_path / victim).write_bytes(damaged)
        for use in (small.dataset.fetch, small.dataset.read):
            with pytest.raises(DamagedData) as error:
                use(tmp_path)
            assert str(error.value) == (
                f"{small.dataset.name}: {tmp_path / victim} is not the published file: expected "
                f"MD5 {small.dataset.files[victim]}, found {hashlib.md5(damaged).hexdigest()}; "
                "delete it and run again to download it, or put the published file in its place"
            )
        assert (tmp_path / victim).read_bytes() == damaged
    assert not server.asked


def test_nothing_is_downloaded_beside_a_damaged_file(make, serve, tmp_path):
    small = make("mnist")
    server = serve(small)
    first, *_, last = small.content
    small.write(tmp_path, without={first})
    (tmp_path / last).write_bytes(b"damaged")
    with pytest.raises(DamagedData, match=Path(last).name):
        small.dataset.fetch(tmp_path)
    assert not server.asked
    assert not (tmp_path / first).exists()


def test_file_that_cannot_be_read_is_told(make, tmp_path):
    small = make("svhn")
    small.write(tmp_path, without={"test_32x32.mat"})
    (tmp_path / "test_32x32.mat").mkdir()
    with pytest.raises(DamagedData, match=r"^svhn: cannot read .*/test_32x32.mat: Is a directory$"):
        small.dataset.read(tmp_path)


def test_missing_files_are_told_with_the_reason_and_the_remedy(small, tmp_path):
    *kept, absent = small.content
    small.write(tmp_path, without={absent})
    before = below(tmp_path)
    for use in (small.dataset.fetch, small.dataset.read):
        with pytest.raises(MissingData) as error:
            use(tmp_path)
        message = str(error.value)
        assert message.startswith(f"{small.dataset.name}: not in {tmp_path}: {absent}\n")
        assert not any(path in message for path in kept)
        assert "downloading failed: http://127.0.0.1:" in message
        assert "Connection refused" in message
        assert "any torchvision data folder" in message
        assert "`--data FOLDER` or STUDY_DATA" in message
    lock = f".{small.dataset.name}.lock"
    assert {path: seen for path, seen in below(tmp_path).items() if path != lock} == before


def test_all_missing_files_are_listed(make, tmp_path):
    with pytest.raises(MissingData) as error:
        make("mnist").dataset.read(tmp_path / "new")
    assert all(path in str(error.value) for path in MNIST_FILES)
    assert f"not in {tmp_path / 'new'}:" in str(error.value)


def test_relative_folder_is_told_in_full(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = make("svhn")
    with pytest.raises(MissingData, match=f"not in {tmp_path}/here: "):
        small.dataset.read(Path("here"))
    (tmp_path / "here" / "test_32x32.mat").write_bytes(b"damaged")
    with pytest.raises(DamagedData, match=f"{tmp_path}/here/test_32x32.mat is not the published"):
        small.dataset.read(Path("here"))


def test_unpacked_files_alone_are_not_the_published_ones(make, tmp_path):
    small = make("mnist")
    small.write(tmp_path)
    for path in tmp_path.rglob("*.gz"):
        path.rename(path.with_suffix(""))
    with pytest.raises(MissingData, match=r"raw/train-images-idx3-ubyte\.gz"):
        small.dataset.read(tmp_path)


def test_folder_that_cannot_be_made_is_told(make, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(MissingData, match=r"downloading failed: .*file"):
        make("mnist").dataset.read(tmp_path / "file" / "data")


def test_download_gives_torchvisions_layout_and_is_done_once(small, serve, tmp_path):
    server = serve(small)
    folder = tmp_path / "not" / "yet"
    small.dataset.fetch(folder)
    extra = set(below(folder)) - set(small.content) - {f".{small.dataset.name}.lock"}
    assert {Path(path).name for path in extra} <= {"batches.meta"}
    assert all((folder / path).read_bytes() == content for path, content in small.content.items())
    assert set(server.asked) == set(small.served)
    asked = server.asked.copy()
    small.dataset.fetch(folder)
    assert len(small.dataset.read(folder).test) == 50
    assert server.asked == asked


def test_downloaded_files_may_be_read_by_whom_the_umask_lets(make, serve, tmp_path):
    small = make("mnist")
    serve(small)
    small.dataset.fetch(tmp_path)
    (tmp_path / "mine").touch()
    allowed = (tmp_path / "mine").stat().st_mode
    assert {(tmp_path / path).stat().st_mode for path in small.content} == {allowed}


def test_read_downloads_too(small, serve, tmp_path):
    serve(small)
    assert len(small.dataset.read(tmp_path).train) == 120


def test_torchvision_reads_what_was_downloaded(make, serve, tmp_path):
    small = make("svhn")
    serve(small)
    small.dataset.fetch(tmp_path)
    theirs = torchvision.datasets.SVHN(tmp_path, split="test", download=False)
    assert np.array_equal(theirs.data, small.test[0])
    assert np.array_equal(theirs.labels, small.test[1])


def test_only_what_is_missing_is_put_there(small, serve, tmp_path):
    server = serve(small)
    absent = list(small.content)[-1]
    small.write(tmp_path, without={absent})
    before = below(tmp_path)
    small.dataset.fetch(tmp_path)
    after = below(tmp_path)
    assert {path: after[path] for path in before} == before
    assert (tmp_path / absent).read_bytes() == small.content[absent]
    if not small.dataset.name.startswith("cifar"):
        assert set(server.asked) == {Path(absent).name}


def test_next_mirror_is_tried(make, serve, tmp_path, nowhere):
    small = make("mnist")
    server = serve(small)
    mirrors = [f"{nowhere}/", f"{server.address}/not/here/", f"{server.address}/"]
    small.patch.setattr(torchvision.datasets.MNIST, "mirrors", mirrors)
    assert len(small.dataset.read(tmp_path).test) == 50


def test_all_mirrors_are_named_when_none_has_it(make, serve, tmp_path, nowhere):
    small = make("mnist")
    server = serve(small)
    mirrors = [f"{nowhere}/", f"{server.address}/not/here/"]
    small.patch.setattr(torchvision.datasets.MNIST, "mirrors", mirrors)
    with pytest.raises(MissingData) as error:
        small.dataset.fetch(tmp_path)
    assert f"{mirrors[0]}train-images-idx3-ubyte.gz: [Errno" in str(error.value)
    assert f"{mirrors[1]}train-images-idx3-ubyte.gz: Not Found" in str(error.value)


def test_other_content_at_the_address_is_not_taken(small, serve, tmp_path):
    server = serve(small)
    server.files = dict.fromkeys(server.files, b"<html>Please log in</html>")
    with pytest.raises(MissingData, match="corrupted"):
        small.dataset.fetch(tmp_path)
    assert set(below(tmp_path)) <= {f".{small.dataset.name}.lock"}


def test_server_that_speaks_no_http_is_told(make, serve, tmp_path):
    small = make("svhn")
    serve(small).nonsense = b"220 mail ready\r\n"
    with pytest.raises(MissingData, match=r"train_32x32\.mat: 220 mail ready"):
        small.dataset.fetch(tmp_path)


def test_archive_that_lacks_a_file_is_told(make, serve, tmp_path):
    small = make("cifar10")
    absent = small.content.pop("cifar-10-batches-py/test_batch")
    serve(small)
    with pytest.raises(MissingData, match="the archive holds no cifar-10-batches-py/test_batch"):
        small.dataset.fetch(tmp_path)
    assert absent


def test_archive_that_holds_another_file_is_told(make, serve, tmp_path):
    small = make("cifar100")
    small.content["cifar-100-python/test"] += b"!"
    serve(small)
    with pytest.raises(DamagedData, match="cifar-100-python/test is not the published file") as e:
        small.dataset.read(tmp_path)
    assert e.value.__context__ is None


def test_two_at_once_download_once(small, serve, tmp_path):
    server = serve(small)
    small.dataset.fetch(tmp_path / "alone")
    alone, server.asked = server.asked, type(server.asked)()
    server.pause = 0.1
    start, failures = threading.Barrier(3), []

    def fetch():
        start.wait()
        try:
            small.dataset.fetch(tmp_path / "together")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert server.asked == alone


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_is_drawn_on_a_terminal_only(make, serve, tmp_path, monkeypatch, stream):
    small = make("svhn")
    serve(small)
    monkeypatch.setattr(sys, "stderr", seen := stream())
    small.dataset.fetch(tmp_path)
    assert ("100%" in seen.getvalue()) == (stream is Terminal)
    assert sys.stderr is seen


def test_silent_server_is_given_up(make, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        small = make("svhn")
        small.serve_from(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(MissingData, match="timed out"):
            small.dataset.fetch(tmp_path)
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("name", "label"),
    [("mnist", 10), ("fashion_mnist", 255), ("cifar10", -1), ("cifar100", 100), ("svhn", 11)],
)
def test_label_of_no_class_is_damage(make, tmp_path, name, label):
    small = make(name)
    small.test[1][3] = label
    small.publish()
    last = small.dataset.classes - 1
    with pytest.raises(DamagedData, match=rf"expected pixels .* and 50 labels of 0-{last}, found"):
        small.dataset.read(small.write(tmp_path))


@pytest.mark.parametrize("part", ["train", "test"])
def test_another_number_of_images_is_damage(small, tmp_path, monkeypatch, part):
    sizes = {**small.dataset.full, part: small.dataset.full[part] + 1}
    monkeypatch.setattr(small.cls, "full", sizes)
    wanted = sizes["test"] if part == "test" else sizes["train"] + sizes["validation"]
    with pytest.raises(DamagedData, match=rf"expected pixels \({wanted}, .*found pixels"):
        small.dataset.read(small.write(tmp_path))


def test_another_size_of_images_is_damage(make, tmp_path):
    small = make("mnist")
    pixels, labels = small.test
    small.test = pixels[:, :, :27], labels
    small.publish()
    with pytest.raises(
        DamagedData, match=r"expected pixels \(50, 1, 28, 28\) .* \(50, 1, 27, 28\)"
    ):
        small.dataset.read(small.write(tmp_path))
