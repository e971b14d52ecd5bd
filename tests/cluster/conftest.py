"""A cluster that the real `ray up` has started on hosts of its own, from cluster.local.yaml."""

import pytest

from .hosts import Lab, why_not
from .laptop import DOWN, TOKEN, UP, Laptop

ROOM = "64m"  # of the storage that the hosts share


@pytest.fixture(scope="session")
def laptop(tmp_path_factory):
    """A cluster of a head and two workers, up, and the machine that it is used from."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cluster")
    with Lab(folder / "lab", ["head", "one", "two"], room=ROOM) as lab:
        laptop = Laptop(lab, folder / "home")
        laptop.shell(TOKEN)
        laptop.shell(UP)
        laptop.await_workers(2)
        yield laptop
        laptop.shell(DOWN)
