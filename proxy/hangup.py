"""Remembers a SIGHUP that comes before there is a loop to hear it; by default it ends the process.

Imports next to nothing: what comes before it is imported is not remembered.
"""

import signal
from types import FrameType


class _Remembered:
    """A handler that notes whether it was called."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True


def remember() -> None:
    """From here on SIGHUP ends nothing, and is known of, until it is handled otherwise."""
    signal.signal(signal.SIGHUP, _Remembered())


def came(handler: object) -> bool:
    """Has one come to `handler`, which handled SIGHUP up to now, since `remember` put it there?"""
    return isinstance(handler, _Remembered) and handler.came


def ignore() -> None:
    """From here on SIGHUP ends nothing; other handlers than this are lost as the interpreter ends."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
