"""Study files for planning, and runs of them in this process."""

import io
import shutil

import pytest
import yaml
from rich.console import Console

from study.driver import run_study
from study.files import read_study
from study.plan import make_plan
from study.progress import Display
from trainables.store import Store

BASE = {
    "study": "small",
    "data": "mnist5k",
    "backbone": "lenet5",
    "evaluate": {"validation": 20, "test": 50},
    "methods": {"sce": {"loss": "sce"}},
    "attacks": {"pgd": {"eps": 0.04, "steps": 3}},
    "headline": {"attack": "pgd"},
}


@pytest.fixture
def plan_of(tmp_path):
    """Plans a study file: a minimal one whose keys are replaced by those given."""

    def make(**keys):
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({**BASE, **keys}, sort_keys=False))
        return make_plan(read_study(str(path)))

    return make


@pytest.fixture
def protocol_of():
    """What is measured in the one place of a plan."""

    def find(plan):
        (protocol,) = plan.protocols.values()
        return protocol

    return find


@pytest.fixture(scope="session")
def run_plan():
    """Runs a plan in process, all results in one folder; gives the result and what was said."""

    def start(plan, folder, **how):
        console = Console(file=io.StringIO(), width=500)
        result = run_study(
            plan,
            store=Store(str(folder / "store")),
            data=str(folder / "data"),
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
            artifacts=folder / "artifacts",
            command="study run",
            display=Display(console),
            **{"local": True, **how},
        )
        return result, console.file.getvalue()

    return start


FINISHED = {
    "study": "finished",
    "evaluate": {"validation": 8, "test": 8},
    "training": {"epochs": 1, "batch_size": 1000},
    "data": {"name": "mnist5k", "subset": {"train": 1000, "validation": 50, "test": 50}},
    "methods": {
        "sce": {"loss": "sce"},
        "isce": {"loss": {"name": "isce", "m": [0.0, 0.1]}},
        "random": {"loss": "sce", "transform": "random_resize_pad"},
    },
    "attacks": {"pgd": {"eps": 0.04, "steps": [1, 2]}},
    "diagnostics": {"embedding": {}},
    "headline": {"attack": "pgd", "steps": 2},
    "compare": {"baseline": "sce"},
}


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory, run_plan):
    """A folder in which a study of four models has been run; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "finished.yaml").write_text(yaml.safe_dump({**BASE, **FINISHED}, sort_keys=False))
    result, _ = run_plan(make_plan(read_study(str(folder / "finished.yaml"))), folder)
    assert not result.failed
    return folder


class Finished:
    """A finished study in a folder of the test's own: `plan`, `store`, and plans of variants."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store(str(folder / "store"))
        self.reader = Store(str(folder / "store"), set_aside=False)

    def planned(self, **keys):
        """The study, its keys replaced by those given."""
        data = {**BASE, **FINISHED, **keys}
        path = self.folder / f"{data['study']}.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return make_plan(read_study(str(path)))

    @property
    def plan(self):
        return self.planned()

    @property
    def results(self):
        """How many results it has."""
        return sum(len(trial.result_ids) for trial in self.plan.trials)

    def bytes(self):
        """Every file of the store, with when it was written."""
        files = [path for path in (self.folder / "store").rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    def spoil(self, kind):
        """Damages one object of the first entry of a kind, and names the entry."""
        manifest = sorted((self.folder / "store" / kind).rglob("manifest.json"))[0]
        object = next(path for path in sorted(manifest.parent.iterdir()) if path != manifest)
        object.write_bytes(b"spoilt")
        return str(manifest.parent.relative_to(self.folder / "store"))


@pytest.fixture
def finished(finished_once, tmp_path):
    """The finished study, in a copy."""
    shutil.copytree(finished_once / "store", tmp_path / "store")
    return Finished(tmp_path)
