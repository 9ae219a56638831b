"""Makes a `ClientConnection` for each client, and knows which there are."""

import asyncio
import socket
from collections.abc import Callable
from time import perf_counter

from proxy.accesslog import Exchange
from proxy.errors import PeerNotAllowed
from proxy.listener.answer import ClientAnswer
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request


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
        self._connections: set[ClientConnection] = set()

    def __call__(self) -> ClientConnection:
        """The protocol of a new connection."""
        return ClientConnection(self, asyncio.get_running_loop())

    def handler_for(self, sock: socket.socket) -> Handler:
        """What answers requests over this new connection."""
        return self.handler if self._admits is None or self._admits(sock) else self._refuse_peer

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
    def is_full(self) -> bool:
        """Are there more connections than there may be?"""
        return len(self._connections) > self._most_connections

    @property
    def is_busy(self) -> bool:
        """Is a request in progress on any connection?"""
        return any(each.work is not None for each in self._connections)

    def joined(self, connection: ClientConnection) -> None:
        """A connection is open."""
        self._connections.add(connection)

    def left(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)

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
