"""A listener of its own on a free port, with a handler of a few lines behind it instead of the relay."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from proxy.accesslog import Exchange
from proxy.errors import ProxyError
from proxy.listener.answer import ClientAnswer
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request
from proxy.listener.server import Server, Terms
from proxy.sockets import bind_tcp, url_of
from tests.support.upstreams import DEADLINE

#: Bytes of a request line, and of a field section.
LIMIT: Final = 512


def answer_to(request: Request, connection: ClientConnection) -> ClientAnswer:
    """The answer to a request, and an exchange that nobody looks at."""
    return ClientAnswer(connection, request, Exchange(request.method, request.client, 0.0))


async def body_of(request: Request) -> bytes:
    """The whole body of a request."""
    whole = bytearray()
    while request.body is not None and (piece := await request.body.read()):
        whole += piece
    return bytes(whole)


async def echo(request: Request, connection: ClientConnection) -> None:
    """Answer with the target and the body, as they came; the request counts as admitted."""
    connection.is_proven = True
    out = answer_to(request, connection)
    try:
        out.document(200, (), request.target + b"|" + await body_of(request))
    except ProxyError as error:
        out.problem(error)
    await out.settle()
    connection.keep_alive = out.keep_alive


@dataclass
class Listening:
    """A running listener: its URL, and the exchanges that it answered by itself."""

    url: str
    server: Server
    observed: list[Exchange] = field(default_factory=list)

    @property
    def codes(self) -> list[str]:
        """What they ended with."""
        return [exchange.error for exchange in self.observed]

    @property
    def connections(self) -> list[ClientConnection]:
        """Those that are open."""
        return list(self.server._connections)


@asynccontextmanager
async def listening(
    handler: Handler = echo,
    *,
    admits: Callable[[socket.socket], bool] | None = None,
    header_bytes: int = LIMIT,
    header_seconds: float = DEADLINE,
    idle_seconds: float = DEADLINE,
    most_connections: int = 10,
    answers_strangers: bool = False,
    yield_seconds: float = 0.0,
) -> AsyncIterator[Listening]:
    """A listener on a free port."""
    observed: list[Exchange] = []
    terms = Terms(
        handler=handler,
        observe=observed.append,
        header_bytes=header_bytes,
        header_seconds=header_seconds,
        idle_seconds=idle_seconds,
        most_connections=most_connections,
        admits=admits,
    )
    server = Server(terms, answers_strangers=answers_strangers, yield_seconds=yield_seconds)
    [sock] = bind_tcp("127.0.0.1", 0)
    url = url_of(sock)
    running = await asyncio.get_running_loop().create_server(server, sock=sock)
    try:
        yield Listening(url, server, observed)
    finally:
        running.close()
        await server.close()
        await running.wait_closed()
