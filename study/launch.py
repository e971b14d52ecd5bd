"""The trials on Ray Tune: a grid that we enumerated, reused actors, no state of Tune's kept.

Tune schedules, the store remembers: a restarted trial finds its progress there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from study.listener import Listener
from study.plan import PlannedTrial
from study.site import Site
from study.spec import Resources
from trainables.errors import NoRoom, StudyError
from trainables.execution import cores
from trainables.trainable import StudyTrainable
from trainables.trial import Report

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files nobody reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # today's warning, tomorrow's default
}


def run_on_ray(trials: Sequence[PlannedTrial], site: Site, listener: Listener) -> None:
    """Runs trials until each has reported its end or lost its worker.

    Tune retries none: it would only those that had reported already, and the driver's loop
    takes up all.

    A Ray that runs already is used where `RAY_ADDRESS` names it, else one is started here
    and ended after.
    """
    with _session(site.resources), tempfile.TemporaryDirectory(prefix="study-tune-") as folder:
        _check_room(site.resources)
        callback = _Callback(listener)
        share = {"cpu": site.resources.cpu, "gpu": _gpu_share(site.resources)}
        tuner = tune.Tuner(
            tune.with_resources(StudyTrainable, share),
            param_space={"job": tune.grid_search([_job(trial, site) for trial in trials])},
            tune_config=tune.TuneConfig(
                reuse_actors=True, trial_name_creator=_id, trial_dirname_creator=_id
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[callback],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            if callback.error is not None:  # Tune would tell it as a traceback in a text
                raise callback.error from None
            raise


class _Callback(tune.Callback):
    """Hands on what Tune hears."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.error: StudyError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to restore them, which we never do."""
        return {}

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self.listener.started(_id(trial))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        try:
            self.listener.reported(Report(**result["report"]))
        except StudyError as error:
            self.error = error
            raise

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        details = str(trial.get_error() or "").strip()
        cause = details.splitlines()[-1:]
        self.listener.lost(_id(trial), ": ".join(["its worker died", *cause]), details)


def _job(trial: PlannedTrial, site: Site) -> dict[str, Any]:
    return {
        "trial_id": trial.id,
        "ids": [trial.id, *(cell.id(trial.id) for cell in trial.job().cells)],
        "trial": trial.job().dump(),
        "storage": site.store.url,
        "execution": site.execution,
        "plugins": site.plugins,
    }


def _id(trial: TuneTrial) -> str:
    return str(trial.config["job"]["trial_id"])


def _check_room(resources: Resources) -> None:
    """Ray would wait for ever for a node that large."""
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes()), default=0)
    if resources.cpu > largest:
        what = f"resources.cpu: a trial asks for {resources.cpu} cores"
        raise NoRoom(f"{what}, the largest node has {largest:.0f}")


def _gpu_share(resources: Resources) -> float:
    return resources.gpu if ray.cluster_resources().get("GPU", 0) else 0


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
def _session(resources: Resources) -> Iterator[None]:
    """A Ray to run on, entered from an empty folder.

    One that is started here has the cores that this process may use, not all of the machine.

    Ray puts the driver's working folder on the workers' `sys.path`, where a user's own
    `analysis/` would shadow ours.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "PYTHONPATH" in os.environ:  # where a user's plugins may lie: workers start elsewhere
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, entries)))
    with tempfile.TemporaryDirectory(prefix="study-cwd-") as folder:
        before = os.getcwd()
        os.chdir(folder)
        try:
            options: dict[str, Any] = {
                "log_to_driver": False,
                "logging_level": logging.ERROR,
                "runtime_env": {"env_vars": worker_environment(resources)},
            }
            if "RAY_ADDRESS" not in os.environ:
                options |= {"include_dashboard": False, "num_cpus": cores()}
            on_term = signal.getsignal(signal.SIGTERM)
            ray.init(**options)
            signal.signal(signal.SIGTERM, on_term)  # Ray's own would end us at once
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told by us
            yield
        finally:
            ray.shutdown()
            os.chdir(before)
