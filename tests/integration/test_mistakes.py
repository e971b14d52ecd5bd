"""Mistakes: one message with all of them, exit status 2, no traceback, nothing started."""

import pytest


def mistaken(folder, text, *arguments):
    folder.file.write_text(text)
    output = folder.study("run", "tiny.yaml", *arguments, expect=2)
    assert "Traceback" not in output
    assert not (folder.path / "results").exists()
    return output


def test_all_mistakes_of_a_file_are_told_at_once(folder):
    text = folder.file.read_text()
    for right, wrong in {
        "data: mnist5k": "data: mnst5k",
        "backbone:": "backbon:",
        "s: [1, 2]": "s: [0.5, 2]",
        "m: [0.05, 0.1]": "m: [-1]",
        "loss: sce": "loss: scee",
        "eps: 0.04": "eps: -0.04",
        "baseline: sce": "baseline: see",
    }.items():
        text = text.replace(right, wrong)
    output = mistaken(folder, text)
    for told in (
        "unknown dataset 'mnst5k'; did you mean 'mnist5k'?",
        "backbon: unknown key; did you mean 'backbone'?",
        "methods.isce.loss.s: expected a number greater than or equal to 1, found 0.5",
        "methods.isce.loss.m: expected a number greater than or equal to 0, found -1",
        "methods.sce.loss: unknown loss 'scee'; did you mean 'sce'?",
        "attacks.pgd.eps: expected a number greater than or equal to 0, found -0.04",
        "compare.baseline: no method 'see' in this file; did you mean 'sce'?",
    ):
        assert told in output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("study: [", "line 1"),
        ("just text", "expected a mapping"),
        ("study: a\nstudy: b", "stands twice"),
        ("study: ../x", "expected a name"),
    ],
)
def test_unreadable_files_say_where(folder, text, told):
    assert told in mistaken(folder, text)


def test_a_missing_file_names_the_presets(folder):
    output = folder.study("run", "quickstrat", expect=2)
    assert "did you mean 'quickstart'?" in output
    assert "Traceback" not in output


def test_an_unknown_override_is_a_mistake(folder):
    output = folder.study("run", "tiny.yaml", "--set", "trainig.epochs=1", expect=2)
    assert "did you mean 'training'?" in output


def test_a_report_of_nothing_says_what_to_run(folder):
    output = folder.study("report", "tiny.yaml", expect=2)
    assert "study run" in output
    assert "Traceback" not in output
