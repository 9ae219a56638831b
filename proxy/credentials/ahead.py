"""Refreshes ahead of the end: a timer that looks when it is due, and acts where somebody uses the credential."""

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.clock import Clock
from proxy.lifecycle import Life, refresh_due_at

#: A timer of the loop may stand still while the machine sleeps; it looks again at least this often.
LOOK_AGAIN_SECONDS: Final = 60.0


class Ahead:
    """Calls `refresh` when the token of `life()` is due, and was used within its last lifetime (`used_at()`)."""

    def __init__(
        self,
        clock: Clock,
        *,
        life: Callable[[], Life],
        used_at: Callable[[], float],
        refresh: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._life = life
        self._used_at = used_at
        self._refresh = refresh
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def schedule(self) -> None:
        """Look again when the refresh ahead, or the next attempt after a failure, is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = refresh_due_at(self._life())
        if due_at is None or self._closed:
            return
        seconds = min(max(0.0, due_at - self._clock.now()), LOOK_AGAIN_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(seconds, self.look)

    def stop(self) -> None:
        """Look no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    @property
    def next_look(self) -> float | None:
        """Seconds until the timer looks again, None while there is nothing to look for."""
        return None if self._timer is None else self._timer.when() - asyncio.get_running_loop().time()

    def look(self) -> None:
        """Refresh if it is time and the credential was used within its last lifetime."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = refresh_due_at(self._life())
        token = self._life().token
        if due_at is None or token is None or token.expires_at is None:
            return
        now = self._clock.now()
        if now < due_at:
            self.schedule()
        elif self._used_at() >= now - (token.expires_at - token.obtained_at):
            self._refresh()
