"""Study files for planning."""

import pytest
import yaml

from study.files import read_study
from study.plan import make_plan

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
