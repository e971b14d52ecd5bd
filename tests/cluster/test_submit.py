"""Studies on a cluster: started by `study submit`, followed, ended; the results are the same."""

import re
import signal
import urllib.request

import pytest
import yaml

from trainables.store import Store

from .hosts import until
from .laptop import SUBMIT, UI, configured_as_on_aws, results

SMALL = "--set training.epochs=2 --set 'evaluate={validation: 20, test: 20}'"
LONG = {
    "study": "long",
    "data": {"name": "mnist5k", "subset": {"train": 500}},
    "backbone": "lenet5",
    "evaluate": {"validation": 10, "test": 10},
    "training": {"epochs": 500},
    "methods": {"sce": {"loss": "sce"}, "mmc": {"loss": "mmc"}},
    "attacks": {"pgd": {"budget": "l2_abs", "eps": 1.0, "steps": 2}},
    "headline": {"attack": "pgd"},
}
FOUND = {
    **LONG,
    "study": "found",
    "training": {"epochs": 1},
    "methods": {"isce": {"loss": {"name": "isce", "s": {"uniform": [1, 2]}, "m": 0.1}}},
    "search": {"trials": 2, "sampler": "random"},
}
ON = "--cluster cluster.local.yaml"


@pytest.fixture
def cluster(laptop):
    """The laptop of a cluster that is whole, with an empty store."""
    laptop.await_workers(2)
    laptop.empty()
    for study in (LONG, FOUND):
        (laptop.folder / f"{study['study']}.yaml").write_text(yaml.safe_dump(study))
    return laptop


def test_quickstart_is_the_same_as_on_one_machine(cluster):
    said = cluster.shell(f"{SUBMIT} {SMALL}")
    assert "34 of 34 trials have all their results" in said
    page = cluster.folder / "results" / "reports" / "quickstart" / "index.html"
    assert f"report: {page.relative_to(cluster.folder)}" in said
    assert "I-SCE" in page.read_text()
    cluster.shell(f"study run quickstart {SMALL} --local --storage here")
    here, there = (
        results(Store(str(place)))
        for place in (cluster.folder / "here", cluster.lab.shared / "store")
    )
    assert here.keys() == there.keys()
    assert [key for key in here if here[key] != there[key]] == []


def test_a_study_is_left_alone_looked_at_again_and_ended(cluster):
    store = Store(str(cluster.lab.shared / "store"))
    said = cluster.shell(f"study submit long.yaml {ON} --detach")
    assert f"study submit long.yaml {ON} --attach" in said
    until(lambda: store.entries("progress"), "that it trains", seconds=120)
    refused = cluster.shell(f"study submit long.yaml {ON}", expect=2)
    assert "is being run on the cluster" in refused
    looking = cluster.start(f"study submit long.yaml {ON} --attach")
    assert any("2 of 2 trials to run" in line for line in looking.stdout)
    looking.send_signal(signal.SIGINT)
    rest, _ = looking.communicate(timeout=60)
    assert looking.returncode == 130
    assert "goes on" in rest
    ended = cluster.shell(f"study submit long.yaml {ON} --cancel")
    assert "submitted again it goes on" in ended
    assert store.entries("progress")  # where it goes on
    assert not store.files("studies/long/lock.json")  # it has ended cleanly
    assert "had ended" in cluster.shell(f"study submit long.yaml {ON} --cancel")


@pytest.mark.thorough
def test_the_commands_of_the_file_for_aws_make_the_same_cluster(cluster):
    file = cluster.folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(configured_as_on_aws(cluster.lab)))
    cluster.shell("ray up --yes cluster.yaml")
    cluster.await_workers(2)
    assert "trials have all their results" in cluster.shell("study submit found.yaml")


def test_what_was_never_submitted_is_told(cluster):
    said = cluster.shell(f"study submit figure3 {ON} --attach", expect=2)
    assert "study 'figure3' was not submitted" in said


def test_results_that_not_all_machines_see_are_refused_before_anything_starts(cluster):
    run = "study run long.yaml --storage ~/own"
    cluster.head.copy(cluster.folder / "long.yaml", "long.yaml")
    done = cluster.head.run(f". ~/study.env && RAY_ADDRESS=auto {run}", check=False)
    assert done.returncode == 2
    assert re.search(
        r"10\.\d+\.\d+\.\d+ does not see what the driver's machine writes", done.stderr
    )
    assert "s3://bucket" in done.stderr
    assert not (cluster.head.home / "own" / "models").exists()


def test_pages_of_the_head_are_shown(cluster):
    cluster.shell(f"study submit found.yaml {ON}")
    ui = cluster.start(UI)
    try:
        told = [ui.stdout.readline() for _ in range(3)]
        pages = dict(re.match(r"(\w+) on (http://127.0.0.1:\d+)", line).groups() for line in told)
        assert list(pages) == ["MLflow", "Ray", "Optuna"]
        for name, address in pages.items():
            with urllib.request.urlopen(address, timeout=30) as page:
                assert name.lower() in page.read().decode().lower()
    finally:
        ui.send_signal(signal.SIGINT)
        ui.communicate(timeout=60)


@pytest.mark.thorough
def test_why_a_machine_cannot_be_set_up_is_told(cluster):
    ray = "~/venv/bin/ray"
    two = cluster.lab.hosts["two"]
    two.run(f"mv {ray} {ray}.away && pkill -9 raylet")
    looking = cluster.start(f"study submit long.yaml {ON}")
    try:
        said = []
        for line in looking.stdout:
            said.append(line)
            if f"machine {two.ip} could not be set up" in line:
                break
        assert any("ray: command not found" in line for line in looking.stdout)
    finally:
        two.run(f"mv {ray}.away {ray}")
        looking.kill()
        looking.communicate()
        cluster.shell(f"study submit long.yaml {ON} --cancel")
