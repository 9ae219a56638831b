"""One client connection: reads requests one after another, and hands each to the handler.

Law: a request behind another is not looked at before that one is answered.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from proxy.accesslog import Exchange
from proxy.alarm import Alarm
from proxy.body import RequestBody
from proxy.errors import BadFraming, HeadersTooLarge, ProxyError, RequestTimeout
from proxy.flow import Flow
from proxy.http1.bodies import Chunked, Decoder, Sized, UntilEnd
from proxy.http1.request import RequestSection
from proxy.http1.section import Malformed, TooMany
from proxy.listener.answer import STALLED_SECONDS, ClientAnswer
from proxy.listener.heads import NOTHING, HeadReader
from proxy.listener.request import Request
from proxy.work import Work

log: Final = logging.getLogger("proxy")

if TYPE_CHECKING:
    from proxy.listener.server import Server

#: How long the rest of a refused body is read before the connection ends (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0
#: A connection that came to rest less than this before the end of the listener may have a request on its way.
PARTING_SECONDS: Final = 1.0
#: Requests that a client sends ahead of the answers wait in the socket above this many bytes.
AHEAD_MOST: Final = 64 * 1024
#: Answers a request, and leaves in `keep_alive` whether the connection lives on.
Handler = Callable[[Request, "ClientConnection"], Awaitable[None]]


class ClientConnection(Flow):
    """The protocol of one connection. `client` is the peer's address, or `unix`; empty: it is gone already."""

    __slots__ = (
        "_alarm",
        "_beginning",
        "_body",
        "_decoder",
        "_heads",
        "_is_lingering",
        "_linger_until",
        "_port",
        "_request",
        "_rests_since",
        "_server",
        "client",
        "handler",
        "is_proven",
        "keep_alive",
        "work",
    )

    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._server = server
        self._alarm = Alarm(loop, self._ring)
        self._heads = HeadReader(server.header_bytes)
        self.handler = server.handler
        #: The request in progress, and what answers it.
        self._request: Request | None = None
        self.work: Work | None = None
        #: Whether another request may follow it; the handler decides.
        self.keep_alive = self._beginning = self._is_lingering = False
        #: The body of the request in progress that has not come to its end, and what finds that.
        self._body: RequestBody | None = None
        self._decoder: Decoder | None = None
        self.is_proven = False  # True: a request was admitted, as the handler says
        self._port: int | None = None  # of the listener; None: it is a Unix socket
        self._linger_until = self._rests_since = 0.0
        self.client = ""

    # -- what the server calls

    def part(self) -> None:
        """End a connection that rests, once it has rested for a while: what is on its way is answered."""
        if self.work is None and not self._is_lingering:
            self._alarm.set(self._rests_since + PARTING_SECONDS)

    def close(self) -> None:
        """End it at once, and what is in progress with it; an answer on its way is not lost."""
        if self.work is not None:
            self.work.cancel()
        else:
            self._end()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; where there is no place for it, it gets an answer and no more."""
        super().connection_made(transport)
        sock, peer, own = map(transport.get_extra_info, ("socket", "peername", "sockname"))
        self._port = None if sock.family == socket.AF_UNIX else own[1] if own else 0
        self.client = "unix" if self._port is None else str(peer[0]) if peer else ""
        self.handler, refusal = self._server.enter(self, sock)
        if refusal is not None:
            self._refuse(refusal)
        else:
            self._rest()

    def data_received(self, data: bytes) -> None:
        """Bytes of a body, of a head, or of what is to come behind the request in progress."""
        if self._decoder is not None:
            self._feed(data)
            return
        if self._is_lingering:
            return
        begins = not (heads := self._heads).buffer
        heads.buffer = data if begins else heads.buffer + data
        if self.work is not None:
            if len(heads.buffer) > AHEAD_MOST:
                self.pause_reading()
            return
        self._advance()
        if begins and heads.buffer:
            self._rest()

    def eof_received(self) -> bool:
        """The client ended its side: that counts as hanging up, as in nginx and Go; in a tunnel it is an end."""
        if isinstance(self._decoder, UntilEnd) and self._body is not None:
            self._body.finish()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        self._alarm.close()
        self._server.left(self)
        if self.work is not None:
            self.work.cancel()

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
        self.send_all(self.transport, pieces)

    @property
    def is_request_complete(self) -> bool:
        """Is all of the request in progress here?"""
        return self._decoder is None and not self._is_lingering

    def tunnel(self) -> RequestBody:
        """From now on all bytes belong to the protocol that was switched to (RFC 9110 section 7.8)."""
        body = self._body = RequestBody(self, None)
        self._decoder = UntilEnd()
        if early := self._heads.take():
            self._feed(early)
        return body

    # -- requests, one after another

    def _advance(self) -> None:
        """Begin with the next request, and the next, for as long as one is here and none is in progress."""
        if self._beginning:
            return  # the one that is being begun was answered at once; the loop below goes on
        self._beginning = True
        try:
            while self.work is None and not self._is_lingering and self.transport is not None:
                head = self._heads.next()
                if head is None:
                    break
                self._begin(*head)
        except ProxyError as error:
            self._refuse(error)
        finally:
            self._beginning = False

    def _begin(self, method: str, target: bytes, section: RequestSection) -> None:
        self._alarm.clear()
        body = self._begin_body(section) if section.has_body else None
        self.keep_alive = False
        request = self._request = Request(method, target, section, body=body, client=self.client, port=self._port)
        work = self.work = Work(self.loop, self.handler(request, self), self._end_work)
        work.start()

    def _begin_body(self, section: RequestSection) -> RequestBody:
        body = RequestBody(self, section.length)
        decoder: Decoder = Chunked(self._server.header_bytes) if section.chunked else Sized(section.length or 0)
        if decoder.done:
            body.finish()
            return body
        self._body, self._decoder = body, decoder
        if early := self._heads.take():
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
            self._heads.buffer = decoder.rest
            body.finish()
        elif piece:
            self.pause_reading()

    def _end_work(self, failure: BaseException | None) -> None:
        """What follows an answer: the next request, rest, or the end."""
        request, self._request, self.work = self._request, None, None
        if isinstance(failure, Exception):
            # The handler failed behind its own last resort. It may have answered: a second answer would be taken
            # for that to the client's next request.
            log.error("internal_error", exc_info=failure)
            if self.transport is not None:
                self.transport.abort()
        if self.transport is None or request is None:
            return
        if not self.keep_alive and (request.keep_alive or self._is_lingering or self._decoder is not None):
            self._linger()  # the client does not know that it ends, or has more to say
        elif not self.keep_alive:
            self._end()
        else:
            self.resume_reading()
            self._rest()
            self._advance()

    def _rest(self) -> None:
        """Nothing is in progress: what was begun of a head has to be finished in time, and rest has an end."""
        if self.work is None and not self._is_lingering:
            server, now = self._server, self.loop.time()
            seconds = server.header_seconds if self._heads.buffer else server.idle_seconds
            self._alarm.set(now + (PARTING_SECONDS if server.is_closing else seconds))
            self._rests_since = now

    # -- ends

    def _ring(self) -> None:
        """The time for a head, or for rest, is over."""
        if self._is_lingering and self.transport is not None:
            if self.transport.get_write_buffer_size() and self.loop.time() < self._linger_until:
                self._alarm.set(self.loop.time() + LINGER_SECONDS)
            else:
                self.transport.abort()
        elif self._heads.buffer.strip(b"\r\n"):
            self._refuse(RequestTimeout())
        else:
            self._end()

    def _refuse(self, error: ProxyError) -> None:
        """Answer a client whose head is not taken, and close."""
        request = Request("-", b"", NOTHING, body=None, client=self.client, port=self._port)
        exchange = Exchange("-", self.client, perf_counter())
        answer = ClientAnswer(self, request, exchange)
        answer.keep_alive = False
        answer.problem(error)
        self._server.observe(exchange)
        (self._linger if self._server.lets_linger(self) else self._end)()

    def _linger(self) -> None:
        """Say no more, and let the client finish for a while.

        An end with unread bytes is a reset, which can destroy the answer on its way (RFC 9112 section 9.6).
        """
        self._is_lingering = True
        self._decoder = self._body = None
        self._heads.take()
        if self.transport is not None and not self.transport.is_closing():
            self.resume_reading()
            self.write_eof()
            self._linger_until = self.loop.time() + STALLED_SECONDS
            self._alarm.set(self.loop.time() + LINGER_SECONDS)

    def _end(self) -> None:
        """Close; a client that does not read what it was sent is cut off."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            if transport.get_write_buffer_size():
                self._is_lingering = True
                self._alarm.set(self.loop.time() + STALLED_SECONDS)
            transport.close()
