"""The gate's own gate: a skip that nobody allowed fails CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GATE = Path(__file__).parents[1] / ".ci"
SKIPPED = {
    "a test": "import pytest\n@pytest.mark.skip\ndef test_a(): pass\n",
    "a file": "import pytest\npytest.skip('all', allow_module_level=True)\n",
}


def run(folder, text, *options, **environment):
    (folder / "test_it.py").write_text(text + "def test_b(): pass\n")
    pytest_here = [sys.executable, "-m", "pytest", "-p", "skips", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*pytest_here, *options, "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(GATE), "CI": "", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two"])
@pytest.mark.parametrize("text", SKIPPED.values(), ids=SKIPPED)
def test_a_skip_fails_ci_and_is_named(tmp_path, text, options):
    done = run(tmp_path, text, *options, CI="true")
    assert done.returncode == 1
    assert "does not allow it: test_it.py" in done.stdout


def test_elsewhere_a_skip_is_a_skip(tmp_path):
    assert run(tmp_path, SKIPPED["a test"]).returncode == 0


def test_no_skip_is_no_failure(tmp_path):
    assert run(tmp_path, "", CI="true").returncode == 0
