"""A timer that is set anew far more often than it rings, as a connection's is."""

import asyncio
from collections.abc import Callable
from math import inf


class Alarm:
    """Calls `ring` once the instant of the last `set` is over; instants are those of the loop's clock.

    The loop is asked for a timer only where none would ring early enough: moving an instant back costs nothing.
    """

    __slots__ = ("_at", "_handle", "_handle_at", "_loop", "_ring")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at = inf
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at = inf

    def set(self, at: float) -> None:
        """Ring at this instant, and at no other."""
        self._at = at
        if at < self._handle_at:
            if self._handle is not None:
                self._handle.cancel()
            self._arm()

    def clear(self) -> None:
        """Do not ring; the timer stays for the next `set`."""
        self._at = inf

    def close(self) -> None:
        """Do not ring, and leave nothing with the loop."""
        self._at = self._handle_at = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        self._handle_at = self._at
        self._handle = self._loop.call_at(self._at, self._look)

    def _look(self) -> None:
        self._handle = None
        self._handle_at = inf
        if self._at == inf:
            return
        if self._loop.time() < self._at:
            self._arm()
            return
        self._at = inf
        self._ring()
