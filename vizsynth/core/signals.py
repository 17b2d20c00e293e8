"""Signals that ask a process to stop: Ctrl-C, SIGTERM, SIGHUP. All raise one exception."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to stop."""

    def __init__(self, number: signal.Signals = signal.SIGINT) -> None:
        super().__init__(number.name)
        self.number = number


def exit_code(asked: object = None) -> int:
    """Return the exit code of a stopped process: 128 plus the signal's number, as in shells.

    Args:
        asked: the signal or an `Interrupted`; anything else means Ctrl-C.

    >>> exit_code(), exit_code(signal.SIGTERM), exit_code(Interrupted(signal.SIGTERM))
    (130, 143, 143)
    """
    number = getattr(asked, "number", asked)
    return 128 + (number if isinstance(number, signal.Signals) else signal.SIGINT)


@contextmanager
def handled(handler: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call a function at the signals that ask to stop, except for ignored ones (`nohup`, `&`).

    Only the main thread gets signals; in other threads this does nothing.
    """

    def called(number: int, frame: FrameType | None) -> None:
        del frame
        _leave(file for file in terminals if not _is_terminal(file))
        handler(signal.Signals(number))

    terminals = [file for file in (sys.stdout, sys.stderr) if _is_terminal(file)]
    before = {}
    try:
        for number in STOPPING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                with suppress(ValueError):  # not the main thread
                    before[number] = signal.signal(number, called)
        yield
    finally:
        for number, one in before.items():
            signal.signal(number, one)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Interrupted`, as Ctrl-C does."""

    def stop(number: signal.Signals) -> None:
        raise Interrupted(number)

    with handled(stop):
        yield


@contextmanager
def patient(tell: Callable[[], None]) -> Iterator[Callable[[], signal.Signals | None]]:
    """Hold back a first signal, so that the current step can be computed and saved; stop at a second one.

    Yields a function that returns the first signal, or None.

    Args:
        tell: called at the first signal, to announce the wait.
    """
    asked: signal.Signals | None = None

    def keep(number: signal.Signals) -> None:
        nonlocal asked
        if asked is not None:
            raise Interrupted(number)
        asked = number
        with suppress(OSError, RuntimeError):  # a closed output, or one in the middle of a write
            tell()

    with handled(keep):
        yield lambda: asked


def _is_terminal(file: Any) -> bool:
    try:
        return os.isatty(file.fileno())
    except (AttributeError, OSError, ValueError):
        return False


def _leave(hung_up: Iterable[Any]) -> None:
    """Redirect output to `/dev/null`: after the terminal is gone, every write would fail."""
    for file in hung_up:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)
