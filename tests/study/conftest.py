"""Study files for planning, and runs of them in this process."""

import io

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

    def start(plan, folder):
        console = Console(file=io.StringIO(), width=500)
        result = run_study(
            plan,
            store=Store(str(folder / "store")),
            data=str(folder / "data"),
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
            artifacts=folder / "artifacts",
            command="study run",
            local=True,
            display=Display(console),
        )
        return result, console.file.getvalue()

    return start
