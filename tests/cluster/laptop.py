"""The machine from which a cluster of hosts is used, and what comes of it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Run

from analysis.runs import connect, search_runs
from study.cluster import MLFLOW, Cluster
from trainables.store import Store

from .hosts import REPOSITORY, Host, Lab, until

SENT = ("pyproject.toml", "README.md", "constraints.txt", "trainables", "analysis", "study")
README = (REPOSITORY / "README.md").read_text()
TOKEN, UP, SUBMIT, UI, DOWN = re.search(r"```sh\n(.*?)```", README, re.DOTALL)[1].splitlines()


@dataclass
class Laptop:
    """The machine from which a cluster is used: a home and a checkout of its own.

    Attributes:
        lab: the hosts.
        home: its home folder.
    """

    lab: Lab
    home: Path

    def __post_init__(self) -> None:
        self.folder = self.home / "robust-loss-study"
        self.folder.mkdir(parents=True)
        for name in SENT:
            source, target = REPOSITORY / name, self.folder / name
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, target)
        self.file = self.folder / "cluster.local.yaml"
        self.file.write_text(yaml.safe_dump(configured(self.lab)))

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "HOME": str(self.home), "PATH": path}

    def shell(self, line: str, expect: int = 0) -> str:
        """Runs a line in the checkout, checks its exit status and returns what it said."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )
        said = done.stdout + done.stderr
        assert done.returncode == expect, said[-8000:]
        return said

    def study(self, *words: str, expect: int = 0) -> str:
        """Runs `study …`, checks its exit status and returns what it said."""
        return self.shell(shlex.join(["study", *words]), expect)

    def start(self, line: str) -> subprocess.Popen[str]:
        """Starts a command and returns at once."""
        return subprocess.Popen(
            shlex.split(line),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def runs(self, experiment: str) -> list[Run]:
        """What the head's MLflow has of an experiment."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(self.home))
            with Cluster(self.file).reach(MLFLOW) as port:
                client = connect(f"http://127.0.0.1:{port}")
                found = client.get_experiment_by_name(experiment)
                return list(search_runs(client, found.experiment_id))

    @property
    def head(self) -> Host:
        return self.lab.hosts["head"]

    def empty(self) -> Store:
        """The cluster's store, with nothing in it."""
        place = self.lab.shared / "store"
        shutil.rmtree(place, ignore_errors=True)
        return Store(str(place))

    def await_workers(self, count: int) -> None:
        """Until so many of the hosts are there to compute."""
        look = (
            "import ray; ray.init(address='auto', logging_level='ERROR', log_to_driver=False); "
            "print('CPUs', ray.cluster_resources().get('CPU', 0))"
        )
        told = f'. ~/study.env && python -c "{look}"'
        wanted = f"CPUs {count}.0"
        until(
            lambda: wanted in self.head.run(told, check=False).stdout,
            f"{count} workers",
            seconds=240,
            every=2.0,
        )


def configured(lab: Lab) -> dict[str, Any]:
    """cluster.local.yaml, filled in as its comments say, with a core a worker and none a head."""
    config = yaml.safe_load((REPOSITORY / "cluster.local.yaml").read_text())
    return _on(lab, config, {"/mnt/study": "/mnt"})


def configured_as_on_aws(lab: Lab) -> dict[str, Any]:
    """cluster.yaml on the same hosts: all its commands, but for the cloud's own part."""
    config = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    for name in ("available_node_types", "head_node_type", "idle_timeout_minutes"):
        del config[name]
    config["provider"] = {"type": "local"}
    config["max_workers"] = len(lab.hosts) - 1
    return _on(lab, config, {"s3://BUCKET": "/mnt"})


def _on(lab: Lab, config: dict[str, Any], filled: dict[str, str]) -> dict[str, Any]:
    head, *workers = lab.hosts.values()
    config["cluster_name"] = lab.name
    config["provider"] |= {"head_ip": head.ip, "worker_ips": [host.ip for host in workers]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(lab.key)}
    for empty, place in filled.items():
        config["setup_commands"][0] = config["setup_commands"][0].replace(empty, place)
    small = "--object-store-memory=100000000"
    for commands, cores in (("head_start_ray_commands", 0), ("worker_start_ray_commands", 1)):
        config[commands] = [
            command.replace("ray start", f"ray start --num-cpus={cores} {small}")
            for command in config[commands]
        ]
    return config


def results(store: Store) -> dict[str, bytes]:
    """All that a store holds of models and outcomes, but for how they were made."""
    found = {}
    pairs = [(model, cell) for model, cells in store.nested("outcomes").items() for cell in cells]
    entries = [f"models/{model}" for model in store.entries("models")]
    for entry in [*entries, *(f"outcomes/{model}/{cell}" for model, cell in pairs)]:
        for name, data in store.read(entry).items():
            if name not in ("execution.json", "history.json"):
                found[f"{entry}/{name}"] = data
    return found
