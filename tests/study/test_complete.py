"""What a shell offers after TAB, by the protocol that bash speaks."""

import os
import subprocess
import sys

import pytest

from study import files
from study.commands import complete
from trainables import registry

COMPLETE = """
import sys
sys.argv = ["study"]
from study.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
assert not {"torch", "ray", "mlflow", "pandas"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("study run quick", ["quickstart"]),
        ("study plan my-", ["my-folder/", "my-study.yaml"]),
        ("study plan .hid", [".hidden/"]),
        ("study plan ./", ["./my-folder/", "./my-study.yaml"]),
        ("study init mine.yaml --preset table1", ["table1"]),
        ("study plan my-folder/", ["my-folder/other.yml"]),
        ("study report table5 --scale ", ["full", "small", "tiny"]),
        ("study run my-study.yaml --scale ", ["full", "huge"]),
        ("study describe label", ["label_smoothing"]),
        ("study data fetch mnist ", sorted(complete.datasets())),
    ],
)
def test_bash_is_offered_what_may_stand_there_without_torch(typed, offered, tmp_path):
    (tmp_path / "my-folder").mkdir()
    (tmp_path / "my-folder" / "other.yml").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "my-study.yaml").write_text("study: mine\nscales: {huge: {seeds: 9}}\n")
    (tmp_path / "my-notes.txt").touch()
    asked = {
        "_STUDY_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE], cwd=tmp_path, env={**os.environ, **asked},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == offered


def test_all_that_is_registered_is_offered_and_nothing_else():
    ours = {name for kind in registry.kinds() for name in registry.names(kind)}
    assert set(complete.components()) >= ours  # other tests may have registered more
    assert set(complete.datasets()) == set(registry.names("dataset"))


@pytest.mark.parametrize("source", ["nothing.yaml", "", None])
def test_of_a_study_that_cannot_be_read_no_scale_is_offered(source):
    class Context:
        params, args = {"source": source}, []

    assert complete.scales(Context()) == []


@pytest.mark.parametrize("name", files.presets())
def test_a_study_can_be_read_at_every_scale_that_is_offered(name):
    offered = files.scales(name)
    assert offered[0] == files.FULL
    for scale in offered:
        files.read_study(name, scale=scale)


def test_a_union_offers_what_all_its_parts_have():
    assert set(files.scales("paper")) == {"full", "small", "tiny"}
