"""A request's body: streamed as it comes, and kept up to a bound so that it can be sent once more."""

import asyncio
from typing import Protocol

from proxy.errors import BadFraming, RequestTimeout, TooLarge


class ByteStream(Protocol):
    """What aiohttp's reader gives: pieces, and `b""` at the end."""

    async def readany(self) -> bytes:
        """The next bytes."""
        ...

    def is_eof(self) -> bool:
        """Did the last byte arrive?"""
        ...


class RequestBody:
    """The body of one request; `length` in bytes where the client declared it, None for a chunked one.

    `keep` bounds in bytes what is kept for the repeat, `most` what is taken at all (None: any size), `idle` the
    seconds between two pieces.
    """

    __slots__ = ("_at", "_idle", "_keep", "_kept", "_most", "_stream", "is_replayable", "length", "received")

    def __init__(self, stream: ByteStream, length: int | None, *, keep: int, most: int | None, idle: float) -> None:
        if most is not None and length is not None and length > most:
            raise TooLarge
        self._stream = stream
        self._keep = keep
        self._idle = idle
        self._most = most
        self._kept: list[bytes] = []
        self._at = 0
        self.length = length
        self.received = 0
        #: All that was read is still here. Over the bound it is dropped, and a refusal cannot be repeated.
        self.is_replayable = True

    @property
    def is_here(self) -> bool:
        """Has the client sent all of it already?"""
        return self._stream.is_eof()

    def forget(self) -> None:
        """The request will not be sent again: keep nothing."""
        self.is_replayable = False
        self._drop_read()

    def _drop_read(self) -> None:
        """Let go of what was kept, unless a repeat still reads from it."""
        if not self.is_replayable and self._at >= len(self._kept):
            self._kept.clear()
            self._at = 0

    def rewind(self) -> None:
        """Begin again; only while `is_replayable`."""
        self._at = 0

    async def read(self) -> bytes:
        """The next bytes, `b""` at the end.

        Raises `TooLarge`, `RequestTimeout`, or `BadFraming` for a body that is not what was announced.
        """
        if self._at < len(self._kept):
            self._at += 1
            piece = self._kept[self._at - 1]
            self._drop_read()
            return piece
        try:
            async with asyncio.timeout(self._idle):
                piece = await self._stream.readany()
        except TimeoutError as error:
            raise RequestTimeout from error
        except Exception as error:
            # Whatever aiohttp's reader raises says that the client's body is not what its framing promised.
            raise BadFraming from error
        self.received += len(piece)
        if self._most is not None and self.received > self._most:
            raise TooLarge
        if piece and self.is_replayable:
            if self.received > self._keep:
                self.is_replayable = False
                self._kept.clear()
                self._at = 0
            else:
                self._kept.append(piece)
                self._at += 1
        return piece
