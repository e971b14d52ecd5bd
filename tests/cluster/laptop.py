"""The machine from which a cluster of hosts is used, and what comes of it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from trainables.store import Store

from .hosts import REPOSITORY, Host, Lab, until

STUDY = str(Path(sys.executable).with_name("study"))


@dataclass
class Laptop:
    """The machine from which a cluster is used: a home and a working folder of its own.

    Attributes:
        lab: the hosts.
        folder: where commands are run.
        file: the cluster's configuration.
    """

    lab: Lab
    folder: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        return {**kept, "HOME": str(self.folder), "RAY_AUTH_MODE": "token"}

    def ray(self, *words: str) -> str:
        """Runs `ray …`, which must succeed."""
        return self._run([sys.executable, "-m", "ray.scripts.scripts", *words], 0)

    def study(self, *words: str, expect: int = 0) -> str:
        """Runs `study …`, checks its exit status and returns what it said."""
        return self._run([STUDY, *words], expect)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts `study …` and returns at once."""
        return subprocess.Popen(
            [STUDY, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _run(self, words: list[str], expect: int) -> str:
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == expect, done.stdout[-8000:] + done.stderr[-8000:]
        return done.stdout

    def up(self) -> None:
        """`ray up`, from the folder that it sends: this repository."""
        words = [sys.executable, "-m", "ray.scripts.scripts", "up", "--yes", str(self.file)]
        done = subprocess.run(
            words,
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]

    @property
    def head(self) -> Host:
        return self.lab.hosts["head"]

    def on_head(self, command: str) -> str:
        """Runs a command on the head as studies are run there."""
        return self.head.run(f". ~/study.env && cd ~/study && {command}").stdout

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


def configured(lab: Lab) -> dict:
    """cluster.local.yaml, filled in as its comments say, with a core a worker and none a head."""
    config = yaml.safe_load((REPOSITORY / "cluster.local.yaml").read_text())
    head, *workers = lab.hosts.values()
    config["cluster_name"] = lab.name
    config["provider"] |= {"head_ip": head.ip, "worker_ips": [host.ip for host in workers]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(lab.key)}
    filled = config["setup_commands"][0].replace("/mnt/study", "/mnt")
    config["setup_commands"][0] = filled
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
