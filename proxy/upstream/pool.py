"""The connections to one origin: idle ones are reused, new ones made up to a limit, waiters served in order."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from proxy.errors import Overloaded, UpstreamConnectTimeout
from proxy.upstream.connection import Connection
from proxy.upstream.dial import Dialer
from proxy.work import in_task


class Pool:
    """At most `size` connections that `dialer` made; one unused for `idle` seconds is closed.

    `connect` bounds, in seconds, how long getting a connection may take, the wait for a free one included. `now` is
    the clock of the time at rest: one that counts suspend, or what rested over a night would still look warm.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        size: int = 100,
        idle: float = 15.0,
        connect: float = 10.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dialer = dialer
        self._size = size
        self._idle_seconds = idle
        self._connect_seconds = connect
        self._now = now
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection]] = deque()
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open(self) -> int:
        """How many connections there are, in use and idle."""
        return len(self._open)

    def state(self) -> dict[str, int]:
        """Its numbers: `size`, connections `idle` and `busy`, and who is `waiting` for one."""
        return {
            "size": self._size,
            "idle": len(self._idle),
            "busy": len(self._open) - len(self._idle),
            "waiting": sum(not each.done() for each in self._waiters),
        }

    def take(self) -> Connection | None:
        """A connection that rests, for one exchange; None where none does. `release` it afterwards."""
        idle = self._idle
        while idle:
            # Last in, first out: the warmest one, and the others may grow old and go.
            connection = idle.pop()
            if self._now() < connection.idle_until and connection.is_reusable and connection.is_quiet():
                return connection
            self._discard(connection)
        return None

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection to use for one exchange; `release` it afterwards, whatever happened.

        `fresh`: one that nobody used before. Raises an `UpstreamError`.
        """
        connection = None if fresh else self.take()
        if connection is not None:
            return connection
        if self._closed:
            raise Overloaded("The proxy is shutting down.")
        if fresh and self._idle and len(self._open) >= self._size:
            self._discard(self._idle.pop(0))
        await in_task()
        try:
            async with asyncio.timeout(self._connect_seconds):
                connection = self._place() if len(self._open) < self._size else await self._wait()
                if connection.used and (fresh or not (connection.is_reusable and connection.is_quiet())):
                    connection.close()
                    self._open.discard(connection)
                    connection = self._place()
                if not connection.used:
                    await self._connect(connection)
                return connection
        except TimeoutError as error:
            raise UpstreamConnectTimeout from error

    def release(self, connection: Connection) -> None:
        """Take a connection back: keep it if its exchange was clean, else close it."""
        if connection not in self._open:
            return
        if not connection.is_reusable or self._closed:
            self._discard(connection)
            return
        if self._waiters and (waiter := self._next_waiter()):
            waiter.set_result(connection)
            return
        seconds = self._idle_seconds
        if connection.keep_alive_timeout is not None:
            # One second before the upstream would close it: the race is not worth the reuse.
            seconds = min(seconds, connection.keep_alive_timeout - 1.0)
        if seconds <= 0:
            self._discard(connection)
            return
        connection.idle_until = self._now() + seconds
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = connection.loop.call_later(seconds, self._reap)

    def drop_idle(self) -> None:
        """Close what rests: after a suspend, peers and firewalls may have forgotten it (threat 96)."""
        resting, self._idle = self._idle, []
        for connection in resting:
            self._discard(connection)

    def close(self) -> None:
        """Close the idle connections now and the others when they come back."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        self.drop_idle()

    def _place(self) -> Connection:
        """A place among the open ones, taken at once: a connection that is not connected yet."""
        connection = Connection(asyncio.get_running_loop())
        self._open.add(connection)
        return connection

    async def _wait(self) -> Connection:
        """The connection, or the place for a new one, that is handed over when it is this one's turn."""
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release(waiter.result())  # it came too late for us: to the next one
            raise

    def _next_waiter(self) -> asyncio.Future[Connection] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    async def _connect(self, connection: Connection) -> None:
        try:
            await self._dialer.connect(connection)
        except BaseException:
            self._discard(connection)
            raise

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)
        if waiter := self._next_waiter():
            waiter.set_result(self._place())

    def _reap(self) -> None:
        self._reaper = None
        if not self._idle:
            return
        loop, now = self._idle[0].loop, self._now()
        kept = [each for each in self._idle if now < each.idle_until and each.is_reusable]
        for connection in self._idle:
            if connection not in kept:
                self._discard(connection)
        self._idle = kept
        if kept:
            self._reaper = loop.call_later(min(each.idle_until for each in kept) - now, self._reap)
