"""What both sides of the proxy share: a connection that waits for its peer to read, and can stop reading itself."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, cast

#: What the peer does not take stays with whoever sends it: above this many bytes nothing is added here.
WRITE_MOST: Final = 4 * 1024


class Flow(asyncio.Protocol):
    """A protocol with flow control; `transport` is None before and after the connection."""

    __slots__ = ("_can_write", "_is_reading", "loop", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._is_reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(WRITE_MOST)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  what ended it makes no difference here
        """The transport is gone; who waits for it is told."""
        self.transport = None
        self.resume_writing()

    def pause_writing(self) -> None:
        """The peer does not read."""
        self._can_write = self.loop.create_future()

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._can_write = None

    @property
    def is_writing_paused(self) -> bool:
        """Is there something that the peer has not taken?"""
        return self._can_write is not None

    async def drain(self, seconds: float) -> None:
        """Wait until the peer took what was written, or is gone. Raises `TimeoutError`."""
        if self._can_write is not None:
            done, _ = await asyncio.wait({self._can_write}, timeout=seconds)
            if not done:
                raise TimeoutError

    def send_all(self, transport: asyncio.Transport, pieces: Iterable[bytes]) -> None:
        """Send several pieces as one."""
        transport.writelines(pieces)
        # Some versions of asyncio's own transports forget what they hold (CPython gh-127655); this reminds them.
        transport.set_write_buffer_limits(WRITE_MOST)

    def pause_reading(self) -> None:
        """Leave what the peer sends with it."""
        if self._is_reading and self.transport is not None and not self.transport.is_closing():
            self._is_reading = False
            self.transport.pause_reading()

    def write_eof(self) -> None:
        """End our side; that the peer has gone meanwhile is told by `connection_lost`."""
        if self.transport is not None:
            with suppress(OSError):
                self.transport.write_eof()

    def resume_reading(self) -> None:
        """All that came was taken, and more is wanted."""
        if not self._is_reading and self.transport is not None and not self.transport.is_closing():
            self._is_reading = True
            self.transport.resume_reading()
