"""The clocks: one that counts suspend, and the wall.

`time.monotonic()` stands still while a laptop sleeps, so a token would look fresh for hours after its end
(threats 95, 96). `CLOCK_BOOTTIME` counts suspend.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings in seconds: `now()` only ever grows and counts suspend, `wall()` is epoch time."""

    def now(self) -> float:
        """Seconds since some fixed instant."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...


class SystemClock:
    """The machine's clocks; `CLOCK_BOOTTIME` where there is one (Linux), else the monotonic one."""

    __slots__ = ()

    if hasattr(time, "CLOCK_BOOTTIME"):

        def now(self) -> float:
            """Seconds since boot, suspend included."""
            return time.clock_gettime(time.CLOCK_BOOTTIME)

    else:  # macOS: CLOCK_MONOTONIC counts suspend there (man clock_gettime)

        def now(self) -> float:
            """Seconds of the monotonic clock."""
            return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()
