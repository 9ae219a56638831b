"""Makes a `ClientConnection` for each client, and knows which there are.

Law: who had an admitted request keeps the place until the end; who had none gives it to whoever comes when all are
taken (threats 112, 115).
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from proxy.accesslog import Exchange
from proxy.errors import Overloaded, PeerNotAllowed, ProxyError
from proxy.listener.answer import ClientAnswer
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request
from proxy.work import Work

#: So many connections of strangers, and so many beyond the bound, are told why; more are closed at once. Both have
#: their descriptors from the reserve (`process.RESERVE`).
ASIDE_MOST: Final = 16
#: Who has shown nothing for so long makes room: a request follows its connection at once, but not in the same turn
#: of the loop, in which very many may come.
YIELD_SECONDS: Final = 0.05
#: So many turns of the loop, of asyncio or of uvloop, it takes at most until an accepted connection is one of ours.
_ACCEPT_TURNS: Final = 3


class Places:
    """At most `most` connections; one that has shown nothing for `yield_seconds` makes room for another."""

    def __init__(self, most: int, yield_seconds: float) -> None:
        #: Where it is less than there are, nobody has to leave, and nobody comes.
        self.most = most
        self._yield_seconds = yield_seconds
        self._taken: set[ClientConnection] = set()
        #: Those that have shown nothing yet, the oldest first, and the instant of the loop's clock at which each
        #: came; one that has shown something leaves when its turn comes.
        self._unproven: OrderedDict[ClientConnection, float] = OrderedDict()

    @property
    def are_taken(self) -> bool:
        """Is none left?"""
        return len(self._taken) >= self.most

    def take(self, connection: ClientConnection) -> bool:
        """Give it a place; False: there is none, and nobody who has to make room."""
        now = connection.loop.time()
        if self.are_taken and not self._make_room(now - self._yield_seconds):
            return False
        self._taken.add(connection)
        self._unproven[connection] = now
        return True

    def _make_room(self, latest: float) -> bool:
        """End the connection that is open the longest without an admitted request, if it came before `latest`."""
        while self._unproven:
            connection, came_at = next(iter(self._unproven.items()))
            if not connection.is_proven and came_at > latest:
                return False
            del self._unproven[connection]
            if not connection.is_proven:
                self._taken.discard(connection)
                if connection.transport is not None:
                    connection.transport.abort()
                return True
        return False

    def left(self, connection: ClientConnection) -> None:
        """It is gone."""
        self._taken.discard(connection)
        self._unproven.pop(connection, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a listener serves on.

    `handler` answers requests, `observe` is told of what was refused before the handler saw it. Bytes and seconds
    bound each connection, `most_connections` how many there are. `admits` says whether whoever is at the other end
    of a connection may speak to us (None: everybody may).
    """

    handler: Handler
    observe: Callable[[Exchange], None]
    header_bytes: int
    header_seconds: float
    idle_seconds: float
    most_connections: int
    admits: Callable[[socket.socket], bool] | None = None


class Server:
    """The bounds of a listener's connections, and what answers their requests.

    Who may not speak to us is refused, or with `answers_strangers` answered as others are, but in places apart. Who
    has shown nothing for `yield_seconds` gives its place to another.
    """

    def __init__(
        self, terms: Terms, *, answers_strangers: bool = False, yield_seconds: float = YIELD_SECONDS
    ) -> None:
        self.is_closing = False
        self._is_empty = asyncio.Event()
        self._answers_strangers = answers_strangers
        self._places = Places(terms.most_connections, yield_seconds)
        self._strangers = Places(ASIDE_MOST, yield_seconds)
        #: All that are open, and which of them are beyond a bound.
        self._connections: set[ClientConnection] = set()
        self._excess: set[ClientConnection] = set()
        self._take(terms)

    def change(self, terms: Terms) -> list[Work]:
        """Serve on other terms from now on; gives the requests in progress, which end on those that they began on.

        All connections stay, with the bounds on heads that they began with. Who may not speak to us any more is
        refused with the next request; more connections than there may be now are not ended.
        """
        before, admits_as_before = self.handler, terms.admits == self._admits
        self._take(terms)
        for each in self._connections:
            if each.handler is before:
                is_refused = not admits_as_before and not self._answers_strangers and not self._is_admitted(each)
                each.handler = self._refuse_peer if is_refused else terms.handler
        return [each.work for each in self._connections if each.work is not None]

    def _take(self, terms: Terms) -> None:
        self.handler = terms.handler
        self.observe = terms.observe
        self.header_bytes = terms.header_bytes
        self.header_seconds = terms.header_seconds
        self.idle_seconds = terms.idle_seconds
        self._admits = terms.admits
        self._places.most = terms.most_connections

    def _is_admitted(self, connection: ClientConnection) -> bool:
        sock = None if connection.transport is None else connection.transport.get_extra_info("socket")
        return sock is None or self._admits is None or self._admits(sock)

    def __call__(self) -> ClientConnection:
        """The protocol of a new connection."""
        return ClientConnection(self, asyncio.get_running_loop())

    def enter(self, connection: ClientConnection, sock: socket.socket) -> tuple[Handler, ProxyError | None]:
        """A connection is open: what answers its requests, and why none is waited for, if so.

        Whoever may not speak to us takes no place of those who may (threats 13, 115).
        """
        self._connections.add(connection)
        if self._admits is None or self._admits(sock):
            if self._places.take(connection):
                return self.handler, None
            refusal: ProxyError = Overloaded()
        elif self._answers_strangers:
            if self._strangers.take(connection):
                return self.handler, None
            refusal = Overloaded()
        else:
            if not self._strangers.are_taken and self._strangers.take(connection):
                return self._refuse_peer, None
            refusal = PeerNotAllowed()
        self._excess.add(connection)
        return self.handler, refusal

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
        self._connections.discard(connection)
        self._excess.discard(connection)
        self._places.left(connection)
        self._strangers.left(connection)
        if not self._connections:
            self._is_empty.set()

    async def drain(self, late: Iterable[socket.socket] = ()) -> None:
        """Wait until all connections have ended, each behind its answer; those that rest end soon.

        `late` are connections that were made before nobody listened any more, and that nobody has taken yet.
        The handler says in its answers that the connection ends; until a client reads that it may send more.
        """
        for each in late:
            await asyncio.get_running_loop().connect_accepted_socket(self, each)
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        self.is_closing = True
        for connection in tuple(self._connections):
            connection.part()
        while self._connections:
            self._is_empty.clear()
            await self._is_empty.wait()

    async def close(self) -> None:
        """End all connections at once, and wait until what was in progress has cleaned up."""
        self.is_closing = True
        works = [each.work for each in self._connections if each.work is not None]
        for connection in tuple(self._connections):
            connection.close()
        for work in works:
            await work.join()
