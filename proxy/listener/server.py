"""Makes a `ClientConnection` for each client, and knows which there are."""

import asyncio
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Final

from proxy.accesslog import Exchange
from proxy.errors import Overloaded, PeerNotAllowed, ProxyError
from proxy.listener.answer import ClientAnswer
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request

#: So many connections of strangers, and so many beyond the bound, are told why; more are closed at once. Both have
#: their descriptors from the reserve (`process.RESERVE`).
ASIDE_MOST: Final = 16


class Server:
    """The bounds of a listener's connections, in bytes and seconds, and what answers their requests.

    `most_connections` bounds how many there are; `observe` is told of what was refused before the handler saw it;
    `admits` says whether whoever is at the other end of a connection may speak to us (None: everybody may).
    """

    def __init__(
        self,
        handler: Handler,
        *,
        observe: Callable[[Exchange], None],
        header_bytes: int,
        header_seconds: float,
        idle_seconds: float,
        most_connections: int,
        admits: Callable[[socket.socket], bool] | None = None,
    ) -> None:
        self.handler = handler
        self.observe = observe
        self.header_bytes = header_bytes
        self.header_seconds = header_seconds
        self.idle_seconds = idle_seconds
        self.is_closing = False
        self._admits = admits
        self._most_connections = most_connections
        #: All that are open, and which of them are of peers who may not speak to us, or beyond a bound.
        self._connections: set[ClientConnection] = set()
        self._strangers: set[ClientConnection] = set()
        self._excess: set[ClientConnection] = set()

    def __call__(self) -> ClientConnection:
        """The protocol of a new connection."""
        return ClientConnection(self, asyncio.get_running_loop())

    def enter(self, connection: ClientConnection, sock: socket.socket) -> tuple[Handler, ProxyError | None]:
        """A connection is open: what answers its requests, and why none is waited for, if so.

        Whoever may not speak to us takes no place of those who may (threats 13, 115).
        """
        self._connections.add(connection)
        if self._admits is not None and not self._admits(sock):
            if len(self._strangers) < ASIDE_MOST:
                self._strangers.add(connection)
                return self._refuse_peer, None
            self._excess.add(connection)
            return self._refuse_peer, PeerNotAllowed()
        if len(self._connections) - len(self._strangers) - len(self._excess) > self._most_connections:
            self._excess.add(connection)
            return self.handler, Overloaded()
        return self.handler, None

    def lets_linger(self, connection: ClientConnection) -> bool:
        """May a connection that is refused stay until the client has read why? It keeps its descriptor so long."""
        return connection not in self._excess or len(self._excess) <= ASIDE_MOST

    async def _refuse_peer(self, request: Request, connection: ClientConnection) -> None:
        """Answer whoever may not speak to us, and end the connection."""
        exchange = Exchange(request.method, request.client, perf_counter())
        if request.target.startswith(b"/"):
            exchange.ask(request.target)
        answer = ClientAnswer(connection, request, exchange)
        answer.keep_alive = connection.keep_alive = False
        answer.problem(PeerNotAllowed())
        self.observe(exchange)

    @property
    def is_busy(self) -> bool:
        """Is a request in progress on any connection?"""
        return any(each.work is not None for each in self._connections)

    def left(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        for those in (self._connections, self._strangers, self._excess):
            those.discard(connection)

    def close_idle(self) -> None:
        """End the connections that rest; the others end with the answer that they wait for."""
        self.is_closing = True
        for connection in tuple(self._connections):
            connection.close_if_idle()

    async def drain(self) -> None:
        """End the connections that rest, and wait until the requests in progress are answered."""
        self.close_idle()
        while works := [each.work for each in self._connections if each.work is not None]:
            for work in works:
                await work.join()

    async def close(self) -> None:
        """End all connections at once, and wait until what was in progress has cleaned up."""
        self.is_closing = True
        works = [each.work for each in self._connections if each.work is not None]
        for connection in tuple(self._connections):
            connection.close()
        for work in works:
            await work.join()
