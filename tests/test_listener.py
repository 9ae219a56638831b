"""The listener: silent about what it cannot parse, bounded in time and size, and honest about an end.

The handlers here are a few lines each, so that only the listener and `answers.py` are under test.
"""

import asyncio
import gzip
import logging
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from proxy.accesslog import Exchange
from proxy.answers import Downstream, Written, deliver
from proxy.errors import ProxyError, UpstreamTruncated
from proxy.listener import HEAD_LINES, Handler, Server, require_c_parser
from proxy.sockets import ListenError, bind_tcp, bind_unix, remove_file, url_of
from proxy.upstream.answer import Answer
from proxy.upstream.framing import CHUNKED, LENGTH, UNTIL_CLOSE
from tests.support.client import Client, connected
from tests.support.harness import StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.upstreams import DEADLINE, on_each_loop, turns

ROOT: Final = Path(__file__).parent.parent
LIMIT: Final = 4096
GET: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def echo(request: web.BaseRequest) -> Written:
    """Answer with the target and the body, as they came."""
    exchange = Exchange(request.method, "test", 0.0)
    out = Downstream(request, exchange, keep_alive=True)
    content = request.raw_path.encode() + b"|" + await request.content.read()
    framing = b"Content-Length: %d\r\n" % len(content)
    out.begin(200, [], framing=framing, first=b"" if request.method == "HEAD" else content, until_close=False)
    return out.result


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


@asynccontextmanager
async def listening(
    handler: Handler = echo,
    *,
    header_bytes: int = LIMIT,
    header_seconds: float = DEADLINE,
    idle_seconds: float = DEADLINE,
    most_connections: int = 10,
) -> AsyncIterator[Listening]:
    """A listener on a free port."""
    observed: list[Exchange] = []
    server = Server(
        handler,
        observe=observed.append,
        header_bytes=header_bytes,
        header_seconds=header_seconds,
        idle_seconds=idle_seconds,
        most_connections=most_connections,
    )
    [sock] = bind_tcp("127.0.0.1", 0)
    url = url_of(sock)
    running = await asyncio.get_running_loop().create_server(server, sock=sock)
    try:
        yield Listening(url, server, observed)
    finally:
        running.close()
        await server.shutdown(0)
        await running.wait_closed()


async def whole(client: Client) -> bytes:
    """Everything up to the end of the connection."""
    return await client.reader.read()


# -- silence about what cannot be parsed

SECRET: Final = b"SECRET"
MALFORMED: Final = {
    "control character behind a token": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer SECRET\x01\r\n\r\n",
    "NUL behind a token": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer SECRET\0\r\n\r\n",
    "bare LF behind a query": b"GET /?access_token=SECRET HTTP/1.1\nHost: a\n\n",
    "bare LF behind a field": b"GET / HTTP/1.1\r\nHost: a\nX-Api-Key: SECRET\r\n\r\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\rSECRET\r\n\r\n",
    "folded token": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n SECRET\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer SECRET\r\n\r\n",
    "space in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX SECRET: 1\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nSECRET\r\n\r\n",
    "unknown method": b"SECRET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "method in lower case": b"get /?access_token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
    "raw bytes in the path": b"GET /\xff?access_token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: SECRET\r\n\r\n",
    "no host": b"GET /?access_token=SECRET HTTP/1.1\r\n\r\n",
    "length and chunked": b"POST /?access_token=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /?t=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length with a sign": b"POST /?t=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "length that is none": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: SECRET\r\n\r\nhello",
    "coding in disguise": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunkedSECRET\r\n\r\n0\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n SECRET",
    "hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03SECRET\r\n\r\n",
}


@pytest.mark.parametrize("in_bytes", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("wire", [pytest.param(wire, id=name) for name, wire in MALFORMED.items()])
@on_each_loop
async def test_074_a_malformed_request_is_neither_echoed_nor_logged(
    wire: bytes,
    canaries: Canaries,
    artefacts: Artefacts,
    caplog: pytest.LogCaptureFixture,
    *,
    in_bytes: bool,
) -> None:
    """E1, E2, 035, 037: a fixed sentence, one exchange in the log without a byte of it, and the connection ends."""
    caplog.set_level(logging.DEBUG)
    canary = canaries.mint("key").upper().encode()
    wire = wire.replace(SECRET, canary)
    async with listening() as listener, connected(listener.url, artefacts) as client:
        for piece in [wire[at : at + 1] for at in range(len(wire))] if in_bytes else [wire]:
            if not listener.observed:
                client.send(piece)
                await turns(3)
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert canary not in answer.raw_head + answer.body
        assert await client.at_end()
        [exchange] = listener.observed
        assert (exchange.status, exchange.error, exchange.path, exchange.query) == (400, "bad_request", b"", None)
    assert canary.decode() not in caplog.text
    assert "Traceback" not in caplog.text


@on_each_loop
async def test_a_malformed_request_behind_a_good_one_does_not_spoil_its_answer(artefacts: Artefacts) -> None:
    """046: in order, and then the end."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> Written:
        begun.set()
        await go.wait()
        return await echo(request)

    async with listening(slow) as listener, connected(listener.url, artefacts) as client:
        client.send(GET)
        await begun.wait()
        client.send(MALFORMED["no colon"])
        await turns()
        go.set()
        assert (await client.answer()).body == b"/|"
        assert (await client.answer()).code == "bad_request"
        assert await client.at_end()


@on_each_loop
async def test_a_client_that_goes_on_sending_gets_its_refusal_all_the_same(artefacts: Artefacts) -> None:
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
async def test_085_many_malformed_requests_cost_one_line_each(
    artefacts: Artefacts, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback and no record of a library: what is logged is the exchange that was observed."""
    async with listening() as listener:
        for _ in range(20):
            async with connected(listener.url, artefacts) as client:
                client.send(MALFORMED["no colon"])
                assert await whole(client)
        assert listener.codes == ["bad_request"] * 20
    assert [record for record in caplog.records if record.name != "asyncio"] == []


# -- limits


@dataclass(frozen=True)
class Sized:
    """A request of which one part has a size."""

    before: bytes
    after: bytes
    code: str
    status: int


SIZED: Final = {
    "target": Sized(b"GET /", b" HTTP/1.1\r\nHost: a\r\n\r\n", "target_too_long", 414),
    "value": Sized(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n", "headers_too_large", 431),
    "name": Sized(b"GET / HTTP/1.1\r\nHost: a\r\nX", b": 1\r\n\r\n", "headers_too_large", 431),
}


@pytest.mark.parametrize("part", SIZED)
@pytest.mark.parametrize(("over", "pieces"), [(False, 1), (False, 3), (True, 1), (True, 3)])
@on_each_loop
async def test_116_a_line_beyond_the_limit_is_refused_by_its_own_code(
    part: str, pieces: int, artefacts: Artefacts, *, over: bool
) -> None:
    """Near the limit it passes, beyond it is 414 or 431, however the network cuts it."""
    case = SIZED[part]
    wire = case.before + b"a" * (LIMIT + 2 if over else LIMIT - 10) + case.after
    step = len(wire) // pieces + 1
    async with listening() as listener, connected(listener.url, artefacts) as client:
        for at in range(0, len(wire), step):
            client.send(wire[at : at + step])
            await turns()
        answer = await client.answer()
        assert (answer.status, answer.code) == ((case.status, case.code) if over else (200, ""))
        if over:
            assert await client.at_end()


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(b"X: " + b"a" * 1000 + b"\r\n", "headers_too_large", id="bytes"),
        pytest.param(b"X: 1\r\n", "headers_too_large", id="fields"),
    ],
)
@on_each_loop
async def test_116_a_head_that_never_ends_is_refused(wire: bytes, code: str, artefacts: Artefacts) -> None:
    """Each line is within its bound, and their sum and their number have one too."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        sent = 0
        while not listener.observed:
            assert sent <= (HEAD_LINES + 1) * LIMIT
            client.send(wire)
            sent += len(wire)
            await turns(5)
        assert (await client.answer()).code == code
        assert await client.at_end()


@pytest.mark.parametrize("begin", [b"", GET], ids=["first request", "second request"])
@on_each_loop
async def test_112_a_head_that_is_not_whole_in_time_is_408(begin: bytes, artefacts: Artefacts) -> None:
    """E15: bytes that trickle in do not lengthen it."""
    async with listening(header_seconds=0.1) as listener, connected(listener.url, artefacts) as client:
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


@pytest.mark.parametrize("begin", [b"", GET], ids=["nothing", "one request"])
@on_each_loop
async def test_112_an_idle_connection_ends_without_an_answer(begin: bytes, artefacts: Artefacts) -> None:
    """An answer that nobody asked for would be taken for that to the next request."""
    async with (
        listening(idle_seconds=0.1, header_seconds=0.02) as listener,
        connected(listener.url, artefacts) as client,
    ):
        if begin:
            client.send(begin)
            assert (await client.answer()).status == 200
        assert await client.at_end()
        assert listener.observed == []


@on_each_loop
async def test_a_slow_body_is_no_slow_head(artefacts: Artefacts) -> None:
    """The head's timer and its bound are silent while a request is answered, however its body comes."""
    async with (
        listening(header_seconds=0.02, header_bytes=64) as listener,
        connected(listener.url, artefacts) as client,
    ):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n")
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, passed.set)
        sent = 0
        while sent < 4000 and not (sent == 3990 and not passed.is_set()):
            client.send(b"a" * 10)
            sent += 10
            await turns(2)
            if sent == 3990:
                await passed.wait()
        assert (await client.answer()).body == b"/|" + b"a" * 4000
        assert listener.observed == []


@on_each_loop
async def test_the_unread_rest_of_a_body_does_not_become_a_second_answer(artefacts: Artefacts) -> None:
    """105: the rest is read for a while and dropped; it is neither a head nor too large a one."""

    async def refusing(request: web.BaseRequest) -> Written:
        out = Downstream(request, Exchange("POST", "test", 0.0), keep_alive=True)
        out.problem(ProxyError())
        return out.result

    async with (
        listening(refusing, header_bytes=64, header_seconds=0.02) as listener,
        connected(listener.url, artefacts) as client,
    ):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n")
        assert (await client.answer()).code == "internal_error"
        for _ in range(90):
            client.send(b"a" * 100)
            await turns(3)
        assert await client.at_end()
        assert listener.observed == []


@on_each_loop
async def test_115_one_connection_too_many_is_answered_and_ended(artefacts: Artefacts) -> None:
    """Those that are there go on; when one goes, there is room again."""
    async with listening(most_connections=2) as listener, connected(listener.url, artefacts) as first:
        async with connected(listener.url, artefacts) as second:
            assert (await second.ask("GET")).status == 200
            async with connected(listener.url, artefacts) as third:
                third.send(GET)
                answer = await third.answer()
                assert (answer.status, answer.code) == (503, "overloaded")
                assert await third.at_end()
            assert (await first.ask("GET")).status == 200
        while len(listener.server.connections) > 1:
            await turns(1)
        async with connected(listener.url, artefacts) as fourth:
            assert (await fourth.ask("GET")).status == 200


# -- order, keep-alive, HEAD


@on_each_loop
async def test_046_pipelined_requests_are_answered_in_their_order(artefacts: Artefacts) -> None:
    """Two hundred in one segment, bodies between them: each answer is its own."""
    wire = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n%05d" % (number, number) for number in range(200)
    )
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(wire)
        for number in range(200):
            assert (await client.answer()).body == b"/%d|%05d" % (number, number)


@pytest.mark.parametrize(
    ("request_line", "option", "stays", "said"),
    [
        (b"HTTP/1.1", b"", True, []),
        (b"HTTP/1.1", b"Connection: keep-alive\r\n", True, []),
        (b"HTTP/1.1", b"Connection: close\r\n", False, ["close"]),
        (b"HTTP/1.0", b"", False, ["close"]),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", True, ["keep-alive"]),
    ],
)
@on_each_loop
async def test_a_connection_lives_on_as_the_client_asked_and_is_told_so(
    request_line: bytes, option: bytes, said: list[str], artefacts: Artefacts, *, stays: bool
) -> None:
    """RFC 9112 section 9.3: the answer says what the version's default does not."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        client.send(b"GET / %b\r\nHost: a\r\n%b\r\n" % (request_line, option))
        answer = await client.answer()
        assert (answer.body, answer.all("Connection")) == (b"/|", said)
        if stays:
            assert (await client.ask("GET", "/next")).body == b"/next|"
        else:
            assert await client.at_end()


@on_each_loop
async def test_the_answer_to_a_head_has_no_body_and_the_next_one_is_in_order(artefacts: Artefacts) -> None:
    """The length is that of the body that a GET would get."""
    async with listening() as listener, connected(listener.url, artefacts) as client:
        answer = await client.ask("HEAD", "/seven")
        assert (answer.body, answer["Content-Length"]) == (b"", "7")
        assert (await client.ask("GET", "/next")).body == b"/next|"


@on_each_loop
async def test_065_a_compressed_upload_stays_as_it_is(artefacts: Artefacts) -> None:
    """E22: 10 MB of zeros are 10 kB on the way in, and here too."""
    packed = gzip.compress(bytes(10_000_000))
    async with listening() as listener, connected(listener.url, artefacts) as client:
        answer = await client.ask("POST", "/", {"Content-Encoding": "gzip"}, packed)
        assert answer.body == b"/|" + packed


@on_each_loop
async def test_069_a_client_that_hangs_up_cancels_its_handler(artefacts: Artefacts) -> None:
    """E16: nobody works on for nobody."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_request: web.BaseRequest) -> Written:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with listening(endless) as listener, connected(listener.url, artefacts) as client:
        client.send(GET)
        await begun.wait()
        client.close()
        await cancelled.wait()


@pytest.mark.parametrize("error", [ValueError("SECRET"), TimeoutError()], ids=["defect", "timeout"])
@on_each_loop
async def test_a_handler_that_fails_behind_its_answer_adds_none(
    error: Exception, artefacts: Artefacts, caplog: pytest.LogCaptureFixture
) -> None:
    """A second answer would be that to the client's next request: the connection ends instead, and it is logged."""

    async def failing(request: web.BaseRequest) -> Written:
        await echo(request)
        raise error

    async with listening(failing) as listener, connected(listener.url, artefacts) as client:
        client.send(GET)
        assert (await client.answer()).body == b"/|"
        assert await client.at_end()
        assert listener.observed == []
    assert [record.message for record in caplog.records] == ["internal_error"]


@on_each_loop
async def test_what_aiohttp_would_log_of_a_defect_stays_out_of_the_log(
    canaries: Canaries, artefacts: Artefacts, caplog: pytest.LogCaptureFixture
) -> None:
    """E2: it quotes what it does not expect; that something failed is enough."""
    canary = canaries.mint("key")

    async def wrong(_request: web.BaseRequest) -> Any:
        return canary

    async with listening(wrong) as listener, connected(listener.url, artefacts) as client:
        client.send(GET)
        assert (await client.answer()).status == 500
    assert canary not in caplog.text
    assert [record.message for record in caplog.records] == ["connection_failed"]


# -- a body that breaks


class Broken:
    """Where the answers below come from: nowhere."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def drained(self) -> None:
        """Nothing waits."""

    def fail(self, error: ProxyError) -> None:
        """Nothing is timed here."""
        raise AssertionError from error


def breaking(framing: str, *, error: ProxyError | None) -> Handler:
    """A handler that passes on an answer of ten bytes at most, which ends with `error` after five, or properly."""

    async def handler(request: web.BaseRequest) -> Written:
        answer = Answer(Broken())
        answer.status, answer.framing, answer.has_head = 200, framing, True
        if framing == LENGTH:
            answer.length = 5 if error is None else 10
        answer.feed(b"hello")
        out = Downstream(request, Exchange("GET", "test", 0.0), keep_alive=True)
        asyncio.get_running_loop().call_soon(answer.finish, error)
        try:
            await deliver(answer, out, [], DEADLINE)
        except ProxyError as problem:
            out.problem(problem)
        return out.result

    return handler


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED, UNTIL_CLOSE])
@on_each_loop
async def test_066_a_body_that_breaks_never_looks_complete_and_a_whole_one_does(
    framing: str, version: bytes, artefacts: Artefacts
) -> None:
    """Invariant 8: no last chunk, a length that is short, or, where only the end would tell, a reset."""
    wire = b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version
    by_end = framing != LENGTH and version == b"1.0"
    async with listening(breaking(framing, error=None)) as listener, connected(listener.url, artefacts) as client:
        client.send(wire)
        answer = await client.answer()
        assert (answer.body, answer.complete) == (b"hello", True)
    broken = breaking(framing, error=UpstreamTruncated())
    async with listening(broken) as listener, connected(listener.url, artefacts) as client:
        client.send(wire)
        if by_end:
            with pytest.raises(ConnectionResetError):
                await client.answer()
        else:
            answer = await client.answer()
            assert (answer.body, answer.complete) == (b"hello", False)
            assert await client.at_end()


# -- the parser


@pytest.mark.parametrize("extensions", [True, False])
def test_048_aiohttp_without_its_c_parser_is_refused(*, extensions: bool) -> None:
    """A wheel that is missing, or a variable that somebody set: both are told before anything listens."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ |= {} if extensions else {"AIOHTTP_NO_EXTENSIONS": "1"}
    program = "from proxy.listener import require_c_parser; require_c_parser(); print('taken')"
    run = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    if extensions:
        assert (run.returncode, run.stdout) == (0, "taken\n")
        require_c_parser()
    else:
        assert run.returncode == 1
        assert "AIOHTTP_NO_EXTENSIONS" in run.stderr.splitlines()[-1]
        assert run.stdout == ""


# -- TCP sockets


def addresses(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """A name with these addresses."""
    real = socket.getaddrinfo

    def resolve(_host: str, port: int, **options: Any) -> list[Any]:
        return [info for host in hosts for info in real(host, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_port_0_takes_a_free_port_and_the_same_one_for_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """019: one name, one port; the URL tells which."""
    addresses(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1")
    bound = bind_tcp("several.example", 0)
    try:
        names = [sock.getsockname() for sock in bound]
        assert [name[0] for name in names] == ["127.0.0.1", "127.0.0.2"]
        assert names[0][1] == names[1][1] > 0
        assert url_of(bound[0]) == f"http://127.0.0.1:{names[0][1]}"
    finally:
        for sock in bound:
            sock.close()


def test_a_port_is_shared_by_all_who_say_so_and_by_nobody_else() -> None:
    """019: whoever came first, one that shares and one that does not are not mixed."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first, second = (bind_tcp("127.0.0.1", port, reuse_port=True) for _ in range(2))
    try:
        assert [sock.getsockname() for sock in (*first, *second)] == [("127.0.0.1", port)] * 2
        with pytest.raises(ListenError, match="another process listens there"):
            bind_tcp("127.0.0.1", port)
    finally:
        for sock in (*first, *second):
            sock.close()
    [alone] = bind_tcp("127.0.0.1", port)
    with closing(alone), pytest.raises(ListenError, match="needs reuse_port: true too, and the same user"):
        bind_tcp("127.0.0.1", port, reuse_port=True)


def test_019_several_addresses_are_bound_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits on the second one: the first is free again, and no other port is taken instead."""
    addresses(monkeypatch, "127.0.0.1", "127.0.0.2")
    with socket.create_server(("127.0.0.2", 0)) as squatter:
        port = squatter.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on several.example:{port}: another process"):
            bind_tcp("several.example", port)
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.parametrize(("host", "words"), [("192.0.2.1", "no such address"), ("host.invalid", "no such address")])
def test_an_address_that_is_not_ours_is_refused_in_a_sentence(host: str, words: str) -> None:
    """What it was, and why."""
    with pytest.raises(ListenError, match=f"^cannot listen on {host}:0: .*{words}"):
        bind_tcp(host, 0)


def test_an_ipv6_address_stands_in_brackets() -> None:
    """And takes IPv6 alone, so that the same port of IPv4 is not taken by the way."""
    try:
        [bound] = bind_tcp("::1", 0)
    except ListenError:
        pytest.skip("this machine has no IPv6 loopback")
    with closing(bound):
        assert url_of(bound) == f"http://[::1]:{bound.getsockname()[1]}"
        assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


# -- Unix sockets


@contextmanager
def short_path(tmp_path: Path) -> Iterator[Path]:
    """A path that a Unix socket takes: relative, since pytest's own are too long for some machines."""
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        yield Path("p.sock")
    finally:
        os.chdir(before)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_016_a_unix_socket_is_its_owners_alone_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    """Mode 0600 by umask at bind, so that there is no instant before a chmod; the umask is put back."""
    before = os.umask(umask)
    try:
        with short_path(tmp_path) as path, closing(bind_unix(path)) as bound:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert url_of(bound) == "unix:p.sock"
            assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_017_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """Its process is gone; nobody answers there."""
    with short_path(tmp_path) as path:
        bind_unix(path).close()
        stale = path.lstat().st_ino, path.lstat().st_ctime_ns
        with closing(bind_unix(path)), socket.socket(socket.AF_UNIX) as client:
            assert (path.lstat().st_ino, path.lstat().st_ctime_ns) != stale
            client.connect(str(path))


@pytest.mark.parametrize("what", ["live socket", "regular file", "symlink to a stale socket", "folder"])
def test_017_what_is_no_stale_socket_is_left_alone(what: str, tmp_path: Path) -> None:
    """A sentence says what is there; the file is untouched."""
    with short_path(tmp_path) as path:
        live = None
        if what == "live socket":
            live = bind_unix(path)
        elif what == "regular file":
            path.write_text("mine")
        elif what == "folder":
            path.mkdir()
        else:
            bind_unix(Path("other.sock")).close()
            path.symlink_to("other.sock")
        before = path.lstat()
        words = "another process listens there" if live else "is no socket"
        with pytest.raises(ListenError, match=f"^cannot listen on unix:p.sock: .*{words}"):
            bind_unix(path)
        assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
        if live:
            with live, socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))


@pytest.mark.parametrize(
    ("path", "words"),
    [("missing/p.sock", "No such file"), ("f/p.sock", "Not a directory"), ("a" * 200, "the path is too long")],
)
def test_a_path_that_takes_no_socket_is_refused_in_a_sentence(path: str, words: str, tmp_path: Path) -> None:
    """What it was, and why; the umask is put back then, too."""
    umask = os.umask(0o022)
    try:
        with short_path(tmp_path):
            Path("f").write_text("")
            with pytest.raises(ListenError, match=f"^cannot listen on unix:{path}: {words}.*\\.$"):
                bind_unix(Path(path))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


def test_the_file_of_a_unix_socket_can_be_removed_more_than_once(tmp_path: Path) -> None:
    """A second call changes nothing, and neither does one for a TCP socket."""
    with short_path(tmp_path) as path, closing(bind_unix(path)) as bound:
        for _ in range(2):
            remove_file(bound)
            assert not path.exists()
    [tcp] = bind_tcp("127.0.0.1", 0)
    with closing(tcp):
        remove_file(tcp)


@on_each_loop
async def test_a_unix_listener_answers_and_its_clients_have_no_address(
    tmp_path: Path, artefacts: Artefacts
) -> None:
    """What it answers by itself is logged as from `unix`."""
    observed: list[Exchange] = []
    with short_path(tmp_path) as path:
        server = Server(
            echo,
            observe=observed.append,
            header_bytes=LIMIT,
            header_seconds=DEADLINE,
            idle_seconds=DEADLINE,
            most_connections=10,
        )
        bound = bind_unix(path)
        running = await asyncio.get_running_loop().create_unix_server(server, sock=bound)
        async with connected("unix:p.sock", artefacts) as client:
            assert (await client.ask("GET")).body == b"/|"
            client.send(MALFORMED["no colon"])
            assert (await client.answer()).code == "bad_request"
        running.close()
        await server.shutdown(0)
        await running.wait_closed()
    assert [exchange.client for exchange in observed] == ["unix"]


def test_a_name_whose_ipv6_address_this_machine_lacks_is_listened_on_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`localhost` is ::1 in /etc/hosts of many containers without IPv6."""
    addresses = [(socket.AF_INET6, ("2001:db8::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    infos = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
    [bound] = bind_tcp("localhost", 0)
    assert bound.getsockname()[0] == "127.0.0.1"
    bound.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos[:1])
    with pytest.raises(ListenError, match="no such address"):
        bind_tcp("localhost", 0)


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
