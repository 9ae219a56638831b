"""Writes one answer to a client.

Law: once a head is out, nothing but that answer's body follows; one that breaks off is cut visibly (invariant 8).
"""

import asyncio
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from proxy.accesslog import Exchange
from proxy.body import RequestBody
from proxy.errors import ProxyError
from proxy.listener.request import Request
from proxy.problem import problem, status_line

if TYPE_CHECKING:
    from proxy.listener.connection import ClientConnection

#: How long a client may leave an answer unread whose end is written.
STALLED_SECONDS: Final = 60.0
_NOT_UNDERSTOOD: Final = frozenset({400, 408, 413, 414, 417, 431})
#: On, 0 seconds: closing sends RST. A Unix socket has no such end.
_RESET: Final = struct.pack("ii", 1, 0)


def block(lines: Iterable[bytes]) -> bytes:
    """Field lines as they stand in a head, each with its end."""
    return b"\r\n".join([*lines, b""])


class ClientAnswer:
    """The answer to `request`; `keep_alive`: the connection lives on behind it."""

    __slots__ = ("_connection", "_exchange", "_must_abort", "_request", "_started", "keep_alive")

    def __init__(self, connection: "ClientConnection", request: Request, exchange: Exchange) -> None:
        self._connection = connection
        self._request = request
        self._exchange = exchange
        self._started = False
        self._must_abort = False
        self.keep_alive = request.keep_alive

    @property
    def takes_chunks(self) -> bool:
        """Does the client know the chunked coding and interim answers (HTTP/1.1)?"""
        return self._request.section.minor > 0

    @property
    def is_client_gone(self) -> bool:
        """Did the connection end already?"""
        return self._connection.transport is None

    def interim(self, status: int, lines: bytes) -> None:
        """An interim answer (1xx) in front of the final one."""
        if self.takes_chunks and not self._started:
            self._connection.write(b"%b\r\n%b\r\n" % (status_line(status), lines))

    def begin(self, status: int, lines: bytes, first: bytes = b"", *, until_close: bool = False) -> None:
        """Write the head, its framing among `lines`, and with it the body bytes that are there already."""
        if until_close:
            self.keep_alive = False
            self._must_abort = True
        self._started = True
        self._exchange.status = status
        self._exchange.bytes_out += len(first)
        self._connection.write(b"%b\r\n%b%b\r\n%b" % (status_line(status), lines, self._connection_line(), first))

    def switch(self, lines: bytes) -> RequestBody:
        """Write the head of a 101; gives what the client sends from now on."""
        self._started = True
        self.keep_alive = False
        self._exchange.status = 101
        self._connection.write(b"%b\r\n%b\r\n" % (status_line(101), lines))
        return self._connection.tunnel()

    async def write(self, pieces: Sequence[bytes], stalled: float) -> None:
        """Write body bytes; waits at most `stalled` seconds for a client that does not read."""
        for piece in pieces:
            self._exchange.bytes_out += len(piece)
        self._connection.write_all(pieces)
        if self._connection.is_writing_paused:
            try:
                await self._connection.drain(stalled)
            except TimeoutError:
                self._must_abort = True  # a plain end would wait for the client to read
                raise

    async def settle(self) -> None:
        """Wait until the client took what was written; one that does not is cut off."""
        if not self._connection.is_writing_paused:
            return
        try:
            await self._connection.drain(STALLED_SECONDS)
        except TimeoutError:
            self._must_abort = True
            self.cut()

    def problem(self, error: ProxyError, extra: Iterable[bytes] = ()) -> None:
        """Answer with `error`, or cut an answer that has begun."""
        self._exchange.error = error.code
        if self._started or self.is_client_gone:
            self.cut()
            return
        # Whoever was not understood once is not listened to any longer; behind a CONNECT nobody speaks to us.
        if error.status in _NOT_UNDERSTOOD or self._request.method == "CONNECT":
            self.keep_alive = False
        lines, body = problem(error, self._exchange.request_id)
        self.document(error.status, (*lines, *extra), body)

    def document(self, status: int, lines: Iterable[bytes], body: bytes) -> None:
        """Write a whole answer of our own; the answer to a HEAD only speaks of its body."""
        sent = b"" if self._request.method == "HEAD" else body
        self.own(status, block((*lines, b"Content-Length: %d" % len(body))), sent)

    def own(self, status: int, lines: bytes, body: bytes = b"") -> None:
        """The same, where `lines` say how the body is framed."""
        self._exchange.own = (lines, body)
        self.begin(status, lines, body)

    def end(self) -> None:
        """End the connection behind what was written."""
        self.keep_alive = False
        if self._connection.transport is not None:
            self._close(self._connection.transport)

    def cut(self) -> None:
        """End the connection so that the client sees an incomplete answer."""
        self.keep_alive = False
        transport = self._connection.transport
        if transport is None:
            return
        if self._must_abort:
            # A plain end would be this body's proper end, and abort() alone ends by FIN, too.
            with suppress(OSError):  # the client is gone, and nobody told us yet
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        else:
            self._close(transport)

    def _close(self, transport: asyncio.Transport) -> None:
        transport.close()
        # That waits for the client to read what is buffered, which it need not do.
        asyncio.get_running_loop().call_later(STALLED_SECONDS, transport.abort)

    def _connection_line(self) -> bytes:
        """Decide whether the connection lives on, and say so where the version's default says otherwise."""
        # A client may leave out what is missing of its body now, and its next request would be taken for that
        # (RFC 9110 section 10.1.1).
        if self.keep_alive and self._connection.is_request_complete:
            if self.takes_chunks:
                return b""
            line = b"Connection: keep-alive\r\n"
        else:
            self.keep_alive = False
            line = b"Connection: close\r\n"
        self._exchange.connection = line
        return line
