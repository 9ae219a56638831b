"""How late the event loop is: by so much everything is late that it does."""

import asyncio
from collections.abc import Callable
from typing import Final

#: Seconds between two looks.
LOOK_SECONDS: Final = 1.0


class Lag:
    """Tells `told` once a second, from `start()` to `stop()`, by how many seconds a timer rang too late."""

    def __init__(self, told: Callable[[float], None]) -> None:
        self._told = told
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK_SECONDS, self._ring, loop, loop.time() + LOOK_SECONDS)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self, loop: asyncio.AbstractEventLoop, due_at: float) -> None:
        self._told(max(0.0, loop.time() - due_at))
        self.start()
