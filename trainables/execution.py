"""Where and how trials are computed: infrastructure, none of which reaches an id."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")
# What is said of it without a class of its own: by the CPU's allocator, by CUDA and its libraries.
_SHORT = ("can't allocate memory", "CUDA error: out of memory", "ALLOC_FAILED")


def default_data() -> Path:
    """Where data sets are kept unless the user says otherwise; `~` is expanded where it is used."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache) / "robust-loss-study" / "data"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a trial is computed on.

    Attributes:
        device: of models and images.
        gpu: share of it, where it is a GPU.
        channels_last: convolutions' memory layout; about a quarter faster on the CPU.
        data: folder of the downloaded data sets, laid out as torchvision does.
        storage: address of the results, beside which data sets may lie; empty for none.
    """

    device: torch.device = CPU
    gpu: float = 0.0
    channels_last: bool = True
    data: Path = Path()
    storage: str = ""

    def record(self, packing: int = 1) -> dict[str, Any]:
        """What a result may depend on beside its configuration.

        Args:
            packing: the most models that a model's steps were shared with, itself among them;
                left out where it was trained alone.
        """
        cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if cuda else platform.machine()
        return {
            "device": f"{self.device.type} {name}",
            "threads": torch.get_num_threads(),
            "channels_last": self.channels_last,
            "torch": torch.__version__,
            "cuda": torch.version.cuda if cuda else None,
            "python": platform.python_version(),
            "host": platform.node(),
            **({"gpu": self.gpu} if cuda else {}),
            **({"packing": packing} if packing > 1 else {}),
        }


def machine_of(record: Mapping[str, Any]) -> str:
    """The kind of machine that measurements are of, by an execution record: device and threads.

    Processors of one architecture are one kind, however fast they are.
    """
    threads = f"{record['threads']} thread{'s' if record['threads'] != 1 else ''}"
    return str(f"{record['device']}, {threads}" + ", channels last" * record["channels_last"])


def entry_name(machine: str) -> str:
    """How what is known of a kind of machine is called in the store."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def cores() -> int:
    """The cores that this process may use: what `taskset` and a container's quota leave of all."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(min(allowed or 1, int(_quota())), 1)


def _quota() -> float:
    """The cores' worth of time that the control group may use; boundless without a limit."""
    with contextlib.suppress(OSError, ValueError):
        allowed, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(allowed) / int(period)
    return float(sys.maxsize)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, a GPU's or the machine's."""
    told = any(text in str(error) for text in _SHORT)
    return told or isinstance(error, torch.OutOfMemoryError | MemoryError)


def free_memory() -> None:
    """Gives back what is held for later use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def prepare(
    *,
    threads: int,
    gpu: float,
    channels_last: bool,
    data: str,
    memory: float | None = None,
    storage: str = "",
) -> Execution:
    """Sets this process up for trials, so that the same configuration gives the same bits.

    Args:
        threads: CPU threads.
        gpu: a trial's share of a GPU; 0 for none. Without a GPU the CPU is used.
        channels_last: see `Execution`.
        memory: share of the GPU's memory that tensors may take, less than `gpu` by what its
            libraries take; as much as `gpu` where it is not given.
        data: see `Execution`; `~` is the home folder of whoever runs the process.
        storage: see `Execution`.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # `precision: float32` is in the id
    torch.backends.cuda.matmul.allow_tf32 = False
    is_gpu = gpu > 0 and torch.cuda.is_available()
    if is_gpu:  # Ray counts shares and bounds none: a trial that takes more is to fail, not another
        torch.cuda.set_per_process_memory_fraction(gpu if memory is None else memory)
    return Execution(
        device=torch.device("cuda" if is_gpu else "cpu"),
        gpu=gpu if is_gpu else 0.0,
        channels_last=channels_last,
        data=Path(data).expanduser(),
        storage=storage,
    )
