"""An event loop whose time passes when a test says so: no sleep takes time, and no thread runs."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from tests.support.harness import HeldClock


class _Waiting(selectors.SelectSelector):
    """Instead of waiting it lets the time of `clock` pass, up to `until`; `idle` is called there."""

    def __init__(self, clock: HeldClock) -> None:
        super().__init__()
        self.clock = clock
        self.until = clock.at
        self.idle: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """No file is ever ready."""
        if timeout is None or timeout > self.until - self.clock.at:
            self.clock.at = self.until
            self.idle()
        elif timeout > 0:
            # Far from zero a float cannot be told from one that is a nanosecond later.
            self.clock.at += max(timeout, 1e-6)
        return []


class HeldLoop(asyncio.SelectorEventLoop):
    """A loop on a held clock; what is for a thread is done at once."""

    def __init__(self, clock: HeldClock) -> None:
        self._waiting = _Waiting(clock)
        super().__init__(self._waiting)
        self._waiting.idle = self.stop

    def time(self) -> float:
        """As the clock says."""
        return self._waiting.clock.at

    def run_in_executor(self, _executor: Any, func: Any, *arguments: Any) -> Any:  # type: ignore[override]  # it gives no type away
        """The result is there when this returns."""
        done = self.create_future()
        try:
            done.set_result(func(*arguments))
        except Exception as error:  # noqa: BLE001  it is the caller's
            done.set_exception(error)
        return done

    def let_pass(self, seconds: float = 0.0) -> None:
        """Run until nothing is left to do, in so many seconds."""
        self._waiting.until = self.time() + seconds
        self.run_forever()
