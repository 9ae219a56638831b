"""A far end on loopback: a small HTTP server that answers with bytes, as wrong as they may be."""

import asyncio
import base64
import hashlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

#: The longest head and the longest body that a far end reads.
_LIMIT: Final = 1 << 20
#: Longer than any timeout of a copy; where there is none, a refresh would go on for all of the test.
SILENCE_SECONDS: Final = 1.5
#: In each answer of a far end, so that it is known from one of the proxy's own.
MARK: Final = "X-Far-End"
#: RFC 6455 section 1.3.
_WEBSOCKET: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True, slots=True)
class Heard:
    """One request: its target, its head as it came, its fields by lower-case name, its body."""

    target: str
    head: bytes = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """All of it as one line: what an error message of a careless server repeats."""
        return " ".join((self.head + self.body).decode("latin-1").split())

    def accepted(self) -> str:
        """The answer to its handshake of a WebSocket (RFC 6455 section 4.2.2)."""
        key = self.fields.get("sec-websocket-key", "").encode("latin-1")
        return base64.b64encode(hashlib.sha1(key + _WEBSOCKET).digest()).decode("ascii")  # noqa: S324  as the RFC says


@dataclass(frozen=True, slots=True)
class Played:
    """What is sent, and how it ends: the connection goes on, is closed, is reset, hangs, or echoes what comes."""

    data: bytes = field(default=b"", repr=False)
    end: Literal["keep", "close", "reset", "hang", "echo"] = "keep"


Play = Callable[[Heard], Played]


def http(
    status: str, fields: Mapping[str, str] | None = None, body: bytes = b"", *, length: int | None = None
) -> Played:
    """An answer; `length` instead of the body's own, after which the connection ends."""
    lines = {MARK: "1", "Content-Length": str(len(body) if length is None else length), **(fields or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    data = f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1", "replace") + body
    return Played(data, "keep" if length is None else "close")


@dataclass
class FarEnd:
    """One listener; `play` may be exchanged at any time; `received` is told of each request before its answer."""

    play: Play
    received: Callable[[Heard], None]
    #: Is the answer sent before the body is read?
    early: bool = False
    #: How many requests came.
    count: int = 0
    origin: str = ""

    @asynccontextmanager
    async def listening(self, path: Path | None = None) -> AsyncIterator["FarEnd"]:
        """Serve on a free port, or on a Unix socket at `path`."""
        if path is None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LIMIT)
            self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        else:
            server = await asyncio.start_unix_server(self._serve, path, limit=_LIMIT)
            self.origin = f"http+unix://{path}"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; does the connection go on?"""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
        early = self.early
        if fields.get("expect") and not early:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b"" if early else await _body(reader, fields)
        heard = Heard(first.split(" ")[1], head, fields, body)
        self.count += 1
        self.received(heard)
        played = self.play(heard)
        writer.write(played.data)
        if played.end == "reset":
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif played.end == "hang":
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(-1), SILENCE_SECONDS)
        elif played.end == "echo":
            await writer.drain()
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        else:
            await writer.drain()
        leaves = first.endswith("HTTP/1.0") or "close" in fields.get("connection", "").lower()
        return played.end == "keep" and not early and not leaves


async def _body(reader: asyncio.StreamReader, fields: Mapping[str, str]) -> bytes:
    if "chunked" not in fields.get("transfer-encoding", ""):
        return await reader.readexactly(int(fields.get("content-length", "0")))
    pieces = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return b"".join(pieces)


@asynccontextmanager
async def tunnelling() -> AsyncIterator[str]:
    """The URL of an outbound proxy that opens a tunnel to any port of this machine (RFC 9110 section 9.3.6)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                head = await reader.readuntil(b"\r\n\r\n")
                port = int(head.split(b" ")[1].rpartition(b":")[2])
                there, back = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await asyncio.gather(_pipe(reader, back), _pipe(there, writer))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    finally:
        sink.close()
