"""Writes answers to the client: the head of a relayed one, and the documents that the proxy makes itself.

aiohttp builds an answer from a multidict, which costs more than the rest of the relay together and cannot carry
raw header bytes; so the bytes go to the transport directly, and aiohttp is only told whether to keep the
connection.
"""

import asyncio
import json
import socket
import struct
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from proxy.accesslog import Exchange
from proxy.errors import ProxyError
from proxy.upstream.answer import Answer
from proxy.upstream.framing import CHUNKED, UNTIL_CLOSE


class Written(web.StreamResponse):
    """Tells aiohttp that the answer is already on the wire, and whether the connection lives on."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to prepare."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


#: They hold no state of a request, so one of each is enough.
KEPT: Final = Written(keep_alive=True)
CLOSED: Final = Written(keep_alive=False)

LAST_CHUNK: Final = b"0\r\n\r\n"
#: How long a client may leave an answer unread whose end is written.
STALLED_SECONDS: Final = 60.0
#: On, 0 seconds: closing sends RST. A Unix socket has no such end.
_RESET: Final = struct.pack("ii", 1, 0)
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """The status line with the standard phrase; an upstream's own phrase is not passed on (threat 70)."""
    return b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b""))


def connection_line(*, keep_alive: bool, version: tuple[int, int]) -> bytes:
    """The Connection field where the version's default would say otherwise (RFC 9112 section 9.3)."""
    if keep_alive:
        return b"Connection: keep-alive\r\n" if version == (1, 0) else b""
    return b"Connection: close\r\n"


def problem(error: ProxyError, request_id: str, *, connection: bytes, extra: bytes = b"", bodyless: bool) -> bytes:
    """The whole answer for `error`: problem+json (RFC 9457) with Proxy-Status (RFC 9209).

    Only fixed sentences: never a byte of the request (threat 80). `bodyless`: the answer to a HEAD.
    """
    body = json.dumps(
        {
            "title": error.title,
            "status": error.status,
            "code": error.code,
            "detail": error.detail,
            "request_id": request_id,
        }
    ).encode()
    proxy_status = f'bearer-proxy; details="{error.code}"'
    if error.proxy_error is not None:
        proxy_status = f'bearer-proxy; error={error.proxy_error}; details="{error.code}"'
    lines = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Date", formatdate(usegmt=True)),
        ("Proxy-Status", proxy_status),
        ("X-Content-Type-Options", "nosniff"),
        *error.headers(),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in lines).encode("ascii")
    return status_line(error.status) + head + extra + connection + b"\r\n" + (b"" if bodyless else body)


class Downstream:
    """The client's side of one exchange: what was written to it, and whether its connection lives on.

    Law: once a head is out, nothing but that answer's body follows; a body that breaks is cut visibly.
    """

    __slots__ = ("_exchange", "_keep_alive", "_must_abort", "_request", "_started", "_version")

    def __init__(self, request: web.BaseRequest, exchange: Exchange, *, keep_alive: bool) -> None:
        self._request = request
        self._exchange = exchange
        self._keep_alive = keep_alive and request.keep_alive
        self._version = (request.version.major, request.version.minor)
        self._started = False
        self._must_abort = False

    @property
    def takes_chunks(self) -> bool:
        """Does the client know the chunked coding (HTTP/1.1)?"""
        return self._version >= (1, 1)

    @property
    def result(self) -> Written:
        """What aiohttp is told."""
        return KEPT if self._keep_alive else CLOSED

    def close_after(self) -> None:
        """The connection ends with this answer."""
        self._keep_alive = False

    def interim(self, data: bytes) -> None:
        """An interim answer (1xx) before the final one."""
        if self._version >= (1, 1):
            self._write(data)

    def begin(self, status: int, lines: list[bytes], *, framing: bytes, first: bytes, until_close: bool) -> None:
        """Write the head, and with it the body bytes that are there already."""
        if until_close:
            self._keep_alive = False
        self._must_abort = until_close
        self._started = True
        self._exchange.status = status
        self._exchange.bytes_out += len(first)
        self._write(b"".join((status_line(status), *lines, framing, self._connection_line(), b"\r\n", first)))

    async def write(self, data: bytes, stalled: float) -> None:
        """Write body bytes; waits at most `stalled` seconds for a client that does not read."""
        self._exchange.bytes_out += len(data)
        self._write(data)
        if self._request.protocol.writing_paused:
            try:
                async with asyncio.timeout(stalled):
                    await self._request.writer.drain()
            except TimeoutError:
                self._must_abort = True  # a plain end would wait for the client to read
                raise

    async def settle(self) -> None:
        """Wait until the client took what was written; one that does not is cut off."""
        if not self._request.protocol.writing_paused:
            return
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await self._request.writer.drain()
        except TimeoutError:
            self._must_abort = True
            self.cut()
        except ConnectionError:
            self._keep_alive = False  # it is gone

    def problem(self, error: ProxyError, extra: bytes = b"") -> None:
        """Answer with `error`, or cut an answer that has begun."""
        self._exchange.error = error.code
        if self._started:
            self.cut()
            return
        self._started = True
        self._exchange.status = error.status
        connection, bodyless = self._connection_line(), self._request.method == "HEAD"
        self._write(
            problem(error, self._exchange.request_id, connection=connection, extra=extra, bodyless=bodyless)
        )

    def cut(self) -> None:
        """End the connection so that the client sees an incomplete answer (invariant 8)."""
        self._keep_alive = False
        transport = self._request.transport
        if transport is None:
            return
        if self._must_abort:
            # A plain end would be this body's proper end, and abort() alone ends by FIN, too.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        else:
            transport.close()
            # That waits for the client to read what is buffered, which it need not do.
            asyncio.get_running_loop().call_later(STALLED_SECONDS, transport.abort)

    def _connection_line(self) -> bytes:
        """Decide whether the connection lives on, and say so."""
        # A client may leave out what is missing of its body now, and its next request would be taken for that
        # (RFC 9110 section 10.1.1).
        self._keep_alive = self._keep_alive and self._request.content.is_eof()
        return connection_line(keep_alive=self._keep_alive, version=self._version)

    def _write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        transport.write(data)


async def deliver(answer: Answer, out: Downstream, lines: list[bytes], idle: float) -> None:
    """Pass an upstream's answer on: its head with these field lines, then bytes as they come, then its own end.

    `idle`: seconds that either side may take between bytes. Raises an `UpstreamError` where the answer breaks.
    """
    chunked = answer.framing in (CHUNKED, UNTIL_CLOSE) and out.takes_chunks
    until_close = answer.framing in (CHUNKED, UNTIL_CLOSE) and not out.takes_chunks
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    if answer.length is not None and answer.status != 204:
        framing = b"Content-Length: %d\r\n" % answer.length
    first = answer.read_nowait()
    if chunked and first:
        first = _chunk(first)
    is_whole = answer.complete
    if is_whole and chunked:
        first += LAST_CHUNK
    out.begin(answer.status, lines, framing=framing, first=first, until_close=until_close)
    if is_whole:
        return
    while piece := await answer.read(idle):
        await out.write(_chunk(piece) if chunked else piece, idle)
    if chunked:
        await out.write(LAST_CHUNK, idle)


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)
