"""The machines of a Ray cluster: what they have, and whether they see the results."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.errors import NotShared
from trainables.store import Store

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml").expanduser()  # JSON, and so YAML
SET_UP_SECONDS = 600.0  # that packages of a machine may take to be installed


def nodes() -> list[dict[str, float]]:
    """What each machine that is up has, by Ray's names of resources."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def nodes_to_come() -> list[dict[str, float]]:
    """What each machine has that Ray's autoscaler may start; none without an autoscaler."""
    return [
        dict(kind.get("resources") or {})
        for kind in _kinds().values()
        for _ in range(kind.get("max_workers", 0))
    ]


def _kinds() -> dict[str, dict[str, Any]]:
    """The kinds of machines of a cluster that may be started, its head's only if all are alike.

    Ray tells it nobody; `ray up` leaves on the head what its autoscaler goes by.
    """
    if "RAY_ADDRESS" not in os.environ or not BOOTSTRAP.exists():
        return {}
    config = json.loads(BOOTSTRAP.read_text())
    kinds: dict[str, dict[str, Any]] = dict(config["available_node_types"])
    if len(kinds) > 1:
        del kinds[config["head_node_type"]]
    return kinds


def await_workers(say: Callable[[str], None]) -> None:
    """Waits for the workers that a cluster always has, if `ray up` has only just started it.

    Whoever did not wait would see a cluster without them, or without a GPU.

    Args:
        say: hears once that it is waited for, and what happens meanwhile.
    """
    least = sum(kind.get("min_workers", 0) for kind in _kinds().values())
    said = False
    while (missing := least + 1 - len(_ever_up())) > 0:
        if _age() > SET_UP_SECONDS:
            return  # whoever is missing now is missed
        if not said:
            say(f"waiting for {missing} machines that `ray up` is setting up")
            said = True
        time.sleep(1.0)


def _age() -> float:
    """Seconds since this machine's Ray was started."""
    node: Any = ray._private.worker._global_node
    started = "_".join(node.session_name.split("_")[1:3])
    return (datetime.now() - datetime.strptime(started, "%Y-%m-%d_%H-%M-%S")).total_seconds()


def _ever_up() -> set[str]:
    """The addresses of machines that are up, or were: who has died since is not waited for."""
    return {node["NodeManagerAddress"] for node in ray.nodes()}


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
