"""One request sent upstream: its body beside it, the early answer, and the one resend after a lost connection."""

import asyncio
import errno
import hashlib
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from proxy.body import RequestBody
from proxy.errors import (
    ProxyError,
    RequestTimeout,
    TooLarge,
    UpstreamError,
    UpstreamLost,
    UpstreamProtocol,
    UpstreamTimeout,
)
from proxy.http1.answer import SWITCHED, AnswerHead
from proxy.replay import Replay
from proxy.routes import Origin
from proxy.upstream.attempt import Attempt, send
from proxy.upstream.connection import Connection
from proxy.upstream.dial import Dialer
from proxy.upstream.pool import Pool
from tests.support.upstreams import (
    CLOSE,
    DEADLINE,
    DEAF,
    READ,
    REQUEST,
    RESET,
    Got,
    Script,
    Step,
    Upstream,
    on_each_loop,
    reset,
    turns,
)

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EARLY: Final = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nearly"
PIECE: Final = 64 * 1024


class Uploading:
    """A client that sends a body in pieces, the next one when more is wanted and the loop has gone round.

    An event among them waits; a `None` waits for ever. `left` are the pieces that were not sent yet.
    """

    def __init__(self, *pieces: bytes | asyncio.Event | None, length: int | None = None) -> None:
        self.left = list(pieces)
        self.body = RequestBody(self, length)
        self._sending: asyncio.Task[None] | None = None

    def resume_reading(self) -> None:
        """More is wanted."""
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    def send_all(self) -> None:
        """Everything is there at once."""
        for piece in self.left:
            assert isinstance(piece, bytes)
            self.body.feed(piece)
        self.left.clear()
        self.body.finish()

    async def _send(self) -> None:
        while self.left and not isinstance(self.left[0], bytes):
            if self.left[0] is None:
                return
            await self.left[0].wait()
            del self.left[0]
        if self.left:
            piece = self.left.pop(0)
            assert isinstance(piece, bytes)
            self.body.feed(piece)
        else:
            self.body.finish()


def uploading(
    *pieces: bytes | asyncio.Event | None,
    length: int | None = None,
    keep: int = 0,
    most: int | None = None,
    idle: float = DEADLINE,
) -> Uploading:
    """A client, its body bound as the relay does it."""
    client = Uploading(*pieces, length=length)
    client.body.bound(replay=Replay(keep, 0), most=most, idle=idle)
    return client


def body(
    *pieces: bytes | None, length: int | None = None, is_here: bool = False, keep: int = 0, most: int | None = None
) -> RequestBody:
    """A request's body of these pieces."""
    client = uploading(*pieces, length=length, keep=keep, most=most)
    if is_here:
        client.send_all()
    return client.body


def head(method: str = "POST", content: RequestBody | None = None) -> bytes:
    """A request head with the framing of `content`."""
    framing = b""
    if content is not None:
        chunked = content.length is None
        framing = (
            b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % (content.length or 0)
        )
    return b"%b / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (method.encode(), framing)


@asynccontextmanager
async def pooled(*scripts: Script, size: int = 5) -> AsyncIterator[tuple[Upstream, Pool]]:
    """An upstream, and a pool of connections to it."""
    async with Upstream(*scripts) as upstream:
        pool = Pool(Dialer(upstream.origin), size=size, connect=DEADLINE)
        try:
            yield upstream, pool
        finally:
            pool.close()


async def upload(pool: Pool, content: RequestBody, *, first_byte: float = DEADLINE) -> Attempt:
    """POST this."""
    return await send(pool, "POST", head("POST", content), content, first_byte=first_byte)


async def ended(attempt: Attempt) -> tuple[int, bytes]:
    """Status and body, read to the proper end; then the attempt is over."""
    try:
        whole = bytearray()
        while piece := await attempt.answer.read(DEADLINE):
            whole += piece
        return attempt.head.status, bytes(whole)
    finally:
        attempt.end()


def unchunked(wire: bytes) -> bytes:
    """The body of a whole chunked message, read strictly."""
    found = bytearray()
    at = 0
    while True:
        line = wire.index(b"\r\n", at)
        size = int(wire[at:line], 16)
        end = line + 2 + size
        assert wire[end : end + 2] == b"\r\n"
        found += wire[line + 2 : end]
        if size == 0:
            assert end + 2 == len(wire)
            return bytes(found)
        at = end + 2


# -- uploads


@pytest.mark.threat(38)
@pytest.mark.parametrize("is_here", [False, True], ids=["streamed", "here already"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@on_each_loop
async def test_an_upload_of_8_mib_arrives_byte_for_byte(*, chunked: bool, is_here: bool) -> None:
    """038: a known length stays known, a chunked body stays chunked; the upstream stops reading for a while."""
    data = os.urandom(8 * 1024 * 1024)
    pieces = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    content = body(*pieces, length=None if chunked else len(data), is_here=is_here)
    go = asyncio.Event()
    end = Got(b"\r\n0\r\n\r\n") if chunked else Got(len(data))
    async with pooled([REQUEST, DEAF, go, READ, end, OK]) as (upstream, pool):
        sending = asyncio.create_task(upload(pool, content))
        await turns()
        go.set()
        assert await ended(await sending) == (200, b"ok")
        received = bytes((await upstream.peer()).received).partition(b"\r\n\r\n")[2]
        arrived = unchunked(received) if chunked else received
        assert hashlib.sha256(arrived).digest() == hashlib.sha256(data).digest()
        assert (upstream.requests, pool.open) == (1, 1)


@pytest.mark.parametrize("is_here", [False, True], ids=["streamed", "here already"])
@pytest.mark.parametrize(("length", "wire"), [(None, b"0\r\n\r\n"), (0, b"")], ids=["chunked", "length"])
@on_each_loop
async def test_an_empty_body_is_framed_as_it_was_announced(
    length: int | None, wire: bytes, *, is_here: bool
) -> None:
    """038: an empty chunk would end a chunked body, so none is written before the last one."""
    content = body(length=length, is_here=is_here)
    async with pooled([REQUEST, Got(wire), OK]) as (upstream, pool):
        assert await ended(await upload(pool, content)) == (200, b"ok")
        assert bytes((await upstream.peer()).received).partition(b"\r\n\r\n")[2] == wire


@on_each_loop
async def test_a_slow_upstream_stops_the_client_and_fills_no_memory() -> None:
    """114: what the upstream does not take stays with the client."""
    client = uploading(*[b"a" * PIECE] * 400, length=PIECE * 400)
    async with pooled([REQUEST, DEAF]) as (_, pool):
        sending = asyncio.create_task(upload(pool, client.body))
        left = -1
        while left != len(client.left) or left == 400:
            left = len(client.left)
            await turns(200)
        [connection] = pool._open
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() <= 4 * 1024 + PIECE
        assert left > 0
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert pool.open == 0


@on_each_loop
async def test_an_upstream_that_takes_nothing_of_a_body_is_a_timeout() -> None:
    """067: no wait is without a deadline, that for room in the socket neither."""
    async with pooled([REQUEST, DEAF]) as (_, pool):
        with pytest.raises(UpstreamTimeout):
            await upload(pool, body(*[b"a" * PIECE] * 400, length=PIECE * 400), first_byte=0.1)
        assert pool.open == 0


@on_each_loop
async def test_the_time_for_the_answer_begins_with_the_end_of_the_request() -> None:
    """064: a slow client does not use up the upstream's time."""
    data = asyncio.Event()
    client = uploading(data, b"a", length=1)
    async with pooled([REQUEST, Got(1), OK]) as (_, pool):
        asyncio.get_running_loop().call_later(0.15, data.set)
        assert await ended(await upload(pool, client.body, first_byte=0.05)) == (200, b"ok")


@pytest.mark.parametrize("is_here", [False, True], ids=["streamed", "here already"])
@on_each_loop
async def test_a_body_that_grows_too_large_ends_the_request_and_its_connection(*, is_here: bool) -> None:
    """116: the upstream never sees a proper end of it."""
    async with pooled([REQUEST]) as (upstream, pool):
        with pytest.raises(TooLarge):
            await upload(pool, body(b"a" * 6, b"a" * 6, most=10, is_here=is_here))
        peer = await upstream.peer()
        await peer.ended.wait()
        assert b"0\r\n\r\n" not in peer.received
        assert pool.open == 0


@on_each_loop
async def test_a_client_that_stops_sending_ends_the_request_with_its_own_error() -> None:
    """113: 408 and not 502: it is not the upstream that was slow."""
    async with pooled([REQUEST]) as (upstream, pool):
        with pytest.raises(RequestTimeout):
            await upload(pool, uploading(b"a", None, idle=0.05).body)
        await (await upstream.peer()).ended.wait()


@pytest.mark.threat(69)
@on_each_loop
async def test_a_client_that_hangs_up_frees_the_upstream_connection() -> None:
    """069, invariant 9: cancelling the send closes the connection and leaves no task behind."""
    async with pooled([REQUEST, Got(5)]) as (upstream, pool):
        sending = asyncio.create_task(upload(pool, body(b"hello", None)))
        await (await upstream.peer()).got(b"hello")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await (await upstream.peer()).ended.wait()
        assert pool.open == 0


# -- early answers


@asynccontextmanager
async def hasty(then: str, answer: bytes) -> AsyncIterator[int]:
    """The port of an upstream in a thread of its own that answers in the middle of each upload, `then` ends it."""

    def serve() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with sock:
                try:
                    count = 0
                    while count < PIECE:
                        count += len(sock.recv(8192))
                    sock.sendall(answer)
                    while then == "keeps reading" and sock.recv(PIECE):
                        pass
                    if then == "resets":
                        reset(sock)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(thread.join)


@pytest.mark.threat(105)
@pytest.mark.parametrize("size", [5, 20_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("then", ["closes", "keeps reading", "resets"])
@on_each_loop
async def test_an_early_answer_wins_over_the_write_that_fails_behind_it(
    then: str, size: int, *, chunked: bool
) -> None:
    """105, E19: 50 uploads each, 0 wrong answers, however the upstream ends its side behind a 401."""
    early = os.urandom(size)
    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (size, early)
    async with hasty(then, answer) as port:
        for _ in range(50):
            pool = Pool(Dialer(Origin("http", "127.0.0.1", port)), connect=DEADLINE)
            content = body(*[b"a" * PIECE] * 64, length=None if chunked else PIECE * 64)
            try:
                assert await ended(await upload(pool, content)) == (401, early)
            finally:
                pool.close()


@on_each_loop
async def test_an_upstream_that_refuses_and_closes_gets_no_more_of_the_body() -> None:
    """105: an error with `Connection: close` says that the rest is not wanted (RFC 9112 section 9.5)."""
    closing = EARLY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    client = uploading(*[b"a" * PIECE] * 1000, length=PIECE * 1000)
    go = asyncio.Event()
    async with pooled([REQUEST, closing[:-1], go, closing[-1:]]) as (upstream, pool):
        attempt = await upload(pool, client.body)
        await turns(2000)
        assert len(client.left) > 900
        go.set()
        assert await ended(attempt) == (401, b"early")
        await (await upstream.peer()).ended.wait()
        assert pool.open == 0


class Watching:
    """A client of 64 pieces; `waiting` says of each whether the upstream had not taken the one before it."""

    def __init__(self, pool: Pool) -> None:
        self.body = RequestBody(self, None)
        self.waiting: list[bool] = []
        self._pool = pool

    def resume_reading(self) -> None:
        """More is wanted."""
        [connection] = self._pool._open
        self.waiting.append(connection.is_writing_paused)
        loop = asyncio.get_running_loop()
        if len(self.waiting) > 64:
            loop.call_soon(self.body.finish)
        else:
            loop.call_soon(self.body.feed, bytes(256 * 1024))


@on_each_loop
async def test_114_no_piece_is_taken_while_the_one_before_it_waits() -> None:
    """What an upstream does not take in time is one piece here; the others stay with the client."""
    go = asyncio.Event()
    async with pooled([REQUEST, DEAF, go, READ, Got(b"\r\n0\r\n\r\n"), OK]) as (_, pool):
        client = Watching(pool)
        sending = asyncio.create_task(upload(pool, client.body))
        await turns(1000)
        assert len(client.waiting) < 64
        go.set()
        assert await ended(await sending) == (200, b"ok")
        assert client.waiting == [False] * 65


class Broken:
    """A client whose bytes were kept where they cannot be read any more."""

    def __init__(self) -> None:
        self.body = RequestBody(self, None)

    def resume_reading(self) -> None:
        """More is wanted."""
        raise OSError(errno.EIO, "input/output error")


@on_each_loop
async def test_a_body_that_cannot_be_read_ends_the_request_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for an answer to it."""
    async with pooled([REQUEST, READ]) as (_, pool):
        with pytest.raises(ProxyError) as caught:
            await upload(pool, Broken().body)
        assert (caught.value.status, pool.open) == (500, 0)
    assert [record.getMessage() for record in caplog.records] == ["internal_error"]


@on_each_loop
async def test_an_early_success_does_not_stop_the_upload() -> None:
    """A streaming upstream may answer while it still reads: both directions go on."""
    data = asyncio.Event()
    opening = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    script: Script = [REQUEST, opening, Got(b"question\r\n0\r\n\r\n"), b"6\r\nanswer\r\n0\r\n\r\n"]
    async with pooled(script) as (_, pool):
        attempt = await upload(pool, uploading(data, b"question").body)
        data.set()
        assert await ended(attempt) == (200, b"answer")


@on_each_loop
async def test_interim_answers_are_told_while_the_body_waits_for_them() -> None:
    """A client that expects 100 sends nothing before it; a 103 behind the upload comes in its place."""
    told: list[AnswerHead] = []
    go = asyncio.Event()

    def tell(head: AnswerHead) -> None:
        told.append(head)
        go.set()

    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    script: Script = [REQUEST, b"HTTP/1.1 100 Continue\r\n\r\n", Got(b"hello"), hints, OK]
    content = uploading(go, b"hello", length=5).body
    async with pooled(script) as (upstream, pool):
        attempt = await send(pool, "PUT", head("PUT", content), content, first_byte=DEADLINE, on_interim=tell)
        assert await ended(attempt) == (200, b"ok")
        assert [(each.status, each.raw) for each in told] == [(100, b""), (103, b"Link: </a>")]
        assert (upstream.requests, pool.open) == (1, 1)


@on_each_loop
async def test_an_upload_that_is_refused_before_it_begins_costs_no_byte_of_it() -> None:
    """The upstream says 401 instead of 100: nothing but the head was sent, and its connection is spent."""
    async with pooled([REQUEST, EARLY]) as (upstream, pool):
        attempt = await upload(pool, uploading(None, length=5).body)
        await attempt.stop_upload()
        assert await ended(attempt) == (401, b"early")
        peer = await upstream.peer()
        await peer.ended.wait()
        assert peer.received.endswith(b"Content-Length: 5\r\n\r\n")
        assert pool.open == 0


@on_each_loop
async def test_a_switch_to_another_protocol_is_an_answer_only_where_it_was_asked_for() -> None:
    """The connection goes on as a tunnel, and never back to the pool."""
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with pooled([REQUEST, switching]) as (upstream, pool):
        with pytest.raises(UpstreamProtocol):
            await send(pool, "GET", head("GET"), None, first_byte=DEADLINE)
        assert pool.open == 0
        attempt = await send(pool, "GET", head("GET"), None, first_byte=DEADLINE, may_switch=True)
        assert (attempt.head.status, attempt.answer.framing) == (101, SWITCHED)
        attempt.connection.write(b"ping")
        await (await upstream.peer(1)).got(b"ping")
        attempt.end()
        assert pool.open == 0
        await (await upstream.peer(1)).ended.wait()


@on_each_loop
async def test_fresh_leaves_the_connection_that_rests_alone() -> None:
    """What cannot be repeated goes out on one that nobody used."""
    async with pooled([*FIRST, REQUEST, OK]) as (upstream, pool):
        rests = await reused(pool)
        attempt = await send(pool, "POST", head("POST"), None, first_byte=DEADLINE, fresh=True)
        assert attempt.connection is not rests
        assert await ended(attempt) == (200, b"ok")
        assert [peer.requests for peer in upstream.peers] == [1, 1]
        attempt = await send(pool, "GET", head("GET"), None, first_byte=DEADLINE)
        assert attempt.connection is not rests  # the last one first
        other = await send(pool, "GET", head("GET"), None, first_byte=DEADLINE)
        assert other.connection is rests
        assert (await ended(attempt), await ended(other)) == ((200, b"ok"), (200, b"ok"))
        assert pool.open == 2


@pytest.mark.threat(38)
@on_each_loop
async def test_a_connection_whose_upload_was_stopped_is_never_used_again() -> None:
    """038: the rest of that body would be the head of the next request."""
    async with pooled([REQUEST, EARLY], [REQUEST, OK]) as (upstream, pool):
        attempt = await upload(pool, body(b"a", None))
        await attempt.stop_upload()
        attempt.release_if_over()
        assert pool._idle == []
        assert await ended(attempt) == (401, b"early")
        assert pool.open == 0
        await (await upstream.peer()).ended.wait()
        assert await ended(await send(pool, "GET", head("GET"), None, first_byte=DEADLINE)) == (200, b"ok")
        assert [peer.requests for peer in upstream.peers] == [1, 1]


@pytest.mark.parametrize("wait", [False, True], ids=["unread body", "whole answer"])
@on_each_loop
async def test_a_connection_is_released_early_only_when_its_answer_is_whole(*, wait: bool) -> None:
    """Others may use it while a request waits for a token; the answer stays readable, `end` gives it back once."""
    rest = asyncio.Event()
    async with pooled([REQUEST, EARLY[:-1], rest, EARLY[-1:], REQUEST, OK]) as (_, pool):
        attempt = await send(pool, "GET", head("GET"), None, first_byte=DEADLINE)
        if wait:
            rest.set()
            assert await attempt.answer.hold(100, DEADLINE) == b"early"
        attempt.release_if_over()
        assert len(pool._idle) == wait
        if wait:
            assert await ended(await send(pool, "GET", head("GET"), None, first_byte=DEADLINE)) == (200, b"ok")
            assert await attempt.answer.read(DEADLINE) == b"early"
        attempt.end()
        assert (pool.open, len(pool._idle)) == (wait, wait)


# -- the lost connection

#: How the first exchange of a connection ends well, so that the next one finds it used.
FIRST: Final[list[Step]] = [REQUEST, OK]
UNWRITTEN: Final = "before the head was written"
#: Where a reused connection is lost; then what follows on new ones: answered, or lost as well.
POINTS: Final[dict[str, tuple[Script, Script]]] = {
    UNWRITTEN: (FIRST, [REQUEST, OK]),
    "after the head, no byte of an answer": ([*FIRST, REQUEST, CLOSE], [REQUEST, OK]),
    "the same by a reset": ([*FIRST, REQUEST, RESET], [REQUEST, OK]),
    "after a byte of the answer": ([*FIRST, REQUEST, b"H", CLOSE], [REQUEST, OK]),
    "after an interim answer": ([*FIRST, REQUEST, b"HTTP/1.1 100 Continue\r\n\r\n", CLOSE], [REQUEST, OK]),
    "after the answer's head": ([*FIRST, REQUEST, OK[:-1], CLOSE], [REQUEST, OK]),
    "twice": ([*FIRST, REQUEST, CLOSE], [REQUEST, CLOSE]),
}
Outcomes = dict[str, tuple[int, int | str]]
SENT_ONCE: Final[Outcomes] = dict.fromkeys(
    ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"), (1, "lost")
)
SAFE_AGAIN: Final[Outcomes] = SENT_ONCE | dict.fromkeys(("GET", "HEAD", "OPTIONS"), (2, 200))
#: The golden table of threat 103: how often the upstream sees the request, and what the client gets.
GOLDEN: Final[dict[str, Outcomes]] = {
    UNWRITTEN: dict.fromkeys(SENT_ONCE, (1, 200)),
    "after the head, no byte of an answer": dict(SAFE_AGAIN),
    "the same by a reset": dict(SAFE_AGAIN),
    "after a byte of the answer": dict(SENT_ONCE),
    "after an interim answer": dict(SENT_ONCE),
    # A HEAD has its whole answer with the head; for the others the client sees the truncation.
    "after the answer's head": dict.fromkeys(SENT_ONCE, (1, "truncated")) | {"HEAD": (1, 200)},
    "twice": SENT_ONCE | dict.fromkeys(("GET", "HEAD", "OPTIONS"), (2, "lost")),
}


async def reused(pool: Pool) -> Connection:
    """The idle connection that the next exchange will take."""
    attempt = await send(pool, "GET", head("GET"), None, first_byte=DEADLINE)
    assert await ended(attempt) == (200, b"ok")
    return attempt.connection


async def died(upstream: Upstream, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstream ends the idle connection in the instant between the pool's last look and its use."""
    connection = await reused(pool)
    assert pool.take() is connection
    (await upstream.peer()).close()
    while not connection.begin("GET").error:
        await turns(1)
    monkeypatch.setattr(pool, "take", lambda: connection)


async def outcome(pool: Pool, method: str, content: RequestBody | None) -> int | str:
    """What the client gets: a status with a whole body, or the name of a failure."""
    try:
        attempt = await send(pool, method, head(method, content), content, first_byte=DEADLINE)
    except UpstreamLost:
        return "lost"
    try:
        return (await ended(attempt))[0]
    except UpstreamError:
        return "truncated"


@pytest.mark.threat(103, 106)
@pytest.mark.parametrize("with_body", [False, True], ids=["no body", "kept body"])
@pytest.mark.parametrize(
    ("point", "method"),
    [
        pytest.param(point, method, marks=pytest.mark.patches if point == UNWRITTEN else ())
        for point, methods in GOLDEN.items()
        for method in methods
    ],
)
@on_each_loop
async def test_103_a_request_whose_reused_connection_is_lost_is_sent_again_only_where_that_is_harmless(
    point: str, method: str, monkeypatch: pytest.MonkeyPatch, *, with_body: bool
) -> None:
    """103: the golden table, method by failure point."""
    async with pooled(*POINTS[point]) as (upstream, pool):
        if point == UNWRITTEN:
            await died(upstream, pool, monkeypatch)
        else:
            await reused(pool)
        content = body(b"hello", length=5, is_here=True, keep=5) if with_body else None
        got = await outcome(pool, method, content)
        assert (upstream.requests - 1, got) == GOLDEN[point][method]


@pytest.mark.threat(103)
@pytest.mark.parametrize(
    ("reused", "may_resend", "kept"),
    [
        pytest.param(False, True, 5, id="connection that never worked"),
        pytest.param(True, False, 5, id="forbidden by the caller"),
        pytest.param(True, True, 4, id="body not kept"),
    ],
)
@on_each_loop
async def test_103_a_lost_get_is_not_sent_again(*, reused: bool, may_resend: bool, kept: int) -> None:
    """103: not on a connection that never worked, not a second time in an exchange, not without its body."""
    script: Script = [*FIRST, REQUEST, CLOSE] if reused else [REQUEST, CLOSE]
    async with pooled(script, [REQUEST, OK]) as (upstream, pool):
        if reused:
            await ended(await send(pool, "GET", head("GET"), None, first_byte=DEADLINE))
        sent = body(b"hello", length=5, is_here=True, keep=kept)
        with pytest.raises(UpstreamLost):
            await send(pool, "GET", head("GET", sent), sent, first_byte=DEADLINE, may_resend=may_resend)
        assert upstream.requests == 1 + reused
        assert pool.open == 0


@pytest.mark.patches
@on_each_loop
async def test_103_an_upload_that_was_kept_so_far_goes_on_after_the_resend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A streamed PUT on a connection that was dead before its first byte: the kept part first, then the rest."""
    async with pooled(FIRST, [REQUEST, Got(b"0\r\n\r\n"), OK]) as (upstream, pool):
        await died(upstream, pool, monkeypatch)
        content = body(b"one", b"two", keep=6)
        attempt = await send(pool, "PUT", head("PUT", content), content, first_byte=DEADLINE)
        assert attempt.was_resent
        assert await ended(attempt) == (200, b"ok")
        assert bytes(upstream.peers[1].received).endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


@pytest.mark.threat(103)
@pytest.mark.parametrize("error", [ProxyError, UpstreamTimeout])
@on_each_loop
async def test_only_a_lost_connection_is_replaced(error: type[ProxyError]) -> None:
    """103: whatever else ends an exchange on a reused connection ends it for good."""
    async with pooled([*FIRST, REQUEST], [REQUEST, OK]) as (upstream, pool):
        await ended(await send(pool, "GET", head("GET"), None, first_byte=DEADLINE))
        sending = asyncio.create_task(send(pool, "GET", head("GET"), None, first_byte=DEADLINE))
        await upstream.until(lambda: upstream.requests == 2)
        [connection] = pool._open
        connection.fail(error())
        with pytest.raises(error):
            await sending
        await turns()
        assert (upstream.requests, pool.open) == (2, 0)
