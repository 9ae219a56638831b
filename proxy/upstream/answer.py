"""One answer of an upstream, as far as it has come."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.errors import ProxyError, UpstreamTimeout
from proxy.http1.answer import NO_BODY, AnswerHead
from proxy.http1.section import Section
from proxy.work import Work, present

if TYPE_CHECKING:
    from proxy.upstream.connection import Connection

#: Is told of interim answers (1xx) as they come.
OnInterim = Callable[[AnswerHead], None]


class Answer:
    """One answer: its `head` once that is there, then its body as it comes, framed in one of the five ways.

    `trailers` are those behind a chunked body, once it is complete.
    """

    __slots__ = (
        "_buffer",
        "_connection",
        "_waiter",
        "_work",
        "buffered",
        "complete",
        "error",
        "framing",
        "head",
        "on_interim",
        "trailers",
    )

    def __init__(self, connection: "Connection", on_interim: OnInterim | None) -> None:
        self._connection = connection
        self._buffer: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        #: Rests until the head is here.
        self._work: Work | None = None
        self.buffered = 0
        self.complete = False
        self.error: ProxyError | None = None
        self.framing = NO_BODY
        self.head: AnswerHead | None = None
        self.on_interim = on_interim
        self.trailers: Section | None = None

    # -- the connection's side

    def feed(self, data: bytes) -> None:
        """Body bytes; `wake` or `finish` comes next."""
        self._buffer.append(data)
        self.buffered += len(data)

    def finish(self, error: ProxyError | None = None) -> None:
        """The end, proper or not; the first one counts."""
        if not self.complete and self.error is None:
            self.complete = error is None
            self.error = error
        self.wake()

    def wake(self) -> None:
        """Something changed for whoever waits. Who waits for the head goes on at once: call this last."""
        work = self._work
        if work is not None:
            self._work = None
            if self.error is None:
                work.go_on()
            else:
                self._connection.loop.call_soon(work.go_on)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the relay's side

    async def wait_for_head(self) -> AnswerHead:
        """The head. Raises the `UpstreamError` that came instead."""
        while self.head is None:
            if self.error is not None:
                raise self.error
            work = present()
            if work is None:
                await self._wait(None)
                continue
            self._work = work
            try:
                await work
            finally:
                self._work = None
        return self.head

    def read_nowait(self) -> bytes:
        """All body bytes that are there; `b""`: none yet, or the end (`complete`)."""
        buffer = self._buffer
        if not buffer:
            return b""
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        self.buffered = 0
        return data

    async def read(self, idle: float | None) -> bytes:
        """The next body bytes, `b""` at the proper end. At most `idle` seconds between bytes (None: any time).

        Raises `UpstreamTruncated` (or what else went wrong) at any other end, `UpstreamTimeout` when idle.
        """
        while not self._buffer:
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            # Only now: what was read before has left us, so there is never more than one read of the socket here.
            self._connection.resume_reading()
            await self._wait(idle)
        return self.read_nowait()

    async def hold(self, limit: int, idle: float) -> bytes | None:
        """The whole body if it is complete within `limit` bytes, else None; either way nothing is consumed."""
        while not self.complete and self.error is None and self.buffered < limit:
            self._connection.resume_reading()
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
