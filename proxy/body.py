"""A request's body: streamed as it comes, and kept up to a bound so that it can be sent once more."""

import asyncio
from collections.abc import Iterator
from typing import Protocol

from proxy.errors import ProxyError, RequestTimeout, TooLarge
from proxy.replay import Replay


class Feeder(Protocol):
    """Where body bytes come from."""

    def resume_reading(self) -> None:
        """All that came was taken, and more is wanted."""
        ...


class Watcher(Protocol):
    """Whoever sees a body as it passes, and changes no byte of it."""

    def see(self, piece: bytes, /) -> None:
        """The next bytes."""
        ...


class Piece:
    """The beginning of a body as it passes: at most `most` bytes of it, and how many there were.

    `also` sees all of it. `is_cut`: there was more of it than was seen.
    """

    __slots__ = ("_parts", "_room", "also", "is_cut", "most", "size")

    def __init__(self, most: int) -> None:
        self.also: Watcher | None = None
        self.most = self._room = most
        self._parts: list[bytes] = []
        self.size = 0
        self.is_cut = False

    def see(self, data: bytes) -> None:
        """The next bytes."""
        self.size += len(data)
        if self._room > 0:
            self._parts.append(data[: self._room])
            self._room -= len(data)
        if self.also is not None:
            self.also.see(data)

    @property
    def kept(self) -> bytes:
        """What of it is here."""
        return b"".join(self._parts)


class RequestBody:
    """The body of one request; `length` in bytes where the client declared it, None for a chunked one.

    What is read is kept for a repeat, as far as `keep` allows it; `received` counts the bytes that were read.
    """

    __slots__ = (
        "_again",
        "_buffer",
        "_complete",
        "_error",
        "_feeder",
        "_idle",
        "_kept",
        "_most",
        "_replay",
        "_waiter",
        "length",
        "received",
        "watch",
    )

    def __init__(self, feeder: Feeder, length: int | None) -> None:
        self._feeder = feeder
        self._buffer: list[bytes] = []
        self._complete = False
        self._error: ProxyError | None = None
        self._waiter: asyncio.Future[None] | None = None
        #: Takes what is read, until a repeat is out of the question; and the same to the end.
        self._replay: Replay | None = None
        self._kept: Replay | None = None
        self._again: Iterator[bytes] | None = None
        self._idle: float | None = None
        self._most: int | None = None
        self.length = length
        self.received = 0
        #: Sees what is read, each byte once.
        self.watch: Watcher | None = None

    # -- what the connection calls

    def feed(self, data: bytes) -> None:
        """Bytes of it came."""
        self._buffer.append(data)
        self._wake()

    def finish(self, error: ProxyError | None = None) -> None:
        """Its end, proper or not; the first one counts."""
        if not self._complete and self._error is None:
            self._complete = error is None
            self._error = error
        self._wake()

    # -- what the relay calls

    def bound(self, *, replay: Replay | None, most: int | None, idle: float | None) -> None:
        """Keep what is read in `replay`; take at most `most` bytes, and wait at most `idle` seconds for the next.

        Raises `TooLarge` where the declared length says that it is.
        """
        if most is not None and self.length is not None and self.length > most:
            raise TooLarge
        self._replay = self._kept = replay
        self._most, self._idle = most, idle

    @property
    def is_replayable(self) -> bool:
        """Is all that was read still here?"""
        return self.received == 0 or (self._replay is not None and self._replay.is_whole)

    def forget(self) -> None:
        """It will not be sent again: keep nothing, but what a repeat is still reading."""
        self._replay = None
        if self._again is None:
            self.close()

    def close(self) -> None:
        """Nobody reads it any more."""
        if self._kept is not None:
            self._kept.drop()

    def rewind(self) -> None:
        """Begin again; only while `is_replayable`."""
        if self._replay is not None and self.received:
            self._again = self._replay.pieces()

    def take_all(self) -> bytes | None:
        """All of it, where all of it is here and little; else None. Raises `TooLarge`."""
        return self._take() if self._complete and self._again is None else None

    async def read(self) -> bytes:
        """The next bytes, `b""` at the end.

        Raises `TooLarge`, `RequestTimeout`, or what the connection says is wrong with it.
        """
        if self._again is not None:
            if piece := next(self._again, b""):
                return piece
            self._again = None
        while not self._buffer:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            self._feeder.resume_reading()
            await self._wait()
        return self._take()

    def _take(self) -> bytes:
        piece = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self.received += len(piece)
        if self._most is not None and self.received > self._most:
            raise TooLarge
        if self._replay is not None:
            self._replay.keep(piece)
        if self.watch is not None:
            self.watch.see(piece)
        return piece

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if self._idle is None else loop.call_later(self._idle, self._expire)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _expire(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(RequestTimeout())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
