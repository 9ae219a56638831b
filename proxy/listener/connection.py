"""One client connection: reads requests one after another, and hands each to the handler.

Law: no byte of a malformed request leaves this module in any direction (threats 74, 112), and a request behind
another is not looked at before that one is answered.
"""

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from proxy.accesslog import Exchange
from proxy.alarm import Alarm
from proxy.body import RequestBody
from proxy.errors import (
    BadFraming,
    BadRequest,
    HeadersTooLarge,
    Overloaded,
    ProxyError,
    RequestTimeout,
    TargetTooLong,
)
from proxy.http1.bodies import Chunked, Decoder, Sized, UntilEnd
from proxy.http1.request import RequestSection, request_line
from proxy.http1.section import Malformed, TooMany, has_bare_lf
from proxy.listener.answer import ClientAnswer
from proxy.listener.request import Request

if TYPE_CHECKING:
    from proxy.listener.server import Server

#: How long the rest of a refused body is read before the connection ends (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0
#: An answer that the client does not read stays with the upstream: above this many bytes nothing is added here.
WRITE_MOST: Final = 4 * 1024
#: Requests that a client sends ahead of the answers wait in the socket above this many bytes.
AHEAD_MOST: Final = 64 * 1024
#: How long a client may leave an answer unread whose end is written.
STALLED_SECONDS: Final = 60.0
#: The fields of no request.
NOTHING: Final = RequestSection(b"", 0)
_HEAD_END: Final = b"\r\n\r\n"
_CR: Final = 13
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")
#: What a request line that is not all here can look like.
_BEGUN: Final = re.compile(rb"\r?\Z|[A-Z-]{1,24}(?:\Z| )")
#: More empty lines in front of a request are no mistake any more.
_EMPTY_MOST: Final = 64

#: Answers a request, and says whether the connection lives on.
Handler = Callable[[Request, "ClientConnection"], Awaitable[bool]]


class ClientConnection(asyncio.Protocol):
    """The protocol of one connection. `client` is the peer's address, or `unix`."""

    __slots__ = (
        "_alarm",
        "_answered",
        "_beginning",
        "_body",
        "_buffer",
        "_can_write",
        "_decoder",
        "_is_lingering",
        "_is_reading",
        "_is_unix",
        "_looked_at",
        "_loop",
        "_section",
        "_server",
        "_task",
        "client",
        "transport",
    )

    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._alarm = Alarm(loop, self._ring)
        self._buffer = b""
        #: Where in the buffer the search for the end of a head goes on.
        self._looked_at = 0
        #: The fields of the last request: clients send the same ones again.
        self._section = NOTHING
        self._task: asyncio.Task[None] | None = None
        self._beginning = False
        self._answered = False
        #: The body of the request in progress that has not come to its end, and what finds that.
        self._body: RequestBody | None = None
        self._decoder: Decoder | None = None
        self._is_reading = True
        self._is_lingering = False
        self._is_unix = False
        self._can_write: asyncio.Future[None] | None = None
        self.client = ""
        self.transport: asyncio.Transport | None = None

    # -- what the server calls

    @property
    def is_busy(self) -> bool:
        """Is a request in progress, or waiting for its turn?"""
        return self._task is not None

    def close_if_idle(self) -> None:
        """End a connection on which nothing is in progress."""
        if self._task is None and not self._is_lingering:
            self._end()

    def abort(self) -> None:
        """End it at once, and what is in progress with it."""
        if self.transport is not None:
            self.transport.abort()
        if self._task is not None:
            self._task.cancel()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The request in progress."""
        return self._task

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; over the limit it gets an answer and no more."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(WRITE_MOST)
        peer = transport.get_extra_info("peername")
        self._is_unix = not isinstance(peer, tuple)
        self.client = "unix" if self._is_unix else str(peer[0])
        self._server.joined(self)
        if self._server.is_full:
            self._refuse(Overloaded())
        else:
            self._alarm.set(self._loop.time() + self._server.idle_seconds)

    def data_received(self, data: bytes) -> None:
        """Bytes of a body, of a head, or of what is to come behind the request in progress."""
        if self._decoder is not None:
            self._feed(data)
            return
        if self._is_lingering:
            return
        begins = not self._buffer
        self._buffer = data if begins else self._buffer + data
        if self._task is not None:
            if len(self._buffer) > AHEAD_MOST:
                self._pause_reading()
            return
        self._advance()
        if begins and self._buffer:
            self._time_head()

    def eof_received(self) -> bool:
        """The client ended its side: that counts as hanging up, as in nginx and Go; in a tunnel it is an end."""
        if isinstance(self._decoder, UntilEnd) and self._body is not None:
            self._body.finish()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  what ended it makes no difference
        """The client is gone."""
        self.transport = None
        self._alarm.close()
        self._server.left(self)
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_exception(ConnectionResetError())
            self._can_write.exception()  # perhaps nobody waits
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._can_write = self._loop.create_future()

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._can_write = None

    # -- what the request in progress calls

    def write(self, data: bytes) -> None:
        """Send bytes. Raises `ConnectionResetError` where the client is gone."""
        if self.transport is None:
            raise ConnectionResetError
        self.transport.write(data)

    def write_all(self, pieces: Iterable[bytes]) -> None:
        """Send several pieces as one. Raises `ConnectionResetError` where the client is gone."""
        if self.transport is None:
            raise ConnectionResetError
        self.transport.writelines(pieces)

    @property
    def is_writing_paused(self) -> bool:
        """Is there something that the client has not taken?"""
        return self._can_write is not None

    async def drain(self, seconds: float) -> None:
        """Wait until the client took what was written. Raises `TimeoutError`, or `ConnectionResetError`."""
        if self._can_write is not None:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._can_write)

    def resume_reading(self) -> None:
        """More of the body is wanted."""
        if not self._is_reading and self.transport is not None:
            self._is_reading = True
            self.transport.resume_reading()

    @property
    def is_request_complete(self) -> bool:
        """Is all of the request in progress here?"""
        return self._decoder is None and not self._is_lingering

    def tunnel(self) -> RequestBody:
        """From now on all bytes belong to the protocol that was switched to (RFC 9110 section 7.8)."""
        body = self._body = RequestBody(self, None)
        self._decoder = UntilEnd()
        early, self._buffer = self._buffer, b""
        if early:
            self._feed(early)
        return body

    # -- requests, one after another

    def _advance(self) -> None:
        """Begin with the next request, and the next, for as long as one is here and none is in progress."""
        if self._beginning:
            return  # the one that is being begun was answered at once; the loop below goes on
        self._beginning = True
        try:
            while self._task is None and self._buffer and not self._is_lingering and self.transport is not None:
                if not self._begin_next():
                    break
        except ProxyError as error:
            self._refuse(error)
        finally:
            self._beginning = False

    def _time_head(self) -> None:
        """The beginning of a head is here: the rest has to come in time."""
        if self._task is None and not self._is_lingering:
            self._alarm.set(self._loop.time() + self._server.header_seconds)

    def _begin_next(self) -> bool:
        """Begin with the request at the beginning of the buffer; False: its head is not all here.

        Raises what is wrong with the head.
        """
        buffer = self._buffer
        at = 0
        if buffer[0] == _CR and (empty := _EMPTY_LINES.match(buffer)):
            at = empty.end()  # old clients send one behind a body (RFC 9112 section 2.2)
        most = self._server.header_bytes
        end = buffer.find(_HEAD_END, max(self._looked_at, at))
        if end < 0:
            self._looked_at = max(0, len(buffer) - 3)
            _check_unfinished(buffer, at, most)
            return False
        line_end = buffer.find(b"\r\n", at)
        if at > _EMPTY_MOST:
            raise BadRequest
        if line_end - at > most:
            raise TargetTooLong
        if end - line_end > most:
            raise HeadersTooLarge
        self._buffer = buffer[end + 4 :]
        self._looked_at = 0
        self._begin(buffer[at:line_end], buffer[line_end + 2 : end])
        return True

    def _begin(self, line: bytes, raw: bytes) -> None:
        method, target, minor = _request_line(line)
        try:
            section = self._section
            if raw != section.raw or minor != section.minor:
                section = self._section = RequestSection(raw, minor)
        except Malformed as error:
            raise (HeadersTooLarge if isinstance(error, TooMany) else BadRequest) from error
        self._alarm.clear()
        body = self._begin_body(section) if section.has_body else None
        request = Request(method, target, section, body=body, client=self.client, unix=self._is_unix)
        self._answered = False
        task = _start(self._loop, self._serve(request))
        if not self._answered:
            self._task = task

    def _begin_body(self, section: RequestSection) -> RequestBody:
        body = RequestBody(self, section.length)
        decoder: Decoder = Chunked(self._server.header_bytes) if section.chunked else Sized(section.length or 0)
        if decoder.done:
            body.finish()
            return body
        self._body, self._decoder = body, decoder
        early, self._buffer = self._buffer, b""
        if early:
            self._feed(early)
        return body

    def _feed(self, data: bytes) -> None:
        """Bytes of the body, and perhaps of what is behind it."""
        body, decoder = self._body, self._decoder
        if body is None or decoder is None:
            return
        try:
            piece = decoder.feed(data)
        except Malformed as error:
            self._decoder = self._body = None
            self._is_lingering = True  # where the body ends nobody knows
            body.finish(HeadersTooLarge() if isinstance(error, TooMany) else BadFraming())
            return
        if piece:
            body.feed(piece)
        if decoder.done:
            self._decoder = self._body = None
            self._buffer = decoder.rest
            body.finish()
        elif piece:
            self._pause_reading()

    async def _serve(self, request: Request) -> None:
        keep_alive = False
        try:
            keep_alive = await self._server.handler(request, self)
        finally:
            self._answered = True
            self._task = None
            self._after(request, keep_alive=keep_alive)

    def _after(self, request: Request, *, keep_alive: bool) -> None:
        """What follows an answer: the next request, rest, or the end."""
        if self.transport is None:
            return
        if not keep_alive and (request.keep_alive or self._decoder is not None):
            self._linger()  # the client does not know that it ends
        elif not keep_alive or self._server.is_closing:
            self._end()
        else:
            now = self._loop.time()
            self._alarm.set(now + (self._server.header_seconds if self._buffer else self._server.idle_seconds))
            self.resume_reading()
            self._advance()

    # -- ends

    def _ring(self) -> None:
        """The time for a head, or for rest, is over."""
        if self._is_lingering and self.transport is not None:
            self.transport.abort()
        elif self._buffer:
            self._refuse(RequestTimeout())
        else:
            self._end()

    def _refuse(self, error: ProxyError) -> None:
        """Answer a client whose head is not taken, and close."""
        request = Request("-", b"", NOTHING, body=None, client=self.client, unix=self._is_unix)
        exchange = Exchange("-", self.client, time.perf_counter())
        answer = ClientAnswer(self, request, exchange)
        answer.keep_alive = False
        answer.problem(error)
        self._server.observe(exchange)
        self._linger()

    def _linger(self) -> None:
        """Say no more, and let the client finish for a while.

        An end with unread bytes is a reset, which can destroy the answer on its way (RFC 9112 section 9.6).
        """
        self._is_lingering = True
        self._decoder = self._body = None
        self._buffer = b""
        if self.transport is not None and not self.transport.is_closing():
            self.resume_reading()
            self.transport.write_eof()
            self._alarm.set(self._loop.time() + LINGER_SECONDS)

    def _end(self) -> None:
        """Close; a client that does not read what it was sent is cut off."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size():
            self._is_lingering = True
            self._alarm.set(self._loop.time() + STALLED_SECONDS)
        transport.close()

    def _pause_reading(self) -> None:
        if self._is_reading and self.transport is not None:
            self._is_reading = False
            self.transport.pause_reading()


def _check_unfinished(buffer: bytes, at: int, most: int) -> None:
    """Raise what is wrong with a head, from `at` on, that cannot become a proper one."""
    line_end = buffer.find(b"\r\n", at)
    if at > _EMPTY_MOST or has_bare_lf(buffer):
        raise BadRequest
    if line_end < 0:
        if len(buffer) - at > most:
            raise TargetTooLong
        # Another protocol, TLS for one, would else wait for us.
        if at < len(buffer) and not _BEGUN.match(buffer, at):
            raise BadRequest
        return
    _request_line(buffer[at:line_end])
    if len(buffer) - line_end > most + len(_HEAD_END):
        raise HeadersTooLarge


def _request_line(line: bytes) -> tuple[str, bytes, int]:
    try:
        return request_line(line)
    except Malformed as error:
        raise BadRequest("The request line is malformed, or its method is unknown.") from error


if sys.version_info >= (3, 12):

    def _start(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run as far as it goes without waiting, and the rest as a task."""
        return asyncio.Task(work, loop=loop, eager_start=True)
else:

    def _start(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run as a task; before Python 3.12 that begins in the loop's next round."""
        return loop.create_task(work)
