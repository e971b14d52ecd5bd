"""Workers that have died: by themselves, or with their machine, which says nothing of a trial."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import ray
from ray._private import state  # the public ways ask a dashboard, which need not run
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError

# A machine that is gone is noticed when it has refused five looks, 3 s apart.
NOTICED = 25.0


@dataclass
class Death:
    """A worker's death.

    Attributes:
        trial_ids: what it worked on.
        error: as Ray has it.
        at: when, by the monotonic clock.
        node: where it ran; empty where it never did, or Ray does not know it.
    """

    trial_ids: list[str]
    error: BaseException | None
    at: float = field(default_factory=time.monotonic)
    node: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.error, RayActorError) and self.error.actor_id:
            actor = state.actors(self.error.actor_id)
            self.node = actor.get("Address", {}).get("NodeID") or ""

    def is_own(self, up: set[str]) -> bool:
        """Whether it is nobody's but its own, as far as can be told.

        Args:
            up: ids of the machines that stand.
        """
        error = self.error
        if isinstance(error, ActorUnavailableError | NodeDiedError):  # out of reach, or gone
            return False
        if isinstance(error, RayActorError) and not error.actor_init_failed:
            return not error.preempted and (not self.node or self.node in up)
        return True  # an error of what it ran, or of how it is set up


def with_their_machine(deaths: Iterable[Death]) -> list[Death]:
    """Those workers that died because their machine did, or was out of reach.

    Waits until Ray must have noticed, where a worker may have died just before its machine: this
    one stands.
    """
    deaths, here = list(deaths), ray.get_runtime_context().get_node_id()
    while True:
        up = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        own = [one for one in deaths if one.is_own(up)]
        latest = max((one.at for one in own if one.node not in ("", here)), default=-NOTICED)
        if time.monotonic() - latest > NOTICED:
            return [one for one in deaths if one not in own]
        time.sleep(1.0)
