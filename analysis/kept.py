"""A whole report, kept: of the same state, the same request and the same code it is the same."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from analysis.runs import Tracked

_SUMMARY = "summary"  # no file of a report is called so


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        page: The HTML page.
        table: The accuracy table's summary, as text for a terminal.
        missing: How many planned trials lack results.
        files: Every file, the page included.
    """

    page: Path
    table: str
    missing: int
    files: tuple[Path, ...]


def kept_report(
    tracked: Tracked, request: str, write: Callable[[], Report], folder: Path
) -> Report:
    """A report that was written before, else one that is written now.

    Args:
        tracked: Of which study, and in which state.
        request: All else that the report depends on but for our code.
        write: Writes it.
        folder: Where its files go.
    """
    wanted = hashlib.sha256(json.dumps([tracked.plan, tracked.study_file, request]).encode())
    packed = tracked.client.computed(f"report {wanted.hexdigest()}", lambda: _packed(write()))
    return _unpacked(packed, folder)


def _packed(report: Report) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in report.files:
            archive.write(path, path.name)
        summary = {"page": report.page.name, "table": report.table, "missing": report.missing}
        archive.writestr(_SUMMARY, json.dumps(summary))
    return file.getvalue()


def _unpacked(packed: bytes, folder: Path) -> Report:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        summary = json.loads(archive.read(_SUMMARY))
        files = [folder / name for name in archive.namelist() if name != _SUMMARY]
        for file in files:
            file.write_bytes(archive.read(file.name))
    return Report(folder / summary["page"], summary["table"], summary["missing"], tuple(files))
