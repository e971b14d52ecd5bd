"""What workers find around them, on a Ray of ours and on one that runs already."""

import json
import os
import subprocess
import sys

import pytest

from study.session import worker_environment
from study.spec import Resources

LOOK = """
import json, os, subprocess, sys
import ray
from study.session import session
from study.spec import Resources

class Worker:
    def look(self):
        import torch
        names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND")
        return {
            **{name: os.environ.get(name) for name in names},
            "threads": torch.get_num_threads(),
            "affinity": sorted(os.sched_getaffinity(0)),
        }

with session(Resources()):
    worker = ray.remote(Worker).options(num_cpus=1).remote()
    found = [{**ray.get(worker.look.remote()), "cpus": ray.cluster_resources()["CPU"]}]
    if "RAY_ADDRESS" not in os.environ:
        ray.kill(worker)
        address = ray.get_runtime_context().gcs_address
        joined = subprocess.run(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, "RAY_ADDRESS": address},
            capture_output=True, text=True,
        )
        assert joined.returncode == 0, joined.stderr
        found += json.loads(joined.stdout)
    print(json.dumps(found))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_workers_have_one_thread_each_and_ray_no_more_cores_than_we_may_use(tmp_path):
    core = min(os.sched_getaffinity(0))
    script = tmp_path / "look.py"
    script.write_text(LOOK)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "OMP_PROC_BIND": "true",  # the user's, for programs of one process
            "OMP_NUM_THREADS": "7",
        },
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 2  # of the Ray that it started, and joined through RAY_ADDRESS
    for seen in found:
        assert seen == {
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OMP_PROC_BIND": "false",
            "threads": 1,
            "affinity": [core],
            "cpus": 1,
        }


def test_a_users_own_wait_policy_stands(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    found = worker_environment(Resources(cpu=3))
    assert found["OMP_WAIT_POLICY"] == "active"
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "3"
