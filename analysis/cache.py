"""What took long to fetch, kept between reports: named by its content, checked, bounded.

Keys name states that never change, so nothing here can be out of date; deleting the folder costs
time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache as once
from importlib.metadata import version
from pathlib import Path

from trainables import names

LIMIT = 2**30  # bytes of all entries: dozens of states of 10,000 runs
# What results may depend on beside our own code.
LIBRARIES = (
    *("jinja2", "matplotlib", "mlflow", "numpy", "optuna", "pandas", "plotly", "scikit-learn"),
    "scipy",
)
_CHECKSUM = hashlib.sha256().digest_size


def default_folder() -> Path:
    """`$XDG_CACHE_HOME`, else `~/.cache`, and our own folders below it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "robust-loss-study" / "analysis"


@dataclass(frozen=True)
class Cache:
    """A folder of entries, one file each; several processes may use it at once.

    Attributes:
        folder: Where they are; made when the first is kept.
        limit: Bytes of all of them; what was used longest ago goes first.
        fresh: Whether what is there already is passed over, and replaced.
    """

    folder: Path = field(default_factory=default_folder)
    limit: int = LIMIT
    fresh: bool = False

    def get(self, key: str) -> bytes | None:
        """An entry; None where there is none. A damaged one is thrown away."""
        if self.fresh:
            return None
        path = self._path(key)
        with contextlib.suppress(OSError):
            found = path.read_bytes()
            checksum, data = found[:_CHECKSUM], found[_CHECKSUM:]
            if hashlib.sha256(data).digest() == checksum:
                os.utime(path)
                return data
            path.unlink()
        return None

    def put(self, key: str, data: bytes) -> None:
        """Keeps an entry, whole or not at all; where nothing can be written, not at all."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                os.replace(name, self._path(key))
            finally:
                Path(name).unlink(missing_ok=True)
            self._evict()

    def computed(self, key: str, compute: Callable[[], bytes]) -> bytes:
        """What this code has computed of what the key names, now or before."""
        return self.computed_together([key], lambda _: {key: compute()})[key]

    def computed_together(
        self, keys: Sequence[str], compute: Callable[[list[str]], Mapping[str, bytes]]
    ) -> dict[str, bytes]:
        """The same of several keys: those that are not here are computed in one go."""
        code = _code()
        found = {key: self.get(f"{code} {key}") for key in keys}
        missing = [key for key, data in found.items() if data is None]
        made = compute(missing) if missing else {}
        for key, data in made.items():
            self.put(f"{code} {key}", data)
        return {key: made[key] if data is None else data for key, data in found.items()}

    def _path(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode()).hexdigest()

    def _evict(self) -> None:
        """Deletes what was used longest ago until the rest fits; what a dead writer left, too."""
        used = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # another process deletes as well
                found = entry.stat()
                used.append((found.st_mtime_ns, found.st_size, entry.path))
        total = sum(size for _, size, _ in used)
        for _, size, path in sorted(used):
            if total <= self.limit:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


@once
def _code() -> str:
    """Names what computes: our sources, templates and data, and the libraries."""
    ours = sorted([*Path(__file__).parent.rglob("*"), *Path(names.__file__).parent.rglob("*")])
    texts = [file for file in ours if file.is_file() and file.suffix != ".pyc"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in texts))
    return " ".join([digest.hexdigest(), *map(version, LIBRARIES)])
