"""What becomes of a cluster's machines, told while a study runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.experimental.internal_kv import _internal_kv_get

from study.setups import SetUps

LOOK_SECONDS = 5.0  # between two looks
LONG = 60.0  # seconds without any work, which are worth a word


class News:
    """Looks at the machines from time to time."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self.idle()
        self._up = self._look()
        self._set_ups = SetUps(_logs())
        self._told = set[str]()  # why machines could not be had

    def idle(self) -> None:
        """There is work, and nothing is taken up yet."""
        self._idle_since = time.monotonic()

    def busy(self) -> None:
        """A machine has taken something up."""
        self._idle_since = float("inf")

    def since_last(self, every: float = LOOK_SECONDS) -> Iterator[str]:
        """What has changed since it last looked; nothing where that is less than `every` ago."""
        now = time.monotonic()
        if now - self._looked < every:
            return
        before, self._up, self._looked = self._up, self._look(), now
        left = f"there are {len(self._up)}" if len(self._up) != 1 else "there is 1"
        for node in before.keys() - self._up.keys():
            yield f"machine {before[node]} is gone; {left}"
        for node in self._up.keys() - before.keys():
            yield f"machine {self._up[node]} has come; {left}"
        for host, said in self._set_ups.failed():
            yield f"machine {host} could not be set up:\n{indent(said, '  ')}"
        for why in _refused():
            if why not in self._told:
                self._told.add(why)
                yield why
        if now - self._idle_since > LONG:
            self._idle_since = now
            yield f"nothing could be started for {LONG:.0f} s: {left}, and all wait for more"

    @staticmethod
    def _look() -> dict[str, str]:
        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def _refused() -> list[str]:
    """Why Ray's autoscaler cannot start machines, such as a quota, by kind of machine."""
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    summary = (status.get("autoscaler_report") or {}).get("node_availability_summary") or {}
    found = []
    for kind, record in summary.get("node_availabilities", {}).items():
        if why := record.get("unavailable_node_information"):
            found.append(f"no machine {kind!r}: {why['category']}, {why['description']}")
    return found


def _logs() -> Path:
    """Where Ray's logs are on this machine."""
    node: Any = ray._private.worker._global_node
    return Path(node.get_logs_dir_path())
