"""Both ends of the wire around a proxy: a client that sends bytes, and an upstream that records and says its lines.

Both can cut what they send to one byte a segment. Every wait is for something that comes, with a deadline for a
hang.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

from tests.support.messages import Malformed, Message, read_answer, read_request
from tests.support.upstreams import reset

#: No case takes this long; a hang becomes a complaint.
DEADLINE: Final = 5.0
#: A text of up to so many bytes goes one byte a segment; a longer one in as many pieces of equal size.
MOST_PIECES: Final = 2048
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: How a connection ended, and what a reply may be followed by.
EOF: Final = "eof"
RESET: Final = "reset"
STAY: Final = "stay"


class Feed(asyncio.Protocol):
    """One end of a connection: what came on it, and how it ended (`eof`, `reset`, None: it lives)."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: str | None = None
        self.transport: asyncio.Transport
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Record."""
        self.received += data
        self._news.set()

    def eof_received(self) -> bool:
        """The other side says no more; ours may."""
        self.ended = EOF
        self._news.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        self.ended = self.ended or (EOF if exc is None else RESET)
        self._news.set()

    async def news(self) -> None:
        """Wait until something came."""
        self._news.clear()
        await self._news.wait()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until `holds()`; asked whenever something came. Raises TimeoutError."""
        async with asyncio.timeout(DEADLINE):
            while not holds():
                await self.news()

    async def over(self) -> None:
        """Wait for the end. Raises TimeoutError."""
        await self.until(lambda: self.ended is not None)

    async def send(self, data: bytes, *, in_bytes: bool) -> None:
        """Send whole, or cut: both loops set TCP_NODELAY, and between two pieces the loop goes round."""
        size = -(-len(data) // MOST_PIECES) if in_bytes else len(data)
        for at in range(0, len(data), size or 1):
            if self.transport.is_closing():
                return
            self.transport.write(data[at : at + size])
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the upstream says to the next request: `early`, before its body came; `then` it stays, or ends."""

    data: bytes
    early: bool = False
    then: str = STAY


@dataclass(slots=True)
class Seen:
    """A request at the upstream as far as it came, where it came, and the how-manieth it was."""

    message: Message
    connection: "Accepted"
    serial: int
    #: The upstream said all that it has to say.
    answered: bool = False


class Accepted(Feed):
    """A connection that the upstream accepted, and the requests on it."""

    def __init__(self, recorder: "Recorder") -> None:
        super().__init__()
        self._recorder = recorder
        self._task: asyncio.Task[None] | None = None
        self._taken = 0
        #: What is wrong with what came.
        self.malformed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        super().connection_made(transport)
        self._recorder.connections.append(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
        except Malformed as error:
            self.malformed = str(error)
            self.transport.abort()

    async def _exchange(self) -> bool:
        """One request and its answer; False where the connection serves no more."""
        recorder = self._recorder
        message = await self._read()
        if message is None:
            return False
        seen = Seen(message, self, len(recorder.requests))
        recorder.requests.append(seen)
        reply, recorder.reply = recorder.reply, None
        if reply is None and message.all("expect"):
            self.transport.write(CONTINUE)
        while not seen.message.complete and not (reply and reply.early):
            if self.ended is not None:
                self.transport.close()
                return False
            await self._more(chunked=bool(message.all("transfer-encoding")))
            seen.message = await self._read() or seen.message
        self._taken = seen.message.end
        reply = reply or good(seen, closing=recorder.closing)
        await self.send(reply.data, in_bytes=recorder.in_bytes)
        seen.answered = True
        self._news.set()
        if reply.then == RESET:
            reset(self.transport.get_extra_info("socket"))
            self.transport.abort()
        elif reply.then == EOF:
            self.transport.close()
        return reply.then == STAY and seen.message.complete and not reply.data.startswith(b"HTTP/1.1 101")

    async def _more(self, *, chunked: bool) -> None:
        """Wait for more, of chunks for what may be the last: to read all for each one takes quadratic time."""
        await self.news()
        while chunked and self.ended is None and not self.received.endswith(b"\r\n\r\n"):
            await self.news()

    async def _read(self) -> Message | None:
        """The request that begins behind the last one, as soon as its head is whole; None: it never will be."""
        while (message := read_request(bytes(self.received), self._taken)) is None:
            if self.ended is not None:
                self.transport.close()
                return None
            await self.news()
        return message


def good(seen: Seen, *, closing: bool = False) -> Reply:
    """200 with the request's serial number; `closing`: and the end of the connection."""
    number = b"%d" % seen.serial
    lines = b"Content-Length: %d\r\n" % len(number) + (b"Connection: close\r\n" if closing else b"")
    body = b"" if seen.message.method == "HEAD" else number
    return Reply(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (lines, body), then=EOF if closing else STAY)


class Recorder:
    """An upstream that records; use it as `async with`.

    It answers 200, with `closing` on a connection for each, unless `reply` says otherwise for the next request.
    """

    def __init__(self, *, in_bytes: bool = False, closing: bool = False) -> None:
        self.in_bytes = in_bytes
        self.closing = closing
        self.reply: Reply | None = None
        self.requests: list[Seen] = []
        self.connections: list[Accepted] = []
        self.port = 0
        self._server: asyncio.Server

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """For a route."""
        return f"http://{self.authority}"

    def take(self) -> list[Seen]:
        """The requests since the last time."""
        taken, self.requests = self.requests, []
        return taken

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Accepted(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self.connections:
            connection.transport.abort()
        await self._server.wait_closed()


class Client(Feed):
    """A client's end: answers are taken one by one."""

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0

    @property
    def rest(self) -> bytes:
        """What came behind the answers that were taken."""
        return bytes(self.received[self._taken :])

    async def answer(self, method: str = "GET") -> Message | None:
        """The next answer, complete or as far as it came; None where the connection ended before its head.

        Raises `Malformed`, and TimeoutError where it neither comes nor ends.
        """

        def is_there() -> bool:
            message = self._peek(method)
            return self.ended is not None or (message is not None and message.complete)

        await self.until(is_there)
        message = self._peek(method)
        if message is not None:
            self._taken = message.end
        return message

    def _peek(self, method: str) -> Message | None:
        return read_answer(bytes(self.received), self._taken, method=method, over=self.ended == EOF)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """A client's connection to a port of this machine."""
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    try:
        yield client
    finally:
        client.transport.abort()
