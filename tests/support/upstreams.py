"""A scripted upstream: it records every byte it gets, and answers by scripts instead of by understanding.

A script is what one connection does, step by step; the n-th connection plays the n-th script, those after the last
one play the last again. Everything that a test may wait for is an event, so that no test sleeps.
"""

import asyncio
import functools
import gc
import inspect
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import pytest
import uvloop

from proxy.routes import Origin

#: Longer than any test of these takes; reached only by one that hangs.
DEADLINE: Final = 20.0
HEAD_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Got:
    """Wait until `what` came behind all that earlier steps waited for: a marker, or that many bytes."""

    what: bytes | int


@dataclass(frozen=True, slots=True)
class Repeat:
    """Send `data` for as long as the connection lives."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Action:
    """A step without a value."""

    name: str


#: Wait for a whole request head.
REQUEST: Final = Got(HEAD_END)
#: Take nothing more from the socket until READ.
DEAF: Final = Action("deaf")
READ: Final = Action("read")
#: End our side, and go on reading.
EOF: Final = Action("eof")
#: End the connection, by FIN or by RST.
CLOSE: Final = Action("close")
RESET: Final = Action("reset")

Step = bytes | asyncio.Event | Got | Repeat | Action
Script = Sequence[Step]


def reset(sock: socket.socket) -> None:
    """Make closing this TCP socket an RST, also where nothing is unread."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Peer(asyncio.Protocol):
    """One connection that the upstream accepted: what came on it, and its script at work."""

    def __init__(self, upstream: "Upstream", script: Script) -> None:
        self.received = bytearray()
        #: The client's FIN came, or the connection is gone.
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()
        self._upstream = upstream
        self._script = script
        self._taken = 0
        #: Before this nothing of the marker begins that is waited for.
        self._searched = 0
        self._news = asyncio.Event()
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._play: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def requests(self) -> int:
        """How many request heads came."""
        return self.received.count(b" HTTP/1.1\r\n")

    @property
    def alpn(self) -> str | None:
        """The protocol that TLS agreed on; None without one."""
        assert self._transport is not None
        session: ssl.SSLObject = self._transport.get_extra_info("ssl_object")
        return session.selected_alpn_protocol()

    async def got(self, what: bytes | int) -> bytes:
        """Wait until `what` (a marker, or a number of bytes) is among what came in all; gives what came."""
        while (what not in self.received) if isinstance(what, bytes) else (len(self.received) < what):
            self._news.clear()
            await self._news.wait()
        return bytes(self.received)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to play."""
        self._transport = cast("asyncio.Transport", transport)
        self._upstream.arrived(self)
        self._play = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        """Record."""
        self.received += data
        self._news.set()
        self._upstream.changed()

    def eof_received(self) -> bool:
        """Stay half-open: only the script closes."""
        self.ended.set()
        return self._upstream.tls is None

    def connection_lost(self, _exc: Exception | None) -> None:
        """Stop playing."""
        self.ended.set()
        self.lost.set()
        self._can_write.set()
        self._transport = None
        if self._play is not None:
            self._play.cancel()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._can_write.set()

    def duplicate(self) -> socket.socket:
        """The socket itself, for what must happen behind the loop's back; the caller closes it."""
        assert self._transport is not None
        return socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))

    def close(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _run(self) -> None:
        for step in self._script:
            if isinstance(step, bytes):
                await self._send(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Got):
                await self._take(step.what)
            elif isinstance(step, Repeat):
                while self._transport is not None:
                    await self._send(step.data)
            else:
                self._act(step)

    async def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
        await self._can_write.wait()
        await asyncio.sleep(0)  # an endless script must let others run

    async def _take(self, what: bytes | int) -> None:
        """Consume up to the end of the marker, or that many bytes."""
        while True:
            if isinstance(what, int):
                end = self._taken + what if len(self.received) >= self._taken + what else -1
            else:
                at = self.received.find(what, self._searched)
                end = at + len(what) if at >= 0 else -1
            if end >= 0:
                self._taken = self._searched = end
                return
            if isinstance(what, bytes):
                self._searched = max(self._taken, len(self.received) - len(what) + 1)
            self._news.clear()
            await self._news.wait()

    def _act(self, action: Action) -> None:
        transport = self._transport
        if transport is None:
            return
        if action is DEAF:
            transport.pause_reading()
        elif action is READ:
            transport.resume_reading()
        elif action is EOF:
            transport.write_eof()
        elif action is CLOSE:
            transport.close()
        else:
            reset(transport.get_extra_info("socket"))
            transport.abort()


class Upstream:
    """Listens on a free TCP port (with `tls`: TLS on it), or on a Unix socket; use it as `async with`."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None, unix: Path | None = None) -> None:
        self.tls = tls
        self.peers: list[Peer] = []
        self.port = 0
        self._unix = unix
        self._scripts = scripts
        self._server: asyncio.Server | None = None
        self._news = asyncio.Event()

    @property
    def origin(self) -> Origin:
        """Where it listens, for a pool."""
        return Origin("http" if self.tls is None else "https", "127.0.0.1", self.port)

    @property
    def requests(self) -> int:
        """How many request heads came on all connections."""
        return sum(peer.requests for peer in self.peers)

    def plays(self, *scripts: Script) -> None:
        """Play these from the next connection on, where a script needs to know where it is played."""
        self._scripts = scripts

    async def peer(self, number: int = 0) -> Peer:
        """The connection of this number, once it is there."""
        await self.until(lambda: len(self.peers) > number)
        return self.peers[number]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; asked whenever a connection or a byte arrives."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    def arrived(self, peer: Peer) -> None:
        """A connection is there."""
        self.peers.append(peer)
        self.changed()

    def changed(self) -> None:
        """Something arrived."""
        self._news.set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._unix is not None:
            self._server = await loop.create_unix_server(self._next, str(self._unix))
        else:
            self._server = await loop.create_server(self._next, "127.0.0.1", 0, ssl=self.tls)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for peer in self.peers:
            peer.close()
        await self._server.wait_closed()
        await asyncio.gather(*(peer.lost.wait() for peer in self.peers))

    def _next(self) -> Peer:
        return Peer(self, self._scripts[min(len(self.peers), len(self._scripts) - 1)])


async def turns(count: int = 50) -> None:
    """Let the loop go round: enough for all that is ready, and no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: Final[dict[str, Loop]] = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def on_each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on uvloop and on asyncio's own loop.

    The test fails too where it leaves a task behind, or an exception that nobody retrieved (threat 120).
    """

    @functools.wraps(test)
    def run(*args: Any, new_loop: Loop, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_watched(test(*args, **kwargs)))

    own = inspect.signature(test)
    extra = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = own.replace(  # type: ignore[attr-defined]  # pytest reads the fixtures' names from it
        parameters=[*own.parameters.values(), extra]
    )
    loops = [
        pytest.param(make, id=name, marks=pytest.mark.unmeasured if name == "asyncio" else ())
        for name, make in LOOPS.items()
    ]
    on_each: Callable[..., None] = pytest.mark.parametrize("new_loop", loops)(run)
    return on_each


async def _watched(test: Awaitable[None]) -> None:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))
    async with asyncio.timeout(DEADLINE):
        await test
    await turns()
    gc.collect(1)  # the generations that this test can have filled
    await turns()
    assert not unheard, unheard
    assert asyncio.all_tasks() == {asyncio.current_task()}
