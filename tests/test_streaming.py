"""Bodies as streams: at once, both ways, in bounded buffers, framed as they came, never complete by accident."""

import asyncio
import contextlib
import hashlib
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from proxy.demo.serving import serving
from tests.support.api import Seen, api
from tests.support.client import Client
from tests.support.harness import Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.raw import (
    LAST_CHUNK,
    behind_head,
    chunk,
    framed,
    head,
    held_by_kernel,
    unchunked,
    within,
)
from tests.support.routes import OK, Keyed, received
from tests.support.upstreams import CLOSE, EOF, HEAD_END, REQUEST, RESET, Action, Got, Script, Step, Upstream, turns
from tests.support.waiting import until

#: What the proxy itself may hold of one direction.
MOST_HELD: Final = 256 * 1024
MIB: Final = 1 << 20
CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


@pytest.fixture
def between(proxying: StartProxy, keyed: Keyed) -> Callable[[Upstream], Any]:
    """Start a proxy before an upstream, and connect to it; gives both, the proxy and the connection."""

    @contextlib.asynccontextmanager
    async def start(upstream: Upstream) -> AsyncIterator[tuple[Proxy, Client]]:
        async with (
            proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
            proxy.connect() as client,
        ):
            yield proxy, client

    return start


Between = Callable[[Upstream], Any]


# -- at once

EVENTS: Final = [b"data: %d\n\n" % number for number in range(5)]
#: How an upstream may frame a stream: its head, how it writes an event, and what ends it.
STREAMS: Final[dict[str, tuple[bytes, Callable[[bytes], bytes], Step]]] = {
    "until close": (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", bytes, CLOSE),
    "until close, 1.0": (b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", bytes, CLOSE),
    "chunked": (CHUNKED, chunk, LAST_CHUNK),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % sum(map(len, EVENTS)), bytes, b""),
}


@pytest.mark.threat(68)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", STREAMS)
async def test_068_the_head_and_each_event_arrive_at_once(between: Between, framing: str, version: str) -> None:
    """The upstream sends the next event only after the client has the one before, the first after the head."""
    opening, encode, end = STREAMS[framing]
    go = [asyncio.Event() for _ in EVENTS]
    steps = [step for event, data in zip(go, EVENTS, strict=True) for step in (event, encode(data))]
    async with Upstream([REQUEST, opening, *steps, end]) as upstream, between(upstream) as (_, client):
        client.send(head("GET", "/events", version=version))
        answer = await within(client.reader.readuntil(HEAD_END))
        assert answer.startswith(b"HTTP/1.1 200 ")
        for event, data in zip(go, EVENTS, strict=True):
            event.set()
            assert data in await within(client.reader.readuntil(data))
        if b"chunked" in answer:
            assert await within(client.reader.readuntil(LAST_CHUNK)) == b"\r\n" + LAST_CHUNK
        elif b"Content-Length" not in answer:
            assert await client.at_end()


async def test_068_a_long_poll_holds_nobody_up(proxying: StartProxy, keyed: Keyed) -> None:
    """It waits for its head; other requests go by, and then it gets its answer."""
    news = asyncio.Event()

    async def answer(seen: Seen) -> web.StreamResponse:
        if seen.target == "/poll":
            await news.wait()
        return web.Response(text=seen.target)

    async with (
        api(answer) as upstream,
        proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.send(head("GET", "/poll"))
        for target in ("/1", "/2", "/3"):
            assert (await proxy.ask("GET", target)).body == target.encode()
        news.set()
        assert (await client.answer()).body == b"/poll"


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_the_head_and_each_piece_of_an_upload_arrive_at_once(between: Between, framing: str) -> None:
    """The client sends the next piece only after the upstream has the one before, the first after the head."""
    line, end = framed(framing, sum(map(len, EVENTS)))
    encode = chunk if framing == "chunked" else bytes
    script: Script = [REQUEST, *map(Got, EVENTS), Got(end), OK]
    async with Upstream(script) as upstream, between(upstream) as (_, client):
        client.send(head("POST", "/", line))
        peer = await within(upstream.peer())
        await within(peer.got(HEAD_END))
        for data in EVENTS:
            client.send(encode(data))
            await within(peer.got(data))
        client.send(end)
        assert (await client.answer()).status == 200


async def test_both_directions_of_an_exchange_flow_at_once(between: Between) -> None:
    """An upstream that answers while it reads: neither direction waits for the other to end."""
    steps: list[Step] = [step for data in EVENTS for step in (Got(data), chunk(data.upper()))]
    async with (
        Upstream([REQUEST, CHUNKED, *steps, Got(LAST_CHUNK), LAST_CHUNK, REQUEST, OK]) as upstream,
        between(upstream) as (_, client),
    ):
        client.send(head("POST", "/", "Transfer-Encoding: chunked"))
        await within(client.reader.readuntil(HEAD_END))
        for data in EVENTS:
            client.send(chunk(data))
            await within(client.reader.readuntil(data.upper()))
        client.send(LAST_CHUNK)
        assert await within(client.reader.readuntil(LAST_CHUNK)) == b"\r\n" + LAST_CHUNK


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_8_mib_flow_up_and_down_at_once(proxying: StartProxy, keyed: Keyed, framing: str) -> None:
    """An upload that its upstream sends back while it comes: more than any buffer, and not a byte is different."""
    body = bytes(range(256)) * (8 * MIB // 256)

    async def echo(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.content_length = request.content_length
        await answer.prepare(request)
        async for piece in request.content.iter_any():
            await answer.write(piece)
        return answer

    async def send(client: Client) -> None:
        line, end = framed(framing, len(body))
        client.send(head("POST", "/", line))
        for at in range(0, len(body), 100_000):
            piece = body[at : at + 100_000]
            client.send(chunk(piece) if end else piece)
            await client.writer.drain()
        client.send(end)

    app = web.Application()
    app.router.add_post("/", echo)
    async with (
        serving(app) as url,
        proxying(keyed.config(url), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        sending = asyncio.create_task(send(client))
        answer = await within(client.reader.readuntil(HEAD_END))
        assert (b"Content-Length: %d\r\n" % len(body) in answer) == (framing == "length")
        wire = b""
        while len(wire) < len(body) or (framing == "chunked" and not wire.endswith(LAST_CHUNK)):
            wire += await within(client.reader.read(MIB))
        await sending
        content = unchunked(wire) if framing == "chunked" else wire
        assert hashlib.sha256(content).digest() == hashlib.sha256(body).digest()


# -- bounded


class Pump:
    """Sends `data` again and again, as fast as the other end takes it; `sent` is how many bytes the kernel took."""

    def __init__(self, data: bytes) -> None:
        self.sent = 0
        self._data = memoryview(data)

    async def run(self, sock: socket.socket) -> None:
        """Send until the connection is gone."""
        while True:
            try:
                self.sent += sock.send(self._data[self.sent % len(self._data) :])
            except BlockingIOError:
                pass
            except OSError:
                return
            await asyncio.sleep(0)

    async def most_held(self, *ports: int) -> int:
        """The most that was on its way and not in the kernel, until nothing moves any more."""
        most, before = 0, -1
        while self.sent != before and self.sent < 256 * MIB:
            before = self.sent
            for _ in range(4):
                await turns(500)
                most = max(most, self.sent - held_by_kernel(*ports))
        return most


def narrow() -> socket.socket:
    """A socket with a small buffer for receiving, so that little of what waits can wait there."""
    sock = socket.socket()
    sock.settimeout(0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    return sock


async def taken(sock: socket.socket, count: int) -> bytes:
    """The next `count` bytes."""
    data = b""
    while len(data) < count:
        data += await within(asyncio.get_running_loop().sock_recv(sock, count - len(data)))
    return data


async def head_of(sock: socket.socket) -> bytes:
    """One head, read byte by byte, so that nothing behind it is taken."""
    data = b""
    while not data.endswith(HEAD_END):
        data += await taken(sock, 1)
    return data


#: 64 KiB, and the same as a chunk.
BLOCK: Final = bytes(range(256)) * 256
PUMPED: Final = {
    "length": ("Content-Length: 1000000000000", BLOCK),
    "chunked": ("Transfer-Encoding: chunked", chunk(BLOCK)),
}


@pytest.mark.threat(68, 114)
@pytest.mark.parametrize("framing", PUMPED)
async def test_114_a_reader_that_stops_stops_the_upstream(proxying: StartProxy, keyed: Keyed, framing: str) -> None:
    """An endless answer to a client that does not read: the proxy holds little of it, and loses nothing."""
    line, data = PUMPED[framing]
    loop, pump = asyncio.get_running_loop(), Pump(data)
    with socket.create_server(("127.0.0.1", 0)) as listening, narrow() as client:
        listening.settimeout(0)
        port = listening.getsockname()[1]
        async with proxying(keyed.config(f"http://127.0.0.1:{port}"), environ=keyed.environ) as proxy:
            await loop.sock_connect(client, ("127.0.0.1", urlsplit(proxy.url).port))
            await loop.sock_sendall(client, head("GET", "/"))
            upstream, _ = await within(loop.sock_accept(listening))
            with upstream:
                await head_of(upstream)
                await loop.sock_sendall(upstream, f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n".encode())
                await head_of(client)
                pumping = loop.create_task(pump.run(upstream))
                held = await pump.most_held(port, client.getsockname()[1])
                assert held <= MOST_HELD
                if framing == "length":
                    assert await taken(client, 4 * MIB) == BLOCK * (4 * MIB // len(BLOCK))
                client.close()
                await within(pumping)


@pytest.mark.parametrize("framing", PUMPED)
async def test_114_an_upstream_that_does_not_read_stops_the_client(
    proxying: StartProxy, keyed: Keyed, framing: str
) -> None:
    """An endless upload to an upstream that does not read: the proxy holds little of it, and loses nothing."""
    line, data = PUMPED[framing]
    loop, pump = asyncio.get_running_loop(), Pump(data)
    with narrow() as listening, socket.socket() as client:
        client.settimeout(0)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        async with proxying(keyed.config(f"http://127.0.0.1:{port}"), environ=keyed.environ) as proxy:
            await loop.sock_connect(client, ("127.0.0.1", urlsplit(proxy.url).port))
            await loop.sock_sendall(client, head("POST", "/", line))
            upstream, _ = await within(loop.sock_accept(listening))
            with upstream:
                await head_of(upstream)
                pumping = loop.create_task(pump.run(client))
                held = await pump.most_held(port, client.getsockname()[1])
                assert held <= MOST_HELD
                if framing == "length":
                    assert await taken(upstream, 4 * MIB) == BLOCK * (4 * MIB // len(BLOCK))
                pumping.cancel()


# -- framed as it came


@pytest.mark.threat(38)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND"])
async def test_038_any_method_may_carry_a_body(between: Between, method: str, framing: str) -> None:
    """A known length stays known, chunks stay chunks, and the next request on both connections is in order."""
    line, end = framed(framing, 6)
    body = chunk(b"abcdef") + end if end else b"abcdef"
    nothing = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with (
        Upstream([REQUEST, Got(b"abcdef" + (b"\r\n" + end if end else b"")), nothing, REQUEST, OK]) as upstream,
        between(upstream) as (_, client),
    ):
        client.send(head(method, "/1", line) + body + head("GET", "/2"))
        assert (await client.answer(method)).status == 204
        assert (await client.answer()).body == b"fine"
        [peer] = upstream.peers
        first = received(peer.received)
        assert [first.all("content-length"), first.all("transfer-encoding")] == (
            [["6"], []] if framing == "length" else [[], ["chunked"]]
        )
        passed, _, second = behind_head(peer.received).partition(b"GET /2 ")
        assert (unchunked(passed) if end else passed) == b"abcdef"
        assert b"content-length" not in second.lower()


@pytest.mark.threat(38)
@pytest.mark.parametrize(
    ("opening", "fields"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", [("Content-Length", "0")]),
        ("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", [("Content-Length", "0")]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [("Transfer-Encoding", "chunked")]),
        ("HTTP/1.1 201 Created\r\nContent-Length: 04\r\n\r\nfine", [("Content-Length", "4")]),
    ],
    ids=["length 0", "205", "no chunk", "length"],
)
async def test_038_the_framing_of_an_answer_stays(
    between: Between, opening: str, fields: list[tuple[str, str]]
) -> None:
    """Also where there is nothing in it."""
    async with Upstream([REQUEST, opening.encode(), REQUEST, OK]) as upstream, between(upstream) as (_, client):
        answer = await client.ask("GET")
        assert (answer.fields, answer.complete) == (fields, True)
        assert (await client.ask("GET")).body == b"fine"
        assert len(upstream.peers) == 1


BODYLESS: Final = [
    pytest.param("HEAD", "200 OK\r\nContent-Length: 9", [("Content-Length", "9")], id="HEAD, length"),
    pytest.param("HEAD", "200 OK\r\nTransfer-Encoding: chunked", None, id="HEAD, chunked"),
    pytest.param("HEAD", "200 OK", None, id="HEAD"),
    pytest.param("GET", "204 No Content", [], id="204"),
    # A length is forbidden there, and does not pass (RFC 9110 section 8.6).
    pytest.param("GET", "204 No Content\r\nContent-Length: 0", [], id="204, length 0"),
    pytest.param("GET", "304 Not Modified\r\nContent-Length: 9", [("Content-Length", "9")], id="304, length"),
    pytest.param("GET", "304 Not Modified\r\nTransfer-Encoding: chunked", None, id="304, chunked"),
    pytest.param("GET", "304 Not Modified", [], id="304"),
    pytest.param("DELETE", "204 No Content", [], id="DELETE, 204"),
]


@pytest.mark.threat(44)
@pytest.mark.parametrize(("method", "says", "fields"), BODYLESS)
async def test_044_an_answer_without_a_body_leaves_both_connections_in_order(
    between: Between, method: str, says: str, fields: list[tuple[str, str]] | None
) -> None:
    """RFC 9112 section 6.3: whatever its framing fields say, the next answer on both connections is its own."""
    async with (
        Upstream([REQUEST, f"HTTP/1.1 {says}\r\n\r\n".encode(), REQUEST, OK]) as upstream,
        between(upstream) as (_, client),
    ):
        answer = await client.ask(method, "/1")
        assert fields is None or answer.fields == fields
        assert (await client.ask("GET", "/2")).body == b"fine"
        assert len(upstream.peers) == 1


@pytest.mark.threat(43)
@pytest.mark.parametrize("extra", [b"evil", OK.replace(b"fine", b"evil")], ids=["bytes", "an answer"])
@pytest.mark.parametrize(
    ("method", "says", "fields"),
    [*BODYLESS, pytest.param("GET", "204 No Content\r\nContent-Length: 4", [], id="204, length")],
)
async def test_043_bytes_behind_an_answer_are_nobodys(
    between: Between, method: str, says: str, fields: list[tuple[str, str]] | None, extra: bytes
) -> None:
    """They are no body, and not the answer to the next request, which goes out on another connection."""
    async with (
        Upstream([REQUEST, f"HTTP/1.1 {says}\r\n\r\n".encode() + extra], [REQUEST, OK]) as upstream,
        between(upstream) as (_, client),
    ):
        answer = await client.ask(method, "/1")
        assert fields is None or answer.fields == fields
        assert (await client.ask("GET", "/2")).body == b"fine"
        assert len(upstream.peers) == 2


CONFLICTS: Final = {
    "length and coding": "1.1|Content-Length: 4|Transfer-Encoding: chunked",
    "coding and length": "1.1|Transfer-Encoding: chunked|Content-Length: 4",
    "two lengths": "1.1|Content-Length: 4|Content-Length: 5",
    "the same length twice": "1.1|Content-Length: 4|Content-Length: 4",
    "a list of lengths": "1.1|Content-Length: 4, 4",
    "a signed length": "1.1|Content-Length: +4",
    "a negative length": "1.1|Content-Length: -4",
    "a length in hexadecimal": "1.1|Content-Length: 0x4",
    "an empty length": "1.1|Content-Length:",
    "a length with a space": "1.1|Content-Length: 4 4",
    "an endless length": "1.1|Content-Length: " + "9" * 40,
    "chunked twice": "1.1|Transfer-Encoding: chunked|Transfer-Encoding: chunked",
    "chunked in chunked": "1.1|Transfer-Encoding: chunked, chunked",
    "gzip in chunked": "1.1|Transfer-Encoding: gzip, chunked",
    "identity": "1.1|Transfer-Encoding: identity",
    "xchunked": "1.1|Transfer-Encoding: xchunked",
    "an empty coding": "1.1|Transfer-Encoding:",
    "chunked in 1.0": "1.0|Transfer-Encoding: chunked",
}


@pytest.mark.threat(35)
@pytest.mark.parametrize("case", CONFLICTS)
async def test_035_an_answer_whose_end_is_ambiguous_is_502(between: Between, case: str) -> None:
    """RFC 9112 section 6.3; nothing of it passes, and its connection serves nobody else."""
    version, *lines = CONFLICTS[case].split("|")
    wire = "\r\n".join([f"HTTP/{version} 200 OK", *lines, "", "4\r\nevil\r\n0\r\n\r\n"]).encode()
    async with Upstream([REQUEST, wire], [REQUEST, OK]) as upstream, between(upstream) as (_, client):
        answer = await client.ask("GET", "/1")
        assert (answer.status, answer.code) == (502, "upstream_protocol")
        assert b"evil" not in answer.body
        assert (await client.ask("GET", "/2")).body == b"fine"
        assert len(upstream.peers) == 2
        await within(upstream.peers[0].ended.wait())


# -- everything besides the body


async def test_early_hints_pass_at_once_and_trailers_in_their_place(between: Between) -> None:
    """Byte for byte, before the final answer is there and behind its last chunk."""
    go = asyncio.Event()
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nlink: </\xe9>; rel=preload\r\n\r\n"
    trailers = b"0\r\nX-Sum: abc\r\nx-sum: \xe9\xff\r\nServer-Timing: db;dur=3\r\n\r\n"
    script: Script = [REQUEST, hints, go, CHUNKED + chunk(b"fine") + trailers, REQUEST, OK]
    async with Upstream(script) as upstream, between(upstream) as (_, client):
        client.send(head("GET", "/1"))
        assert await within(client.reader.readuntil(HEAD_END)) == hints
        go.set()
        assert await within(client.reader.readuntil(HEAD_END)) == CHUNKED
        assert await within(client.reader.readuntil(HEAD_END)) == chunk(b"fine") + trailers
        assert (await client.ask("GET", "/2")).body == b"fine"


async def test_a_client_of_http_1_0_gets_neither_interim_answers_nor_trailers(between: Between) -> None:
    """RFC 9110 section 15.2 forbids the ones, and the others need chunks."""
    wire = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + CHUNKED + chunk(b"fine") + b"0\r\nX-Sum: 1\r\n\r\n"
    )
    async with Upstream([REQUEST, wire]) as upstream, between(upstream) as (_, client):
        client.send(head("GET", "/", "Connection: keep-alive", version="1.0"))
        answer = await within(client.reader.read())
        assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfine"


async def test_a_client_of_http_1_0_keeps_its_connection_where_it_asks_and_a_length_allows(
    between: Between,
) -> None:
    """RFC 9112 section 9.3: not without asking, and not behind a body that only the end of the connection ends."""
    async with (
        Upstream([REQUEST, OK, REQUEST, CHUNKED + chunk(b"fine") + LAST_CHUNK]) as upstream,
        between(upstream) as (_, client),
    ):
        client.send(head("GET", "/1", "Connection: keep-alive", version="1.0"))
        answer = await client.answer()
        assert (answer.body, answer["connection"]) == (b"fine", "keep-alive")
        client.send(head("GET", "/2", "Connection: keep-alive", version="1.0"))
        answer = await client.answer()
        assert (answer.body, answer["connection"]) == (b"fine", "close")


@pytest.mark.threat(62)
@pytest.mark.parametrize("kind", ["interim", "trailer"])
async def test_062_an_echo_of_the_token_beside_the_head_is_dropped_too(
    between: Between, keyed: Keyed, kind: str
) -> None:
    """In an early hint and in a trailer as in the head; its neighbours pass."""
    echo = b"X-Echo: Bearer " + keyed.token.encode() + b"\r\nX-Near: 1\r\n\r\n"
    wire = CHUNKED + chunk(b"fine") + (b"0\r\n" + echo if kind == "trailer" else LAST_CHUNK)
    if kind == "interim":
        wire = b"HTTP/1.1 103 Early Hints\r\n" + echo + wire
    async with Upstream([REQUEST, wire, CLOSE]) as upstream, between(upstream) as (_, client):
        client.send(head("GET", "/", "Connection: close"))
        answer = await within(client.reader.read())
        assert b"X-Near: 1\r\n" in answer
        assert b"X-Echo" not in answer


LARGE: Final = {
    "one of 20 kB": [("X-Large", "a" * 20_000)],
    "forty of 500 bytes": [(f"X-Large-{number}", "b" * 500) for number in range(40)],
    "bytes beyond UTF-8": [("X-Bytes", "".join(map(chr, range(0xA1, 0x100))) * 200)],
    "a cookie of 20 kB": [("Set-Cookie", "a=1; HttpOnly"), ("Set-Cookie", "b=" + "c" * 20_000)],
}


@pytest.mark.parametrize("case", LARGE)
async def test_116_20_kb_of_fields_pass_both_ways(between: Between, keyed: Keyed, case: str) -> None:
    """Within `limits.header_bytes`, in their order, each byte as it was."""
    fields = LARGE[case]
    lines = [f"{name}: {value}" for name, value in fields]
    wire = "\r\n".join(["HTTP/1.1 200 OK", *lines, "Content-Length: 0", "", ""]).encode("latin-1")
    async with Upstream([REQUEST, wire]) as upstream, between(upstream) as (_, client):
        client.send(head("GET", "/", *lines))
        answer = await client.answer()
        assert answer.fields == [*fields, ("Content-Length", "0")]
        assert received(upstream.peers[0].received).fields == [
            ("Host", f"127.0.0.1:{upstream.port}"), *fields, ("Authorization", f"Bearer {keyed.token}"),
        ]  # fmt: skip


async def test_a_head_that_is_much_like_the_one_before_is_read_for_itself(between: Between) -> None:
    """One byte of a value, the case of a name, or only the start line: each exchange has its own on both sides."""
    heads = [
        ("GET", "/1", "X-A: 1", "200 OK"), ("GET", "/1", "X-A: 2", "200 OK"), ("GET", "/1", "X-A: 2", "410 Gone"),
        ("GET", "/", "X-A: 2", "410 Gone"), ("GET", "/", "x-A: 2", "410 Gone"), ("PUT", "/", "x-A: 2", "410 Gone"),
        ("HEAD", "/", "x-A: 2", "410 Gone"), ("GET", "/", "x-A: 2", "410 Gone"),
    ]  # fmt: skip
    script: list[Step] = []
    for method, _, line, status in heads:
        opening = f"HTTP/1.1 {status}\r\n{line}\r\nContent-Length: 4\r\n\r\n".encode()
        script += [REQUEST, opening + (b"" if method == "HEAD" else b"fine")]
    async with Upstream(script) as upstream, between(upstream) as (_, client):
        for number, (method, target, line, status) in enumerate(heads):
            name, value = line.split(": ")
            client.send(head(method, target, line))
            answer = await client.answer(method)
            assert (answer.status, answer.body) == (int(status[:3]), b"" if method == "HEAD" else b"fine")
            assert answer.fields == [(name, value), ("Content-Length", "4")]
            got = received(bytes(upstream.peers[0].received).split(HEAD_END)[number])
            assert (got.method, got.target, got.fields[1]) == (method, target, (name, value))


@pytest.mark.threat(46)
async def test_046_fifty_requests_in_one_segment_are_answered_in_order(proxying: StartProxy, keyed: Keyed) -> None:
    """Uploads, a HEAD and a refused one among them; the first answers last, and the others wait for it."""
    first = asyncio.Event()

    async def answer(seen: Seen) -> web.StreamResponse:
        if seen.target == "/0":
            await first.wait()
        return web.Response(text=f"{seen.target} {seen.body.decode()}")

    requests = [
        (f"{number}", *kind)
        for number, kind in enumerate(
            [("GET", ""), ("POST", "length"), ("HEAD", ""), ("PUT", "chunked"), ("TRACE", "")] * 10
        )
    ]
    wire = b""
    for name, method, framing in requests:
        line, end = framed(framing, len(name)) if framing else ("X-None: 1", b"")
        body = name.encode() if framing else b""
        wire += head(method, f"/{name}", line) + (chunk(body) if end else body) + end
    async with (
        api(answer) as upstream,
        proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.send(wire)
        await turns(200)
        first.set()
        for name, method, framing in requests:
            got = await client.answer(method)
            assert got.status == (405 if method == "TRACE" else 200)
            if method in ("GET", "POST", "PUT"):
                assert got.body.decode() == f"/{name} {name if framing else ''}"
        assert [seen.target[1:] for seen in upstream.seen] == [
            name for name, method, _ in requests if method != "TRACE"
        ]


@pytest.mark.parametrize(
    "options",
    [
        ["--data-binary", "@-"],
        ["--data-binary", "@-", "-H", "Transfer-Encoding: chunked"],
        ["--upload-file", "-"],
    ],
    ids=["length", "chunked", "upload-file"],
)
async def test_curl_uploads_what_a_pipe_gives(proxying: StartProxy, keyed: Keyed, options: list[str]) -> None:
    """2 MiB, with the Expect field that curl sends of its own accord."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("this machine has no curl")
    body = bytes(range(256)) * (2 * MIB // 256)

    async def digest(seen: Seen) -> web.StreamResponse:
        return web.Response(text=hashlib.sha256(seen.body).hexdigest())

    async with (
        api(digest) as upstream,
        proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy,
    ):
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            curl, "-sSf", *options, f"{proxy.url}/upload", stdin=pipe, stdout=pipe
        )
        out, _ = await within(process.communicate(body))
        assert (process.returncode, out.decode()) == (0, hashlib.sha256(body).hexdigest())


async def test_one_byte_at_a_time_both_ways(between: Between) -> None:
    """Slow senders: each byte a segment of its own, in heads, sizes, bodies and trailers."""
    request = (
        head("POST", "/", "Transfer-Encoding: chunked", "X-A: b") + b"3;x=y\r\nabc\r\n3\r\ndef\r\n" + LAST_CHUNK
    )
    hints = b"HTTP/1.1 103 Early Hints\r\nX-A: 1\r\n\r\n"
    wire = hints + CHUNKED + b"2;x=y\r\nfi\r\n2\r\nne\r\n0\r\nX-Sum: 1\r\n\r\n"
    script: Script = [REQUEST, Got(LAST_CHUNK), *(bytes([byte]) for byte in wire)]
    async with Upstream(script) as upstream, between(upstream) as (_, client):
        for byte in request:
            client.send(bytes([byte]))
            await turns(3)
        assert await within(client.reader.readuntil(HEAD_END)) == hints
        answer = await client.answer()
        assert answer.body == b"fine"
        assert unchunked(behind_head(upstream.peers[0].received)) == b"abcdef"


# -- ends that are none

BROKEN: Final = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
    "chunked": CHUNKED + chunk(b"01234") + chunk(b"56789") + b"0\r\nX-Sum: 1\r\n\r\n",
}


@pytest.mark.threat(66)
@pytest.mark.parametrize("end", [CLOSE, EOF, RESET], ids=["close", "half-close", "reset"])
@pytest.mark.parametrize("framing", BROKEN)
async def test_066_an_answer_that_is_cut_anywhere_is_never_complete(
    proxying: StartProxy, keyed: Keyed, framing: str, end: Action
) -> None:
    """Each offset of it: 502 within the head, a visible break within the body."""
    wire = BROKEN[framing]
    scripts: list[Script] = [[REQUEST, wire[:at], end] for at in range(len(wire))]
    async with (
        Upstream(*scripts) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        for at in range(len(wire)):
            async with proxy.connect() as client:
                client.send(head("POST", "/", "Content-Length: 0", "Connection: close"))
                got = await everything(client)
                if at < wire.index(HEAD_END) + len(HEAD_END):
                    assert got.startswith(b"HTTP/1.1 502 "), at
                    assert b'"code": "upstream_' in got
                elif got.startswith(b"HTTP/1.1 200 "):
                    body = behind_head(got)
                    assert len(body) < 10 or (framing == "chunked" and not body.endswith(b"\r\n\r\n")), at
                else:
                    # The break came before the head was passed on.
                    assert got.startswith(b"HTTP/1.1 502 ") or not got, at
        assert len(upstream.peers) == len(wire)


async def everything(client: Client) -> bytes:
    """What the proxy sends until its end of the connection, proper or not."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await within(client.reader.read(MIB)):
            got += piece
    return got


@pytest.mark.threat(66)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_066_a_stream_that_only_the_end_completes_is_reset_where_it_breaks(
    between: Between, version: str
) -> None:
    """A client of HTTP/1.0 has no other way to see it; one of HTTP/1.1 gets no last chunk."""
    go = asyncio.Event()
    script: Script = [REQUEST, CHUNKED + chunk(b"fine"), go, CLOSE]
    async with Upstream(script) as upstream, between(upstream) as (_, client):
        client.send(head("GET", "/", version=version))
        await within(client.reader.readuntil(b"fine"))
        go.set()
        if version == "1.0":
            with pytest.raises(ConnectionResetError):
                await within(client.reader.read())
        else:
            assert LAST_CHUNK not in await everything(client)


HANG_UPS: Final[dict[str, Callable[[Client], None]]] = {
    "close": Client.close,
    "half-close": lambda client: client.writer.write_eof(),
    "reset": lambda client: client.writer.transport.abort(),
}


@pytest.mark.threat(69)
@pytest.mark.parametrize("how", HANG_UPS)
@pytest.mark.parametrize("when", ["before the head", "within the answer", "within the upload"])
async def test_069_a_client_that_hangs_up_frees_its_upstream_connection(
    between: Between, when: str, how: str
) -> None:
    """A FIN before the answer is complete counts as hanging up, too (invariant 7)."""
    opening = CHUNKED + chunk(b"fine") if when == "within the answer" else b""
    line = "Content-Length: 9" if when == "within the upload" else "Content-Length: 3"
    async with Upstream([REQUEST, Got(b"abc"), opening]) as upstream, between(upstream) as (proxy, client):
        client.send(head("POST", "/", line) + b"abc")
        peer = await within(upstream.peer())
        await within(peer.got(b"abc"))
        if opening:
            await within(client.reader.readuntil(b"fine"))
        HANG_UPS[how](client)
        await within(peer.ended.wait())
        assert behind_head(peer.received) == b"abc"
        await until(proxy.lines)


@pytest.mark.threat(103)
@pytest.mark.parametrize("end", [CLOSE, RESET], ids=["close", "reset"])
async def test_103_an_upstream_that_leaves_within_an_upload_is_502_and_gets_no_second_one(
    between: Between, end: Action
) -> None:
    """A POST whose bytes were written may have been carried out (RFC 9110 section 9.2.2)."""
    async with Upstream([REQUEST, Got(b"abc"), end]) as upstream, between(upstream) as (_, client):
        client.send(head("POST", "/", "Content-Length: 9") + b"abc")
        answer = await client.answer()
        assert answer.status == 502
        assert answer.code.startswith("upstream_")
        assert len(upstream.peers) == 1
