"""Figures and their data as files; what was drawn before of equal data is copied."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.cache import Cache
from analysis.figures.style import style
from analysis.parallel import parallel

# A date would make every file another one.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


@dataclass(frozen=True)
class Drawing:
    """A figure that need not be drawn where a cache has it.

    Attributes:
        draw: Draws it of `data`, and of nothing else.
        data: Its arguments: frames, arrays, our own dataclasses, and whatever has a `repr` that
            tells all of it.
    """

    draw: Callable[..., Figure]
    data: tuple[Any, ...]

    @cached_property
    def key(self) -> str:
        """Names what it shows: drawings of equal keys are equal, as long as our code is."""
        told = f"{self.draw.__module__}.{self.draw.__qualname__}{_told(self.data)}"
        return hashlib.sha256(told.encode()).hexdigest()

    def files(self, kinds: Sequence[str]) -> list[bytes]:
        """It as files of these kinds, drawn once for all of them."""
        figure = _settled(self.draw(*self.data))
        return [_bytes(figure, kind) for kind in kinds]


class Album:
    """The files of a report; its figures are drawn all together, in several processes.

    Args:
        folder: Where the files go.
        cache: Where figures are kept.

    Attributes:
        files: What was added, in that order; figures are there once they are drawn.
    """

    def __init__(self, folder: Path, cache: Cache) -> None:
        self.folder = folder
        self.cache = cache
        self.files: list[Path] = []
        self._wanted: dict[str, tuple[Drawing, str]] = {}  # by the cache's key, each kind alone
        self._paths: dict[Path, str] = {}
        self._drawn: dict[str, bytes] = {}

    def add_text(self, name: str, text: str) -> None:
        """Writes a file."""
        (self.folder / name).write_text(text, encoding="utf-8")
        self.files.append(self.folder / name)

    def add_data(self, stem: str, frame: pd.DataFrame) -> None:
        """Writes what a figure or table shows as CSV."""
        self.add_text(f"{stem}.csv", frame.to_csv(index=False))

    def add_figure(self, stem: str, drawing: Drawing) -> Drawing:
        """Adds a figure as PNG, PDF and SVG."""
        for kind in _METADATA:
            path = self.folder / f"{stem}.{kind}"
            self._paths[path] = self._want(drawing, kind)
            self.files.append(path)
        return drawing

    def add_inlined(self, drawing: Drawing) -> Drawing:
        """Adds a figure that the page alone shows."""
        self._want(drawing, "svg")
        return drawing

    def draw(self) -> None:
        """Draws what no cache has, and writes all of it."""
        self._drawn = self.cache.computed_together(list(self._wanted), self._draw)
        for path, key in self._paths.items():
            path.write_bytes(self._drawn[key])

    def inlined(self, drawing: Drawing) -> str:
        """A figure that is drawn, as a data URI, so that the page needs no other file."""
        svg = self._drawn[f"{drawing.key} svg"]
        return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")

    def _want(self, drawing: Drawing, kind: str) -> str:
        key = f"{drawing.key} {kind}"
        self._wanted[key] = drawing, kind
        return key

    def _draw(self, missing: list[str]) -> dict[str, bytes]:
        drawings, kinds = dict[str, Drawing](), dict[str, list[str]]()
        for key in missing:
            drawing, kind = self._wanted[key]
            drawings[drawing.key] = drawing
            kinds.setdefault(drawing.key, []).append(kind)
        tasks = [(drawing, kinds[key]) for key, drawing in drawings.items()]
        made = parallel(_files, tasks)
        return {
            f"{drawing.key} {kind}": data
            for (drawing, wanted), files in zip(tasks, made, strict=True)
            for kind, data in zip(wanted, files, strict=True)
        }


def _files(task: tuple[Drawing, Sequence[str]]) -> list[bytes]:
    drawing, kinds = task
    return drawing.files(kinds)


def _settled(figure: Figure) -> Figure:
    """The figure once its parts have their places, which each kind of file would seek anew."""
    with style():
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _bytes(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    with style():
        figure.savefig(file, format=kind, metadata=_METADATA[kind])
    return file.getvalue()


def _told(value: Any) -> str:
    """All of a value, so that other values have other texts."""
    if isinstance(value, pd.DataFrame):
        rows = pd.util.hash_pandas_object(value).to_numpy()
        return f"{list(value.columns)}{_told(rows)}"
    if isinstance(value, np.ndarray):
        data = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"{value.dtype}{value.shape}{data}"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key!r}:{_told(found)}' for key, found in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_told, value))}]"
    if is_dataclass(value) and not isinstance(value, type):
        told = ((found.name, getattr(value, found.name)) for found in fields(value))
        return f"{type(value).__name__}{_told(dict(told))}"
    return repr(value)
