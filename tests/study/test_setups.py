"""What is read of the autoscaler's output: why a machine could not be set up."""

import pytest

from study.setups import SetUps

# As Ray 2.60 writes it: its own records, the echo of a command, and what the command said.
COMMAND = (
    "2026-11-27 02:31:24,008\tVINFO command_runner.py:399 -- Running `\x1b[1m{}\x1b[22m\x1b[26m`\n"
)
RECORD = "2026-11-27 02:31:{:02},888\tINFO updater.py:177 -- NodeUpdater: {}: {}\n"


@pytest.fixture
def monitor(tmp_path):
    """Adds to the autoscaler's output."""
    file = tmp_path / "monitor.out"
    file.write_text("")

    def write(text):
        with file.open("a") as out:
            out.write(text)

    return write


def failing(node, said):
    return (
        RECORD.format(1, node, "New status: setting-up")
        + COMMAND.format("pip install")
        + f"\x1b[31m{said}\x1b[0m\n\n"
        + RECORD.format(2, node, "New status: \x1b[1mupdate-failed\x1b[22m")
    )


def test_a_failed_set_up_is_told_once_with_what_it_said_last(monitor, tmp_path):
    set_ups = SetUps(tmp_path)
    monitor(COMMAND.format("mkdir -p ~/.ray") + "of an earlier command\n")
    monitor(failing("10.0.0.3", "no such package"))
    assert set_ups.failed() == [("10.0.0.3", "no such package")]
    assert set_ups.failed() == []
    monitor(failing("10.0.0.4", "no room") + failing("10.0.0.5", "no network"))
    assert set_ups.failed() == [("10.0.0.4", "no room"), ("10.0.0.5", "no network")]


def test_what_has_failed_before_is_not_told(monitor, tmp_path):
    monitor(failing("10.0.0.3", "no such package"))
    assert SetUps(tmp_path).failed() == []


def test_only_the_last_lines_are_told(monitor, tmp_path):
    set_ups = SetUps(tmp_path)
    monitor(failing("10.0.0.3", "\n".join(map(str, range(100)))))
    ((_, said),) = set_ups.failed()
    assert said.splitlines() == [str(number) for number in range(88, 100)]


def test_output_that_was_rotated_is_read_from_its_beginning(monitor, tmp_path):
    set_ups = SetUps(tmp_path)
    monitor("x" * 10_000 + "\n")
    assert set_ups.failed() == []
    (tmp_path / "monitor.out").write_text(failing("10.0.0.3", "no room"))
    assert set_ups.failed() == [("10.0.0.3", "no room")]


def test_there_is_none_on_a_machine_that_is_no_head(tmp_path):
    assert SetUps(tmp_path / "absent").failed() == []
