"""The duties of the upstream connection, each with a scripted upstream behind real sockets.

The law under test: a connection on which anything was odd is never used again, and no byte of one answer ever
becomes part of another (threats 42 to 44, 63, 64, 66, 67, 70, 114).
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from proxy.errors import (
    ProxyError,
    UpstreamBadHeader,
    UpstreamError,
    UpstreamLost,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamTruncated,
)
from proxy.http1.answer import CHUNKED, LENGTH, NO_BODY, SWITCHED, UNTIL_CLOSE, AnswerHead
from proxy.http1.section import MOST_FIELDS
from proxy.upstream.answer import Answer, OnInterim
from proxy.upstream.connection import HEAD_BYTES, Connection
from tests.support.upstreams import (
    CLOSE,
    DEADLINE,
    DEAF,
    EOF,
    READ,
    REQUEST,
    RESET,
    Action,
    Got,
    Repeat,
    Script,
    Step,
    Upstream,
    on_each_loop,
    turns,
)

SECOND: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"
MIB: Final = 1024 * 1024
#: What is held of either direction at most, besides one read of a socket.
HELD_MOST: Final = 4 * 1024


@asynccontextmanager
async def connected(*scripts: Script) -> AsyncIterator[tuple[Upstream, Connection]]:
    """An upstream, and a connection to it."""
    loop = asyncio.get_running_loop()
    async with Upstream(*scripts) as upstream:
        connection = Connection(loop)
        await loop.create_connection(lambda: connection, "127.0.0.1", upstream.port)
        try:
            yield upstream, connection
        finally:
            connection.close()


async def ask(
    connection: Connection,
    method: str = "GET",
    *,
    first_byte: float = DEADLINE,
    may_switch: bool = False,
    on_interim: OnInterim | None = None,
) -> Answer:
    """One exchange without a body, up to the answer's head."""
    answer = connection.begin(method, may_switch=may_switch, on_interim=on_interim)
    connection.write(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode())
    connection.sent(first_byte)
    assert await answer.wait_for_head() is answer.head
    return answer


def head_of(answer: Answer) -> AnswerHead:
    """The head that is there."""
    assert answer.head is not None
    return answer.head


async def body_of(answer: Answer) -> bytes:
    """The whole body, to its proper end."""
    whole = bytearray()
    while piece := await answer.read(DEADLINE):
        whole += piece
    return bytes(whole)


async def body_up_to_its_break(answer: Answer) -> bytes:
    """What came of a body that must not come to a proper end."""
    came = bytearray()
    try:
        while piece := await answer.read(DEADLINE):
            came += piece
    except UpstreamError:
        return bytes(came)
    pytest.fail("This body came to a proper end.")


def sliced(wire: bytes) -> list[bytes]:
    """One byte at a time."""
    return [wire[at : at + 1] for at in range(len(wire))]


@dataclass(frozen=True, slots=True)
class Proper:
    """An answer that must be understood, and whether another exchange may follow it."""

    wire: bytes
    framing: str
    body: bytes = b""
    method: str = "GET"
    status: int = 200
    reusable: bool = True
    length: int | None = None
    trailers: bytes | None = None


OK: Final = b"HTTP/1.1 200 OK\r\n"
PROPER: Final = {
    "length": Proper(OK + b"Content-Length: 5\r\n\r\nhello", LENGTH, b"hello", length=5),
    "length zero": Proper(OK + b"Content-Length: 0\r\n\r\n", LENGTH, length=0),
    "chunked": Proper(
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        CHUNKED,
        b"hello!",
        trailers=b"",
    ),
    "chunked in capitals, extension, trailers": Proper(
        OK + b"Transfer-Encoding: CHUNKED\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\nx-b:\xff \r\n\r\n",
        CHUNKED,
        b"hello",
        trailers=b"X-Sum: 1\r\nx-b:\xff ",
    ),
    "chunked, nothing in it but a trailer": Proper(
        OK + b"Trailer: X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n\r\n", CHUNKED, trailers=b"X: 1"
    ),
    "HEAD with length": Proper(OK + b"Content-Length: 40\r\n\r\n", NO_BODY, method="HEAD", length=40),
    "HEAD with chunked": Proper(OK + b"Transfer-Encoding: chunked\r\n\r\n", NO_BODY, method="HEAD"),
    "HEAD without length": Proper(OK + b"X: 1\r\n\r\n", NO_BODY, method="HEAD"),
    "204": Proper(b"HTTP/1.1 204 No Content\r\n\r\n", NO_BODY, status=204),
    "204 with length": Proper(
        b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", NO_BODY, status=204, reusable=False, length=9
    ),
    "204 with chunked": Proper(
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", NO_BODY, status=204, reusable=False
    ),
    "204 with length 0": Proper(
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", NO_BODY, status=204, length=0
    ),
    "304": Proper(b"HTTP/1.1 304 Not Modified\r\nETag: 1\r\n\r\n", NO_BODY, status=304),
    "304 with length": Proper(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", NO_BODY, status=304, length=9
    ),
    "304 with chunked": Proper(
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", NO_BODY, status=304
    ),
    "no reason": Proper(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", LENGTH, b"ok", length=2),
    "odd reason": Proper(b"HTTP/1.1 200  \t\xff \r\nContent-Length: 2\r\n\r\nok", LENGTH, b"ok", length=2),
    "status 599": Proper(b"HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok", LENGTH, b"ok", status=599, length=2),
    "100 first": Proper(b"HTTP/1.1 100 Continue\r\n\r\n" + SECOND, LENGTH, b"second", length=6),
    "103 with fields first, twice": Proper(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + SECOND, LENGTH, b"second", length=6
    ),
    "1.0": Proper(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", LENGTH, b"ok", reusable=False, length=2),
    "1.0 keep-alive": Proper(
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", LENGTH, b"ok", length=2
    ),
    "close": Proper(
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", LENGTH, b"ok", reusable=False, length=2
    ),
    "close among others": Proper(
        OK + b"Connection: keep-alive\r\nConnection: x , CLOSE\r\nContent-Length: 0\r\n\r\n",
        LENGTH,
        reusable=False,
        length=0,
    ),
    "HEAD and close": Proper(OK + b"Connection: close\r\n\r\n", NO_BODY, method="HEAD", reusable=False),
    "proxy-connection close": Proper(
        OK + b"Proxy-Connection: close\r\nContent-Length: 0\r\n\r\n", LENGTH, length=0
    ),
    "white space around a length": Proper(OK + b"Content-Length:\t 2 \t\r\n\r\nok", LENGTH, b"ok", length=2),
}


@pytest.mark.threat(44)
@pytest.mark.parametrize("in_bytes", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in PROPER.items()])
@on_each_loop
async def test_a_proper_answer_is_understood_and_the_next_one_is_not_part_of_it(
    case: Proper, *, in_bytes: bool
) -> None:
    """044: HEAD, 204 and 304 have no body whatever they declare; the same connection then serves another."""
    wire = sliced(case.wire) if in_bytes else [case.wire]
    async with connected([REQUEST, *wire, REQUEST, SECOND]) as (_, connection):
        answer = await ask(connection, case.method)
        head = head_of(answer)
        assert (head.status, answer.framing, head.length) == (case.status, case.framing, case.length)
        assert await body_of(answer) == case.body
        assert answer.complete
        assert (None if answer.trailers is None else answer.trailers.raw) == case.trailers
        assert connection.is_reusable is case.reusable
        if case.reusable:
            assert connection.is_quiet()
            assert await body_of(await ask(connection)) == b"second"


HINTS: Final = b"HTTP/1.1 103 Early Hints\r\nLink:</a>\r\nlink: </b> \r\nConnection: keep-alive, Link\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("in_bytes", [False, True], ids=["whole", "byte by byte"])
@on_each_loop
async def test_interim_answers_are_handed_over_as_they_come_and_are_no_part_of_the_final_one(
    *, in_bytes: bool
) -> None:
    """Status and raw lines of each, in order; the raw lines of the final one are its own."""
    final = b"HTTP/1.1 200 OK\r\nX-Mixed: \xe9 \xff\r\nx-mixed:2 \r\nContent-Length: 0\r\n\r\n"
    wire = HINTS + CONTINUE + b"HTTP/1.1 102 Processing\r\nX: 1\r\n\r\n" + HINTS
    go = asyncio.Event()
    script: list[Step] = [*sliced(wire), go, *sliced(final)] if in_bytes else [wire, go, final]
    interim: list[AnswerHead] = []
    async with connected([REQUEST, *script, REQUEST, HINTS + SECOND]) as (_, connection):
        asking = asyncio.create_task(ask(connection, on_interim=interim.append))
        while len(interim) < 4:  # before a byte of the final one was sent
            await turns(1)
        assert not asking.done()
        go.set()
        answer = await asking
        hints = (103, b"Link:</a>\r\nlink: </b> \r\nConnection: keep-alive, Link")
        assert [(head.status, head.raw) for head in interim] == [hints, (100, b""), (102, b"X: 1"), hints]
        assert [bool(head.options) for head in interim] == [True, False, False, True]
        assert [line for _, _, line in head_of(answer).fields] == final.split(b"\r\n")[1:-2]
        assert connection.is_reusable
        await body_of(await ask(connection))  # which wants to hear of none
        assert len(interim) == 4


HEADS: Final = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-a: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-a: 2 \r\n\r\n",
    b"HTTP/1.1 200 ok\r\nContent-Length: 2\r\nX-a: 2 \r\n\r\n",
    b"HTTP/1.1 201 ok\r\nContent-Length: 2\r\nX-a: 2 \r\n\r\n",
    b"HTTP/1.1 201 ok\r\nContent-Length: 3\r\nX-a: 2 \r\n\r\n",
    HINTS + b"HTTP/1.1 201 ok\r\nContent-Length: 3\r\nX-a: 2 \r\n\r\n",
    b"HTTP/1.1 201 ok\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\n",
]


@pytest.mark.parametrize("in_bytes", [False, True], ids=["whole", "byte by byte"])
@on_each_loop
async def test_a_head_that_comes_again_is_parsed_once_and_taken_for_no_other(*, in_bytes: bool) -> None:
    """043: each answer has its own status, fields and length, though a server's heads differ by one byte only."""
    script: list[Step] = []
    for head in HEADS:
        wire = head + (b"abc" if b"Length: 3" in head else b"ab")
        script += [REQUEST, *sliced(wire), REQUEST, wire] if in_bytes else [REQUEST, wire] * 2
    async with connected(script) as (_, connection):
        for wire in HEADS:
            line, _, fields = wire[:-4].rpartition(b"\r\n\r\n")[2].partition(b"\r\n")
            first = await ask(connection)
            assert await body_of(first) == (b"abc" if b"Length: 3" in fields else b"ab")
            assert (b"%d" % head_of(first).status, head_of(first).raw) == (line.split(b" ")[1], fields)
            again = await ask(connection)
            assert await body_of(again) == (b"abc" if b"Length: 3" in fields else b"ab")
            assert again.head is first.head


@on_each_loop
async def test_a_head_that_comes_again_is_framed_by_its_own_request() -> None:
    """044: the answer to a HEAD has no body, and the same head behind it has one, and so on."""
    head = OK + b"Content-Length: 2\r\nKeep-Alive: timeout=7\r\n\r\n"
    script: Script = [REQUEST, head, REQUEST, head + b"ab", REQUEST, SECOND, REQUEST, head, REQUEST, head + b"cd"]
    async with connected(script) as (_, connection):
        for method, body, seconds in [
            ("HEAD", b"", 7.0),
            ("GET", b"ab", 7.0),
            ("GET", b"second", None),
            ("HEAD", b"", 7.0),
            ("GET", b"cd", 7.0),
        ]:
            assert await body_of(await ask(connection, method)) == body
            assert connection.keep_alive_timeout == seconds
            assert connection.is_reusable


SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@on_each_loop
async def test_behind_a_101_that_was_asked_for_bytes_pass_until_the_end() -> None:
    """Both ways, each end for itself; no answer, no head and no reuse come behind it."""
    script: Script = [REQUEST, SWITCHING + SECOND, Got(b"ping"), b"pong", Got(b"bye"), b"0\r\n\r\n", CLOSE]
    async with connected(script) as (upstream, connection):
        answer = await ask(connection, may_switch=True)
        assert (head_of(answer).status, answer.framing) == (101, SWITCHED)
        assert await answer.read(DEADLINE) == SECOND
        assert not answer.complete
        connection.write(b"ping")
        assert await answer.read(DEADLINE) == b"pong"
        connection.write(b"bye")
        connection.end_writing()
        assert await body_of(answer) == b"0\r\n\r\n"
        assert (await upstream.peer()).received.endswith(b"\r\n\r\npingbye")
        assert not connection.is_reusable


@on_each_loop
async def test_our_end_of_a_tunnel_that_is_gone_already_is_no_failure() -> None:
    """The kernel knows of the reset and the loop does not yet: there, ending such a socket is an error."""
    async with connected([REQUEST, SWITCHING, Got(b"ping"), RESET]) as (upstream, connection):
        answer = await ask(connection, may_switch=True)
        connection.write(b"ping")
        await (await upstream.peer()).lost.wait()
        connection.end_writing()
        with pytest.raises(UpstreamTruncated):
            await answer.read(DEADLINE)


@pytest.mark.parametrize("end", [RESET, "ours"], ids=["reset", "our own close"])
@on_each_loop
async def test_a_tunnel_that_breaks_off_did_not_end(end: Action | str) -> None:
    """066: what the upstream wanted to say is not all here, and that is told."""
    go = asyncio.Event()
    script: Script = [REQUEST, SWITCHING + b"ping", go, end] if isinstance(end, Action) else [REQUEST, SWITCHING]
    async with connected(script) as (_, connection):
        answer = await ask(connection, may_switch=True)
        if isinstance(end, Action):
            assert await answer.read(DEADLINE) == b"ping"
            go.set()
        else:
            connection.close()
        with pytest.raises(UpstreamTruncated):
            await answer.read(DEADLINE)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@on_each_loop
async def test_a_body_that_ends_with_the_connection_is_complete_at_its_end(version: bytes) -> None:
    """Nothing else says where such a body ends: the EOF is the end, and the connection is spent."""
    async with connected([REQUEST, b"HTTP/%b 200 OK\r\n\r\n" % version, b"a" * 70_000, CLOSE]) as (_, connection):
        answer = await ask(connection)
        assert answer.framing == UNTIL_CLOSE
        assert await body_of(answer) == b"a" * 70_000
        assert not connection.is_reusable


REFUSED: Final = {
    "status 999": b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "101 that nobody asked for": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "101 without fields": b"HTTP/1.1 101 Switching\r\n\r\n",
    "length and chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two equal lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "length with a sign": OK + b"Content-Length: +5\r\n\r\nhello",
    "negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "length in hex": OK + b"Content-Length: 0x5\r\n\r\nhello",
    "empty length": OK + b"Content-Length: \r\n\r\nhello",
    "length beyond 64 bits": OK + b"Content-Length: 99999999999999999999\r\n\r\nhello",
    "coding other than chunked": OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
    "chunked not alone": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in disguise": OK + b"Transfer-Encoding: xchunked\r\n\r\nhello",
    "chunked of HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HEAD with two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "control character in the reason": b"HTTP/1.1 200 O\x1bK\r\nContent-Length: 0\r\n\r\n",
    "two spaces in front of the status": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "lower-case version": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "empty line in front": b"\r\n" + SECOND,
    "folded field": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "fold of the first field": OK + b" X: a\r\nContent-Length: 0\r\n\r\n",
    "fold that looks like a field": OK + b"X: a\r\n\tContent-Length: 9\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "a head that stops behind a bare LF": OK + b"X: a\n",
    "space before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "bare CR in a value": OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
    "bare CR at the end of a value": OK + b"X: a\r\r\nContent-Length: 0\r\n\r\n",
    "bare LF in a value": OK + b"X: a\nContent-Length: 9\r\nContent-Length: 0\r\n\r\n",
    "control character in a name": OK + b"X\x01: a\r\nContent-Length: 0\r\n\r\n",
    "no name": OK + b": a\r\nContent-Length: 0\r\n\r\n",
    "no colon": OK + b"X\r\nContent-Length: 0\r\n\r\n",
    "a name that is no token": OK + b"X\xe9: 1\r\nContent-Length: 0\r\n\r\n",
    "an interim answer that is malformed": b"HTTP/1.1 103 Early\r\nX : 1\r\n\r\n" + SECOND,
    "body of an interim answer": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello" + SECOND,
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.threat(42)
@pytest.mark.parametrize("wire", [pytest.param(wire, id=name) for name, wire in REFUSED.items()])
@on_each_loop
async def test_an_improper_answer_is_refused_and_its_connection_closed(wire: bytes) -> None:
    """042, 044, 070: no guess is made about what such bytes may mean."""
    async with connected([REQUEST, wire]) as (upstream, connection):
        with pytest.raises(UpstreamProtocol) as refused:
            await ask(connection, "HEAD" if wire.endswith(b"6\r\n\r\n") else "GET")
        assert (refused.value.status, refused.value.code) == (502, "upstream_protocol")
        assert not connection.is_reusable
        assert not connection.is_quiet()
        await (await upstream.peer()).ended.wait()


@pytest.mark.threat(63)
@pytest.mark.parametrize("line", [b"X: a%cb", b"X:%c", b"X: a\r\nY: %c b"])
@pytest.mark.parametrize("byte", [0x00, 0x01, 0x0B, 0x1B, 0x7F])
@on_each_loop
async def test_063_control_characters_in_a_value_are_refused_and_their_connection_closed(
    byte: int, line: bytes
) -> None:
    """A terminal would act on some of them, an own writer would break on others (E10)."""
    async with connected([REQUEST, OK + line % byte + b"\r\nContent-Length: 0\r\n\r\n"]) as (upstream, connection):
        with pytest.raises(UpstreamBadHeader) as refused:
            await ask(connection)
        assert (refused.value.status, refused.value.code) == (502, "upstream_bad_header")
        assert not connection.is_reusable
        await (await upstream.peer()).ended.wait()


IMPROPER_CHUNKS: Final = {
    "no size": b"\r\nhello\r\n",
    "an extension alone": b";a=b\r\nhello\r\n",
    "no hexadecimal": b"zz\r\nhello\r\n",
    "a prefix": b"0x5\r\nhello\r\n",
    "a sign": b"+5\r\nhello\r\n",
    "white space in front": b" 5\r\nhello\r\n",
    "white space behind": b"5 \r\nhello\r\n",
    "an underscore": b"0_5\r\nhello\r\n",
    "more than fits": b"10000000000000005\r\nhello\r\n",
    "bare LF behind the size": b"5\nhello\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n",
    "NUL in an extension": b"5;a\0\r\nhello\r\n",
    "more than announced": b"5\r\nhello!\r\n",
    "bare LF behind the chunk": b"5\r\nhello\n",
    "CR alone behind the chunk": b"5\r\nhello\r0\r\n",
    "a control character in a trailer": b"0\r\nX: \0\r\n\r\n",
    "a folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
}


@pytest.mark.parametrize("in_bytes", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("wire", [pytest.param(wire, id=name) for name, wire in IMPROPER_CHUNKS.items()])
@on_each_loop
async def test_066_improper_chunks_never_look_like_an_end(wire: bytes, *, in_bytes: bool) -> None:
    """Every other reading of them is one that two parsers may not share (035, 037)."""
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    async with connected([REQUEST, head, *(sliced(wire) if in_bytes else [wire])]) as (upstream, connection):
        answer = await ask(connection)
        assert b"onehello".startswith(await body_up_to_its_break(answer))
        assert not answer.complete
        assert not connection.is_reusable
        await (await upstream.peer()).ended.wait()


BEHIND: Final = {
    "an answer": SECOND,
    "garbage": b"garbage",
    "one byte": b"H",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
}
WHOLE: Final = {
    "length": "GET",
    "chunked": "GET",
    "HEAD with length": "HEAD",
    "204": "GET",
    "304 with length": "GET",
}


@pytest.mark.threat(43)
@pytest.mark.parametrize("behind", [pytest.param(wire, id=name) for name, wire in BEHIND.items()])
@pytest.mark.parametrize("case", WHOLE)
@on_each_loop
async def test_bytes_behind_an_answer_leave_it_whole_and_end_the_connection(case: str, behind: bytes) -> None:
    """043: poison for the next client; the answer before it is good all the same."""
    proper = PROPER[case]
    async with connected([REQUEST, proper.wire + behind]) as (_, connection):
        answer = await ask(connection, proper.method)
        assert await body_of(answer) == proper.body
        assert not connection.is_reusable or not connection.is_quiet()
        assert (answer.complete, answer.error) == (True, None)


@pytest.mark.threat(43)
@on_each_loop
async def test_bytes_on_an_idle_connection_close_it() -> None:
    """043: nobody asked for them."""
    go = asyncio.Event()
    async with connected([REQUEST, SECOND, go, b"H"]) as (upstream, connection):
        await body_of(await ask(connection))
        assert connection.is_reusable
        go.set()
        await (await upstream.peer()).ended.wait()
        assert not connection.is_reusable


@pytest.mark.parametrize("what", ["data", "FIN"])
@on_each_loop
async def test_a_connection_with_data_or_an_end_pending_in_the_kernel_is_not_quiet(what: str) -> None:
    """The loop has not seen it yet, but the socket has: it is found by asking, not by waiting."""
    async with connected([REQUEST, SECOND]) as (upstream, connection):
        await body_of(await ask(connection))
        assert connection.is_quiet()
        with (await upstream.peer()).duplicate() as sock:
            if what == "data":
                sock.send(b"x")
            else:
                sock.shutdown(socket.SHUT_WR)
        assert not connection.is_quiet()


@on_each_loop
async def test_an_answer_with_the_end_of_the_connection_at_once_behind_it_is_not_reused() -> None:
    """An upstream that promised nothing may close; what it answered is complete."""
    async with connected([REQUEST, SECOND, CLOSE]) as (_, connection):
        assert await body_of(await ask(connection)) == b"second"
        await turns()
        assert not connection.is_reusable


@on_each_loop
async def test_an_end_that_was_announced_is_the_end_though_the_connection_is_not_lost_yet() -> None:
    """TLS may say so long before the socket does; a request in between would be lost with its first bytes."""
    async with connected([REQUEST, SECOND]) as (_, connection):
        await body_of(await ask(connection))
        assert connection.is_reusable
        connection.eof_received()
        assert not connection.is_reusable


@on_each_loop
async def test_what_came_is_read_before_more_is_written() -> None:
    """105: a write that fails would take the early answer with it, and over TLS nothing brings it back."""
    async with connected([REQUEST]) as (upstream, connection):
        answer = connection.begin("POST")
        connection.write(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        peer = await upstream.peer()
        await peer.got(b"\r\n\r\n")
        with peer.duplicate() as sock:
            sock.send(SECOND)
        await connection.listen()
        assert answer.complete


TRUNCATED: Final = {
    "in a known length": OK + b"Content-Length: 9\r\n\r\nhello",
    "in a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello",
    "behind a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "in a chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1",
    "behind the last chunk's size": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    "in the trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: ",
}


@pytest.mark.threat(66)
@pytest.mark.parametrize("end", [CLOSE, EOF, RESET], ids=lambda end: end.name)
@pytest.mark.parametrize("wire", [pytest.param(wire, id=name) for name, wire in TRUNCATED.items()])
@on_each_loop
async def test_an_end_before_the_declared_end_is_truncation(wire: bytes, end: Action) -> None:
    """066: the bytes that came are passed on, and then the break is told, never a proper end."""
    go = asyncio.Event()
    async with connected([REQUEST, wire, go, end]) as (_, connection):
        answer = await ask(connection)
        assert await answer.read(DEADLINE) == b"hello"
        go.set()
        with pytest.raises(UpstreamTruncated):
            await answer.read(DEADLINE)
        assert not answer.complete
        assert not connection.is_reusable


@pytest.mark.threat(66)
@pytest.mark.parametrize("case", ["reset", "our own close", "garbage in a chunk size"])
@on_each_loop
async def test_only_a_proper_end_of_the_connection_completes_a_body_that_ends_with_it(case: str) -> None:
    """066: a reset, or an end that we made ourselves, is no end of a body; neither is a broken chunk."""
    go = asyncio.Event()
    head = OK + (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" if "chunk" in case else b"\r\nhello")
    async with connected([REQUEST, head, go, b"zz\r\n" if "chunk" in case else RESET]) as (_, connection):
        answer = await ask(connection)
        assert await answer.read(DEADLINE) == b"hello"
        if case == "our own close":
            connection.close()
        else:
            go.set()
        with pytest.raises(UpstreamProtocol):
            await answer.read(DEADLINE)


@pytest.mark.parametrize("end", [CLOSE, RESET], ids=lambda end: end.name)
@pytest.mark.parametrize(
    ("some", "silent"), [([], True), ([b"H"], False), ([b"HTTP/1.1 100 Continue\r\n\r\n"], False), ([OK], False)]
)
@on_each_loop
async def test_an_end_before_the_head_is_a_lost_connection_that_knows_what_had_happened(
    some: list[bytes], end: Action, *, silent: bool
) -> None:
    """103: whether a byte of an answer had come decides about sending again."""
    async with connected([REQUEST, *some, end]) as (upstream, connection):
        answer = connection.begin("GET")
        connection.write(b"GET / HTTP/1.1\r\n\r\n")
        if some:
            await upstream.peer()
        with pytest.raises(UpstreamLost) as lost:
            await answer.wait_for_head()
        # What came together with a reset may never have been read.
        assert lost.value.silent is silent or end is RESET
        assert not lost.value.untouched


@on_each_loop
async def test_an_exchange_on_a_dead_connection_is_lost_untouched_and_writes_nothing() -> None:
    """103: not one byte was handed over, so any method may go another way. Nothing waits, nothing raises."""
    async with connected([CLOSE]) as (_, connection):
        with pytest.raises(UpstreamLost) as lost:
            await connection.begin("POST").wait_for_head()
        assert (lost.value.untouched, lost.value.silent) == (True, True)
        answer = connection.begin("POST")
        connection.write(b"POST / HTTP/1.1\r\n\r\n")
        await connection.drain(DEADLINE)
        connection.sent(DEADLINE)
        with pytest.raises(UpstreamLost) as lost:
            await answer.wait_for_head()
        assert (lost.value.untouched, connection.wrote) == (True, False)


FLOODS: Final = {
    "100": CONTINUE,
    "103 with fields": HINTS,
}
UNENDING: Final[dict[str, tuple[bytes, bytes, type[UpstreamError]]]] = {
    "a field value": (OK + b"X: ", b"a" * 1000, UpstreamBadHeader),
    "a field name": (OK, b"a" * 1000, UpstreamBadHeader),
    "fields": (OK, b"X: 1\r\n" * 200, UpstreamBadHeader),
    "a reason": (b"HTTP/1.1 200 ", b"a" * 1000, UpstreamBadHeader),
    "empty lines": (b"", b"\r\n" * 500, UpstreamProtocol),
    "a chunk extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"a" * 1000, UpstreamProtocol),
    "a chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 1000, UpstreamProtocol),
    "a trailer": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a" * 1000, UpstreamBadHeader),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: 1\r\n" * 200, UpstreamBadHeader),
    **{f"interim answers {name}": (b"", wire * 20, UpstreamBadHeader) for name, wire in FLOODS.items()},
}


@pytest.mark.threat(64)
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in UNENDING.items()])
@on_each_loop
async def test_what_never_becomes_a_body_is_bounded_in_bytes(
    case: tuple[bytes, bytes, type[UpstreamError]],
) -> None:
    """063, 064: heads, interim answers, chunk extensions and trailers cannot fill our memory."""
    begin, again, error = case
    async with connected([REQUEST, begin, Repeat(again)]) as (upstream, connection):
        with pytest.raises(error):
            await body_of(await ask(connection))
        await (await upstream.peer()).ended.wait()


@pytest.mark.threat(64)
@on_each_loop
async def test_064_extensions_are_bounded_over_all_chunks_and_bytes_of_the_body_make_good_for_them() -> None:
    """Without a byte of the body there is an end to patience; a stream of small chunks with extensions is none."""
    chunk = b"1;%b\r\na\r\n" % (b"e" * 4000)
    script: Script = [REQUEST, OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 60, b"0;x\r\n\r\n"]
    async with connected(script) as (_, connection):
        assert await body_of(await ask(connection)) == b"a" * 60


@pytest.mark.threat(64)
@pytest.mark.parametrize("wire", [pytest.param(wire, id=name) for name, wire in FLOODS.items()])
@on_each_loop
async def test_interim_answers_do_not_lengthen_the_time_for_the_head(wire: bytes) -> None:
    """064: the deadline counts from the end of the request, whatever comes meanwhile."""
    async with connected([REQUEST, wire]) as (_, connection):
        with pytest.raises(UpstreamTimeout):
            await ask(connection, first_byte=0.05)


@pytest.mark.threat(67)
@pytest.mark.parametrize("wire", [b"", b"H", OK, OK + b"X: 1\r\nContent-Le"])
@on_each_loop
async def test_a_head_that_is_not_whole_in_time_is_a_timeout(wire: bytes) -> None:
    """067: silence and a head that stops in the middle are the same to a client that waits."""
    async with connected([REQUEST, wire]) as (upstream, connection):
        with pytest.raises(UpstreamTimeout) as late:
            await ask(connection, first_byte=0.05)
        assert late.value.status == 504
        await (await upstream.peer()).ended.wait()


@on_each_loop
async def test_the_head_ends_its_deadline_and_each_byte_of_the_body_its_own() -> None:
    """067, 068: no total limit for a stream, but silence inside it is one."""
    go = asyncio.Event()
    async with connected([REQUEST, OK + b"Content-Length: 9\r\n\r\nhello", go, b"!"]) as (_, connection):
        loop = asyncio.get_running_loop()
        answer = await ask(connection, first_byte=0.05)
        assert await answer.read(DEADLINE) == b"hello"
        passed = loop.create_future()
        loop.call_later(0.1, passed.set_result, None)
        await passed
        go.set()
        assert await answer.read(DEADLINE) == b"!"
        with pytest.raises(UpstreamTimeout):
            await answer.read(0.05)


@pytest.mark.threat(63)
@pytest.mark.parametrize(("fields", "accepted"), [(MOST_FIELDS, True), (MOST_FIELDS + 1, False)])
@on_each_loop
async def test_the_count_of_fields_is_bounded(fields: int, *, accepted: bool) -> None:
    """063: at the limit and one above it."""
    wire = OK + b"X: 1\r\n" * (fields - 1) + b"Content-Length: 0\r\n\r\n"
    async with connected([REQUEST, wire]) as (_, connection):
        if accepted:
            assert len(head_of(await ask(connection)).fields) == fields
        else:
            with pytest.raises(UpstreamBadHeader):
                await ask(connection)


@pytest.mark.threat(63)
@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize(("size", "accepted"), [(HEAD_BYTES - 100, True), (HEAD_BYTES + 1, False)])
@on_each_loop
async def test_the_size_of_a_head_is_bounded_however_it_is_cut(size: int, pieces: int, *, accepted: bool) -> None:
    """063: what is accepted must not depend on how the network cuts it."""
    wire = OK + b"X: " + b"a" * size + b"\r\nContent-Length: 0\r\n\r\n" if not accepted else b""
    if accepted:
        rest = b"\r\nContent-Length: 0\r\n\r\n"
        wire = OK + b"X: " + b"a" * (size - len(OK) - len(rest) - 3) + rest
    step = len(wire) // pieces + 1
    script = [wire[at : at + step] for at in range(0, len(wire), step)]
    async with connected([REQUEST, *script]) as (_, connection):
        if accepted:
            assert (await ask(connection)).complete
        else:
            with pytest.raises(UpstreamBadHeader):
                await ask(connection)


def verdict(*pieces: bytes) -> tuple[int | None, int | None]:
    """The status of the answer, or that of the error, where exactly these pieces are what the socket gives."""
    connection = Connection(asyncio.get_running_loop())
    answer = connection.begin("GET")
    for piece in pieces:
        connection.data_received(piece)
    head, error = answer.head, answer.error
    return (None if head is None else head.status), (None if error is None else error.status)


@pytest.mark.parametrize(
    "wire",
    [
        *(
            pytest.param(
                b"HTTP/1.1 200 OK\r\nX: %b\r\n\r\n" % (b"a" * (HEAD_BYTES + size - 20)), id=f"limit {size:+}"
            )
            for size in range(-4, 3)
        ),
        pytest.param(CONTINUE * (HEAD_BYTES // len(CONTINUE) + 1) + SECOND, id="interim answers above the limit"),
        pytest.param(CONTINUE * (HEAD_BYTES // len(CONTINUE) - 4) + SECOND, id="interim answers below the limit"),
        pytest.param(OK + b"X: a\nb\r\nContent-Length: 0\r\n\r\n", id="bare LF in a field"),
        pytest.param(b"HTTP/1.1 200 OK\nX: a\r\nContent-Length: 0\r\n\r\n", id="bare LF behind the status"),
    ],
)
@pytest.mark.unmeasured
@on_each_loop
async def test_063_what_is_accepted_does_not_depend_on_how_the_network_cuts_it(wire: bytes) -> None:
    """Each cut among the last bytes, and a cut behind each KiB."""
    whole = verdict(wire)
    assert whole in ((200, None), (None, 502))
    for cut in range(len(wire) - 8, len(wire)):
        assert verdict(wire[:cut], wire[cut:]) == whole
    assert verdict(*(wire[at : at + 1024] for at in range(0, len(wire), 1024))) == whole


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5.0),
        (b"max=100,\tTimeout=7", 7.0),
        (b"timeout=5, max=100", 5.0),
        (b"max=100", None),
        (b"timeout=-5", None),
        (b"timeout=5.5", None),
        (b"timeout=", None),
        (b"timeout=99999999999999999999", None),
        (b"timeout=\xb2", None),
    ],
)
@on_each_loop
async def test_the_upstreams_own_idle_time_is_read(value: bytes, seconds: float | None) -> None:
    """`Keep-Alive: timeout=N`; everything else says nothing, and the next answer does not inherit it."""
    wire = OK + b"Keep-Alive: %b\r\nContent-Length: 0\r\n\r\n" % value
    async with connected([REQUEST, wire, REQUEST, SECOND]) as (_, connection):
        await ask(connection)
        assert connection.keep_alive_timeout == seconds
        await body_of(await ask(connection))
        assert connection.keep_alive_timeout is None


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED, UNTIL_CLOSE])
@on_each_loop
async def test_a_reader_that_stops_stops_the_upstream_and_gets_every_byte_later(framing: str) -> None:
    """114: 16 MiB wait in the network and not in our memory; then all bytes are right."""
    body = os.urandom(16 * MIB)
    head = {LENGTH: b"Content-Length: %d\r\n" % len(body), CHUNKED: b"Transfer-Encoding: chunked\r\n"}
    wire = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if framing == CHUNKED else body
    script: Script = [REQUEST, OK + head.get(framing, b"") + b"\r\n", wire, CLOSE]
    async with connected(script) as (_, connection):
        answer = await ask(connection)
        held = -1
        while held != answer.buffered or not held:
            held = answer.buffered
            await turns()
        assert held <= HELD_MOST + 256 * 1024  # one more read of the socket
        assert await body_of(answer) == body


async def pending(connection: Connection) -> None:
    """Wait until the kernel holds bytes that the loop does not take, however often it goes round."""
    while connection.is_quiet():
        await turns(1)
    await turns()
    assert not connection.is_quiet()


@on_each_loop
async def test_114_reading_pauses_above_4_kib_and_goes_on_when_the_reader_comes_back() -> None:
    """What was read must have left us before more is taken: not the read resumes, but the next one."""
    go = asyncio.Event()
    first = b"a" * (HELD_MOST + 1)
    script: Script = [REQUEST, OK + b"Content-Length: %d\r\n\r\n" % (len(first) + 4) + first, go, b"more"]
    async with connected(script) as (_, connection):
        answer = await ask(connection)
        await turns()
        go.set()
        await pending(connection)
        assert answer.buffered == len(first)
        assert await answer.read(DEADLINE) == first
        await pending(connection)
        assert (answer.buffered, answer.read_nowait()) == (0, b"")
        await pending(connection)
        assert await answer.read(DEADLINE) == b"more"
        assert await answer.read(DEADLINE) == b""
        assert connection.is_reusable


@on_each_loop
async def test_114_up_to_4_kib_nobody_has_to_come_back() -> None:
    """A small answer is complete, and its connection free for others, without a reader."""
    go = asyncio.Event()
    first = b"a" * HELD_MOST
    script: Script = [REQUEST, OK + b"Content-Length: %d\r\n\r\n" % (len(first) + 4) + first, go, b"more"]
    async with connected(script) as (_, connection):
        answer = await ask(connection)
        await turns()
        assert (answer.buffered, answer.complete) == (HELD_MOST, False)
        go.set()
        while not answer.complete:
            await turns(1)
        assert connection.is_reusable
        assert answer.read_nowait() == first + b"more"


@on_each_loop
async def test_114_what_an_upstream_does_not_take_is_waited_for_above_4_kib() -> None:
    """Up to there it stays with us, however slow the upstream is; above it `drain` ends only when that has gone."""
    go = asyncio.Event()
    async with connected([DEAF, go, READ]) as (upstream, connection):
        await upstream.peer()
        connection.begin("POST")
        transport = connection.transport
        assert transport is not None
        while not (held := transport.get_write_buffer_size()):  # until the kernel's buffers are full
            connection.write(b"a" * 1024)
            await turns(1)
        await connection.drain(DEADLINE)
        connection.write(b"a" * (HELD_MOST - held))
        await connection.drain(DEADLINE)
        connection.write_all((b"a",))
        draining = asyncio.create_task(connection.drain(DEADLINE))
        await turns()
        assert not draining.done()
        go.set()
        await draining
        assert transport.get_write_buffer_size() <= HELD_MOST


@on_each_loop
async def test_the_first_error_of_an_exchange_is_the_one_that_counts() -> None:
    """A late error changes neither a complete answer nor a first error."""
    async with connected([REQUEST, SECOND]) as (_, connection):
        answer = await ask(connection)
        await body_of(answer)
        connection.fail(UpstreamTimeout())
        assert answer.complete
        assert answer.error is None
        late = connection.begin("GET")
        first, second = UpstreamTimeout(), ProxyError()
        connection.fail(first)
        connection.fail(second)
        assert late.error is first


@pytest.mark.parametrize(
    ("size", "limit", "held"), [(0, 10, True), (10, 10, True), (11, 10, False), (300_000, 10, False)]
)
@on_each_loop
async def test_a_body_is_held_whole_or_not_at_all_and_can_be_read_all_the_same(
    size: int, limit: int, *, held: bool
) -> None:
    """An `expired` rule may look at a short body; the client still gets every byte of it."""
    body = os.urandom(size)
    async with connected([REQUEST, OK + b"Content-Length: %d\r\n\r\n" % size, body]) as (_, connection):
        answer = await ask(connection)
        assert await answer.hold(limit, DEADLINE) == (body if held else None)
        assert await body_of(answer) == body


@pytest.mark.parametrize("end", [b"", CLOSE], ids=["silence", "close"])
@on_each_loop
async def test_a_body_that_breaks_while_it_is_held_is_not_held(end: bytes | Action) -> None:
    """The break is told to the client in its place, behind the bytes that came."""
    async with connected([REQUEST, OK + b"Content-Length: 9\r\n\r\nhello", end]) as (_, connection):
        answer = await ask(connection)
        assert await answer.hold(10, 0.05) is None
        assert await answer.read(DEADLINE) == b"hello"
        with pytest.raises((UpstreamTruncated, UpstreamTimeout)):
            await answer.read(DEADLINE)
