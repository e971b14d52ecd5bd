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
    """

    store: Store
    data: str
    resources: Resources
    plugins: tuple[str, ...]

    @property
    def roomier(self) -> Site:
        """The same with twice the share of a GPU, up to all of it."""
        gpu = min(2 * self.resources.gpu, 1.0)
        return replace(self, resources=self.resources.model_copy(update={"gpu": gpu}))

    @property
    def unpacked(self) -> Site:
        """The same for one trial a worker: what killed one then takes no other with it."""
        return replace(self, resources=self.resources.model_copy(update={"pack": 1}))

    @property
    def execution(self) -> dict[str, Any]:
        """What a worker prepares itself by (`trainables.execution.prepare`)."""
        return {
            "threads": self.resources.cpu,
            "gpu": self.resources.gpu,
            "channels_last": self.resources.channels_last,
            "data": self.data,
        }
