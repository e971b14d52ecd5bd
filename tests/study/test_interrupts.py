"""Signals that come in the midst of a write."""

import os
import signal
import threading

import pytest

from study.interrupts import uninterrupted


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
