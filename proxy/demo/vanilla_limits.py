"""The rate limit of the Vanilla double: so many reads and writes a minute, then a minute of nothing."""

import dataclasses
from typing import Final

#: Requests a minute from one address (the vendor's knowledge base, article 44).
READS: Final = 300
WRITES: Final = 120
MINUTE: Final = 60.0


@dataclasses.dataclass(slots=True)
class Window:
    """What one address sent since `began_at`; it is refused until then, where that is still to come."""

    began_at: float
    count: int = 0


class Limiter:
    """Counts requests by address and kind. Instants are seconds on one clock, given by the caller."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str | None, int], Window] = {}

    def admits(self, address: str | None, method: str, now: float) -> bool:
        """Count one request at `now`: is it within the limit?"""
        limit = READS if method in {"GET", "HEAD", "OPTIONS"} else WRITES
        window = self._windows.setdefault((address, limit), Window(now))
        if now < window.began_at:
            return False
        if now - window.began_at >= MINUTE:
            window.began_at, window.count = now, 0
        window.count += 1
        if window.count > limit:
            window.began_at, window.count = now + MINUTE, 0
            return False
        return True
