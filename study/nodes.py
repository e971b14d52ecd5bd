"""The machines of a Ray cluster: what they have, whether they see the results, which have died."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

import ray
from ray._private import state  # the public ways ask a dashboard, which need not run
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.setups import SetUps
from trainables.errors import NotShared
from trainables.store import Store

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml").expanduser()  # JSON, and so YAML

# A machine that is gone is noticed when it has refused five looks, 3 s apart.
NOTICED = 25.0
LOOK_SECONDS = 5.0  # between two looks at who is up
_ACTOR = re.compile(r"actor_id: ([0-9a-f]+)")
_OUT_OF_REACH = "ActorUnavailableError"  # a worker that may go on, unheard


def nodes() -> list[dict[str, float]]:
    """What each machine that is up has, by Ray's names of resources."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def nodes_to_come() -> list[dict[str, float]]:
    """What each machine has that Ray's autoscaler may start; none without an autoscaler.

    Ray tells it nobody; `ray up` leaves on the head what its autoscaler goes by.
    """
    if "RAY_ADDRESS" not in os.environ or not _BOOTSTRAP.exists():
        return []
    config = json.loads(_BOOTSTRAP.read_text())
    kinds = {
        name: kind
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    return [
        dict(kind["resources"])
        for kind in kinds.values()
        for _ in range(kind.get("max_workers", config["max_workers"]))
    ]


def most(resource: str) -> float:
    """How much of a resource there is, or will be when the cluster has grown."""
    both = nodes(), nodes_to_come()
    return max(sum(have.get(resource, 0.0) for have in there) for there in both)


def require_shared(store: Store) -> None:
    """Lets each other machine that is up look for a file that this one writes into the store.

    Raises:
        NotShared: one does not see it.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return
    path, told = f"{uuid.uuid4().hex}.tmp", uuid.uuid4().bytes
    store.put(path, told)
    try:
        asked = [_look_from(node["NodeID"], store.url, path) for node in others]
        for node, answer in zip(others, asked, strict=True):
            try:
                seen = ray.get(answer)
            except ray.exceptions.RayError:  # it has died meanwhile; whoever works there is asked
                continue
            if seen != told:
                raise NotShared.by(node["NodeManagerAddress"], store.url, str(seen))
    finally:
        store.delete(path)


def _look_from(node: str, url: str, path: str) -> ray.ObjectRef[bytes | str]:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    look = ray.remote(_look).options(num_cpus=0, scheduling_strategy=there)
    answer: ray.ObjectRef[bytes | str] = look.remote(url, path)
    return answer


def _look(url: str, path: str) -> bytes | str:
    """What a file of the store holds to this machine, or why it cannot be read."""
    try:
        return Store(url).get(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


class Watch:
    """Looks at the machines from time to time while a study runs."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._up = self._look()
        self._set_ups = SetUps(_logs())

    def news(self) -> Iterator[str]:
        """What has changed since it was last asked, or nothing where that was just now."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        before, self._up, self._looked = self._up, self._look(), time.monotonic()
        left = f"there are {len(self._up)}" if len(self._up) != 1 else "there is 1"
        for node in before.keys() - self._up.keys():
            yield f"machine {before[node]} is gone; {left}"
        for node in self._up.keys() - before.keys():
            yield f"machine {self._up[node]} has come; {left}"
        for host, said in self._set_ups.failed():
            yield f"machine {host} could not be set up:\n{indent(said, '  ')}"

    @staticmethod
    def _look() -> dict[str, str]:
        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def _logs() -> Path:
    """Where Ray's logs are on this machine."""
    node: Any = ray._private.worker._global_node
    return Path(node.get_logs_dir_path())


@dataclass
class Death:
    """A worker's death.

    Attributes:
        trial_ids: what it worked on.
        said: what Ray says of it.
        at: when, by the monotonic clock.
        node: where it ran; None where it never did, or Ray does not know it.
    """

    trial_ids: list[str]
    said: str
    at: float = field(default_factory=time.monotonic)
    node: str | None = None

    def __post_init__(self) -> None:
        actor = _ACTOR.search(self.said)
        found = state.actors(actor[1]) if actor else {}
        self.node = found.get("Address", {}).get("NodeID") or None


def with_their_machine(deaths: Iterable[Death]) -> list[Death]:
    """Those workers that died because their machine did, or was out of reach.

    Waits until Ray must have noticed, where a worker may have died just before its machine.
    """
    deaths = list(deaths)
    while True:
        up = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        own = [one for one in deaths if one.node in up and _OUT_OF_REACH not in one.said]
        latest = max((one.at for one in own), default=-NOTICED)
        if time.monotonic() - latest > NOTICED:
            return [one for one in deaths if one not in own]
        time.sleep(1.0)
