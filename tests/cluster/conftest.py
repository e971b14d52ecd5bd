"""A cluster that the real `ray up` has started on hosts of its own, from cluster.local.yaml."""

import pytest
import yaml

from study.cluster import MLFLOW, Cluster

from .hosts import Lab, why_not
from .laptop import Laptop, configured

ROOM = "64m"  # of the storage that the hosts share


@pytest.fixture(scope="session")
def laptop(tmp_path_factory):
    """A cluster of a head and two workers, up, and the machine that it is used from."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cluster")
    home = folder / "laptop"
    home.mkdir()
    with Lab(folder / "lab", ["head", "one", "two"], room=ROOM) as lab:
        laptop = Laptop(lab, home, home / "cluster.local.yaml")
        laptop.file.write_text(yaml.safe_dump(configured(lab)))
        laptop.ray("get-auth-token", "--generate")
        laptop.up()
        laptop.await_workers(2)
        yield laptop
        laptop.ray("down", "--yes", str(laptop.file))


@pytest.fixture
def mlflow(laptop, monkeypatch):
    """The tracking server of the head, at an address of this machine."""
    monkeypatch.setenv("HOME", str(laptop.folder))
    with Cluster(laptop.file).reach(MLFLOW) as port:
        yield f"http://127.0.0.1:{port}"
