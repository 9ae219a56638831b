"""An upstream's answer on its way to the client: framed anew, as it comes, and never complete where it was not."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, cast

import pytest

from proxy.delivery import deliver
from proxy.errors import ProxyError, UpstreamTruncated
from proxy.http1.answer import AnswerHead
from proxy.http1.section import Section
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request
from proxy.upstream.answer import Answer
from proxy.upstream.attempt import Attempt
from proxy.upstream.connection import Connection
from tests.support.client import connected
from tests.support.leaks import Artefacts
from tests.support.listening import answer_to, listening
from tests.support.upstreams import DEADLINE, on_each_loop, turns

SIZED: Final = b"Content-Length: 10"
CHUNKS: Final = b"Transfer-Encoding: chunked"
TO_THE_END: Final = b"X-Framing: none"
FRAMINGS: Final = [
    pytest.param(SIZED, id="length"),
    pytest.param(CHUNKS, id="chunked"),
    pytest.param(TO_THE_END, id="end"),
]
VERSIONS: Final = pytest.mark.parametrize("minor", [0, 1])


class Source:
    """An upstream's connection: it gives the next piece in the loop's next round whenever more is wanted."""

    def __init__(self, pieces: Sequence[bytes | ProxyError | None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.answer = Answer(cast("Connection", self), None)
        self.asked = 0
        self._pieces = deque(pieces)

    def resume_reading(self) -> None:
        """More is wanted."""
        self.asked += 1
        self.loop.call_soon(self.step)

    def fail(self, error: ProxyError) -> None:
        """It took too long."""
        self.answer.finish(error)

    def step(self) -> None:
        """Give the next piece; a `None` is a pause, and behind the last one comes the proper end."""
        piece = self._pieces.popleft() if self._pieces else b""
        if isinstance(piece, ProxyError):
            self.answer.finish(piece)
        elif piece:
            self.answer.feed(piece)
            self.answer.wake()
        elif piece is not None:
            self.answer.finish()


def passing(
    fields: bytes,
    *pieces: bytes | ProxyError | None,
    status: int = 200,
    here: int = 0,
    trailers: bytes = b"",
    echoes: Sequence[bytes] = (),
    idle: float = DEADLINE,
    sources: list[Source] | None = None,
) -> Handler:
    """A handler that delivers an answer of these pieces, of which `here` are there with its head."""

    async def handler(request: Request, connection: ClientConnection) -> None:
        source = Source(pieces)
        if sources is not None:
            sources.append(source)
        answer = source.answer
        head = answer.head = AnswerHead(b"HTTP/1.1 %d X\r\n%b" % (status, fields))
        answer.framing = head.framing(asked_by_head=request.method == "HEAD")
        nobody: Any = None  # it neither sends nor ends anything
        attempt = Attempt(nobody, nobody, answer)
        attempt.head = head
        answer.trailers = Section(trailers)
        for _ in range(here):
            source.step()
        out = answer_to(request, connection)
        try:
            await deliver(attempt, b"X-Line: 1\r\n", out, idle=idle, echoes=echoes, watchers=())
        except ProxyError as error:
            out.problem(error)
        except TimeoutError:
            out.cut()
        connection.keep_alive = out.keep_alive

    return handler


def get(minor: int, method: bytes = b"GET") -> bytes:
    """A request of this version, on a connection that is to stay."""
    return b"%b / HTTP/1.%d\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" % (method, minor)


@VERSIONS
@pytest.mark.parametrize("here", [0, 1, 2, 3], ids=["head alone", "a part", "all but the end", "all"])
@pytest.mark.parametrize("fields", FRAMINGS)
@on_each_loop
async def test_066_a_whole_body_arrives_whole_and_looks_so(
    fields: bytes, here: int, minor: int, artefacts: Artefacts
) -> None:
    """However much of it was there with its head; the connection lives on wherever the framing allows it."""
    handler = passing(fields, b"hello", b"world", here=here)
    async with listening(handler) as listener, connected(listener.url, artefacts) as client:
        stays = minor == 1 or fields is SIZED
        for _ in range(2 if stays else 1):
            client.send(get(minor))
            answer = await client.answer()
            assert (answer.status, answer.body, answer.complete) == (200, b"helloworld", True)
            framing = [("Content-Length", "10")] if fields is SIZED else [("Transfer-Encoding", "chunked")] * minor
            said = [("Connection", "keep-alive" if stays else "close")] * (1 - minor)
            assert answer.fields == [("X-Line", "1"), *framing, *said]
        if not stays:
            assert await client.at_end()


@pytest.mark.threat(66)
@VERSIONS
@pytest.mark.parametrize("here", [0, 1, 2], ids=["head alone", "a part", "all"])
@pytest.mark.parametrize("fields", FRAMINGS)
@on_each_loop
async def test_066_a_body_that_breaks_never_looks_complete(
    fields: bytes, here: int, minor: int, artefacts: Artefacts
) -> None:
    """No last chunk, a length that is short, or, where only the end would tell, a reset (invariant 8)."""
    handler = passing(fields, b"hello", UpstreamTruncated(), here=here)
    async with listening(handler) as listener, connected(listener.url, artefacts) as client:
        client.send(get(minor))
        if fields is not SIZED and not minor:
            with pytest.raises(ConnectionResetError):
                await client.answer()
        else:
            answer = await client.answer()
            assert (answer.body, answer.complete) == (b"hello", False)
            assert await client.at_end()


@pytest.mark.threat(68)
@pytest.mark.parametrize("fields", FRAMINGS)
@on_each_loop
async def test_068_each_piece_is_passed_on_at_once(fields: bytes, artefacts: Artefacts) -> None:
    """The next one comes only when the client has the one before; chunked, each is a chunk."""
    sources: list[Source] = []
    pieces = [b"data1", None, b"data2"]
    async with (
        listening(passing(fields, *pieces, sources=sources)) as listener,
        connected(listener.url, artefacts) as client,
    ):
        client.send(get(1))
        await client.reader.readuntil(b"\r\n\r\n")
        framed = fields is not SIZED
        assert await client.reader.readexactly(10 if framed else 5) == (b"5\r\ndata1\r\n" if framed else b"data1")
        while sources[0].asked < 2:
            await turns(1)
        await turns()
        sources[0].step()
        assert await client.reader.readexactly(10 if framed else 5) == (b"5\r\ndata2\r\n" if framed else b"data2")


@pytest.mark.threat(44)
@pytest.mark.parametrize(
    ("method", "status", "fields", "framing"),
    [
        (b"HEAD", 200, SIZED, [("Content-Length", "10")]),
        (b"HEAD", 200, CHUNKS, []),
        (b"HEAD", 200, TO_THE_END, []),
        (b"GET", 304, SIZED, [("Content-Length", "10")]),
        (b"GET", 304, CHUNKS, []),
        (b"GET", 204, TO_THE_END, []),
        (b"GET", 204, SIZED, []),
        (b"GET", 200, b"Content-Length: 0", [("Content-Length", "0")]),
        (b"GET", 200, b"Content-Length: 000", [("Content-Length", "0")]),
    ],
)
@VERSIONS
@on_each_loop
async def test_044_an_answer_without_a_body_leaves_the_connection_in_order(
    method: bytes, status: int, fields: bytes, framing: list[tuple[str, str]], artefacts: Artefacts, *, minor: int
) -> None:
    """The length of what a HEAD or a 304 speaks of stays; a 204 has none (RFC 9110 section 8.6)."""
    handler = passing(fields, status=status, here=1)
    async with listening(handler) as listener, connected(listener.url, artefacts) as client:
        for _ in range(2):
            client.send(get(minor, method))
            answer = await client.answer(method.decode())
            assert (answer.status, answer.body) == (status, b"")
            assert answer.fields == [("X-Line", "1"), *framing, *[("Connection", "keep-alive")] * (1 - minor)]


@pytest.mark.threat(62)
@pytest.mark.parametrize("here", [0, 2], ids=["later", "at once"])
@pytest.mark.parametrize(
    ("trailers", "passed"),
    [
        (b"", b""),
        (b"X-Sum: 1", b"X-Sum: 1\r\n"),
        (b"X-Sum:1  \r\nx-sum: \xff\t2", b"X-Sum:1  \r\nx-sum: \xff\t2\r\n"),
        (b"X-Sum: 1\r\nX-Echo: a-TOKEN-b\r\nX-Other: 2", b"X-Sum: 1\r\nX-Other: 2\r\n"),
        (b"X-Echo: TOKEN", b""),
        (b"Connection: X-Sum\r\nX-Sum: 1\r\nKeep-Alive: timeout=9\r\nContent-Length: 3", b""),
        (b"Transfer-Encoding: chunked\r\nSet-Cookie: bearer_proxy_x=1\r\nAccess-Control-Allow-Origin: *", b""),
    ],
)
@on_each_loop
async def test_trailers_pass_as_they_came_but_for_what_may_not_cross(
    trailers: bytes, passed: bytes, here: int, artefacts: Artefacts
) -> None:
    """062: the live token in none of them, no framing and no hop-by-hop field (RFC 9110 section 6.5)."""
    handler = passing(CHUNKS, b"hello", trailers=trailers, echoes=[b"TOKEN"], here=here)
    async with listening(handler) as listener, connected(listener.url, artefacts) as client:
        client.send(get(1))
        await client.reader.readuntil(b"\r\n\r\n")
        end = b"5\r\nhello\r\n0\r\n" + passed + b"\r\n"
        assert await client.reader.readexactly(len(end)) == end
        client.send(get(1))
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


@on_each_loop
async def test_trailers_are_not_for_a_client_that_knows_no_chunks(artefacts: Artefacts) -> None:
    """Its body ends with the connection, and there is no place behind it."""
    handler = passing(CHUNKS, b"hello", trailers=b"X-Sum: 1")
    async with listening(handler) as listener, connected(listener.url, artefacts) as client:
        client.send(get(0))
        assert (await client.answer()).body == b"hello"


@pytest.mark.parametrize("fields", FRAMINGS)
@on_each_loop
async def test_067_an_upstream_that_pauses_too_long_breaks_its_answer(fields: bytes, artefacts: Artefacts) -> None:
    """Between bytes, and behind the last one where an end is still due."""
    handler = passing(fields, b"hello", None, idle=0.05)
    async with listening(handler) as listener, connected(listener.url, artefacts) as client:
        client.send(get(1))
        answer = await client.answer()
        assert (answer.body, answer.complete) == (b"hello", False)
        assert await client.at_end()


@pytest.mark.threat(114)
@pytest.mark.parametrize("fields", FRAMINGS)
@on_each_loop
async def test_114_no_more_is_asked_for_than_the_client_takes(fields: bytes, artefacts: Artefacts) -> None:
    """A client that stops reading stops the upstream; after `idle` seconds it is let go."""
    sources: list[Source] = []
    pieces = [bytes(1_000_000)] * 100
    async with (
        listening(passing(fields, *pieces, idle=0.2, sources=sources)) as listener,
        connected(listener.url, artefacts) as client,
    ):
        client.stop_reading()
        client.send(get(1))
        while not listener.connections:
            await turns(1)
        while listener.connections:
            await turns(1)
    assert 0 < sources[0].asked < 50
