"""aiohttp's low-level server as this proxy needs it, and the sockets that it listens on.

aiohttp alone echoes and logs a request that it cannot parse, secrets included, and has no timer for slow headers
(threats 74, 112; E1, E15). Law: a byte of a malformed request leaves this module in no direction.
"""

import asyncio
import errno
import functools
import logging
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, LineTooLong
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy.accesslog import Exchange
from proxy.answers import CLOSED, Written, connection_line, problem
from proxy.errors import (
    BadFraming,
    BadRequest,
    BearerProxyError,
    HeadersTooLarge,
    Overloaded,
    ProxyError,
    RequestTimeout,
    TargetTooLong,
)

log: Final = logging.getLogger("proxy")

BACKLOG: Final = 1024
#: How long the rest of a refused body is read before the connection ends (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0
HEADER_FIELDS: Final = 256

Handler = Callable[[web.BaseRequest], Awaitable[Written]]


class ListenError(BearerProxyError):
    """An address cannot be listened on; the message says which, why, and what mends it."""


def require_c_parser() -> None:
    """Refuse to run on aiohttp's pure Python parser, whose known holes are all framing holes (threat 48)."""
    if HttpRequestParser is HttpRequestParserPy:
        raise ListenError(
            "aiohttp's C parser is not loaded, and its Python parser is not safe in front of a credential. "
            "Reinstall aiohttp from a wheel, and unset AIOHTTP_NO_EXTENSIONS."
        )


class Protocol(web.RequestHandler):
    """One client connection: a bounded time for each head, and silence about what it could not parse."""

    __slots__ = ("_head_seconds", "_head_timer", "_observe")

    def __init__(
        self,
        manager: "Server",
        *,
        head_seconds: float,
        observe: Callable[[Exchange], None],
        **kwargs: Any,  # noqa: ANN401  aiohttp's own settings, handed on as they are
    ) -> None:
        super().__init__(manager, **kwargs)
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._observe = observe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; over the limit it gets an answer and no more."""
        super().connection_made(transport)
        manager = self._manager
        if isinstance(manager, Server) and manager.is_full:
            self._refuse(Overloaded())

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
        elif self._head_timer is None and self._current_request is None and not self._force_close:
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
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  aiohttp's contract
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  it quotes the request
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed, with a sentence of ours."""
        self._answer(_error_of(exc), request.remote or "unix")
        return CLOSED

    @property
    def _last_body(self) -> StreamReader | None:
        """The body of the last request whose head came; None where that is answered."""
        if self._messages:
            return self._messages[-1][1]
        return None if self._current_request is None else self._current_request.content

    def _refuse(self, error: ProxyError) -> None:
        """Answer a client that has no request in progress, and close."""
        self._head_timer = None
        if self.transport is not None and self._current_request is None:
            peer = self.peername
            self._answer(error, str(peer[0]) if isinstance(peer, tuple) else "unix")
            self.force_close()

    def _answer(self, error: ProxyError, client: str) -> None:
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


def _error_of(exc: BaseException | None) -> ProxyError:
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


def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for `host:port`, one an address of the name, all or none (threat 19).

    Raises `ListenError`.
    """
    bound: list[socket.socket] = []
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            sock = socket.socket(family, kind, protocol)
            bound.append(sock)
            sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A name with two addresses and port 0 gets one port for both.
            wanted = port or (bound[0].getsockname()[1] if len(bound) > 1 else 0)
            sock.bind((address[0], wanted, *address[2:]))
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in bound:
            sock.close()
        if error.errno == errno.EADDRINUSE:
            reason = "another process listens there; stop it or choose another port (port 0 takes a free one)"
        elif error.errno == errno.EACCES:
            reason = "not allowed; ports below 1024 need a privilege, choose a higher one"
        else:
            reason = "this machine has no such address" if error.errno != errno.EMFILE else "too many open files"
        raise ListenError(f"cannot listen on {host}:{port}: {reason}.") from error
    return bound


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, mode 0600 from its first instant.

    A stale socket is replaced; a live one, and whatever is no socket, is left alone (threats 16, 17).
    Raises `ListenError`.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise ListenError(f"cannot listen on unix:{path}: {os.strerror(error.errno or 0)}.") from error
    if mode is not None:
        if not stat.S_ISSOCK(mode):
            raise ListenError(f"cannot listen on unix:{path}: that file is no socket; move it away.")
        if _is_live(path):
            raise ListenError(f"cannot listen on unix:{path}: another process listens there; stop it.")
        path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # at bind, not afterwards: between the two the socket would be open to others
    try:
        sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on unix:{path}: {os.strerror(error.errno or 0)}.") from error
    finally:
        os.umask(before)
    return sock


def _is_live(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def remove_file(sock: socket.socket) -> None:
    """Remove the file of a listening Unix socket, while it is open and tells its path."""
    if sock.fileno() >= 0 and sock.family == socket.AF_UNIX:
        with suppress(OSError):
            Path(sock.getsockname()).unlink()


def url_of(sock: socket.socket) -> str:
    """The URL under which a listening socket is reached."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"
