"""The README's array of shards, on a Slurm that is started here: munge, a controller and a node."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from trainables.store import Store

from .hosts import until
from .laptop import README

RECIPE = re.search(r"```\n(#!/bin/sh\n#SBATCH.*?)```", README, re.DOTALL)[1]
STUDY = {
    "study": "sliced",
    "data": {"name": "mnist5k", "subset": {"train": 300}},
    "backbone": "lenet5",
    "evaluate": {"validation": 10, "test": 10},
    "training": {"epochs": 250},
    "methods": {"sce": {"loss": "sce"}, "mmc": {"loss": "mmc"}},
    "attacks": {"pgd": {"budget": "l2_abs", "eps": 1.0, "steps": 2}},
    "headline": {"attack": "pgd"},
}
SETTINGS = """
ClusterName=lab
SlurmUser=root
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
# How soon a job that was put back into the queue may start is the second of these.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={name} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes=ALL Default=YES
"""


@dataclass
class Slurm:
    """A Slurm that runs.

    Attributes:
        folder: where its commands run, and where it keeps everything.
        environment: in which it and the command `study` are found.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            check=check,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def slurm(tmp_path_factory, free_port):
    """A Slurm of this one machine, with a munge of its own."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    needed = ("munged", "slurmctld", "slurmd", "sbatch")
    if os.geteuid() != 0 or not all(shutil.which(name, path=path) for name in needed):
        pytest.skip(f"needs root and {', '.join(needed)}")
    folder = tmp_path_factory.mktemp("slurm")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    name = socket.gethostname().partition(".")[0]
    file = folder / "slurm.conf"
    file.write_text(SETTINGS.format(name=name, folder=folder, ports=[free_port(), free_port()]))
    files = [f"--{of}-file={folder}/munge.{of}" for of in ("key", "pid", "seed", "log")]
    slurm = Slurm(folder, {**os.environ, "SLURM_CONF": str(file), "PATH": path})
    with ExitStack() as started:
        log = started.enter_context((folder / "log").open("wb"))

        def start(*words: str) -> None:
            daemon = subprocess.Popen(words, env=slurm.environment, stdout=log, stderr=log)
            started.callback(daemon.wait)
            started.callback(daemon.terminate)

        start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
        until((folder / "munge.socket").exists, "munge")
        start("slurmctld", "-D")
        start("slurmd", "-D")
        until(lambda: "idle" in slurm.run("sinfo", check=False).stdout, "a node that is idle")
        yield slurm


@pytest.fixture
def script(slurm):
    """Writes the recipe for a study of two models, with as many shards, and returns its place."""
    (slurm.folder / "sliced.yaml").write_text(yaml.safe_dump(STUDY))
    text = RECIPE
    for there, here in {
        "table5": "sliced.yaml",
        "/shared/store": "store",
        "/shared/data": "data",
        "1-16": "1-2",
        "/16": "/2",
        "3h50m": "15s",
    }.items():
        assert there in text
        text = text.replace(there, here)
    place = slurm.folder / "array.sh"
    place.write_text(text)
    return str(place)


@pytest.mark.thorough
def test_an_array_of_shards_is_put_back_until_all_is_done(slurm, script):
    job = slurm.run("sbatch", "--parsable", script).stdout.strip()
    until(lambda: not slurm.run("squeue", "--noheader").stdout, "the array", seconds=400, every=2.0)
    outputs = [(slurm.folder / f"slurm-{job}_{task}.out").read_text() for task in (1, 2)]
    assert all("15s are over; this goes on where it was" in said for said in outputs)
    assert all("1 of 1 trials have all their results" in said for said in outputs), outputs
    store = Store(str(slurm.folder / "store"))
    for model in store.entries("models"):
        history = json.loads(store.read(f"models/{model}")["history.json"])
        assert [epoch["epoch"] for epoch in history] == list(range(1, 251))
    synced = slurm.run("study", "sync", "sliced.yaml", "--storage", "store").stdout
    assert "sliced: 2 of 2 trials are tracked" in synced


@pytest.mark.thorough
def test_a_study_that_cannot_run_fails_its_jobs(slurm, script):
    (slurm.folder / "sliced.yaml").write_text(yaml.safe_dump({**STUDY, "backbone": "lenet6"}))
    assert slurm.run("sbatch", "--wait", script, check=False).returncode == 2
