"""A tracking URI that is a file."""

from __future__ import annotations

from pathlib import Path

_SQLITE = "sqlite:///"


def database_of(uri: str) -> Path | None:
    """The SQLite database that a tracking URI names; None where it names a server."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None
