"""Figures and their data as files; what was drawn before of equal data is copied."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.cache import Cache
from analysis.figures.style import style

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
    def figure(self) -> Figure:
        """It, drawn once for all kinds of files."""
        return _settled(self.draw(*self.data))

    @cached_property
    def key(self) -> str:
        """Names what it shows: drawings of equal keys are equal, as long as our code is."""
        told = f"{self.draw.__module__}.{self.draw.__qualname__}{_told(self.data)}"
        return hashlib.sha256(told.encode()).hexdigest()


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Writes a figure as PNG, PDF and SVG; equal figures give equal bytes."""
    paths = [folder / f"{stem}.{kind}" for kind in _METADATA]
    figure = _settled(figure)
    for path in paths:
        path.write_bytes(_bytes(figure, path.suffix[1:]))
    return paths


def save_kept(cache: Cache, drawing: Drawing, folder: Path, stem: str) -> list[Path]:
    """The same of a drawing, from the cache if that has it."""
    paths = [folder / f"{stem}.{kind}" for kind in _METADATA]
    for path in paths:
        path.write_bytes(_kept(cache, drawing, path.suffix[1:]))
    return paths


def save_data(frame: pd.DataFrame, folder: Path, stem: str) -> Path:
    """Writes what a figure or table shows as CSV."""
    path = folder / f"{stem}.csv"
    frame.to_csv(path, index=False)
    return path


def inlined(path: Path) -> str:
    """An SVG as a data URI, so that the page needs no other file."""
    return _data_uri(path.read_bytes())


def inlined_kept(cache: Cache, drawing: Drawing) -> str:
    """The same of a drawing that has no file of its own."""
    return _data_uri(_kept(cache, drawing, "svg"))


def _kept(cache: Cache, drawing: Drawing, kind: str) -> bytes:
    return cache.computed(f"{drawing.key} {kind}", lambda: _bytes(drawing.figure, kind))


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


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


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
