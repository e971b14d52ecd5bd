"""Where results are, unless the user says otherwise: below the working folder."""

from __future__ import annotations

from pathlib import Path

RESULTS = Path("results")
STORAGE = str(RESULTS / "store")


def tracking_of(uri: str | None) -> str:
    """The tracking URI; by default a database in the results' folder."""
    return uri or f"sqlite:///{(RESULTS / 'mlflow.db').absolute()}"
