"""`study plan` and a budget, as users meet them."""

import json
import os
import pty
import subprocess

from .conftest import NO_RAY, STUDY

SMALL = ["--set", "methods={sce: {loss: sce}}", "--set", "choose=null"]


def test_what_exceeds_its_budget_is_not_started_unless_somebody_says_yes(folder):
    run = ["run", "tiny.yaml", *SMALL, "--max-hours", "0"]
    said = folder.study(*run, expect=2, **NO_RAY)
    assert "more than --max-hours 0; about 0 of them would fit" in said
    assert "--yes" in said
    assert "Traceback" not in said
    assert {path.name for path in folder.store.iterdir()} == {"probes"}

    # On a terminal it is a question, to which no is the default.
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [STUDY, *run], cwd=folder.path, env={**os.environ, **NO_RAY},
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, b"\n")
        _, error = process.communicate(timeout=120)
    asked = os.read(ours, 10_000).decode()
    os.close(ours)
    assert process.returncode == 2
    assert "Run it all the same? [y/N]" in " ".join(asked.split())
    assert "Nothing was started" in " ".join(error.decode().split())
    assert {path.name for path in folder.store.iterdir()} == {"probes"}

    said = folder.study(*run, "--yes", "--local", **NO_RAY)
    assert "1 of 1 trials have all their results" in said
    assert "of work, estimated" in said

    status = json.loads(folder.study("status", "tiny.yaml", *SMALL, "--json"))
    plan = json.loads(folder.study("plan", "tiny.yaml", "--json"))
    assert plan["estimate"]["last_run"] == status["last_run"]
    assert status["last_run"]["trials"] == 1
    assert (plan["models"], plan["cached"]["models"]) == (5, 1)
    assert plan["cached"]["cells"] == plan["cells"] // 5
    assert plan["estimate"]["work"]["seconds"] == 0  # of isce nothing is known
    assert "training of isce on lenet5/mnist5k" in plan["estimate"]["unmeasured"]


def test_a_cost_takes_a_price(folder):
    said = folder.study("run", "tiny.yaml", "--max-cost", "3", expect=2)
    assert "--price" in said
    assert not folder.store.exists()
