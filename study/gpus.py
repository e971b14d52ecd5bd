"""The GPUs of a Ray cluster, and what its workers find out about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import ray

from study.cost import told
from study.listener import Listener
from study.news import LOOK_SECONDS, News
from study.nodes import nodes, nodes_to_come
from study.planned import PlannedTrial
from study.shares import Shares
from study.site import Site
from trainables.memory import Memory
from trainables.trainable import memory_of

_KIND = "accelerator_type:"  # of resource by which Ray names a node's GPUs
_A_LITTLE = 0.001  # of one, which is there to be asked for


def gpus(cores: int) -> set[str | None]:
    """The kinds of GPU that there are, as Ray calls them; None for one that it has no name for.

    Those that are up; where none is, those that the autoscaler may start.

    Args:
        cores: that a trial needs beside one: others it never runs on.
    """

    def fit(there: list[dict[str, float]]) -> list[dict[str, float]]:
        return [have for have in there if have.get("GPU") and have.get("CPU", 0) >= cores]

    unnamed: list[str | None] = [None]
    found = fit(nodes()) or fit(nodes_to_come())
    named = ([name for name in have if name.startswith(_KIND)] for have in found)
    return {name for names in named for name in names or unnamed}


def shares_of(trials: Sequence[PlannedTrial], site: Site, listener: Listener, news: News) -> Shares:
    """What share of a GPU trials take: none where there is none.

    What is not known of the memory that they need is measured, on each kind of GPU there is, by
    a worker that has one for itself.
    """
    kinds = gpus(site.resources.cpu)
    shares = Shares(site.resources.gpu if kinds else 0.0, site.more)
    wanted = shares.examples(trials)
    if not wanted:
        return shares
    listener.say(f"asking how much of a GPU's memory {len(wanted)} kinds of work take")
    job = {
        "wanted": {kind: example.dump() for kind, example in wanted.items()},
        **site.told(1.0, 1.0),
    }
    measure = ray.remote(num_cpus=site.resources.cpu, num_gpus=1, max_calls=1)(memory_of)
    asked = [
        measure.options(resources={name: _A_LITTLE} if name else None).remote(job) for name in kinds
    ]
    left = asked
    while left:  # a machine with a GPU may have to be started first
        for line in news.since_last():
            listener.say(line)
        _, left = ray.wait(left, timeout=LOOK_SECONDS)
    shares.learn([_answer(one, listener) for one in asked], trials)
    return shares


def _answer(asked: ray.ObjectRef[Any], listener: Listener) -> Memory:
    """What a worker has measured; of what it could not measure a trial takes a whole GPU."""
    try:
        memory, failed = ray.get(asked)
    except ray.exceptions.RayError as error:
        listener.say(f"cannot measure how much of a GPU's memory trials take: {error}")
        return Memory(total=0, fixed=0)
    for kind, reason in failed.items():
        listener.say(f"cannot measure {told(kind)}: {reason}")
    return cast(Memory, memory)
