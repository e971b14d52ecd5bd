"""What a run shows of itself."""

import io
import time

import pytest
from rich.console import Console

from study.progress import Display
from study.tracking import Summary
from trainables.trial import Report


def shown(display):
    return display.console.file.getvalue()


def display_for(plan, *, terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    return Display(console)


def test_plain_lines_where_output_is_no_terminal(plan_of):
    plan = plan_of(seeds=2)
    display = display_for(plan, terminal=False)
    first, second = plan.trials
    display.expect(len(plan.trials))
    display.start(plan.trials)
    display.started(first)
    display.reported(Report(trial_id=first.id, done=False, epoch=6, cells=1))
    display.finished(first, Summary(clean=0.96, robust=0.5))
    display.started(second)
    display.failed(second, "NonFiniteLoss: at step 3")
    display.stop()
    lines = shown(display).splitlines()
    assert lines[0] == "2 of 2 trials to run, 0 done already"
    expected = "[1/2] sce · lenet5/mnist5k · seed 0: clean 96.0 %, robust 50.0 %"
    assert lines[1].startswith(expected)
    assert lines[1].endswith(" left")
    assert lines[2].startswith("[2/2] sce · lenet5/mnist5k · seed 1: FAILED, NonFiniteLoss")
    assert "\x1b" not in shown(display)


def test_a_live_display_in_a_terminal(plan_of):
    plan = plan_of(seeds=3)
    display = display_for(plan, terminal=True)
    first, second, _ = plan.trials
    display.expect(len(plan.trials))
    display.start(plan.trials)
    display.started(first)
    display.finished(first, Summary(clean=0.96, robust=0.5))
    display.started(second)
    epochs = [{"validation_accuracy": 0.9}]
    display.reported(Report(trial_id=second.id, done=False, epochs=epochs, epoch=6, cells=1))
    display.stop()
    text = shown(display)
    assert "1 done, 1 running, 0 failed, 1 waiting" in text
    assert "epoch 6/12, cell 1/4, validation 90.0 %" in text


@pytest.mark.parametrize(("took", "told"), [(179.7, "3:00"), (59.4, "0:59"), (3725.0, "62:05")])
def test_what_is_left_is_told_in_minutes_and_whole_seconds(plan_of, monkeypatch, took, told):
    display = display_for(plan_of(), terminal=False)
    first, second = plan_of(seeds=2).trials
    display.start([first, second])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    display.started(first)
    monkeypatch.setattr(time, "monotonic", lambda: now + took)
    display.finished(first, Summary(clean=0.96, robust=0.5))
    assert shown(display).splitlines()[-1].endswith(f", {told} left")


def test_a_trial_is_counted_once_however_often_it_ends(plan_of):
    plan = plan_of()
    display = display_for(plan, terminal=False)
    display.expect(len(plan.trials))
    display.start(plan.trials)
    for _ in range(2):
        display.started(plan.trials[0])
        display.finished(plan.trials[0], Summary(clean=1, robust=1))
    assert "[2/1]" not in shown(display)


def test_names_are_text_not_markup(plan_of):
    plan = plan_of()
    display = display_for(plan, terminal=False)
    display.failed(plan.trials[0], "[red]x[/red] [1, 2]")
    assert "[red]x[/red] [1, 2]" in shown(display)


def test_what_was_done_before_is_counted(plan_of):
    plan = plan_of(seeds=3)
    display = display_for(plan, terminal=False)
    display.expect(len(plan.trials))
    display.start(plan.trials[2:])
    display.started(plan.trials[2])
    display.finished(plan.trials[2], Summary(clean=0.96, robust=0.5))
    first, second = shown(display).splitlines()
    assert first == "1 of 3 trials to run, 2 done already"
    assert second.startswith("[3/3] ")
