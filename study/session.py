"""A Ray for a run of a study: what it is told, and what workers find around them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from typing import Any

import ray

from study.news import News
from study.spec import Resources
from trainables.execution import cores

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files nobody reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # today's warning, tomorrow's default
}


def worker_environment(resources: Resources) -> dict[str, str]:
    """What workers find in their environment before they import torch, on whatever machine.

    Ray hands it to them: the driver's own environment reaches none of a Ray that runs already.
    """
    threads = str(resources.cpu)
    return {
        # Spinning threads starve the neighbour.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # Bound, every worker's threads would lie on the same first cores.
        "OMP_PROC_BIND": "false",  # GOMP_CPU_AFFINITY counts for nothing then
        "KMP_AFFINITY": "disabled",
    }


@contextlib.contextmanager
def session(resources: Resources) -> Iterator[News]:
    """A Ray to run on, joined where `RAY_ADDRESS` names it, else started here and ended after.

    One that is started here has the cores that this process may use, not all of the machine.

    It is entered in an empty folder: Ray puts the driver's working folder on the workers'
    `sys.path`, where a user's own `analysis/` would shadow ours.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "PYTHONPATH" in os.environ:  # where a user's plugins may lie: workers start elsewhere
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, entries)))
    with tempfile.TemporaryDirectory(prefix="study-cwd-") as folder:
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "runtime_env": {"env_vars": worker_environment(resources)},
        }
        if "RAY_ADDRESS" not in os.environ:
            # `local`: else Ray joins one that somebody has left running on this machine.
            options |= {"address": "local", "include_dashboard": False, "num_cpus": cores()}
        on_term = signal.getsignal(signal.SIGTERM)
        try:
            with contextlib.chdir(folder):
                ray.init(**options)
            signal.signal(signal.SIGTERM, on_term)  # Ray's own would end us at once
            # Whatever `log_to_driver` says, a page for each machine that dies; we say it in a line.
            ray._private.worker.print_to_stdstream = lambda *_, **__: None
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told by us
            yield News()
        finally:
            ray.shutdown()
