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

from aiohttp import StreamReader, web
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
HEADER_FIELDS: Final = 256
#: aiohttp bounds each line of a head by `header_bytes`; all of them together may be as large as this many.
HEAD_LINES: Final = 4

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

    __slots__ = ("_head_bytes", "_head_most", "_head_seconds", "_head_timer", "_observe")

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
        seen, body = self._request_count, self._last_body
        super().data_received(data)
        if self._request_count != seen:
            self._stop_timer()
            if body is not None and not body.is_eof():
                # Behind a body that did not end comes no request: its framing broke, which aiohttp's parser tells
                # nobody who waits for the rest of it.
                body.set_exception(BadFraming())
            self._head_bytes = 0
        elif self._waiter is not None and not self._messages and not self._force_close:
            self._head_bytes += len(data)
            if self._head_bytes > self._head_most:
                self._refuse(HeadersTooLarge())
            elif self._head_timer is None:
                self._head_timer = self._loop.call_later(self._head_seconds, self._refuse, RequestTimeout())

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

    @property
    def _last_body(self) -> StreamReader | None:
        """The body of the last request whose head came; None where that is answered."""
        if self._messages:
            return self._messages[-1][1]
        return None if self._current_request is None else self._current_request.content

    def _refuse(self, error: ProxyError) -> None:
        """Answer a client that has no request in progress, and close."""
        self._stop_timer()
        if self._current_request is None:
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
            self._head_timer = self._loop.call_later(LINGER_SECONDS, self.force_close)

    def _answer(self, error: ProxyError) -> None:
        peer = self.peername
        client = str(peer[0]) if isinstance(peer, tuple) else "unix"
        exchange = Exchange("-", client, time.perf_counter())
        exchange.status, exchange.error = error.status, error.code
        if self.transport is not None:
            closing = connection_line(keep_alive=False, version=(1, 1))
            self.transport.write(problem(error, exchange.request_id, connection=closing, bodyless=False))
        self._observe(exchange)

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
            max_headers=HEADER_FIELDS,
        )

    @property
    def is_full(self) -> bool:
        """Are there more connections than `most_connections`?"""
        return len(self._connections) > self.most_connections

    def __call__(self) -> Protocol:
        """The protocol of a new connection."""
        return self._make(loop=asyncio.get_running_loop())
