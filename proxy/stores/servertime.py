"""What a server's clock says, so that the clocks of those who share it need not agree: pure.

Law: nothing that is shared is told by the clock of one of them (threat 95). The difference to a clock that nobody
sets is kept, within what its answers allow: each was given between the question and the answer.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

log: Final = logging.getLogger("proxy.stores")

#: Whoever is off by more than this is told, once.
APART_SECONDS: Final = 30.0


def in_seconds(time: Sequence[bytes | int]) -> float:
    """The answer to TIME: epoch seconds, and millionths."""
    return int(time[0]) + int(time[1]) / 1e6


class ServerTime:
    """The server's clock, by `now`, which counts suspend and only grows."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        #: By how much it is ahead of `now`: at least, and at most.
        self._bounds: tuple[float, float] | None = None
        self._is_told = False

    @property
    def is_known(self) -> bool:
        """Has it ever said anything?"""
        return self._bounds is not None

    def hear(self, time: Sequence[bytes | int], asked_at: float) -> None:
        """It answered `time` just now to who asked it at `asked_at`."""
        said = in_seconds(time)
        least, most = said - self._now(), said - asked_at
        if self._bounds is not None:
            before_least, before_most = self._bounds
            if least <= before_most and before_least <= most:
                least, most = max(least, before_least), min(most, before_most)
        self._bounds = least, most

    def epoch(self, wall: float) -> float:
        """The present instant as the server says it, where `wall` is it here; that itself while it is not known."""
        if self._bounds is None:
            return wall
        epoch = self._now() + sum(self._bounds) / 2
        is_apart = abs(epoch - wall) > APART_SECONDS
        if is_apart and not self._is_told:
            side = "behind" if epoch > wall else "ahead of"
            detail = (
                f"this machine's clock is {abs(epoch - wall):.0f} seconds {side} that of the store's server, which "
                "counts for tokens; but what is signed here may be refused: set the clock (NTP)"
            )
            log.warning("store_clock_apart", extra={"fields": {"detail": detail}})
        self._is_told = is_apart
        return epoch
