"""One answer of an upstream, as far as it has come."""

import asyncio
from collections import deque
from typing import Protocol

from proxy.errors import ProxyError, UpstreamTimeout
from proxy.upstream.framing import NO_BODY


class Feeder(Protocol):
    """The connection that an answer comes from."""

    loop: asyncio.AbstractEventLoop

    def drained(self) -> None:
        """The reader took what was buffered."""
        ...

    def fail(self, error: ProxyError) -> None:
        """End the exchange with `error`."""
        ...


class Answer:
    """One answer: its head once it is there, then its body as it comes.

    `headers` are the raw fields in order; `framing` one of the four of `framing.py`; `length` the declared
    Content-Length (None without one; of the body that a HEAD or 304 only talks about, too).
    """

    __slots__ = (
        "_buffer",
        "_connection",
        "_waiter",
        "buffered",
        "complete",
        "error",
        "framing",
        "has_head",
        "headers",
        "length",
        "status",
    )

    def __init__(self, connection: Feeder) -> None:
        self._connection = connection
        self._buffer: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.buffered = 0
        self.complete = False
        self.error: ProxyError | None = None
        self.framing = NO_BODY
        self.has_head = False
        self.headers: list[tuple[bytes, bytes]] = []
        self.length: int | None = None
        self.status = 0

    def feed(self, data: bytes) -> None:
        """Body bytes from the parser."""
        self._buffer.append(data)
        self.buffered += len(data)
        self.wake()

    def finish(self, error: ProxyError | None = None) -> None:
        """The end, proper or not; the first one counts."""
        if not self.complete and self.error is None:
            self.complete = error is None
            self.error = error
        self.wake()

    def wake(self) -> None:
        """Something changed for whoever waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def head(self) -> None:
        """Wait for the head. Raises the `UpstreamError` that came instead."""
        while not self.has_head:
            if self.error is not None:
                raise self.error
            await self._wait(None)

    def read_nowait(self) -> bytes:
        """All body bytes that are there; `b""`: none yet, or the end (`complete`)."""
        if not self._buffer:
            return b""
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self.buffered = 0
        self._connection.drained()
        return data

    async def read(self, idle: float) -> bytes:
        """The next body bytes, `b""` at the proper end. At most `idle` seconds between bytes.

        Raises `UpstreamTruncated` (or what else went wrong) at any other end, `UpstreamTimeout` when idle.
        """
        while not self._buffer:
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            await self._wait(idle)
        return self.read_nowait()

    async def hold(self, limit: int, idle: float) -> bytes | None:
        """The whole body if it is complete within `limit` bytes, else None; either way nothing is consumed."""
        while not self.complete and self.error is None and self.buffered < limit:
            await self._wait(idle)
        return b"".join(self._buffer) if self.complete and self.buffered <= limit else None

    async def _wait(self, seconds: float | None) -> None:
        loop = self._connection.loop
        waiter = self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._expire)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _expire(self) -> None:
        self._connection.fail(UpstreamTimeout())
