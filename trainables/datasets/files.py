"""Data sets that are downloaded files, laid out and checked as torchvision does."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import socket
import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from trainables.datasets.base import Dataset, Split, Splits, stratified_order
from trainables.errors import DamagedData, MissingData

SILENCE = 30.0  # seconds after which a server that sends nothing is given up

Arrays = tuple[NDArray[np.uint8], NDArray[Any]]


def torchvision(name: str) -> Any:
    """What torchvision.datasets calls so. Only a download pays the seconds that its import takes.

    Args:
        name: of a class or a module.
    """
    return getattr(importlib.import_module("torchvision.datasets"), name)


def checksum(*files: Mapping[str, str]) -> str:
    """SHA-256 over the sorted lines `name md5` of published files, whatever their folder."""
    lines = sorted(f"{Path(path).name} {md5}" for part in files for path, md5 in part.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def md5_of(path: Path) -> str:
    """The MD5 of a file's content: published for all of these data sets, and fast."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(frozen=True)
class Source:
    """What is downloaded in one piece: a file, or an archive of files.

    Attributes:
        path: below the data folder. An archive is unpacked there and not kept.
        md5: published.
        urls: of its mirrors, tried in this order.
    """

    path: str
    md5: str
    urls: tuple[str, ...]


class Downloaded(Dataset):
    """A data set of published files below the data folder: any torchvision root will do.

    The first `full["validation"]` images of `stratified_order(published training labels)` are
    for validation, the rest of that order for training; the test images are in a stratified
    order of their own.

    Attributes:
        train_files: path below the data folder -> published MD5, of the training set.
        test_files: the same of the test set.
    """

    train_files: ClassVar[Mapping[str, str]]
    test_files: ClassVar[Mapping[str, str]]

    @abstractmethod
    def sources(self) -> Sequence[Source]:
        """What torchvision says of where the files can be had."""

    @abstractmethod
    def decode(self, paths: Sequence[Path]) -> Arrays:
        """Reads the training or the test set.

        Args:
            paths: its files, which are the published ones, in the order of `train_files`.

        Returns:
            Pixels (N, C, H, W) and labels (N,).
        """

    @property
    def files(self) -> dict[str, str]:
        """Path below the data folder -> published MD5."""
        return {**self.train_files, **self.test_files}

    def read(self, folder: Path) -> Splits:
        self.fetch(folder)
        validation = self.full["validation"]
        published = self._decoded(folder, self.train_files, self.full["train"] + validation)
        order = stratified_order(published.labels)
        test = self._decoded(folder, self.test_files, self.full["test"])
        return Splits(
            train=published.take(order[validation:]),
            validation=published.take(order[:validation]),
            test=test.take(stratified_order(test.labels)),
        )

    def _decoded(self, folder: Path, files: Mapping[str, str], size: int) -> Split:
        """One published part, which must be as many images as it says, of its classes."""
        pixels, labels = self.decode([folder / path for path in files])
        wanted = (size, *self.shape)
        known = (labels >= 0) & (labels < self.classes)
        if pixels.shape != wanted or labels.shape != (size,) or not known.all():
            raise DamagedData(
                f"{self.name}: {', '.join(files)} in {folder.absolute()}: expected pixels "
                f"{wanted} and {size} labels of 0-{self.classes - 1}, found pixels "
                f"{pixels.shape} and {labels.size} labels of {labels.min()}-{labels.max()}"
            )
        return Split(torch.tensor(pixels).contiguous(), torch.tensor(labels, dtype=torch.int64))

    def fetch(self, folder: Path) -> None:
        if not self._missing(folder):
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            print(f"downloading {self.name} into {folder}", file=sys.stderr, flush=True)
            with FileLock(folder / f".{self.name}.lock"), _considerately():
                self._download(folder)
        except DamagedData:
            raise
        except OSError as error:
            raise MissingData(
                f"{self.name}: not in {folder.absolute()}: {', '.join(self._missing(folder))}\n"
                f"  downloading failed: {error}\n"
                "  put these files there (any torchvision data folder will do), or name another "
                "folder with `--data FOLDER` or STUDY_DATA"
            ) from error

    def _missing(self, folder: Path) -> list[str]:
        """The files that are not there; those that are must be the published ones."""
        missing = []
        for file, md5 in self.files.items():
            path = (folder / file).absolute()
            try:
                found = md5_of(path)
            except (FileNotFoundError, NotADirectoryError):
                missing.append(file)
                continue
            except OSError as error:
                raise DamagedData(f"{self.name}: cannot read {path}: {error.strerror}") from error
            if found != md5:
                raise DamagedData(
                    f"{self.name}: {path} is not the published file: expected MD5 {md5}, found "
                    f"{found}; delete it and run again to download it, or put the published "
                    "file in its place"
                )
        return missing

    def _download(self, folder: Path) -> None:
        """Brings what is still missing: another process may have been faster."""
        missing = self._missing(folder)
        for source in self.sources() if missing else ():
            if source.path in missing or source.path not in self.files:
                self._bring(source, folder)
        if missing and (missing := self._missing(folder)):
            raise OSError(f"the archive holds no {', '.join(missing)}")

    def _bring(self, source: Source, folder: Path) -> None:
        """Moves a source's files into place once they are whole; what is there stays."""
        failures = []
        for url in source.urls:
            try:
                with TemporaryDirectory(prefix=".download-", dir=folder) as staging:
                    self._get(source, url, Path(staging))
                    _move(Path(staging), folder)
                return
            except (OSError, RuntimeError, HTTPException) as error:
                failures.append(f"{url}: {getattr(error, 'reason', error)}")
        raise OSError("; ".join(failures))

    def _get(self, source: Source, url: str, folder: Path) -> None:
        utils, path = torchvision("utils"), folder / source.path
        utils.download_url(url, path.parent, path.name, source.md5)
        if source.path not in self.files:
            utils.extract_archive(path, folder, remove_finished=True)


def _move(source: Path, target: Path) -> None:
    """Moves all files to the same place below another folder unless they are there."""
    for path in filter(Path.is_file, sorted(source.rglob("*"))):
        place = target / path.relative_to(source)
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


@contextlib.contextmanager
def _considerately() -> Iterator[None]:
    """Draws no progress bar where nobody looks, and waits for no server without end."""
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        with contextlib.redirect_stderr(shown):
            yield
    finally:
        socket.setdefaulttimeout(before)
