"""What the set-up of a cluster's machines said before it failed.

Neither `ray status` nor the autoscaler's events tell it: the output of each command that the
autoscaler runs over ssh is its own, among the logs on the head, where studies are run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

_LINES = 12  # the last of what a set-up said
_RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\t")  # a line of Ray's own
_COMMAND_ENDS = "\x1b[22m\x1b[26m`"  # of Ray's echo of a command, which may have many lines
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NODE = re.compile(r"NodeUpdater: (\S+): ")


class SetUps:
    """Reads the autoscaler's output on from where it has stopped.

    Args:
        logs: folder of Ray's logs on this machine; on any but the head there is no such output.
    """

    def __init__(self, logs: Path) -> None:
        self._file = logs / "monitor.out"
        self._at = self._file.stat().st_size if self._file.exists() else 0
        self._said: dict[str, list[str]] = defaultdict(list)  # by machine
        self._node = "?"

    def failed(self) -> list[tuple[str, str]]:
        """Each machine whose set-up has failed since it was last asked, and what was said last."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            if file.seek(0, 2) < self._at:
                self._at = 0  # rotated
            file.seek(self._at)
            whole, _, _ = file.read().rpartition(b"\n")  # a line that is being written is left
        self._at += len(whole) + 1 if whole else 0
        lines = whole.decode(errors="replace").splitlines()
        return [(self._node, self._last_words()) for line in lines if self._hear(line)]

    def _hear(self, line: str) -> bool:
        """Takes in a line; whether it says that a set-up has failed."""
        if _RECORD.match(line):
            if match := _NODE.search(line):
                self._node = match[1]
            if "update-failed" in line:
                return True
        elif line.strip():
            self._said[self._node].append(_COLOURS.sub("", line.rstrip()))
        if line.endswith(_COMMAND_ENDS):
            self._said[self._node] = []
        return False

    def _last_words(self) -> str:
        return "\n".join(self._said.pop(self._node, [])[-_LINES:])
