"""The two far ends of a proxy, a client and an upstream on raw sockets that read with h11 and record every byte.

Law: h11 says where a message ends and what it holds; the field lines are read from the raw bytes beside that, in
their case and order, and both readings must agree.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import h11

from tests.support.exchanges import Answer, Exchange, Field, cut

#: Longer than any example takes; reached only by one that hangs.
DEADLINE: Final = 15.0
#: What h11 takes for one head.
_HEAD_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was read, values without the space around them; `interim` are the heads before its own."""

    start: bytes
    fields: tuple[Field, ...]
    body: bytes
    trailers: tuple[Field, ...]
    interim: tuple[tuple[bytes, tuple[Field, ...]], ...] = ()

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name]

    def without(self, *names: bytes) -> tuple[Field, ...]:
        """The fields but these, in their order."""
        return tuple(field for field in self.fields if field[0].lower() not in names)


class Stream:
    """One connection: a raw socket, and what was read ahead from it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._ahead = b""

    async def send(self, pieces: Iterable[bytes]) -> None:
        """Send each piece as a segment of its own."""
        loop = asyncio.get_running_loop()
        for piece in pieces:
            await loop.sock_sendall(self._sock, piece)
            await asyncio.sleep(0)

    async def request(self) -> Message | None:
        """Read one request; None at the end of the connection. Raises what h11 raises where it is malformed."""
        return await self._message(h11.Connection(h11.SERVER, _HEAD_BYTES))

    async def answer(self, method: bytes) -> Message | None:
        """Read the answer to a request of this method, as `request` does."""
        reader = h11.Connection(h11.CLIENT, _HEAD_BYTES)
        reader.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"x")]))
        reader.send(h11.EndOfMessage())
        return await self._message(reader)

    async def _message(self, reader: h11.Connection) -> Message | None:
        raw, body = bytearray(self._ahead), bytearray()
        heads: list[tuple[bytes, tuple[Field, ...]]] = []
        if self._ahead:
            reader.receive_data(self._ahead)
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                data = await asyncio.get_running_loop().sock_recv(self._sock, 1 << 16)
                raw += data
                reader.receive_data(data)
            elif isinstance(event, h11.Request | h11.InformationalResponse | h11.Response):
                heads.append(_head(raw, len(heads)))
                assert heads[-1][1] == tuple(event.headers.raw_items())
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._ahead = reader.trailing_data[0]
                (start, fields), interim = heads[-1], heads[:-1]
                return Message(start, fields, bytes(body), tuple(event.headers.raw_items()), tuple(interim))
            else:
                assert isinstance(event, h11.ConnectionClosed)
                return None

    def close(self) -> None:
        """End it."""
        self._sock.close()


def _head(raw: bytearray, number: int) -> tuple[bytes, tuple[Field, ...]]:
    """The start line and the fields of the head of this number in `raw`; of several, all but one are interim."""
    start, *lines = bytes(raw).split(b"\r\n\r\n")[number].split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    return start, tuple((name, value.strip(b" \t")) for name, _, value in pairs)


class Upstream:
    """Records requests, and gives each the next of `answers`, in pieces as `sizes` says."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0)
        self.port: int = self._listening.getsockname()[1]
        self.answers: deque[Answer] = deque()
        self.sizes: Sequence[int] = ()
        self.seen: list[Message] = []
        #: What went wrong here: h11's complaint, a broken connection, or a request without an answer for it.
        self.failures: list[Exception] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accept connections whenever the loop runs."""
        self._spawn(self._accept())

    async def stop(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listening.close()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self._listening)
            self._spawn(self._serve(Stream(sock)))

    async def _serve(self, stream: Stream) -> None:
        try:
            while (request := await stream.request()) is not None:
                self.seen.append(request)
                answer = self.answers.popleft()
                await stream.send(cut(answer.wire, self.sizes))
                if answer.closes:
                    break
        except (h11.RemoteProtocolError, OSError, IndexError, AssertionError) as error:
            self.failures.append(error)
        finally:
            stream.close()


async def converse(
    address: tuple[str, int], conversation: Sequence[Exchange], sizes: Sequence[int]
) -> list[Message | None]:
    """Send all requests on one connection without waiting, and read their answers; None: the connection ended."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.settimeout(0)
    stream = Stream(sock)
    try:
        await loop.sock_connect(sock, address)
        wire = b"".join(exchange.request.wire for exchange in conversation)
        sending = loop.create_task(stream.send(cut(wire, sizes)))
        try:
            return [await stream.answer(exchange.request.method) for exchange in conversation]
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        stream.close()
