"""What a shell offers after TAB: all that may stand there, of which typer keeps what fits.

It answers at once: nothing here may import torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer

import trainables
from study import files
from trainables.errors import StudyError

_COMPONENTS = Path(trainables.__file__).parent


def studies(incomplete: str) -> Iterator[str]:
    """Presets, and the study files and folders that a path may go on with."""
    yield from files.presets()
    folder, _, start = incomplete.rpartition("/")
    for path in sorted(Path(folder or ("/" if incomplete.startswith("/") else ".")).glob("*")):
        if start or not path.name.startswith("."):
            whole = f"{folder}/{path.name}" if "/" in incomplete else path.name
            if path.is_dir():
                yield f"{whole}/"
            elif path.suffix in (".yaml", ".yml"):
                yield whole


def scales(ctx: typer.Context) -> list[str]:
    """The scales of the study that was named before; none of one with mistakes."""
    # An option that still lacks its value leaves the arguments unread.
    named = [ctx.params.get("source"), *ctx.args]
    try:
        return files.scales(next(filter(None, named)))
    except (StopIteration, StudyError, TypeError, AttributeError):
        return []


def presets() -> list[str]:
    """Presets."""
    return list(files.presets())


def datasets() -> list[str]:
    """Our data sets."""
    return _registered("datasets/*.py")


def components() -> list[str]:
    """All of our components."""
    return _registered("*/*.py")


def _registered(pattern: str) -> list[str]:
    """What source files register, read and not run: that would import torch."""
    texts = (path.read_text(encoding="utf-8") for path in _COMPONENTS.glob(pattern))
    return sorted({n for text in texts for n in re.findall(r'^@component\("(\w+)"', text, re.M)})
