"""The clocks: one that counts suspend, one that does not, and the wall.

`time.monotonic()` stands still while a laptop sleeps, so a token would look fresh for hours after its end
(threats 95, 96). `CLOCK_BOOTTIME` counts suspend on Linux. macOS has none, but its `CLOCK_MONOTONIC` counts it
(clock_gettime(3)), while Python's `time.monotonic()` reads another clock there, `mach_absolute_time`.
"""

import time
from typing import Final, Protocol

_COUNTS_SUSPEND: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Wall(Protocol):
    """Epoch time, which may be set."""

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...


class Clock(Wall, Protocol):
    """Two readings more, which only ever grow."""

    def now(self) -> float:
        """Seconds since some fixed instant, suspend included."""
        ...

    def awake(self) -> float:
        """The same without suspend, as the timers of the loop count."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now(self) -> float:
        """Seconds since boot, suspend included."""
        return time.clock_gettime(_COUNTS_SUSPEND)

    def awake(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()
