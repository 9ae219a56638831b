"""One answer to a client: its head once, its body's bytes, and an end that tells whether that was all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from proxy.accesslog import Exchange
from proxy.body import RequestBody
from proxy.errors import ClientKeyRequired, UpstreamTruncated
from proxy.listener.answer import ClientAnswer, block
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request
from tests.support.client import Client, connected
from tests.support.leaks import Artefacts
from tests.support.listening import listening
from tests.support.upstreams import DEADLINE, on_each_loop, turns

GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_OLD: Final = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
#: More than all buffers on the way take.
MUCH: Final = bytes(16_000_000)

Answering = Callable[[ClientAnswer], Awaitable[None]]


def answering(answer: Answering, exchanges: list[Exchange] | None = None) -> Handler:
    """A handler that answers so, once the request's body is here as far as it comes at once."""

    async def handler(request: Request, connection: ClientConnection) -> None:
        exchange = Exchange(request.method, request.client, 0.0)
        if exchanges is not None:
            exchanges.append(exchange)
        out = ClientAnswer(connection, request, exchange)
        await answer(out)
        await out.settle()
        connection.keep_alive = out.keep_alive

    return handler


async def rest(client: Client) -> bytes:
    """All that still comes, to the connection's end."""
    async with asyncio.timeout(DEADLINE):
        return await client.reader.read()


def test_field_lines_end_each_with_its_own_end() -> None:
    """And no line at all is nothing, not an empty line."""
    assert block([b"A: 1", b"B: 2"]) == b"A: 1\r\nB: 2\r\n"
    assert block([]) == b""


@on_each_loop
async def test_a_document_is_a_head_and_a_body_of_known_length(artefacts: Artefacts) -> None:
    """The exchange learns its status and its size."""
    exchanges: list[Exchange] = []

    async def answer(out: ClientAnswer) -> None:
        out.document(201, (b"X-A: 1", b"X-A: 2"), b"body")

    async with (
        listening(answering(answer, exchanges)) as listener,
        connected(listener.url, artefacts) as client,
    ):
        for method, sent in (("GET", b"body"), ("HEAD", b"")):
            answered = await client.ask(method)
            assert (answered.status, answered.body) == (201, sent)
            assert answered.fields == [("X-A", "1"), ("X-A", "2"), ("Content-Length", "4")]
    assert [(each.status, each.bytes_out) for each in exchanges] == [(201, 4), (201, 0)]


@on_each_loop
async def test_bytes_behind_the_head_are_counted_and_come_in_their_order(artefacts: Artefacts) -> None:
    """With the head, and in pieces."""
    exchanges: list[Exchange] = []

    async def answer(out: ClientAnswer) -> None:
        out.begin(200, b"Content-Length: 9\r\n", b"one")
        await out.write((b"tw", b"o"), DEADLINE)
        await out.write((b"six",), DEADLINE)

    async with (
        listening(answering(answer, exchanges)) as listener,
        connected(listener.url, artefacts) as client,
    ):
        assert (await client.ask("GET")).body == b"onetwosix"
        assert (await client.ask("GET")).body == b"onetwosix"
    assert [each.bytes_out for each in exchanges] == [9, 9]


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (GET, b""),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", b""),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na", b"Connection: close\r\n"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", b"Connection: close\r\n"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
            b"Connection: close\r\n",
        ),
        (GET_OLD, b"Connection: close\r\n"),
        (GET_OLD.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"), b"Connection: keep-alive\r\n"),
    ],
)
@on_each_loop
async def test_an_answer_says_whether_its_connection_lives_on(
    wire: bytes, said: bytes, artefacts: Artefacts
) -> None:
    """Not where a part of the request is missing: what comes next could be that, or another request."""

    async def answer(out: ClientAnswer) -> None:
        out.document(200, (), b"")

    async with listening(answering(answer)) as listener, connected(listener.url, artefacts) as client:
        client.send(wire)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n" % said
        if b"close" in said:
            assert await client.at_end()
        else:
            assert (await client.ask("GET")).status == 200


# -- interim answers


@pytest.mark.parametrize(("wire", "passes"), [(GET, True), (GET_OLD, False)])
@on_each_loop
async def test_an_interim_answer_comes_before_the_final_one_and_only_where_it_is_understood(
    wire: bytes, artefacts: Artefacts, *, passes: bool
) -> None:
    """RFC 9110 section 15.2: not to a client of HTTP/1.0, and never behind a head."""

    async def answer(out: ClientAnswer) -> None:
        assert out.takes_chunks is passes
        out.interim(103, b"Link: </a>\r\nLink: </b>\r\n")
        out.interim(100, b"")
        out.document(200, (), b"")
        out.interim(103, b"Link: </c>\r\n")
        out.end()

    async with listening(answering(answer)) as listener, connected(listener.url, artefacts) as client:
        client.send(wire)
        heads = [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>", b"HTTP/1.1 100 Continue"]
        for head in heads if passes else []:
            assert await client.reader.readuntil(b"\r\n\r\n") == head + b"\r\n\r\n"
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await client.at_end()


# -- problems


@on_each_loop
async def test_a_problem_is_a_whole_answer_where_none_has_begun(artefacts: Artefacts) -> None:
    """With further fields; the connection lives on, and what went out of its body is counted."""
    exchanges: list[Exchange] = []

    async def answer(out: ClientAnswer) -> None:
        out.problem(ClientKeyRequired(), (b"X-More: 1",))

    async with (
        listening(answering(answer, exchanges)) as listener,
        connected(listener.url, artefacts) as client,
    ):
        refused = await client.ask("GET")
        assert (refused.status, refused.code, refused["x-more"]) == (401, "client_key_required", "1")
        assert refused.json()["request_id"] == exchanges[0].request_id
        assert (await client.ask("HEAD")).status == 401
    assert [(each.status, each.error, each.bytes_out) for each in exchanges] == [
        (401, "client_key_required", len(refused.body)),
        (401, "client_key_required", 0),
    ]


@pytest.mark.threat(106)
@on_each_loop
async def test_066_a_problem_within_an_answer_cuts_it(artefacts: Artefacts) -> None:
    """A second head would be a part of the first one's body; the log tells what it was."""
    exchanges: list[Exchange] = []

    async def answer(out: ClientAnswer) -> None:
        out.begin(200, b"Content-Length: 9\r\n", b"one")
        out.problem(UpstreamTruncated())
        assert not out.keep_alive

    async with (
        listening(answering(answer, exchanges)) as listener,
        connected(listener.url, artefacts) as client,
    ):
        cut = await client.ask("GET")
        assert (cut.status, cut.body, cut.complete) == (200, b"one", False)
        assert await client.at_end()
    assert [(each.status, each.error, each.bytes_out) for each in exchanges] == [(200, "upstream_protocol", 3)]


@on_each_loop
async def test_a_problem_for_a_client_that_is_gone_is_only_noted(artefacts: Artefacts) -> None:
    """Nothing is written, and nothing is raised."""
    exchanges: list[Exchange] = []
    begun, done = asyncio.Event(), asyncio.Event()

    async def answer(out: ClientAnswer) -> None:
        assert not out.is_client_gone
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert out.is_client_gone
            out.problem(UpstreamTruncated())
            out.cut()
            out.end()
            with pytest.raises(ConnectionResetError):
                out.begin(200, b"")
            with pytest.raises(ConnectionResetError):
                await out.write((b"a",), DEADLINE)
            done.set()
            raise

    async with (
        listening(answering(answer, exchanges)) as listener,
        connected(listener.url, artefacts) as client,
    ):
        client.send(GET)
        await begun.wait()
        client.close()
        await done.wait()
    assert exchanges[0].error == "upstream_protocol"


# -- ends


@pytest.mark.threat(66)
@pytest.mark.parametrize("cut", [False, True])
@on_each_loop
async def test_066_where_only_the_end_tells_that_a_body_is_whole_a_broken_one_ends_by_reset(
    artefacts: Artefacts, *, cut: bool
) -> None:
    """HTTP/1.0 has no other way to say so."""

    async def answer(out: ClientAnswer) -> None:
        out.begin(200, b"", b"hello", until_close=True)
        await out.write((b", you",), DEADLINE)
        if cut:
            await turns()
            out.cut()

    async with listening(answering(answer)) as listener, connected(listener.url, artefacts) as client:
        client.send(GET_OLD)
        assert b"Connection: close\r\n" in await client.reader.readuntil(b"\r\n\r\n")
        if cut:
            with pytest.raises(ConnectionResetError):
                await rest(client)
        else:
            assert await rest(client) == b"hello, you"


@on_each_loop
async def test_an_end_comes_behind_what_was_written(artefacts: Artefacts) -> None:
    """And is no reset."""

    async def answer(out: ClientAnswer) -> None:
        out.begin(200, b"Content-Length: 100\r\n", bytes(100))
        out.end()
        out.end()

    async with listening(answering(answer)) as listener, connected(listener.url, artefacts) as client:
        assert (await client.ask("GET")).complete
        assert await client.at_end()


@pytest.mark.threat(114)
@on_each_loop
async def test_114_a_client_that_does_not_read_is_told_of_by_a_timeout_and_cut_off(artefacts: Artefacts) -> None:
    """The connection ends at once, whatever it still had to read."""
    stalled = asyncio.Event()

    async def answer(out: ClientAnswer) -> None:
        out.begin(200, b"Content-Length: %d\r\n" % len(MUCH))
        with pytest.raises(TimeoutError):
            await out.write((MUCH,), 0.05)
        out.cut()
        assert not out.keep_alive
        stalled.set()

    async with listening(answering(answer)) as listener, connected(listener.url, artefacts) as client:
        client.stop_reading()
        client.send(GET)
        await stalled.wait()
        while listener.connections:
            await turns(1)


@on_each_loop
async def test_114_a_client_that_reads_slowly_makes_the_writer_wait_and_loses_nothing(artefacts: Artefacts) -> None:
    """The write returns when there is room again."""
    written = asyncio.Event()

    async def answer(out: ClientAnswer) -> None:
        out.begin(200, b"Content-Length: %d\r\n" % len(MUCH))
        await out.write((MUCH,), DEADLINE)
        written.set()

    async with listening(answering(answer)) as listener, connected(listener.url, artefacts) as client:
        client.stop_reading()
        client.send(GET)
        await turns(500)
        assert not written.is_set()
        client.go_on_reading()
        assert (await client.answer()).body == MUCH
        assert written.is_set()


async def let_go_unread(handler: Handler, artefacts: Artefacts, answered: asyncio.Event) -> None:
    """Ask, read nothing of the answer, and wait until the listener lets go of the connection."""
    async with listening(handler) as listener, connected(listener.url, artefacts) as client:
        client.stop_reading()
        client.send(GET)
        await answered.wait()
        while listener.connections:
            await turns(1)


@pytest.mark.patches
@on_each_loop
async def test_114_an_end_that_is_not_taken_in_time_ends_its_connection(
    artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a tunnel, behind which nobody looks at the connection."""
    monkeypatch.setattr("proxy.listener.answer.STALLED_SECONDS", 0.05)
    ended = asyncio.Event()

    async def answer(out: ClientAnswer) -> None:
        out.document(200, (), MUCH)
        out.end()
        ended.set()

    await let_go_unread(answering(answer), artefacts, ended)


@pytest.mark.patches
@on_each_loop
async def test_114_a_whole_answer_that_is_not_taken_in_time_ends_its_connection(
    artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is written, so no body's timer runs any more."""
    monkeypatch.setattr("proxy.listener.answer.STALLED_SECONDS", 0.05)
    settled = asyncio.Event()

    async def handler(request: Request, connection: ClientConnection) -> None:
        out = ClientAnswer(connection, request, Exchange(request.method, request.client, 0.0))
        out.document(200, (), MUCH)
        await out.settle()
        assert not out.keep_alive
        settled.set()
        connection.keep_alive = out.keep_alive

    await let_go_unread(handler, artefacts, settled)


@pytest.mark.patches
@on_each_loop
async def test_114_a_plain_end_waits_only_so_long_for_a_client_that_does_not_read(
    artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut answer of known length ends by FIN, behind what is still in our buffer."""
    monkeypatch.setattr("proxy.listener.answer.STALLED_SECONDS", 0.05)
    cut = asyncio.Event()

    async def answer(out: ClientAnswer) -> None:
        out.begin(200, b"Content-Length: %d\r\n" % (len(MUCH) + 1), MUCH)
        out.cut()
        cut.set()

    await let_go_unread(answering(answer), artefacts, cut)


# -- a switch of protocols


@on_each_loop
async def test_behind_a_switch_all_bytes_are_of_the_other_protocol(artefacts: Artefacts) -> None:
    """Those that came ahead of the 101 first; what looks like a request is none any more."""
    exchanges: list[Exchange] = []
    go = asyncio.Event()

    async def answer(out: ClientAnswer) -> None:
        await go.wait()
        incoming: RequestBody = out.switch(b"Upgrade: x\r\n")
        while piece := await incoming.read():
            await out.write((piece.upper(),), DEADLINE)
        out.end()

    async with listening(answering(answer, exchanges)) as listener, connected(listener.url, artefacts) as client:
        client.send(GET + b"early")
        await turns()
        go.set()
        assert await client.reader.readuntil(b"\r\n\r\n") == (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"
        )
        assert await client.reader.readexactly(5) == b"EARLY"
        client.send(b"get / http/1.1\r\n\r\n")
        assert await client.reader.readexactly(18) == b"GET / HTTP/1.1\r\n\r\n"
        client.send(b"last")
        client.writer.write_eof()
        assert await rest(client) == b"LAST"
        while listener.connections:
            await turns(1)
    assert (exchanges[0].status, exchanges[0].bytes_out) == (101, 27)
