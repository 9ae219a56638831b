"""A TCP relay that spoils what passes through it, in one way and from one moment of an exchange on.

The ideas are toxiproxy's. An exchange begins with the first byte towards the target behind a byte from it, so that
it is told apart on a connection that is used again; its head ends with the `marker` of the protocol.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from tests.support.upstreams import reset

Kind = Literal["latency", "down", "bandwidth", "slow close", "timeout", "reset", "slicer", "limit"]
Phase = Literal["connect", "accepted", "request head", "request body", "answer head", "answer body"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
#: How many bytes of a head, or of what is behind it, have passed when its phase begins: the break is inside. Of an
#: answer's head none: that is when a request has been acted on, and nobody has been told.
INSIDE: Final = 2
#: Bytes at a limited rate pass in portions of so many seconds.
PORTION: Final = 0.02
#: Most bytes that are read at once.
PIECE: Final = 65536


@dataclass(frozen=True, slots=True)
class Toxic:
    """What is done to a connection from `phase` of an exchange on.

    `latency` waits `seconds` before each piece, and before connecting where the phase is `connect`. `down` ends the
    connection and refuses all others. `bandwidth` lets `rate` bytes a second pass. `slow close` delays the FIN by
    `seconds`. `timeout` swallows everything and ends the connection after `seconds`, None: never. `reset` (by RST)
    and `limit` (by FIN) end it behind `size` further bytes. `slicer` writes `size` bytes at a time.
    A phase of the request spoils the way to the target, one of the answer the way back, the first two both.
    The first `spared` times that somebody gets there nothing happens; then no more than `most` times, None: always.
    """

    kind: Kind
    phase: Phase
    seconds: float | None = None
    rate: int = 0
    size: int = 0
    spared: int = 0
    most: int | None = None


@dataclass(eq=False)
class _Way:
    """One direction of a link: `seen` is what came in the present exchange, `toxic` what spoils it by now."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    name: Literal["request", "answer"]
    seen: bytearray = field(default_factory=bytearray)
    toxic: Toxic | None = None
    #: Bytes that passed since it was spoiled.
    passed: int = 0


@dataclass(eq=False)
class _Link:
    """One connection; `over` ends it, by RST where `is_reset`; `last` is the way on which a byte came last."""

    near: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    is_reset: bool = False
    ways: tuple[_Way, ...] = ()
    last: str = ""
    struck: bool = False
    task: asyncio.Task[None] | None = None

    def end(self, *, by_reset: bool = False) -> None:
        """Let go of both sides."""
        self.is_reset = self.is_reset or by_reset
        self.over.set()


class Relay:
    """Listens on a free port of loopback, and passes on to `target`: a port there, or a Unix socket."""

    def __init__(self, target: int | Path, *, marker: bytes = b"\r\n\r\n") -> None:
        self._target = target
        self._marker = marker
        self._toxic: Toxic | None = None
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        # Bound and never listening: nobody else gets the port while all are refused.
        self._place = _bound(0)
        self.port: int = self._place.getsockname()[1]
        #: How often the phase of the present toxic has begun, and how often that did harm.
        self._reached = self.struck = 0

    async def arm(self, toxic: Toxic) -> None:
        """Spoil what comes from now on. Where that begins with connecting, what is connected ends."""
        self._toxic, self._reached, self.struck = toxic, 0, 0
        if toxic.phase in ("connect", "accepted"):
            await self._cut(lambda _: True)
        if toxic.phase == "connect" and toxic.kind == "down":
            self._refuse()

    async def heal(self) -> None:
        """Take the toxic away, and what it has spoiled with it."""
        self._toxic = None
        await self._cut(lambda link: link.struck)
        await self.listen()

    async def listen(self) -> None:
        """Accept connections, unless that is done already."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self.port))

    async def close(self) -> None:
        """End everything."""
        self._refuse()
        await self._cut(lambda _: True)
        self._place.close()

    def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self, chosen: Callable[[_Link], bool]) -> None:
        tasks = []
        for link in self._links:
            if chosen(link):
                link.end()
                tasks.append(link.task)
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link((reader, writer), task=asyncio.current_task())
        self._links.add(link)
        running = asyncio.create_task(self._run(link))
        ending = asyncio.create_task(link.over.wait())
        try:
            await asyncio.wait({running, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            running.cancel()
            ending.cancel()
            await asyncio.gather(running, ending, return_exceptions=True)
            for each in {writer, *(way.writer for way in link.ways)}:
                # Whoever was reset meanwhile has no socket any more.
                if link.is_reset and (sock := each.get_extra_info("socket")) is not None:
                    reset(sock)
                    each.transport.abort()
                else:
                    each.close()
            self._links.discard(link)

    async def _run(self, link: _Link) -> None:
        """Connect, and pass on both ways until both have ended."""
        try:
            toxic = self._strike(link, "connect")
            if toxic is not None:
                await self._before(link, toxic)
            link.ways = await self._connected(link)
            toxic = toxic or self._strike(link, "accepted")
            if toxic is not None:
                for way in link.ways:
                    self._spoil(link, way, toxic)
            async with asyncio.TaskGroup() as both:
                for way in link.ways:
                    both.create_task(self._pump(link, way))
        except* OSError:
            link.end(by_reset=True)

    async def _connected(self, link: _Link) -> tuple[_Way, ...]:
        if isinstance(self._target, Path):
            reader, writer = await asyncio.open_unix_connection(str(self._target))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        return _Way(link.near[0], writer, "request"), _Way(reader, link.near[1], "answer")

    async def _before(self, link: _Link, toxic: Toxic) -> None:
        """The target does not know of the connection yet."""
        if toxic.kind == "latency":
            await asyncio.sleep(toxic.seconds or 0)
        elif toxic.kind == "timeout":
            self._end_after(link, toxic)
            await _for_ever()
        elif toxic.kind in ("reset", "limit"):
            link.end(by_reset=toxic.kind == "reset")
            await _for_ever()

    def _strike(self, link: _Link, phase: Phase) -> Toxic | None:
        """The toxic, where it begins in this phase and has not spoiled enough."""
        toxic = self._toxic
        if toxic is None or toxic.phase != phase:
            return None
        self._reached += 1
        if self._reached <= toxic.spared or (toxic.most is not None and self.struck >= toxic.most):
            return None
        self.struck += 1
        link.struck = True
        return toxic

    def _spoil(self, link: _Link, way: _Way, toxic: Toxic) -> None:
        way.toxic = toxic
        if toxic.kind == "down":
            self._refuse()
            link.end()
        elif toxic.kind == "timeout":
            self._end_after(link, toxic)

    @staticmethod
    def _end_after(link: _Link, toxic: Toxic) -> None:
        if toxic.seconds is not None:
            asyncio.get_running_loop().call_later(toxic.seconds, link.end)

    async def _pump(self, link: _Link, way: _Way) -> None:
        while data := await way.reader.read(PIECE):
            if way.toxic is None:
                data = await self._untouched(link, way, data)
            if data and way.toxic is not None:
                await _spoiled(link, way, way.toxic, data)
        kind = None if way.toxic is None else way.toxic.kind
        if kind == "timeout":
            await _for_ever()
        if way.toxic is not None and kind == "slow close":
            await asyncio.sleep(way.toxic.seconds or 0)
        way.writer.write_eof()

    async def _untouched(self, link: _Link, way: _Way, data: bytes) -> bytes:
        """Pass on what comes before the toxic begins; gives the rest, which is spoiled."""
        if way.name == "request" and link.last == "answer":
            for each in link.ways:
                each.seen.clear()
        link.last = way.name
        before = len(way.seen)
        way.seen += data
        toxic = None
        for phase, at in self._moments(way):
            if before <= at < len(way.seen) and (toxic := self._strike(link, phase)) is not None:
                data, rest = data[: at - before], data[at - before :]
                break
        else:
            rest = b""
        way.writer.write(data)
        await way.writer.drain()
        if toxic is not None:
            self._spoil(link, way, toxic)
        return rest

    def _moments(self, way: _Way) -> Iterator[tuple[Phase, int]]:
        """When the phases of this way begin, in bytes of the exchange, as far as that can be known."""
        request = way.name == "request"
        yield ("request head", INSIDE) if request else ("answer head", 0)
        end = way.seen.find(self._marker)
        if end >= 0:
            yield "request body" if request else "answer body", end + len(self._marker) + INSIDE


async def _spoiled(link: _Link, way: _Way, toxic: Toxic, data: bytes) -> None:
    """Do to `data` what the toxic does."""
    if toxic.kind in ("timeout", "down"):
        return
    size = len(data)
    if toxic.kind == "latency":
        await asyncio.sleep(toxic.seconds or 0)
    elif toxic.kind == "slicer":
        size = toxic.size
    elif toxic.kind == "bandwidth":
        size = max(1, int(toxic.rate * PORTION))
    elif toxic.kind in ("reset", "limit"):
        data = data[: toxic.size - way.passed]
    way.passed += len(data)
    for at in range(0, len(data), size):
        way.writer.write(data[at : at + size])
        await way.writer.drain()
        await asyncio.sleep(PORTION if toxic.kind == "bandwidth" else 0)
    if toxic.kind in ("reset", "limit") and way.passed >= toxic.size:
        link.end(by_reset=toxic.kind == "reset")


async def _for_ever() -> None:
    await asyncio.Event().wait()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


@asynccontextmanager
async def relaying(target: int | Path, *, marker: bytes = b"\r\n\r\n") -> AsyncIterator[Relay]:
    """A relay for the block."""
    relay = Relay(target, marker=marker)
    await relay.listen()
    try:
        yield relay
    finally:
        await relay.close()
