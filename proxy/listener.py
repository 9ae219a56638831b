"""aiohttp's low-level server as this proxy needs it.

aiohttp alone echoes and logs a request that it cannot parse, secrets included, and has no timer for slow headers
(threats 74, 112; E1, E15). Law: a byte of a malformed request leaves this module in no direction.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy.accesslog import Exchange
from proxy.answers import CLOSED, Written, connection_line, problem
from proxy.errors import (
    BadFraming,
    BadRequest,
    HeadersTooLarge,
    Overloaded,
    ProxyError,
    RequestTimeout,
    TargetTooLong,
)
from proxy.sockets import ListenError

log: Final = logging.getLogger("proxy")

#: How long the rest of a refused body is read before the connection ends (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0
#: aiohttp bounds each line of a head by `header_bytes`. All of a head is the request line and the fields, each of
#: them bounded so; the relay counts the fields of a head that came whole.
HEAD_LINES: Final = 2
#: More fields than one read of the socket can hold: the relay counts them and answers 431, where aiohttp would 400.
UNCOUNTED: Final = 1 << 20

Handler = Callable[[web.BaseRequest], Awaitable[Written]]


def require_c_parser() -> None:
    """Refuse to run on aiohttp's pure Python parser, whose known holes are all framing holes (threat 48)."""
    if HttpRequestParser is HttpRequestParserPy:
        raise ListenError(
            "aiohttp's C parser is not loaded, and its Python parser is not safe in front of a credential. "
            "Reinstall aiohttp from a wheel, and unset AIOHTTP_NO_EXTENSIONS."
        )


class Protocol(web.RequestHandler):
    """One client connection: a bounded time for each head, and silence about what it could not parse."""

    __slots__ = ("_head_bytes", "_head_most", "_head_seconds", "_head_timer", "_last_body", "_observe")

    def __init__(
        self,
        manager: "Server",
        *,
        head_most: int,
        head_seconds: float,
        observe: Callable[[Exchange], None],
        **kwargs: Any,  # noqa: ANN401  aiohttp's own settings, handed on as they are
    ) -> None:
        super().__init__(manager, **kwargs)
        self._head_bytes = 0
        self._head_most = head_most
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        #: The body of the last request whose head came.
        self._last_body: StreamReader | None = None
        self._observe = observe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; over the limit it gets an answer and no more."""
        super().connection_made(transport)
        manager = self._manager
        if isinstance(manager, Server) and manager.is_full:
            self._answer(Overloaded())
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Start the head's timer with its first bytes, stop it with its last."""
        seen = self._request_count
        unfinished = self._last_body if self._last_body is not None and not self._last_body.is_eof() else None
        super().data_received(data)
        if self._request_count != seen:
            self._stop_timer()
            self._head_bytes = 0
            if unfinished is not None:
                # Behind a body that did not end comes no request: its framing broke, which aiohttp's parser tells
                # nobody who waits for the rest of it.
                unfinished.set_exception(BadFraming())
            if self._messages:
                self._last_body = self._messages[-1][1]
            if self._last_body is EMPTY_PAYLOAD and not data.endswith(b"\r\n\r\n"):
                # The beginning of the next head came along.
                self._start_timer(RequestTimeout())
        elif data and unfinished is None and not self._force_close:
            self._head_bytes += len(data)
            if self._head_bytes > self._head_most:
                self._refuse(HeadersTooLarge())
            elif self._head_timer is None:
                self._start_timer(RequestTimeout())

    @property
    def is_busy(self) -> bool:
        """Is a request in progress, or waiting for its turn?"""
        # aiohttp waits for the next request exactly while it works on none.
        return self._waiter is None or bool(self._messages)

    def close(self) -> None:
        """End an idle connection; a request in progress still gets the rest of its body."""
        if not self.is_busy:
            self.force_close()

    def _process_keepalive(self) -> None:
        """End a connection that rests; one whose client does not read would not end by itself."""
        transport = self.transport
        super()._process_keepalive()
        if self.transport is None and transport is not None and transport.get_write_buffer_size():
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def log_exception(self, *_args: object, **_kwargs: object) -> None:
        """Aiohttp would log the exception, whose text holds the request; that one happened is enough."""
        log.warning("connection_failed")

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  aiohttp's contract
        status: int = 500,  # noqa: ARG002  aiohttp's contract
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  it quotes the request
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed, with a sentence of ours."""
        if isinstance(exc, HttpProcessingError):
            self._answer(_error_of(exc))
            self._linger()
        else:
            # The handler failed behind its own last resort. It may have answered: a second answer would be taken
            # for that to the client's next request.
            log.error("internal_error", exc_info=exc)
            self.force_close()
        return CLOSED

    def _refuse(self, error: ProxyError) -> None:
        """Answer a client whose head is not taken, and close; later, where requests before it are in progress."""
        self._stop_timer()
        if self.is_busy:
            if self.transport is not None:
                self.transport.pause_reading()
            self._start_timer(error)
            return
        self._answer(error)
        self._linger()

    def _linger(self) -> None:
        """Say no more, and let the client finish for a while.

        An end with unread bytes is a reset, which can destroy the answer on its way (RFC 9112 section 9.6).
        """
        self._force_close = True  # aiohttp drops what still comes
        if self._waiter is not None:
            self._waiter.cancel()
        if self.transport is not None:
            self.transport.write_eof()
            self._head_timer = self._loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _answer(self, error: ProxyError) -> None:
        peer = self.peername
        client = str(peer[0]) if isinstance(peer, tuple) else "unix"
        exchange = Exchange("-", client, time.perf_counter())
        exchange.status, exchange.error = error.status, error.code
        if self.transport is not None:
            closing = connection_line(keep_alive=False, version=(1, 1))
            self.transport.write(problem(error, exchange.request_id, connection=closing, bodyless=False))
        self._observe(exchange)

    def _start_timer(self, error: ProxyError) -> None:
        self._head_timer = self._loop.call_later(self._head_seconds, self._refuse, error)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _error_of(exc: HttpProcessingError) -> ProxyError:
    if isinstance(exc, LineTooLong):
        # aiohttp has one error for both; `Server` sets the two bounds one byte apart to tell them by.
        return TargetTooLong() if exc.args[1] % 2 == 0 else HeadersTooLarge()
    if isinstance(exc, BadStatusLine | BadHttpMethod):
        return BadRequest("The request line is malformed, or its method is unknown.")
    return BadRequest("The request is malformed.")


class Server(web.Server):
    """Makes a `Protocol` for each connection."""

    def __init__(
        self,
        handler: Handler,
        *,
        observe: Callable[[Exchange], None],
        header_bytes: int,
        header_seconds: float,
        idle_seconds: float,
        most_connections: int,
    ) -> None:
        super().__init__(handler, handler_cancellation=True)
        self.most_connections = most_connections
        even = header_bytes + header_bytes % 2
        self._make = functools.partial(
            Protocol,
            self,
            head_most=HEAD_LINES * header_bytes,
            head_seconds=header_seconds,
            observe=observe,
            keepalive_timeout=idle_seconds,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
            access_log=None,
            max_line_size=even,
            max_field_size=even + 1,
            max_headers=UNCOUNTED,
        )

    @property
    def is_busy(self) -> bool:
        """Is a request in progress on any connection?"""
        return any(isinstance(each, Protocol) and each.is_busy for each in self._connections)

    @property
    def is_full(self) -> bool:
        """Are there more connections than `most_connections`?"""
        return len(self._connections) > self.most_connections

    def __call__(self) -> Protocol:
        """The protocol of a new connection."""
        return self._make(loop=asyncio.get_running_loop())
