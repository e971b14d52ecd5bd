"""Trials on real Rays: packs, shares of GPUs, signals."""

import json
import os
import subprocess
import sys

import pytest

from study import launch
from study.shares import Shares
from study.site import Site
from study.spec import Resources
from trainables.store import Store


@pytest.mark.parametrize(("asked", "gpu"), [("auto", True), (0.25, True), (0.0, False)])
def test_packs_are_those_of_a_gpu_where_trials_have_one(monkeypatch, plan_of, asked, gpu):
    heard = []
    monkeypatch.setattr(launch, "_slots", lambda *_: 1)
    monkeypatch.setattr(launch, "packs", lambda *_, gpu: heard.append(gpu))
    site = Site(Store("memory://launch"), "", Resources(), ())
    launch._packs(plan_of().trials, site, Shares(asked))
    assert heard == [gpu]


def ran(script, study, folder):
    """What a script says that is given a folder with a study's file, and no Ray that runs."""
    (folder / f"{study['study']}.yaml").write_text(json.dumps(study))
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(folder / "script.py"), str(folder)],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


GPUS = """
import json, os, sys
from pathlib import Path

from ray.cluster_utils import Cluster

from study import launch
from study.files import read_study
from study.gpus import gpus, shares_of
from study.launch import _check_room, _packs, on_ray
from study.plan import make_plan
from study.session import session
from study.site import Site
from study.spec import Resources
from trainables.errors import NoRoom
from trainables.store import Store

class Heard:
    said, running, most, deaths = [], set(), 0, []

    def say(self, line):
        self.said.append(line)

    def started(self, trial_id):
        self.running.add(trial_id)
        self.most = max(self.most, len(self.running))

    def reported(self, report):
        assert not report.failed, report.failed
        if report.done:
            self.running.discard(report.trial_id)

    def lost(self, trial_id, reason, details=""):
        self.deaths.append(reason)

folder = Path(sys.argv[1])
plan, heard = make_plan(read_study(str(folder / "gpus.yaml"))), Heard()
site = Site(Store(str(folder / "store")), "", plan.resources, ())
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
# As if: Ray counts GPUs that are not there, and the workers find a processor.
for kind in ("T4", "A100"):
    cluster.add_node(num_cpus=2, num_gpus=1, resources={f"accelerator_type:{kind}": 1})
os.environ["RAY_ADDRESS"] = cluster.address
with session(plan.resources) as news:
    kinds, none = sorted(gpus(2)), gpus(3)
    shares = shares_of(plan.trials, site, heard, news)
    packed = len(_packs(plan.trials, site, shares))
ended = []
complete = launch._Callback.on_trial_complete

def completed(self, *rest, trial, **more):
    complete(self, *rest, trial=trial, **more)
    ended.append(trial)

launch._Callback.on_trial_complete = completed
with on_ray(plan.resources) as ray:
    ray.run(plan.trials, site, heard)
# Tune keeps ended trials to the end, with several copies of their configurations.
kept = {
    name
    for trial in ended
    for name, value in {**vars(trial), "last_result": trial.last_result}.items()
    if "lenet5" in repr(value)
}
cluster.add_node(num_cpus=8)
refused = []
for asked in ({"cpu": 4}, {"cpu": 4, "gpu": 0}, {"cpu": 9, "gpu": 0}):
    try:
        with session(Resources(**asked)):
            _check_room(Resources(**asked))
            refused.append("")
    except NoRoom as error:
        refused.append(str(error))
cluster.shutdown()
share = {trial.label.split()[0]: shares.of([trial]) for trial in plan.trials}
print(json.dumps({
    "kinds": kinds, "share": share, "packs": packed, "refused": refused, "said": heard.said,
    "none": sorted(none), "ended": len(ended), "kept": sorted(kept),
    "most": heard.most, "left": list(heard.running), "lost": heard.deaths,
}))
"""


def test_trials_share_gpus_by_the_memory_that_workers_measure(tmp_path):
    """Ray's real scheduling of shares; the GPUs are counted only, and memory is the machine's."""
    study = {
        "study": "gpus",
        "data": {"name": "mnist5k", "subset": {"train": 256, "validation": 20}},
        "backbone": "lenet5",
        "seeds": 2,
        "evaluate": {"validation": 5, "test": 5},
        "training": {"epochs": 1},
        "methods": {
            "sce": {"loss": "sce"},
            "broad": {
                "loss": "sce",
                "backbone": {"name": "lenet5"},
                "training": {"batch_size": 256},
            },
        },
        "attacks": {"pgd": {"eps": 0.04, "steps": 3}},
        "headline": {"attack": "pgd"},
        "resources": {"pack": 2},
    }
    found = json.loads(ran(GPUS, study, tmp_path).splitlines()[-1])
    assert found["kinds"] == ["accelerator_type:A100", "accelerator_type:T4"]
    assert found["said"] == ["asking how much of a GPU's memory 4 kinds of work take"] * 2
    assert found["none"] == []  # has three cores beside it
    assert (found["left"], found["lost"]) == ([], [])
    assert (found["ended"], found["kept"]) == (4, [])
    shares = found["share"]
    assert 0 < shares["sce"] <= shares["broad"] < 0.5
    # Room for four at once, two a node, although there are but two GPUs.
    assert found["packs"] == 4
    assert found["most"] > 2
    # A trial needs cores beside its GPU; without one it runs wherever there are cores.
    assert found["refused"] == [
        "resources.cpu: a trial asks for 4 cores, the largest node with a GPU has 2",
        "",
        "resources.cpu: a trial asks for 9 cores, the largest node has 8",
    ]
    store = Store(str(tmp_path / "store"))
    (machine,) = store.entries("memory")
    assert len(store.read_json(f"memory/{machine}", "memory.json")["own"]) == 4


STOPPED = """
import os, signal, sys
from pathlib import Path

from study.files import read_study
from study.interrupts import stop
from study.launch import on_ray
from study.plan import make_plan
from study.site import Site
from trainables.store import Store

class Heard:
    reported_ids = []

    def say(self, line):
        pass

    def started(self, trial_id):
        pass

    def reported(self, report):
        self.reported_ids.append(report.trial_id)
        if len(self.reported_ids) == 1:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                pass  # as C code does that calls Python and cannot pass an exception on

folder = Path(sys.argv[1])
plan, heard = make_plan(read_study(str(folder / "stopped.yaml"))), Heard()
signal.signal(signal.SIGTERM, stop)
site = Site(Store(str(folder / "store")), "", plan.resources, ())
try:
    with on_ray(plan.resources) as ray:
        ray.run(plan.trials, site, heard)
except KeyboardInterrupt:
    print(len(plan.trials), len(set(heard.reported_ids)))
"""


def test_a_signal_whose_exception_was_lost_stops_the_study_all_the_same(tmp_path):
    study = {
        "study": "stopped",
        "data": {"name": "mnist5k", "subset": {"train": 50, "validation": 10}},
        "backbone": "lenet5",
        "seeds": 8,
        "evaluate": {"validation": 5, "test": 5},
        "training": {"epochs": 1},
        "methods": {"sce": {"loss": "sce"}},
        "attacks": {"pgd": {"eps": 0.04, "steps": 1}},
        "headline": {"attack": "pgd"},
    }
    trials, reported = map(int, ran(STOPPED, study, tmp_path).split())
    assert (trials, reported) == (8, 1)
