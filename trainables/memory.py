"""What training and attacks take of a device's memory: measured, on batches of noise.

Whatever the images show, a batch takes as much. On a GPU it is what torch's allocator held at
most; on the CPU, where a share of memory is nobody's to give, what the process did.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from trainables.config import Cell, ModelConfig, TrialConfig
from trainables.datasets.base import BATCH
from trainables.errors import NonFiniteLoss
from trainables.evaluation import measure
from trainables.execution import Execution, entry_name, free_memory, is_out_of_memory, machine_of
from trainables.probe import as_seen, noise, parts_of, shortened
from trainables.store import Store
from trainables.training import Trainer, new_classifier

BATCHES = 2  # of a training: the first makes the optimiser's state
FILE = "memory.json"


@dataclass(frozen=True)
class Memory:
    """Of a kind of device, in bytes.

    Attributes:
        total: all that there is.
        fixed: what a process takes before any model: libraries, on a GPU the context and, where
            others are on it too, theirs.
        own: what work of each kind adds at most, the data set apart, by kind.
    """

    total: int
    fixed: int
    own: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data, which `Memory(**data)` reverses."""
        return asdict(self)


def measured(
    wanted: Mapping[str, TrialConfig], store: Store, execution: Execution
) -> tuple[Memory, dict[str, str]]:
    """What kinds of work take on this device, measured where the store does not know it.

    Args:
        wanted: an example of each kind: a trial with the one cell that is run, or with none for
            its training.
        store: keeps `memory/<machine>`, written after every kind.
        execution: of this machine; nothing else may be on its device meanwhile.

    Returns:
        The kinds that could be measured, and of the others why not. What does not fit into the
        device's memory takes all of it.
    """
    entry = _entry(execution)
    gauge = _Gauge(execution.device)
    known = replace(_read(store, entry) or Memory(0, gauge.fixed), total=gauge.total)
    fixed, failed = 0, dict[str, str]()
    for kind, example in wanted.items():
        # What once took all may have had a neighbour.
        if known.own.get(kind, gauge.total) < gauge.total:
            continue
        try:
            own = gauge.peak(lambda example=example: _work(example, execution))  # type: ignore[misc]
        except Exception as error:
            if not is_out_of_memory(error):  # the trial itself will say it again
                failed[kind] = f"{type(error).__name__}: {error}"
                continue
            own = gauge.total
        fixed = max(fixed, gauge.fixed)
        known = replace(known, fixed=fixed, own={**known.own, kind: own})
        store.write_json(entry, FILE, known.as_json())
    return known, failed


def kept(store: Store, execution: Execution) -> Memory | None:
    """What the store knows of this kind of device; None for nothing."""
    return _read(store, _entry(execution))


def _entry(execution: Execution) -> str:
    return f"memory/{entry_name(machine_of(execution.record()))}"


def _read(store: Store, entry: str) -> Memory | None:
    found = store.recall(entry, FILE)
    return Memory(**found) if found else None


def _work(example: TrialConfig, execution: Execution) -> None:
    """As much at a time as a trial does, and little of it."""
    if example.cells:
        _attack(example.model, example.cells[0], execution)
    else:
        _train(example.model, execution)


def _train(config: ModelConfig, execution: Execution) -> None:
    regime, _ = shortened(config.regime)
    images = noise(config, BATCHES * config.training.batch_size, BATCH, execution)
    with contextlib.suppress(NonFiniteLoss):  # on noise; it has taken its memory by then
        Trainer(replace(config, regime=regime), images, execution).epoch()


def _attack(config: ModelConfig, cell: Cell, execution: Execution) -> None:
    classifier = new_classifier(config, execution).eval()
    splits = as_seen(noise(config, 1, BATCH, execution).test, classifier)
    for short, _ in parts_of(cell, BATCH):
        models = {source: new_classifier(config, execution).eval() for source in short.sources}
        measure(classifier, [short], splits, models)


class _Gauge:
    """Reads how much of a device's memory this process takes, and others where nobody can tell.

    Attributes:
        total: all that the device has.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_gpu = device.type == "cuda"
        if self.is_gpu:
            torch.ones(1, device=device)  # the context
            self.total = torch.cuda.mem_get_info(device)[1]
        else:
            self.total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._before = _resident("VmRSS")

    @property
    def fixed(self) -> int:
        """What it takes beside what work adds; on a GPU libraries are loaded as they are used."""
        if not self.is_gpu:
            return self._before
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free - torch.cuda.memory_reserved(self.device)

    def peak(self, work: Callable[[], None]) -> int:
        """What work takes at most beyond `fixed`."""
        free_memory()
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
            work()
            return torch.cuda.max_memory_reserved(self.device)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the largest
        work()
        return max(_resident("VmHWM") - self._before, 0)


def _resident(line: str) -> int:
    """What this process takes of the machine's memory (`VmRSS`), or took at most (`VmHWM`)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{line}:")[2].split()[0])
