"""Ctrl-C, SIGTERM and SIGHUP ask a process to stop, and are one exception."""

import signal
import threading

import pytest

from vizsynth.core import signals
from vizsynth.core.signals import STOPPING, Interrupted, exit_code


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_an_interruption_of_its_own_exit_code(number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in STOPPING]
    with pytest.raises(KeyboardInterrupt) as caught, signals.interruptible():
        signal.raise_signal(number)
    assert isinstance(caught.value, Interrupted) and exit_code(caught.value) == 128 + number
    assert [signal.getsignal(n) for n in STOPPING] == before


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_waits_and_the_second_stops(number: signal.Signals) -> None:
    said = []
    with pytest.raises(Interrupted), signals.patient(lambda: said.append("stopping")) as asked:
        assert asked() is None
        signal.raise_signal(number)
        assert asked() == number and said == ["stopping"]
        signal.raise_signal(number)
    assert said == ["stopping"]


def test_what_cannot_be_told_stops_as_well() -> None:
    def broken() -> None:
        raise OSError(5, "the terminal is gone")

    with signals.patient(broken) as asked:
        signal.raise_signal(signal.SIGHUP)
        assert asked() == signal.SIGHUP


def test_what_is_ignored_stays_ignored() -> None:
    """A process that `nohup` began outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.interruptible(), signals.patient(lambda: None) as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked() is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_have_no_signals() -> None:
    found: list[object] = []

    def work() -> None:
        with signals.interruptible(), signals.patient(lambda: None) as asked:
            found.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


def test_exit_codes_are_the_shells() -> None:
    assert [exit_code(n) for n in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)] == [129, 130, 143]
    assert exit_code(KeyboardInterrupt()) == exit_code(True) == exit_code() == 130
