"""What a study on a cluster outlasts: each fault on its own, with the same results after it."""

import contextlib
import itertools
import json
import re
import signal
import subprocess
import time

import pytest
import yaml

from study.files import read_study
from study.plan import make_plan
from study.results import is_complete
from trainables import names
from trainables.store import Store

from .hosts import until
from .laptop import UP, results

KEYS = {
    "question": "Does it come through?",
    "data": {"name": "mnist5k", "subset": {"train": 1000}},
    "backbone": "lenet5",
    "seeds": 2,
    "evaluate": {"validation": 20, "test": 20},
    "training": {"epochs": 16},
    "methods": {"sce": {"loss": "sce"}, "isce": {"loss": {"name": "isce", "s": [1, 2], "m": 0.1}}},
    "attacks": {"pgd": {"budget": "l2_abs", "eps": [0.5, 1.0], "steps": 10}},
    "headline": {"attack": "pgd", "eps": 1.0},
    "compare": {"baseline": "sce"},
}
TRIALS = 6


@pytest.fixture(scope="session")
def undisturbed(laptop):
    """The study's results on one machine."""
    path = laptop.folder / "fault.yaml"
    path.write_text(yaml.safe_dump({"study": "fault", **KEYS}))
    laptop.study("run", path.name, "--local", "--storage", "alone")
    return results(Store(str(laptop.folder / "alone")))


class Disturbed:
    """A study that is being run on the cluster, and is in the midst of it."""

    def __init__(self, laptop, name):
        self.laptop = laptop
        self.plan = make_plan(read_study(str(laptop.folder / "fault.yaml")))
        self.lab = laptop.lab
        self.head, self.one, self.two = laptop.lab.hosts.values()
        self.store = laptop.empty()
        self.line = f"study submit fault.yaml --set study={name} --cluster {laptop.file.name}"
        self.name = name
        self.said = ""
        self._submitted = None

    def submit(self):
        self._submitted = self.laptop.start(self.line)

    def await_midst(self):
        """One trial is whole, and another has epochs: a worker that dies now has work to lose."""
        until(
            lambda: self.whole() and self._epochs(),
            "a trial and another's progress",
            seconds=120,
            every=0.1,
        )
        self.before = self._epochs()
        self.since = time.monotonic()

    def whole(self):
        """The trials that have all their results."""
        return [trial for trial in self.plan.trials if is_complete(trial, self.store)]

    def _epochs(self):
        """When each epoch has ended, of those models that are in the midst of their training."""
        found = {}
        for trial in self.store.entries("progress"):
            with contextlib.suppress(FileNotFoundError):  # it is whole by now
                progress = json.loads(self.store.read(f"progress/{trial}")["progress.json"])
                found[trial] = [epoch["time"] for epoch in progress["history"]]
        return found

    def lost_epochs(self):
        """Epochs that had been trained before the fault, and were trained again."""
        lost = 0
        for trial, times in self.before.items():
            history = json.loads(self.store.read(f"models/{trial}")["history.json"])
            lost += len(set(times) - {epoch["time"] for epoch in history})
        return lost

    def ended(self, expect=0):
        said, _ = self._submitted.communicate(timeout=600)
        self.said += said
        assert self._submitted.returncode == expect, said[-8000:]

    def gone(self):
        """Whoever follows a study is told that the head knows nothing of it any more."""
        said, _ = self._submitted.communicate(timeout=120)
        assert self._submitted.returncode == 2, said
        assert "it was started anew meanwhile. Submit the study again" in said

    def stop(self):
        """Leaves nobody behind who would write into the next one's store."""
        if self._submitted.poll() is None:
            self._submitted.kill()
            self.laptop.shell(f"{self.line} --cancel || true")
        if not self._submitted.stdout.closed:
            self._submitted.communicate()


_numbers = itertools.count()


@pytest.fixture
def disturbed(laptop, undisturbed, request):
    """A study in its midst, on a cluster that is whole and a store that is empty."""
    laptop.await_workers(2)
    name = f"{request.node.name.removeprefix('test_')[:40]}-{next(_numbers)}"
    study = Disturbed(laptop, name)
    study.submit()
    study.await_midst()
    yield study
    study.stop()


@pytest.fixture
def comes_through(laptop, disturbed, undisturbed, request):
    """Checks that each trial has one result and one finished run, and the results are equal."""

    def check():
        found = results(disturbed.store)
        assert found.keys() == undisturbed.keys()
        assert [key for key in found if found[key] != undisturbed[key]] == []
        runs = laptop.runs(disturbed.name)
        statuses = [run.info.status for run in runs]
        ids = [
            run.data.tags[names.TRIAL_ID]
            for run in runs
            if run.data.tags.get(names.ROLE) == names.TRIAL
        ]
        assert len(ids) == TRIALS == len(set(ids))
        assert set(statuses) == {"FINISHED"}
        assert f"{TRIALS} of {TRIALS} trials have all their results" in disturbed.said
        assert "FAILED" not in disturbed.said
        assert disturbed.lost_epochs() == 0  # but for what was under way
        took = time.monotonic() - disturbed.since
        print(f"{request.node.name}: {took:.0f} s from the fault to the end")

    return check


@pytest.mark.thorough
def test_nothing_happens(disturbed, comes_through):
    disturbed.ended()
    comes_through()
    assert "its worker died" not in disturbed.said


@pytest.mark.thorough
def test_a_worker_process_is_killed(disturbed, comes_through):
    disturbed.one.run("pkill -9 -f ray::StudyTrainable")
    disturbed.ended()
    comes_through()
    assert "its worker died" in disturbed.said


@pytest.mark.thorough
def test_a_raylet_is_killed(disturbed, comes_through):
    disturbed.one.run("pkill -9 raylet")
    disturbed.ended()
    comes_through()
    assert f"machine {disturbed.one.ip} is gone" in disturbed.said


def test_a_host_is_killed(disturbed, comes_through):
    disturbed.one.kill()
    try:
        disturbed.ended()
    finally:
        disturbed.one.start()
    comes_through()
    assert f"machine {disturbed.one.ip} is gone" in disturbed.said


@pytest.mark.thorough
def test_a_host_is_cut_off_for_a_minute(disturbed, comes_through):
    disturbed.one.cut()
    ends = time.monotonic() + 60
    until(lambda: time.monotonic() > ends, "a minute", seconds=70)
    disturbed.one.join()
    disturbed.ended()
    comes_through()


def test_the_driver_is_killed(disturbed, comes_through):
    disturbed.head.run("pkill -9 -f 'bin/study run'")
    disturbed.ended(expect=128 + signal.SIGKILL)
    left, before = TRIALS - len(disturbed.whole()), len(disturbed.said)
    disturbed.submit()
    disturbed.ended()
    comes_through()
    (again,) = re.search(rf"(\d+) of {TRIALS} trials to run", disturbed.said[before:]).groups()
    # What the two workers were at when the driver died they may have ended since.
    assert left - 2 <= int(again) <= left < TRIALS


@pytest.mark.thorough
def test_the_head_is_killed_and_brought_up_again(disturbed, comes_through, laptop):
    disturbed.head.kill()
    disturbed.head.start()
    laptop.shell(UP)
    disturbed.gone()
    disturbed.submit()
    disturbed.ended()
    comes_through()


@pytest.mark.thorough
def test_the_tracking_server_is_away_for_a_minute(disturbed, comes_through, laptop):
    # Brackets, since the shell that runs it has its text too.
    disturbed.head.run("pkill -9 -f '[m]lflow server'; pkill -9 -f '[m]lflow.server'; true")
    ends = time.monotonic() + 60
    until(lambda: time.monotonic() > ends, "a minute", seconds=70)
    config = yaml.safe_load(laptop.file.read_text())
    (start,) = (line for line in config["head_start_ray_commands"] if "mlflow server" in line)
    disturbed.head.run(start)
    disturbed.ended()
    comes_through()


@pytest.mark.thorough
def test_the_storage_is_read_only_for_a_while(disturbed, comes_through):
    def remount(how):
        words = ["mount", "-o", f"remount,{how}", str(disturbed.lab.shared)]
        return subprocess.run(words, capture_output=True).returncode == 0

    until(lambda: remount("ro"), "nobody writes at the moment", every=0.05)
    ends = time.monotonic() + 40  # longer than the lock's lease
    until(lambda: time.monotonic() > ends, "a while", seconds=50)
    assert remount("rw")
    disturbed.ended()
    comes_through()
    assert "Read-only file system" in disturbed.said


@pytest.mark.thorough
def test_the_storage_is_full_for_a_while(disturbed, comes_through):
    heap = disturbed.lab.shared / "heap"
    with contextlib.suppress(OSError), heap.open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    ends = time.monotonic() + 40
    until(lambda: time.monotonic() > ends, "a while", seconds=50)
    heap.unlink()
    disturbed.ended()
    comes_through()
    assert "No space left on device" in disturbed.said
