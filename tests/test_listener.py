"""The listener: silent about what it cannot parse, bounded in time and size, and in order whatever comes ahead.

The handlers here are a few lines each (`support/listening.py`), so that only the listener is under test.
"""

import asyncio
import gzip
import logging
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from proxy.errors import ProxyError
from proxy.http1.request import RequestSection
from proxy.listener.connection import AHEAD_MOST, ClientConnection
from proxy.listener.request import Request
from proxy.listener.server import ASIDE_MOST
from proxy.sockets import bind_unix, remove_file
from tests.support.api import api
from tests.support.client import Client, connected
from tests.support.harness import StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.listening import LIMIT, Listening, answer_to, body_of, echo, listening
from tests.support.raw import held_by_kernel
from tests.support.upstreams import DEADLINE, on_each_loop, turns

GET: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
CUT: Final = pytest.mark.parametrize("in_bytes", [False, True], ids=["whole", "byte by byte"])


def cut(wire: bytes, *, in_bytes: bool) -> list[bytes]:
    """All of it, or one byte at a time."""
    return [wire[at : at + 1] for at in range(len(wire))] if in_bytes else [wire]


async def send(client: Client, listener: Listening, wire: bytes, *, in_bytes: bool) -> None:
    """Send until the listener has answered by itself."""
    for piece in cut(wire, in_bytes=in_bytes):
        if not listener.observed:
            client.send(piece)
            await turns(3)


async def everybody_left(listener: Listening) -> None:
    """Wait until no connection is open."""
    while listener.connections:
        await turns(1)


# -- silence about what cannot be parsed

SECRET: Final = b"SECRET"
MALFORMED: Final = {
    "control character behind a token": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer SECRET\x01\r\n\r\n",
    "NUL behind a token": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer SECRET\0\r\n\r\n",
    "DEL behind a token": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer SECRET\x7f\r\n\r\n",
    "bare LF behind a query": b"GET /?access_token=SECRET HTTP/1.1\nHost: a\n\n",
    "bare LF behind a field": b"GET / HTTP/1.1\r\nHost: a\nX-Api-Key: SECRET\r\n\r\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\rSECRET\r\n\r\n",
    "bare CR behind the request line": b"GET /?t=SECRET HTTP/1.1\rHost: a\r\n\r\n",
    "folded token": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n SECRET\r\n\r\n",
    "folded first field": b"GET /?t=SECRET HTTP/1.1\r\n Host: a\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer SECRET\r\n\r\n",
    "space in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX SECRET: 1\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: a\r\n: SECRET\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nSECRET\r\n\r\n",
    "unknown method": b"SECRET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "method in lower case": b"get /?access_token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces behind the method": b"GET  /?access_token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces behind the target": b"GET /?access_token=SECRET  HTTP/1.1\r\nHost: a\r\n\r\n",
    "tabs for spaces": b"GET\t/?access_token=SECRET\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "space in front": b" GET /?access_token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
    "space behind the version": b"GET /?access_token=SECRET HTTP/1.1 \r\nHost: a\r\n\r\n",
    "no version": b"GET /?access_token=SECRET\r\nHost: a\r\n\r\n",
    "another version": b"GET /?access_token=SECRET HTTP/1.2\r\nHost: a\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: SECRET\r\n\r\n",
    "no host": b"GET /?access_token=SECRET HTTP/1.1\r\nX: 1\r\n\r\n",
    "no field at all": b"GET /?access_token=SECRET HTTP/1.1\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n SECRET",
    "hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03SECRET\r\n\r\n",
}
MISFRAMED: Final = {
    "length and chunked": b"POST /?access_token=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /?t=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "list of lengths": b"POST /?t=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    "length with a sign": b"POST /?t=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "length that is empty": b"POST /?t=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nhello",
    "length that is none": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: SECRET\r\n\r\nhello",
    "coding in disguise": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunkedSECRET\r\n\r\n0\r\n\r\n",
    "coding before chunked": b"POST /?t=SECRET HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST /?t=SECRET HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /?t=SECRET HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
REFUSED: Final = [
    *(pytest.param(wire, "bad_request", id=name) for name, wire in MALFORMED.items()),
    *(pytest.param(wire, "bad_framing", id=name) for name, wire in MISFRAMED.items()),
]


@pytest.mark.threat(74, 85)
@CUT
@pytest.mark.parametrize(("wire", "code"), REFUSED)
@on_each_loop
async def test_074_a_malformed_request_is_neither_echoed_nor_logged(
    wire: bytes,
    code: str,
    canaries: Canaries,
    artefacts: Artefacts,
    caplog: pytest.LogCaptureFixture,
    *,
    in_bytes: bool,
) -> None:
    """035, 037: a fixed sentence, one exchange in the log without a byte of it, and the connection ends."""
    caplog.set_level(logging.DEBUG)
    canary = canaries.mint("key").upper().encode()
    async with listening() as listener, connected(listener.url, artefacts) as client:
        await send(client, listener, wire.replace(SECRET, canary), in_bytes=in_bytes)
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, code)
        assert answer["connection"] == "close"
        assert canary not in answer.raw_head + answer.body
        assert await client.at_end()
        [exchange] = listener.observed
        assert (exchange.status, exchange.error) == (400, code)
        assert (exchange.method, exchange.path, exchange.query) == ("-", b"", None)
    assert canary.decode() not in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.threat(46)
@pytest.mark.parametrize("ahead", [False, True], ids=["behind", "in one segment"])
@on_each_loop
async def test_046_a_malformed_request_behind_others_does_not_spoil_their_answers(
    artefacts: Artefacts, *, ahead: bool
) -> None:
    """Nobody looks at it before its turn: in order, and then the end."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request, connection: ClientConnection) -> None:
        begun.set()
        await go.wait()
        await echo(request, connection)

    async with listening(slow) as listener, connected(listener.url, artefacts) as client:
        bad = MALFORMED["no colon"]
        client.send(GET * 3 + (bad if ahead else b""))
        await begun.wait()
        client.send(b"" if ahead else bad)
        await turns()
        assert listener.observed == []
        go.set()
        for _ in range(3):
            assert (await client.answer()).body == b"/|"
        assert (await client.answer()).code == "bad_request"
        assert await client.at_end()


@pytest.mark.threat(105)
@on_each_loop
async def test_105_a_client_that_goes_on_sending_gets_its_refusal_all_the_same(artefacts: Artefacts) -> None:
    """RFC 9112 section 9.6: a reset, for bytes that nobody read, would overtake the answer."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(MALFORMED["no colon"])
        while not listener.observed:
            await turns(1)
        for _ in range(100):
            client.send(b"a" * 10_000)
            await turns(1)
        assert (await client.answer()).code == "bad_request"
        assert await client.at_end()
        assert listener.codes == ["bad_request"]


@on_each_loop
async def test_105_a_refused_client_that_never_ends_is_cut_off(
    artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it goes on sending is read for a while and no longer."""
    monkeypatch.setattr("proxy.listener.connection.LINGER_SECONDS", 0.05)
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(MALFORMED["no colon"])
        assert (await client.answer()).code == "bad_request"
        await everybody_left(listener)


@pytest.mark.threat(33)
@on_each_loop
async def test_033_a_client_that_speaks_tls_is_refused_at_once(artefacts: Artefacts) -> None:
    """`https://` where `http://` was meant: nothing that begins so becomes a request, so more is not waited for."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))
        assert (await client.answer()).code == "bad_request"
        assert await client.at_end()


@pytest.mark.threat(85)
@on_each_loop
async def test_085_many_malformed_requests_cost_one_line_each(
    artefacts: Artefacts, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback and no record of a library: what is logged is the exchange that was observed."""
    async with listening() as listener:
        for _ in range(20):
            async with connected(listener.url, artefacts) as client:
                client.send(MALFORMED["no colon"])
                assert await client.reader.read()
        assert listener.codes == ["bad_request"] * 20
    assert [record for record in caplog.records if record.name != "asyncio"] == []


BAD_CHUNKS: Final = {
    "size that is none": b"zz\r\n",
    "size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size too long to be one": b"1000000000000000\r\n",
    "no end behind a chunk": b"5\r\nhelloX\r\n0\r\n\r\n",
    "line end without CR": b"5\nhello\n0\n\n",
    "LF in an extension": b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
    "trailer without a colon": b"5\r\nhello\r\n0\r\nSECRET\r\n\r\n",
}


@pytest.mark.threat(36)
@CUT
@pytest.mark.parametrize("wire", [pytest.param(wire, id=name) for name, wire in BAD_CHUNKS.items()])
@on_each_loop
async def test_036_a_broken_chunked_body_is_bad_framing_and_the_end(
    wire: bytes, artefacts: Artefacts, *, in_bytes: bool
) -> None:
    """Where it ends nobody knows, so nothing behind it is a request."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for piece in cut(head + wire + GET, in_bytes=in_bytes):
            client.send(piece)
            await turns(3)
        answer = await client.answer()
        assert (answer.status, answer.code, answer["connection"]) == (400, "bad_framing", "close")
        assert await client.at_end()


@pytest.mark.parametrize("head", [b"HTTP/1.1\r\nHost: a", b"HTTP/1.1\r\nHost: a\r\nConnection: close"])
@on_each_loop
async def test_105_a_client_whose_body_is_broken_gets_its_refusal_while_it_goes_on_sending(
    head: bytes, artefacts: Artefacts
) -> None:
    """Whether it wanted the connection to live on or not: a reset would overtake the answer."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(b"POST / " + head + b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        await turns()
        for _ in range(100):
            client.send(b"a" * 10_000)
            await turns(1)
        assert (await client.answer()).code == "bad_framing"
        assert await client.at_end()


# -- limits


@dataclass(frozen=True)
class Part:
    """A request of which one part has a size, and how much of the limit is not that part."""

    before: bytes
    after: bytes
    rest: int
    code: str
    status: int


#: The limit holds for the request line, and for the section with the line end in front of it.
PARTS: Final = {
    "target": Part(b"GET /", b" HTTP/1.1\r\nHost: a\r\n\r\n", len(b"GET / HTTP/1.1"), "target_too_long", 414),
    "value": Part(
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n", len(b"\r\nHost: a\r\nX: "), "headers_too_large", 431
    ),
    "name": Part(
        b"GET / HTTP/1.1\r\nHost: a\r\nX", b": 1\r\n\r\n", len(b"\r\nHost: a\r\nX: 1"), "headers_too_large", 431
    ),
}


@pytest.mark.threat(116)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("over", [0, 1], ids=["at the limit", "one byte more"])
@pytest.mark.parametrize("step", [LIMIT * 2, 100, 1])
@on_each_loop
async def test_116_a_request_beyond_the_limit_is_refused_by_its_own_code(
    part: str, step: int, artefacts: Artefacts, *, over: int
) -> None:
    """At the limit it passes, one byte beyond it is 414 or 431, however the network cuts it."""
    case = PARTS[part]
    wire = case.before + b"a" * (LIMIT - case.rest + over) + case.after
    async with listening() as listener, connected(listener.url, artefacts) as client:
        for at in range(0, len(wire), step):
            if not listener.observed:
                client.send(wire[at : at + step])
                await turns(3)
        answer = await client.answer()
        assert (answer.status, answer.code) == ((case.status, case.code) if over else (200, ""))
        if over:
            assert await client.at_end()


@pytest.mark.threat(116)
@pytest.mark.parametrize(
    ("begin", "wire", "code"),
    [
        pytest.param(b"GET /", b"a" * 100, "target_too_long", id="line"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: " + b"a" * 100 + b"\r\n", "headers_too_large", id="bytes"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: 1\r\n", "headers_too_large", id="fields"),
    ],
)
@on_each_loop
async def test_116_a_head_that_never_ends_is_refused(
    begin: bytes, wire: bytes, code: str, artefacts: Artefacts
) -> None:
    """Long before it could fill any memory."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(begin)
        sent = 0
        while not listener.observed:
            assert sent <= LIMIT + 2 * len(wire)
            client.send(wire)
            sent += len(wire)
            await turns(20)
        assert (await client.answer()).code == code
        assert await client.at_end()


@pytest.mark.parametrize("number", [256, 257])
@on_each_loop
async def test_116_the_number_of_fields_is_bounded(number: int, artefacts: Artefacts) -> None:
    """Where the bytes would allow for more."""
    fields = b"".join(b"X-%d: 1\r\n" % count for count in range(number - 1))
    async with listening(header_bytes=64 * 1024) as listener, connected(listener.url, artefacts) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer.code) == ((200, "") if number == 256 else (431, "headers_too_large"))


@CUT
@pytest.mark.parametrize("begin", [b"", GET], ids=["first request", "second request"])
@pytest.mark.parametrize(("lines", "is_taken"), [(0, True), (1, True), (32, True), (33, False)])
@on_each_loop
async def test_some_empty_lines_in_front_of_a_request_are_passed_over(
    lines: int, begin: bytes, artefacts: Artefacts, *, is_taken: bool, in_bytes: bool
) -> None:
    """Old clients send one behind a body (RFC 9112 section 2.2); more than a few are refused, however they come."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        if begin:
            client.send(begin)
            assert (await client.answer()).status == 200
        await send(client, listener, b"\r\n" * lines + b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", in_bytes=in_bytes)
        answer = await client.answer()
        assert (answer.body == b"/x|", answer.code) == (is_taken, "" if is_taken else "bad_request")


@pytest.mark.threat(112)
@pytest.mark.parametrize("begin", [b"", GET], ids=["first request", "second request"])
@on_each_loop
async def test_112_a_head_that_is_not_whole_in_time_is_408(begin: bytes, artefacts: Artefacts) -> None:
    """Bytes that trickle in do not lengthen it."""
    async with (
        listening(header_seconds=0.1, header_bytes=1 << 20) as listener,
        connected(listener.url, artefacts) as client,
    ):
        if begin:
            client.send(begin)
            assert (await client.answer()).status == 200
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        while not listener.observed:
            client.send(b"a")
            await turns(20)
        answer = await client.answer()
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert await client.at_end()


@pytest.mark.threat(112)
@pytest.mark.parametrize(
    "before", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["first", "behind another"]
)
async def test_112_a_head_that_begins_with_the_connection_or_behind_a_request_has_its_time(
    proxying: StartProxy, before: bytes
) -> None:
    """The timer does not depend on when the bytes come: 408 after `limits.header_time`, not silence."""
    config = {"upstream": "http://127.0.0.1:9", "limits": {"header_time": "50ms"}}
    async with proxying(config) as proxy:
        for _ in range(10):
            async with proxy.connect() as client:
                client.send(before + b"GET /late HTTP/1.1\r\nHost: loc")
                if before:
                    assert (await client.answer()).status == 502
                answer = await client.answer()
                assert (answer.status, answer.code) == (408, "request_timeout")


IDLE: Final = {
    "nothing": (b"", 0),
    "one request": (GET, 1),
    "two requests": (GET * 2, 2),
    "an empty line behind a body": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na\r\n", 1),
}


@pytest.mark.threat(112)
@pytest.mark.parametrize("name", IDLE)
@on_each_loop
async def test_112_an_idle_connection_ends_without_an_answer(name: str, artefacts: Artefacts) -> None:
    """An answer that nobody asked for would be taken for that to the next request."""
    wire, answers = IDLE[name]
    async with (
        listening(idle_seconds=0.1, header_seconds=0.02) as listener,
        connected(listener.url, artefacts) as client,
    ):
        client.send(wire)
        for _ in range(answers):
            assert (await client.answer()).status == 200
        assert await client.at_end()
        assert listener.observed == []


@on_each_loop
async def test_a_slow_body_is_no_slow_head(artefacts: Artefacts) -> None:
    """The head's timer and its bound are silent while a request is answered, however its body comes."""
    async with (
        listening(header_seconds=0.02, idle_seconds=0.02, header_bytes=64) as listener,
        connected(listener.url, artefacts) as client,
    ):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n")
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, passed.set)
        for _ in range(399):
            client.send(b"a" * 10)
            await turns(2)
        await passed.wait()
        client.send(b"a" * 10)
        assert (await client.answer()).body == b"/|" + b"a" * 4000
        assert listener.observed == []


@on_each_loop
async def test_105_the_unread_rest_of_a_body_does_not_become_a_second_answer(artefacts: Artefacts) -> None:
    """The rest is read for a while and dropped; it is neither a head nor too large a one."""

    async def refusing(request: Request, connection: ClientConnection) -> None:
        out = answer_to(request, connection)
        out.problem(ProxyError())
        connection.keep_alive = out.keep_alive

    async with (
        listening(refusing, header_bytes=64, header_seconds=0.02) as listener,
        connected(listener.url, artefacts) as client,
    ):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n")
        answer = await client.answer()
        assert (answer.code, answer["connection"]) == ("internal_error", "close")
        for _ in range(90):
            client.send(b"a" * 100)
            await turns(3)
        assert await client.at_end()
        assert listener.observed == []


@on_each_loop
async def test_a_body_that_is_here_but_was_not_read_costs_no_connection(artefacts: Artefacts) -> None:
    """Where it ends is known, so the next request is."""

    async def careless(request: Request, connection: ClientConnection) -> None:
        out = answer_to(request, connection)
        out.document(200, (), request.target)
        connection.keep_alive = out.keep_alive

    async with listening(careless) as listener, connected(listener.url, artefacts) as client:
        for framed in (
            b"Content-Length: 5\r\n\r\nhello",
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ):
            client.send(b"POST /1 HTTP/1.1\r\nHost: a\r\n" + framed)
            assert (await client.answer()).body == b"/1"
        assert (await client.ask("GET", "/2")).body == b"/2"


@pytest.mark.parametrize("framed", [b"Content-Length: 0\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
@on_each_loop
async def test_a_body_of_no_bytes_is_complete_with_its_head(framed: bytes, artefacts: Artefacts) -> None:
    """Nobody waits for more of it, and what follows is the next request."""
    seen: list[bool] = []

    async def noting(request: Request, connection: ClientConnection) -> None:
        seen.append(request.body is not None)
        await echo(request, connection)

    async with listening(noting) as listener, connected(listener.url, artefacts) as client:
        client.send(b"POST /1 HTTP/1.1\r\nHost: a\r\n" + framed + GET)
        assert [(await client.answer()).body for _ in range(2)] == [b"/1|", b"/|"]
    assert seen == [True, False]


@pytest.mark.threat(112, 115)
@on_each_loop
async def test_115_one_connection_too_many_is_answered_and_ended(artefacts: Artefacts) -> None:
    """Those that are there go on; when one goes, there is room again."""
    async with listening(most_connections=2) as listener, connected(listener.url, artefacts) as first:
        assert (await first.ask("GET")).status == 200
        async with connected(listener.url, artefacts) as second:
            assert (await second.ask("GET")).status == 200
            async with connected(listener.url, artefacts) as third:
                third.send(GET)
                answer = await third.answer()
                assert (answer.status, answer.code) == (503, "overloaded")
                assert await third.at_end()
            assert (await first.ask("GET")).status == 200
        while len(listener.connections) > 1:
            await turns(1)
        async with connected(listener.url, artefacts) as fourth:
            assert (await fourth.ask("GET")).status == 200
        assert listener.codes == ["overloaded"]


@pytest.mark.threat(112, 115)
@on_each_loop
async def test_115_who_has_shown_nothing_yet_makes_room_for_whoever_comes(artefacts: Artefacts) -> None:
    """The oldest first, also where it is in the middle of a head; one with an admitted request stays."""
    async with listening(most_connections=3) as listener, AsyncExitStack() as stack:

        async def another(*requests: str) -> Client:
            made = await stack.enter_async_context(connected(listener.url, artefacts))
            for method in requests:
                assert (await made.ask(method)).status == 200
            while len(listener.connections) > 3:
                await turns(1)
            return made

        beginning, shown, silent = await another(), await another("GET"), await another()
        beginning.send(b"GET / HTTP/1.1\r\n")
        later = await another("GET")
        assert await beginning.at_end()
        assert (await silent.ask("GET")).status == 200
        for each in (shown, silent, later):
            assert (await each.ask("GET")).status == 200
        assert (await (await another()).answer()).code == "overloaded"
        assert listener.codes == ["overloaded"]


@pytest.mark.threat(115)
@on_each_loop
async def test_115_who_has_just_come_makes_room_for_nobody(artefacts: Artefacts) -> None:
    """Of very many who come at once, the first are served, and the others are told."""
    async with listening(most_connections=2, yield_seconds=DEADLINE) as listener, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(listener.url, artefacts)) for _ in range(3)]
        assert (await clients[2].answer()).code == "overloaded"
        assert [(await each.ask("GET")).status for each in clients[:2]] == [200, 200]


@pytest.mark.threat(112, 115)
@on_each_loop
async def test_115_very_many_who_show_nothing_keep_nobody_out(artefacts: Artefacts) -> None:
    """What they hold is bounded, and so is what is kept of them."""
    async with listening(most_connections=20) as listener, AsyncExitStack() as stack:
        for _ in range(5):
            for _ in range(60):
                await stack.enter_async_context(connected(listener.url, artefacts))
            async with connected(listener.url, artefacts) as client:
                assert (await client.ask("GET")).status == 200
        assert len(listener.connections) <= 20
        assert len(listener.server._places._taken) == len(listener.connections)
        assert len(listener.server._places._unproven) <= 20
        assert listener.codes == []


@pytest.mark.threat(115)
@on_each_loop
async def test_115_others_than_the_owner_have_places_of_their_own(artefacts: Artefacts) -> None:
    """They are answered, all of them, and take no place of the owner's; nor does the owner take theirs."""
    is_ours = False
    admits = lambda _sock: is_ours  # noqa: E731  what it says changes
    async with (
        listening(most_connections=2, admits=admits, answers_strangers=True) as listener,
        AsyncExitStack() as stack,
    ):
        count = ASIDE_MOST + 20
        others = [await stack.enter_async_context(connected(listener.url, artefacts)) for _ in range(count)]
        assert (await others[-1].ask("GET")).status == 200
        is_ours = True
        for _ in range(2):
            ours = await stack.enter_async_context(connected(listener.url, artefacts))
            assert (await ours.ask("GET")).status == 200
        assert len(listener.connections) == ASIDE_MOST + 2
        third = await stack.enter_async_context(connected(listener.url, artefacts))
        assert (await third.answer()).code == "overloaded"
        assert (await others[-1].ask("GET")).status == 200


@pytest.mark.threat(13, 115)
async def test_013_who_may_not_connect_takes_the_place_of_nobody_who_may(artefacts: Artefacts) -> None:
    """Some are heard, so that the log says what they wanted; more of them are told at once, and closed."""
    is_ours = False
    admits = lambda _sock: is_ours  # noqa: E731  what it says changes
    async with listening(most_connections=2, admits=admits) as listener, AsyncExitStack() as stack:
        count = ASIDE_MOST + 20
        others = [await stack.enter_async_context(connected(listener.url, artefacts)) for _ in range(count)]
        told = [await each.answer() for each in others[ASIDE_MOST:]]
        assert {(each.status, each.code) for each in told} == {(403, "peer_not_allowed")}
        others[0].send(GET)
        assert (await others[0].answer()).code == "peer_not_allowed"
        is_ours = True
        for _ in range(2):
            ours = await stack.enter_async_context(connected(listener.url, artefacts))
            assert (await ours.ask("GET")).status == 200
        third = await stack.enter_async_context(connected(listener.url, artefacts))
        assert (await third.answer()).code == "overloaded"


@pytest.mark.threat(46)
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(GET * 200_000, id="requests"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + bytes(8_000_000), id="body"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\n12345678\r\n" * 600_000,
            id="chunks",
        ),
    ],
)
@on_each_loop
async def test_114_what_nobody_takes_yet_waits_in_the_socket(wire: bytes, artefacts: Artefacts) -> None:
    """Of requests behind one in progress, and of a body that is not read, there is a bounded part here."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def waiting(_request: Request, _connection: ClientConnection) -> None:
        begun.set()
        await go.wait()

    async with listening(waiting) as listener, connected(listener.url, artefacts) as client:
        client.send(wire)
        await begun.wait()
        await turns(2000)
        outside = client.writer.transport.get_write_buffer_size() + held_by_kernel(urlsplit(listener.url).port or 0)
        assert outside > 0
        assert len(wire) - outside <= AHEAD_MOST + 256 * 1024
        go.set()
        await everybody_left(listener)


# -- order, keep-alive, HEAD


@pytest.mark.threat(46)
@CUT
@on_each_loop
async def test_046_pipelined_requests_are_answered_in_their_order(artefacts: Artefacts, *, in_bytes: bool) -> None:
    """In one segment, bodies between them: each answer is its own."""
    number = 20 if in_bytes else 500
    wire = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n%05d"
        b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%05d\r\n0\r\nX: 1\r\n\r\n"
        b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % ((each,) * 5)
        for each in range(number)
    )
    async with listening() as listener, connected(listener.url, artefacts) as client:
        for piece in cut(wire, in_bytes=in_bytes):
            client.send(piece)
            await turns(1)
        for each in range(number):
            for content in (b"%05d" % each, b"%05d" % each, b""):
                assert (await client.answer()).body == b"/%d|%b" % (each, content)


@pytest.mark.parametrize(
    ("version", "option", "stays", "said"),
    [
        (b"HTTP/1.1", b"", True, []),
        (b"HTTP/1.1", b"Connection: keep-alive\r\n", True, []),
        (b"HTTP/1.1", b"Connection: close\r\n", False, ["close"]),
        (b"HTTP/1.1", b"Connection: x, CLOSE\r\n", False, ["close"]),
        (b"HTTP/1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False, ["close"]),
        (b"HTTP/1.0", b"", False, ["close"]),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", True, ["keep-alive"]),
        (b"HTTP/1.0", b"Connection: keep-alive, close\r\n", False, ["close"]),
    ],
)
@on_each_loop
async def test_a_connection_lives_on_as_the_client_asked_and_is_told_so(
    version: bytes, option: bytes, said: list[str], artefacts: Artefacts, *, stays: bool
) -> None:
    """RFC 9112 section 9.3: the answer says what the version's default does not."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(b"GET / %b\r\nHost: a\r\n%b\r\n" % (version, option))
        answer = await client.answer()
        assert (answer.body, answer.all("Connection")) == (b"/|", said)
        if stays:
            assert (await client.ask("GET", "/next")).body == b"/next|"
        else:
            assert await client.at_end()


@on_each_loop
async def test_what_a_connection_remembers_of_a_request_is_not_taken_for_another(artefacts: Artefacts) -> None:
    """The same fields in another version, and other fields in the same: each request is read as it is."""
    seen: list[tuple[int, list[bytes]]] = []

    async def noting(request: Request, connection: ClientConnection) -> None:
        seen.append((request.section.minor, request.section.values[b"x"]))
        await echo(request, connection)

    fields = b"Host: a\r\nConnection: keep-alive\r\nX: %d\r\n\r\n"
    async with listening(noting) as listener, connected(listener.url, artefacts) as client:
        for minor, number in [(1, 1), (1, 1), (0, 1), (0, 2), (1, 2), (1, 1)]:
            client.send(b"GET / HTTP/1.%d\r\n" % minor + fields % number)
            assert (await client.answer()).all("connection") == ([] if minor else ["keep-alive"])
    assert seen == [(1, [b"1"]), (1, [b"1"]), (0, [b"1"]), (0, [b"2"]), (1, [b"2"]), (1, [b"1"])]


@pytest.mark.threat(1)
@pytest.mark.parametrize("first", ["unix", "tcp"])
async def test_001_what_a_unix_client_may_leave_out_no_other_client_may(
    proxying: StartProxy, tmp_path: Path, first: str
) -> None:
    """A request without any field has no Host: taken from a Unix socket, refused on TCP, whoever came first."""
    wire = b"GET / HTTP/1.0\r\n\r\n"
    async with api() as upstream:
        config = {"listen": ["127.0.0.1:0", f"unix:{tmp_path / 'p.sock'}"], "upstream": upstream.url}
        async with proxying(config) as proxy:
            tcp, unix = proxy.instance.urls
            for url in [tcp, unix, tcp] if first == "tcp" else [unix, tcp, unix]:
                async with connected(url, proxy.artefacts) as client:
                    client.send(wire)
                    answer = await client.answer()
                    expected = (200, "") if url == unix else (403, "host_not_allowed")
                    assert (answer.status, answer.code) == expected


@on_each_loop
async def test_the_answer_to_a_head_has_no_body_and_the_next_one_is_in_order(artefacts: Artefacts) -> None:
    """The length is that of the body that a GET would get."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        answer = await client.ask("HEAD", "/seven")
        assert (answer.body, answer["Content-Length"]) == (b"", "7")
        assert (await client.ask("GET", "/next")).body == b"/next|"


@pytest.mark.threat(65)
@on_each_loop
async def test_065_a_compressed_upload_stays_as_it_is(artefacts: Artefacts) -> None:
    """10 MB of zeros are 10 kB on the way in, and here too."""
    packed = gzip.compress(bytes(10_000_000))
    async with listening() as listener, connected(listener.url, artefacts) as client:
        answer = await client.ask("POST", "/", {"Content-Encoding": "gzip"}, packed)
        assert answer.body == b"/|" + packed


# -- ends


def hang_up(client: Client) -> None:
    """Close both sides."""
    client.close()


def end_one_side(client: Client) -> None:
    """Send FIN, and go on reading."""
    client.writer.write_eof()


@pytest.mark.threat(69)
@pytest.mark.parametrize("leave", [hang_up, end_one_side])
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(GET, id="no body"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", id="within its body"),
    ],
)
@on_each_loop
async def test_069_a_client_that_hangs_up_cancels_its_handler(
    wire: bytes, leave: Callable[[Client], None], artefacts: Artefacts
) -> None:
    """Nobody works on for nobody; an end of the client's side alone counts as hanging up, as in nginx and Go."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(request: Request, _connection: ClientConnection) -> None:
        begun.set()
        try:
            await body_of(request)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with listening(endless) as listener, connected(listener.url, artefacts) as client:
        client.send(wire)
        await begun.wait()
        leave(client)
        await cancelled.wait()
        await everybody_left(listener)


@pytest.mark.parametrize("answers", [False, True], ids=["before its answer", "behind its answer"])
@on_each_loop
async def test_a_handler_that_fails_ends_its_connection_and_is_logged_once(
    artefacts: Artefacts, caplog: pytest.LogCaptureFixture, *, answers: bool
) -> None:
    """A second answer would be that to the client's next request; the loop is not left with the exception."""

    async def failing(request: Request, connection: ClientConnection) -> None:
        if answers:
            await echo(request, connection)
        raise ValueError(SECRET)

    async with listening(failing) as listener, connected(listener.url, artefacts) as client:
        client.send(GET)
        if answers:
            assert (await client.answer()).body == b"/|"
        assert await client.at_end()
        assert listener.observed == []
    assert [record.message for record in caplog.records] == ["internal_error"]


@pytest.mark.threat(122)
@on_each_loop
async def test_122_a_drain_ends_what_rests_and_lets_what_is_in_progress_be_answered(
    artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What rests: a connection behind an answer, a new one, and one with a part of a head, which is answered."""
    for name in ("PARTING_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(f"proxy.listener.connection.{name}", 0.02)
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request, connection: ClientConnection) -> None:
        if request.target == b"/slow":
            begun.set()
            await go.wait()
        await echo(request, connection)

    async with (
        listening(slow) as listener,
        connected(listener.url, artefacts) as busy,
        connected(listener.url, artefacts) as behind,
        connected(listener.url, artefacts) as fresh,
        connected(listener.url, artefacts) as partial,
    ):
        assert (await behind.ask("GET")).status == 200
        partial.send(GET[:20])
        busy.send(GET.replace(b"/ ", b"/slow ", 1) + GET)
        await begun.wait()
        while len(listener.connections) < 4:
            await turns(1)
        assert listener.server.is_busy
        draining = asyncio.create_task(listener.server.drain())
        assert (await partial.answer()).code == "request_timeout"
        for client in (behind, fresh, partial):
            assert await client.at_end()
        assert not draining.done()
        go.set()
        # What came behind it came in good faith.
        assert [(await busy.answer()).body for _ in range(2)] == [b"/slow|", b"/|"]
        assert await busy.at_end()
        await draining
        assert not listener.connections


def peer_of(connection: ClientConnection) -> object:
    """The address of the client."""
    return None if connection.transport is None else connection.transport.get_extra_info("peername")


@pytest.mark.threat(122)
@on_each_loop
async def test_122_what_is_on_its_way_when_a_drain_begins_is_answered(
    artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a connection that has just been used, and on a new one; one that has rested for long ends at once."""
    monkeypatch.setattr("proxy.listener.connection.PARTING_SECONDS", 2 * DEADLINE)
    async with (
        listening() as listener,
        connected(listener.url, artefacts) as old,
        connected(listener.url, artefacts) as used,
        connected(listener.url, artefacts) as fresh,
    ):
        for client in (old, used):
            assert (await client.ask("GET")).status == 200
        while len(listener.connections) < 3:
            await turns(1)
        [rests] = [each for each in listener.connections if peer_of(each) == old.writer.get_extra_info("sockname")]
        rests._rests_since -= 2 * DEADLINE
        draining = asyncio.create_task(listener.server.drain())
        assert await old.at_end()
        for client in (used, fresh):
            assert (await client.ask("GET")).status == 200
            client.writer.close()
        await draining


class Slow:
    """A client that asks for some bytes, and again, and reads nothing until the listener cannot get rid of them."""

    def __init__(self, sock: socket.socket) -> None:
        self.asked = 0
        self.served = 0
        self.content = bytes(1500)
        self._sock = sock

    async def handler(self, request: Request, connection: ClientConnection) -> None:
        """Serve it; what is asked for as /last ends the connection."""
        out = answer_to(request, connection)
        out.keep_alive = request.target != b"/last"
        out.document(200, (), self.content)
        await out.settle()
        self.served += 1
        connection.keep_alive = out.keep_alive

    async def ask(self, listener: Listening, target: bytes) -> None:
        """Send one request, and let it be answered."""
        await asyncio.get_running_loop().sock_sendall(self._sock, GET.replace(b"/ ", target + b" ", 1))
        self.asked += 1
        while self.served < self.asked or listener.server.is_busy:
            await turns(1)

    async def fill(self, listener: Listening) -> None:
        """Ask until bytes of an answer stay behind in the listener."""
        address = urlsplit(listener.url)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
        await asyncio.get_running_loop().sock_connect(self._sock, (address.hostname, address.port))
        while not (connections := listener.connections) or not _unsent(connections[0]):
            await self.ask(listener, b"/")

    async def read(self) -> None:
        """Read to the end: every answer is there, and is whole."""
        received = bytearray()
        while piece := await asyncio.get_running_loop().sock_recv(self._sock, 65536):
            received += piece
        assert received.count(b"HTTP/1.1 200 OK\r\n") == self.asked
        assert bytes(received).endswith(b"\r\n\r\n" + self.content)


def _unsent(connection: ClientConnection) -> int:
    """Bytes of answers that the socket did not take."""
    return 0 if connection.transport is None else connection.transport.get_write_buffer_size()


@on_each_loop
async def test_122_an_answer_that_is_still_on_its_way_is_not_lost_when_all_closes() -> None:
    """The client was slow to read; its connection rests as far as requests go, but not as far as bytes do."""
    with closing(socket.socket()) as sock:
        slow = Slow(sock)
        async with listening(slow.handler) as listener:

            async def end_all() -> None:
                await listener.server.drain()
                await listener.server.close()

            await slow.fill(listener)
            ending = asyncio.create_task(end_all())
            await turns(5)
            await slow.read()
            await ending


@on_each_loop
async def test_an_answer_that_is_still_on_its_way_is_not_lost_when_its_connection_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the client has to end too is waited for only for a while, but not while it has bytes to read."""
    monkeypatch.setattr("proxy.listener.connection.LINGER_SECONDS", 0.02)
    passed = asyncio.Event()
    with closing(socket.socket()) as sock:
        slow = Slow(sock)
        async with listening(slow.handler) as listener:
            await slow.fill(listener)
            await slow.ask(listener, b"/last")
            asyncio.get_running_loop().call_later(0.2, passed.set)
            await passed.wait()
            await slow.read()


@on_each_loop
async def test_122_closing_at_once_ends_what_is_in_progress(artefacts: Artefacts) -> None:
    """It cleans up before `close` is done."""
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def endless(_request: Request, _connection: ClientConnection) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await turns(3)
            cleaned.set()
        raise AssertionError

    async with listening(endless) as listener, connected(listener.url, artefacts) as client:
        client.send(GET)
        await begun.wait()
        await listener.server.close()
        assert cleaned.is_set()
        assert await client.at_end()


# -- Unix sockets


@on_each_loop
async def test_a_unix_listener_answers_and_its_clients_have_no_address(
    tmp_path: Path, artefacts: Artefacts
) -> None:
    """What it answers by itself is logged as from `unix`."""
    seen: list[Any] = []

    async def noting(request: Request, connection: ClientConnection) -> None:
        seen.append((request.client, request.port))
        await echo(request, connection)

    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        async with listening(noting) as listener:
            bound = bind_unix(Path("p.sock"))
            running = await asyncio.get_running_loop().create_server(listener.server, sock=bound)
            async with running, connected("unix:p.sock", artefacts) as client:
                assert (await client.ask("GET")).body == b"/|"
                client.send(MALFORMED["no colon"])
                assert (await client.answer()).code == "bad_request"
                remove_file(bound)
    finally:
        os.chdir(before)
    assert seen == [("unix", None)]
    assert [exchange.client for exchange in listener.observed] == ["unix"]


@on_each_loop
async def test_a_client_of_a_tcp_listener_has_its_address(artefacts: Artefacts) -> None:
    """Without its port, in the request and in the log of what is refused."""
    seen: list[Any] = []

    async def noting(request: Request, connection: ClientConnection) -> None:
        seen.append((request.client, request.port))
        await echo(request, connection)

    async with listening(noting) as listener, connected(listener.url, artefacts) as client:
        assert (await client.ask("GET")).body == b"/|"
        client.send(MALFORMED["no colon"])
        assert (await client.answer()).code == "bad_request"
        assert [exchange.client for exchange in listener.observed] == ["127.0.0.1"]
    assert seen == [("127.0.0.1", urlsplit(listener.url).port)]


def test_a_request_shows_nothing_of_itself() -> None:
    """Its head may hold the client key."""
    section = RequestSection(b"Host: SECRET", 1)
    request = Request("GET", b"/~SECRET/", section, body=None, client="unix", port=None)
    assert "SECRET" not in f"{request!r} {request} {section!r}"
