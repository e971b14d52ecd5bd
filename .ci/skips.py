"""A pytest plugin: with CI=true, a skipped test that no list allows fails the run.

A skip reads like a pass. `allowed_skips.txt` beside this file holds one test id a line, with
the reason behind a `#`.
"""

import os
from pathlib import Path

import pytest

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
_skipped: set[str] = set()


def allowed() -> set[str]:
    """The test ids that may be skipped."""
    lines = (line.split("#")[0].strip() for line in ALLOWED.read_text().splitlines())
    return {line for line in lines if line}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.add(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    passed = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if os.environ.get("CI") == "true" and _skipped - allowed() and session.exitstatus in passed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for test in sorted(_skipped - allowed()):
        terminalreporter.write_line(f"skipped, and .ci/allowed_skips.txt does not allow it: {test}")
