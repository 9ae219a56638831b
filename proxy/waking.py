"""Notices that the machine slept, and that its clock was set.

Law: nothing here decides what is over. Ends are kept on a clock that counts suspend, and are right without this; it
sees to what stood still meanwhile: connections that nobody on the way knows any more, and the timers of the loop
(threats 95, 96).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from proxy.clock import Clock

log: Final = logging.getLogger("proxy")

#: Seconds of the loop between two looks.
LOOK_SECONDS: Final = 5.0
#: A difference of clocks that grew by no more than this is no suspend, and no step of the wall clock.
LEAST_SECONDS: Final = 5.0
#: A fleet that wakes together does not ask together: each waits up to so many seconds.
JITTER_SECONDS: Final = 2.0


class Waking:
    """Compares the clocks every few seconds, from `start()` to `stop()`.

    After a suspend, `at_once` is called and, within `JITTER_SECONDS`, `soon`. Where only the wall clock goes
    forward, it was set, or this is a virtual machine whose pause was hidden from it: nobody here can tell. Only
    `at_once` is called then; what it does must cost no more than a connection. `random` gives floats in [0, 1).
    """

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        *,
        at_once: Callable[[], None],
        soon: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._random = random
        self._at_once = at_once
        self._soon = soon
        self._slept, self._set_by = self._differences()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._ring)

    def stop(self) -> None:
        """Look no more, and call nobody."""
        for timer in (self._timer, self._waiting):
            if timer is not None:
                timer.cancel()

    def look(self) -> None:
        """Compare the clocks with the last look."""
        slept, set_by = self._differences()
        suspended, stepped = slept - self._slept, set_by - self._set_by
        self._slept, self._set_by = slept, set_by
        if suspended > LEAST_SECONDS:
            log.info("resumed", extra={"fields": {"seconds": round(suspended, 1)}})
            if self._waiting is not None:
                self._waiting.cancel()
            delay = JITTER_SECONDS * self._random()
            self._waiting = asyncio.get_running_loop().call_later(delay, self._soon)
        if abs(stepped) > LEAST_SECONDS:
            log.warning("clock_stepped", extra={"fields": {"seconds": round(stepped, 1)}})
        if max(suspended, stepped) > LEAST_SECONDS:
            self._at_once()

    def _ring(self) -> None:
        self.start()
        self.look()

    def _differences(self) -> tuple[float, float]:
        """How far the clock that counts suspend is ahead of the one that does not, and the wall of the former."""
        now = self._clock.now()
        return now - self._clock.awake(), self._clock.wall() - now
