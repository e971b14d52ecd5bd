"""The real command in a subprocess, in an empty folder of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from trainables import names

STUDY = str(Path(sys.executable).with_name("study"))

NO_RAY = {"RAY_ADDRESS": "127.0.0.1:1"}  # whoever starts Ray fails

TINY = """\
study: tiny
question: Does it run?
data: mnist5k
backbone: lenet5
seeds: 1
evaluate: {validation: 20, test: 20}
training: {epochs: 2}
methods:
  sce: {loss: sce}
  isce: {loss: {name: isce, s: [1, 2], m: [0.05, 0.1]}}
attacks:
  pgd: {eps: 0.04, steps: 3, targeted: [false, true], surface: [ce_deployed, margin_raw]}
headline: {attack: pgd, targeted: false}
compare: {baseline: sce}
choose: {method: isce}
"""


class Folder:
    """A user's working folder: runs the command there and looks at what it left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "results" / "store"
        self.file = path / "tiny.yaml"
        self.file.write_text(TINY)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts `study …` and returns at once; its output is one stream."""
        return subprocess.Popen(
            [STUDY, *arguments],
            cwd=self.path,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def study(self, *arguments: str, expect: int = 0, **environment: str) -> str:
        """Runs `study …` to its end, checks the exit status and returns the output."""
        with self.start(*arguments, **environment) as process:
            output, _ = process.communicate(timeout=600)
        assert process.returncode == expect, output
        return output

    def entries(self, kind: str) -> dict[str, int]:
        """Complete entries of the store with the time they were made."""
        manifests = (self.store / kind).rglob("manifest.json")
        return {str(path.parent): path.stat().st_mtime_ns for path in manifests}

    def outcomes(self) -> dict[str, bytes]:
        """Every measured outcome's bytes, by place in the store."""
        files = (self.store / "outcomes").rglob("outcome.*.safetensors")
        return {str(path.relative_to(self.store)): path.read_bytes() for path in files}

    def runs(self, study: str = "tiny") -> list[Run]:
        """The tracked runs of trials."""
        client = MlflowClient(f"sqlite:///{self.path}/results/mlflow.db")
        experiment = client.get_experiment_by_name(study)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        return [run for run in runs if run.data.tags[names.ROLE] == names.TRIAL]


def copy_of(finished: Folder, folder: Folder) -> Folder:
    """The folder with another one's results."""
    shutil.copytree(finished.path / "results", folder.path / "results", dirs_exist_ok=True)
    # The database knows the artifacts by their absolute place; runs made here are new ones.
    (folder.path / "results" / "mlflow.db").unlink()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder with a tiny study of five trials."""
    return Folder(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which the tiny study has been run on Ray; to be looked at, not changed."""
    folder = Folder(tmp_path_factory.mktemp("finished"))
    folder.study("run", "tiny.yaml")
    return folder


@pytest.fixture
def running(folder: Folder) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands that are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        started.append(folder.start(*arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
