"""Where and how a study's trials run: infrastructure, none of which reaches an id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from study.spec import Resources
from trainables.store import Store


@dataclass(frozen=True)
class Site:
    """What every executor needs beside the trials.

    Attributes:
        store: where results are kept.
        data: folder of the downloaded data sets, on each machine.
        resources: what a trial takes.
        plugins: packages of components that workers import first.
        more: times as much of a GPU as trials take by their study: memory was short.
        witness: a plain file of the store that is there while they run; workers that do not see
            it do not see the driver's store.
    """

    store: Store
    data: str
    resources: Resources
    plugins: tuple[str, ...]
    more: int = 1
    witness: str = ""

    @property
    def roomier(self) -> Site:
        """The same with twice the share of a GPU, up to all of it."""
        return replace(self, more=2 * self.more)

    @property
    def alone(self) -> dict[str, Any]:
        """What this process prepares itself by, for one trial after another.

        See `trainables.execution.prepare`.
        """
        gpu = self.resources.gpu
        share = 1.0 if gpu == "auto" else min(self.more * gpu, 1.0)
        return self._execution(share, memory=1.0)

    @property
    def unpacked(self) -> Site:
        """The same for one trial a worker: what killed one then takes no other with it."""
        return replace(self, resources=self.resources.model_copy(update={"pack": 1}))

    def told(self, gpu: float, memory: float) -> dict[str, Any]:
        """What a worker is told of the site, see `trainables.trainable`.

        Args:
            gpu: its share of a GPU.
            memory: its tensors' share of the GPU's memory.
        """
        return {
            "storage": self.store.url,
            "witness": self.witness,
            "execution": self._execution(gpu, memory),
            "plugins": self.plugins,
        }

    def _execution(self, gpu: float, memory: float) -> dict[str, Any]:
        return {
            "threads": self.resources.cpu,
            "gpu": gpu,
            "memory": memory,
            "channels_last": self.resources.channels_last,
            "data": self.data,
        }
