"""The command line's own behaviour, without running a study."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from study import cli
from study.commands.options import data_folder, working

STUDY = Path(sys.executable).with_name("study")


def study(*arguments, cwd, expect=0):
    done = subprocess.run([STUDY, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def test_help_says_what_exit_statuses_mean(tmp_path):
    output = study("--help", cwd=tmp_path)
    for status in ("0 when", "1 when", "2 when", "75 when", "130 or 143"):
        assert status in output


def commands_of(group, prefix=""):
    """Every command by its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands_of(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_that_it_takes(name):
    command = COMMANDS[name]
    assert command.help.endswith(".")
    title, *examples = command.epilog.split("\n\n")
    assert title == "Examples:"
    assert examples
    for example in examples:
        assert example.startswith(f"study {name}")
        command.make_context(name, shlex.split(example.removeprefix(f"study {name}")))


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_shown_a_line_each(name, tmp_path):
    shown = study(*name.split(), "--help", cwd=tmp_path).splitlines()
    for example in COMMANDS[name].epilog.split("\n\n"):
        assert example in [line.strip() for line in shown]


def test_the_default_data_folder_is_in_the_home_of_each_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data_folder(None) == "~/.cache/robust-loss-study/data"  # workers have homes of their own
    monkeypatch.chdir(tmp_path)
    assert data_folder("here") == str(tmp_path / "here")


def test_list_shows_every_preset_with_its_question(tmp_path):
    output = study("list", cwd=tmp_path)
    assert "quickstart" in output
    assert "Does I-SCE resist attacks better than SCE" in output


def test_plan_counts_models_and_cells_and_changes_nothing(tmp_path):
    output = study("plan", "quickstart", cwd=tmp_path)
    assert "34 models (0 cached), 680 cells (0 cached), " in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["ui"], ["report", "quickstart"]])
def test_nothing_tracked_is_told_and_makes_no_database(command, tmp_path):
    assert "nothing is tracked" in study(*command, cwd=tmp_path, expect=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (["--storage", "bogus://x"], "cannot keep results at 'bogus://x'"),
        (["--tracking-uri", "bogus://x"], "cannot track runs at 'bogus://x'"),
        (["--tracking-uri", "sqlite:////dev/null/x.db"], "cannot"),
    ],
    ids=str,
)
def test_places_that_cannot_be_used_are_told(place, told, tmp_path):
    output = study("run", "quickstart", *place, cwd=tmp_path, expect=2)
    assert told in output
    assert "Traceback" not in output


def test_light_commands_import_neither_torch_nor_ray(tmp_path):
    code = (
        "import sys; sys.argv = ['study', 'list']\n"
        "from study.cli import app\n"
        "app(standalone_mode=False)\n"
        "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_nothing_reports_home_unless_the_user_says_so():
    switches = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
    code = f"import os, study.cli; print(*[os.environ[name] for name in {list(switches)}])"
    unset = {name: value for name, value in os.environ.items() if name not in switches}

    def settings(**environment):
        return subprocess.check_output(
            [sys.executable, "-c", code], env={**unset, **environment}, text=True
        ).split()

    assert settings() == list(switches.values())
    assert settings(RAY_USAGE_STATS_ENABLED="1") == ["1", "true"]


@pytest.mark.parametrize(
    ("terminal", "typed", "says"),
    [
        ("1", ["study", "plan", "x"], True),
        ("0", ["study", "plan", "x"], False),
        ("1", ["study", "plan", "x", "--json"], False),
        ("1", ["study", "run", "x", "-q"], False),
    ],
)
def test_what_takes_its_time_says_so_on_a_terminal_alone(
    terminal, typed, says, monkeypatch, capsys
):
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)  # rich's own switch
    monkeypatch.setattr(sys, "argv", typed)
    with working("reading [x]"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert ("reading [x] …" in err) == says
