"""The README is true: its commands run, its links lead somewhere; no file names an index."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from trainables import names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line]
FENCED = re.compile(r"```.*?```", re.DOTALL)


def test_it_opens_with_the_two_commands():
    assert BLOCKS[0].splitlines() == ["make study", "make test"]
    for command in BLOCKS[0].splitlines():
        steps = subprocess.run(
            ["make", "--dry-run", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True
        )
        assert steps.returncode == 0, steps.stderr
        wanted = "study run quickstart" if command == "make study" else "pytest"
        assert wanted in steps.stdout


def test_the_gate_is_the_readmes_test_command():
    gate = (ROOT / ".ci" / "run").read_text().splitlines()
    assert gate[-2:] == ["make ci-deps", "make test"]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/cluster.md"])
def test_links_lead_somewhere(document):
    path = ROOT / document
    links = re.findall(r"\]\(([^)]+)\)", FENCED.sub("", path.read_text()))
    for link in links:
        assert (path.parent / link).exists(), link


@pytest.mark.timeout(4200)  # the whole quickstart, 34 models, and more
def test_the_commands_run_as_written(tmp_path, free_port):
    for name, text in re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", README, re.DOTALL):
        (tmp_path / name).write_text(text)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert len(COMMANDS) >= 10
    for command in COMMANDS[2:]:
        if command == "study ui":
            serves_on_loopback(command, free_port(), tmp_path, path)
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env={**os.environ, "PATH": path},
            capture_output=True, text=True, timeout=2400,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", f"{example}\nimport torch\nprint(model(torch.zeros(1, 1, 28, 28)))"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reports = tmp_path / "results" / "reports"
    assert (reports / "quickstart" / "index.html").exists()
    assert (reports / "my-study" / "figure3.png").exists()
    judged = (reports / "my-study" / "claims.csv").read_text()
    assert "3 seeds of the 5 that a claim needs" in judged
    assert (reports / "crosses" / "index.html").exists()
    assert names.MASKED in (reports / "believe" / "table.csv").read_text()
    assert (reports / "methods@tiny" / "table.md").read_text().count("\n|") > 13
    beside = (reports / "table5@tiny" / "paper.md").read_text()
    assert "(65.55, " in beside  # the published SCE, LeNet-5, and ours less it
    assert quickstart_clean_accuracy(reports / "quickstart") > 94


def quickstart_clean_accuracy(report):
    """The baseline's clean accuracy as the Markdown table states it."""
    row = re.search(r"^\|\s*sce\s*\|.*$", (report / "table.md").read_text(), re.MULTILINE).group()
    return float(re.search(r"(\d+\.\d) ±", row.replace("*", "")).group(1))


def serves_on_loopback(command, port, folder, path):
    arguments = [*command.split(), "--port", str(port)]
    with subprocess.Popen(
        arguments, cwd=folder, env={**os.environ, "PATH": path}, start_new_session=True
    ) as server:
        try:
            assert "MLflow" in fetched(f"http://127.0.0.1:{port}", server)
        finally:
            os.killpg(server.pid, 15)


def fetched(address, server):
    """The page, as soon as it is served."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as page:
                return page.read().decode()
        except urllib.error.URLError:
            assert server.poll() is None, "study ui has ended"
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "file", ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run", "README.md"]
)
def test_no_file_names_a_package_index(file):
    text = (ROOT / file).read_text()
    assert "://" not in text
    assert "index-url" not in text
    assert "find-links" not in text


def test_constraints_are_names_and_versions_alone():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line), line
