"""Signals that come in the midst of a write."""

import os
import signal
import threading

import pytest

from study import interrupts
from study.interrupts import alarm, seconds_of, uninterrupted
from trainables.errors import BadOption


@pytest.fixture(autouse=True)
def handlers():
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for sign, handler in before.items():
        signal.signal(sign, handler)


def test_a_signal_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("written")
    assert done == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done.append("written")
    assert done == []


def test_sigterm_reaches_its_own_handler():
    received = []
    signal.signal(signal.SIGTERM, lambda sign, frame: received.append(sign))
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == []
    assert received == [signal.SIGTERM]


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_an_error_in_the_block_is_not_lost_to_the_signal():
    with pytest.raises(KeyboardInterrupt) as interrupt, uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("half a write")
    assert isinstance(interrupt.value.__context__, ValueError)
    with pytest.raises(ValueError, match="half"), uninterrupted():
        raise ValueError("half a write")


def test_other_threads_have_nothing_to_put_off():
    done = []

    def work():
        with uninterrupted():
            done.append("written")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["written"]


@pytest.fixture
def alarms():
    """SIGALRM raises, as the command has it do."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGALRM, before)


def test_the_time_ends_what_runs_within(alarms):
    with pytest.raises(KeyboardInterrupt), alarm(0.01):
        while True:
            pass


def test_the_time_waits_for_the_end_of_a_write(alarms):
    done = []
    with pytest.raises(KeyboardInterrupt), alarm(0.01), uninterrupted():
        while signal.getitimer(signal.ITIMER_REAL)[0]:
            pass
        done.append("written")
    assert done == ["written"]


@pytest.mark.parametrize("seconds", [None, 60, 1e30])
def test_a_time_that_is_not_over_ends_nothing(alarms, seconds):
    with alarm(seconds):
        assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (seconds is not None)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("3h50m", 13_800),
        ("90m", 5_400),
        ("45s", 45),
        ("1h", 3_600),
        ("2d", 172_800),
        ("1d2h3m4s", 93_784),
        ("1.5h", 5_400),
    ],
)
def test_durations_are_read(duration, seconds):
    assert seconds_of(duration) == seconds


@pytest.mark.parametrize("duration", ["", "0s", "0h0m", "3:50", "10", "m", "50m3h", "-1h", "1h 5"])
def test_what_is_no_time_is_refused(duration):
    with pytest.raises(BadOption, match="expected a time such as 3h50m, 90m or 45s"):
        seconds_of(duration)


def test_a_stop_is_raised_once_more_where_it_was_lost(monkeypatch):
    monkeypatch.setattr(interrupts, "stopped_by", interrupts.stopped_by[:1])
    interrupts.stop_once_more()  # nobody has stopped it
    with pytest.raises(KeyboardInterrupt):
        interrupts.stop(signal.SIGTERM, None)
    assert interrupts.stopped_by[-1] == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        interrupts.stop_once_more()
