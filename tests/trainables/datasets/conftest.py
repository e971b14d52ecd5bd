"""Small data sets in the exact formats of the published ones, and a server to fetch them from."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import tarfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision

from trainables import registry

SHARED = Path(os.environ.get("STUDY_DATA") or Path(__file__).parents[3] / "../shared/data")
SIZES = {"train": 120, "validation": 40, "test": 50}
RECONSTRUCT = np.empty(0).__reduce__()[0]


def md5(content):
    return hashlib.md5(content).hexdigest()


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and its NumPy wrote: texts as bytes, truth values as integers."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_text(self, text):
        content = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<I", len(content)) + content)
        self.memoize(text)

    def save_truth(self, value):
        self.save_long(int(value))

    def save_global(self, found, name=None):
        module = "numpy.core.multiarray" if found is RECONSTRUCT else found.__module__
        self.write(pickle.GLOBAL + f"{module}\n{found.__name__}\n".encode())
        self.memoize(found)

    dispatch[str] = dispatch[bytes] = save_text
    dispatch[bool] = save_truth


def python2_pickle(value):
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def idx(array):
    """Gzipped IDX: zero, zero, type 8, dimensions; sizes, big-endian; the bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def as_idx(paths, pixels, labels):
    return dict(zip(paths, [idx(pixels[:, 0]), idx(labels)], strict=True))


def as_batches(paths, pixels, labels):
    """Rows of 1024 red, 1024 green and 1024 blue bytes, each plane row by row."""
    files = {}
    cut = [np.array_split(whole, len(paths)) for whole in (pixels, labels)]
    for path, images, classes in zip(paths, *cut, strict=True):
        planes = [images[:, channel].reshape(len(images), 1024) for channel in range(3)]
        key = b"fine_labels" if "100" in path else b"labels"
        batch = {b"data": np.hstack(planes), key: classes.tolist(), b"batch_label": b"some"}
        if "100" in path:
            batch[b"coarse_labels"] = (classes // 5).tolist()
        files[path] = python2_pickle(batch)
    return files


def as_mat(paths, pixels, labels):
    """X[row, column, channel, image]; y[image, 0], in which a 10 stands for the digit 0."""
    (path,) = paths
    x = np.stack([image.transpose(1, 2, 0) for image in pixels], axis=3)
    y = np.array([[label or 10] for label in labels], dtype=np.uint8)
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"X": x, "y": y}, do_compression=True)
    return {path: stream.getvalue()}


FORMATS = {
    "mnist": as_idx,
    "fashion_mnist": as_idx,
    "cifar10": as_batches,
    "cifar100": as_batches,
    "svhn": as_mat,
}


class Small:
    """A small data set under a published one's name, its tables saying that it is the one.

    Attributes:
        content: path below the data folder -> bytes.
        train, test: pixels (N, C, H, W) and labels, as published.
    """

    def __init__(self, name, patch, address):
        self.dataset = registry.build("dataset", name)
        self.cls = type(self.dataset)
        self.patch = patch
        draw = np.random.default_rng(0)
        self.train = self.images(draw, SIZES["train"] + SIZES["validation"])
        self.test = self.images(draw, SIZES["test"])
        patch.setattr(self.cls, "full", SIZES)
        self.publish()
        self.serve_from(address)

    def images(self, draw, n):
        pixels = draw.integers(0, 256, (n, *self.cls.shape), dtype=np.uint8)
        return pixels, draw.permutation(np.arange(n) % self.cls.classes)

    def publish(self):
        """Makes the files and says that they are the published ones."""
        self.content = {}
        for part in ("train", "test"):
            paths = list(getattr(self.cls, f"{part}_files"))
            files = FORMATS[self.dataset.name](paths, *getattr(self, part))
            self.content |= files
            self.say(part, files)

    def say(self, part, files):
        """Changes the table of published checksums."""
        table = {path: md5(content) for path, content in files.items()}
        self.patch.setattr(self.cls, f"{part}_files", table)

    def serve_from(self, address):
        """Changes torchvision's tables so that it serves these files at an address."""
        name = self.dataset.name
        if name == "svhn":
            split = {
                part: [f"{address}/{path}", path, md5(self.content[path])]
                for part in ("train", "test")
                for path in getattr(self.cls, f"{part}_files")
            }
            self.patch.setattr(torchvision.datasets.SVHN, "split_list", split)
            self.served = dict(self.content)
            return
        table = getattr(torchvision.datasets, self.cls.published)
        files = {Path(path).name: content for path, content in self.content.items()}
        if "mnist" in name:
            self.patch.setattr(table, "mirrors", [f"{address}/"])
            self.patch.setattr(table, "resources", [(n, md5(c)) for n, c in files.items()])
            self.served = files
        else:
            archive = self.archive({f"{table.base_folder}/batches.meta": b"names", **self.content})
            self.patch.setattr(table, "url", f"{address}/{table.filename}")
            self.patch.setattr(table, "tgz_md5", md5(archive))
            self.served = {table.filename: archive}

    @staticmethod
    def archive(files):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for path, content in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return stream.getvalue()

    def write(self, folder, *, without=()):
        """Puts the files where torchvision has them."""
        for path, content in self.content.items():
            if path not in without:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
        return folder


class Server:
    """Serves bytes by name on this machine and counts what it is asked for."""

    def __init__(self):
        self.files, self.asked, self.pause = {}, Counter(), 0.0
        self.nonsense = b""  # what it says in HTTP's place
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                server.asked[name] += 1
                time.sleep(server.pause)
                if server.nonsense:
                    self.wfile.write(server.nonsense)
                    return
                if name not in server.files:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(server.files[name])))
                self.end_headers()
                self.wfile.write(server.files[name])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def nowhere(monkeypatch):
    """The address of a server that is not there."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as deaf:  # holds the port but does not listen
        deaf.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{deaf.getsockname()[1]}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def make(monkeypatch, nowhere):
    """Makes a small data set that can be had nowhere."""
    return lambda name: Small(name, monkeypatch, nowhere)


@pytest.fixture(params=FORMATS)
def small(request, make):
    """Each small data set in turn."""
    return make(request.param)


@pytest.fixture
def serve(server):
    """Lets a small data set be downloaded."""

    def at(small):
        small.serve_from(server.address)
        server.files.update(small.served)
        return server

    return at


@pytest.fixture
def shared():
    """Gives the folder of the real data, where a data set's files are in it."""

    def folder(dataset):
        absent = [path for path in dataset.files if not (SHARED / path).is_file()]
        if absent:
            pytest.skip(f"{dataset.name} is not on this machine: no {absent[0]} in {SHARED}")
        return SHARED

    return folder


@pytest.fixture
def same_images():
    """Asserts that splits hold each of the published images once, with its label."""

    def keys(pixels, labels):
        images = np.asarray(pixels)
        digests = (hashlib.sha256(image.tobytes()).digest() for image in images)
        return sorted(zip(digests, np.asarray(labels).tolist(), strict=True))

    def check(parts, pixels, labels):
        held = [torch.cat([getattr(part, what) for part in parts]) for what in ("pixels", "labels")]
        assert held[0].shape == pixels.shape
        assert keys(*held) == keys(pixels, labels)

    return check
