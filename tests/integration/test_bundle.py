"""Results on another machine: exported here, imported there, and every table rebuilt offline."""

import json
import os
import subprocess
import sys

import pytest

from .conftest import NO_RAY

OFFLINE = {**NO_RAY, "http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
# Several commands in one process: importing torch and MLflow is most of what each takes.
SCRIPT = """\
import shlex, sys
from study.cli import app
for command in sys.argv[1:]:
    sys.argv = ["study", *shlex.split(command)]
    status = app(sys.argv[1:], standalone_mode=False)
    assert not status, f"{command}: exit status {status}"
"""


def study(*commands, cwd, **environment):
    """Runs commands in one process, offline, and gives what they have printed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *commands],
        cwd=cwd,
        env={**os.environ, **OFFLINE, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def checked(finished, tmp_path_factory):
    """A bundle of the finished study, and what was told of it; the results were not touched."""
    folder = tmp_path_factory.mktemp("checked")
    before = files(finished.store)
    told = study(
        f"export tiny.yaml --output {folder / 'tiny.study.zip'}",
        "verify tiny.yaml --sample 5 --models 1",
        "clean --json",
        cwd=finished.path,
    )
    assert files(finished.store) == before
    return folder / "tiny.study.zip", told


def test_a_run_on_ray_is_verified_to_the_bit(checked):
    _, told = checked
    assert "the digests of 45 entries agree" in told
    assert "6 of 6 made again as they were have the same bits" in told


def test_a_finished_study_has_nothing_to_clean(checked):
    _, told = checked
    assert json.loads(told.splitlines()[-1]) == {"kept": {"tiny": 5}, "to remove": {}}


def test_another_machine_rebuilds_every_table_offline(checked, finished, tmp_path):
    bundle, told = checked
    assert "35 of 35 results" in told
    reports = finished.path / "results" / "reports" / "tiny"
    if not reports.exists():
        finished.study("report", "tiny.yaml")
    told = study(
        f"import {bundle}",
        "sync tiny.yaml",
        "report tiny.yaml",
        cwd=tmp_path,
        STUDY_DATA="/nowhere",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert "study sync tiny.yaml\n" in told
    assert "tiny: 5 of 5 trials are tracked" in told
    assert not list((tmp_path / "results" / "store" / "models").glob("*/*"))
    there = tmp_path / "results" / "reports" / "tiny"
    tables = [path.name for path in reports.iterdir() if path.suffix in (".csv", ".md", ".tex")]
    assert {"table.csv", "table.md", "table.tex", "figure3.csv"} <= set(tables)
    for name in tables:
        assert (there / name).read_bytes() == (reports / name).read_bytes(), name
