"""A protocol that keeps all that its transport tells it, with an event for each thing that a test may wait for."""

import asyncio
from typing import cast


class Recorder(asyncio.Protocol):
    """What came on one connection, in its order: `told` holds the names of the calls, data joined."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.received = bytearray()
        self.told: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.can_write = asyncio.Event()
        self.can_write.set()
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast("asyncio.Transport", transport)
        self._tell("connection_made")

    def data_received(self, data: bytes) -> None:
        """Record."""
        self.received += data
        self._tell("data_received")

    def eof_received(self) -> None:
        """The proper end of what comes."""
        self._tell("eof_received")

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of all."""
        self._tell("connection_lost")
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        """The transport wants no more."""
        self._tell("pause_writing")
        self.can_write.clear()

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._tell("resume_writing")
        self.can_write.set()

    async def got(self, count: int) -> bytes:
        """All that came, once it is at least that many bytes."""
        while len(self.received) < count:
            self._news.clear()
            await self._news.wait()
        return bytes(self.received)

    def _tell(self, what: str) -> None:
        if what != "data_received" or self.told[-1:] != [what]:
            self.told.append(what)
        self._news.set()
