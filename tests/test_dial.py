"""The way to an upstream: addresses, Unix sockets, outbound proxies, certificates, and what a failure is called."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import trustme

from proxy.errors import (
    UpstreamConnectTimeout,
    UpstreamError,
    UpstreamRefused,
    UpstreamTLS,
    UpstreamUnreachable,
    UpstreamVia,
)
from proxy.redact import Secret
from proxy.routes import Origin
from proxy.tls import client_context
from proxy.upstream.dial import Dialer
from proxy.upstream.eyeballs import Address, first_connected, interleaved, resolve
from proxy.upstream.pool import Pool
from proxy.upstream.tunnel import HEAD_BYTES, OutboundProxy
from tests.support.blocking import serving_blocking
from tests.support.connectproxy import ConnectProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.recorder import Recorder
from tests.support.upstreams import CLOSE, DEADLINE, REQUEST, RESET, Step, Upstream, on_each_loop, turns

HELLO: Final = b"hello"
V4: Final = socket.AF_INET
V6: Final = socket.AF_INET6


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of the tests' own."""
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate, as a PEM file."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's context with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names or ("127.0.0.1",)).configure_cert(context)
    return context


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def greeted(dialer: Dialer, greeting: bytes = HELLO) -> Recorder:
    """Connect, hear the greeting, end."""
    recorder = Recorder()
    await dialer.connect(recorder)
    assert await recorder.got(len(greeting)) == greeting
    recorder.transport.abort()
    await recorder.lost
    return recorder


async def failure(dialer: Dialer) -> UpstreamError:
    """Why it does not connect; the protocol hears nothing of it."""
    recorder = Recorder()
    with pytest.raises(UpstreamError) as failed:
        await dialer.connect(recorder)
    assert recorder.told == []
    return failed.value


# -- addresses


def test_families_take_turns_and_the_resolvers_first_one_begins() -> None:
    """RFC 8305 section 4; the order inside a family stays, and nothing is tried twice."""
    a, b, c = (V6, "a"), (V6, "b"), (V6, "c")
    x, y = (V4, "x"), (V4, "y")
    assert interleaved([a, b, c, x, y]) == [a, x, b, y, c]
    assert interleaved([x, y, a]) == [x, a, y]
    assert interleaved([x, x, y, x]) == [x, y]
    assert interleaved([a]) == [a]


@pytest.mark.parametrize(
    ("host", "found"), [("127.0.0.1", [(V4, ("127.0.0.1", 80))]), ("::1", [(V6, ("::1", 80))])]
)
@on_each_loop
async def test_an_address_needs_no_resolver(host: str, found: list[Address]) -> None:
    """It is taken as it is."""
    assert await resolve(host, 80) == found


@on_each_loop
async def test_a_name_is_resolved() -> None:
    """`localhost` is the one that every machine has."""
    found = await resolve("localhost", 80)
    assert {address[0] for _, address in found} <= {"127.0.0.1", "::1"}
    assert all(address[1] == 80 for _, address in found)


@contextmanager
def silent() -> Iterator[Address]:
    """A listening socket whose queue is full: a further connect is not answered at all."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)  # noqa: FBT003  the socket module's own signature
            second.connect_ex(address)
            yield V4, address


@on_each_loop
async def test_an_address_that_does_not_answer_holds_up_nothing() -> None:
    """The next one is tried beside it, and the first that answers serves."""
    async with Upstream([HELLO]) as upstream:
        with silent() as dead:
            sock = await first_connected([dead, dead, (V4, ("127.0.0.1", upstream.port))], delay=0.01)
            with sock:
                assert sock.getpeername()[1] == upstream.port
                assert sock.getblocking() is False


@on_each_loop
async def test_after_a_failure_the_next_address_is_tried_at_once() -> None:
    """The delay is for those that say nothing."""
    async with Upstream([HELLO]) as upstream:
        refused = (V4, ("127.0.0.1", free_port()))
        sock = await first_connected([refused, refused, (V4, ("127.0.0.1", upstream.port))], delay=10 * DEADLINE)
        sock.close()


@on_each_loop
async def test_who_comes_second_is_closed() -> None:
    """Both attempts may succeed; one connection is used, the other is not left to the upstream."""
    async with Upstream([HELLO]) as one, Upstream([HELLO]) as other:
        addresses = [(V4, ("127.0.0.1", each.port)) for each in (one, other)]
        sock = await first_connected(addresses, delay=0.0)
        winner, loser = (one, other) if sock.getpeername()[1] == one.port else (other, one)
        await turns()
        for peer in loser.peers:
            await peer.ended.wait()
        assert not (await winner.peer()).ended.is_set()
        sock.close()


@pytest.mark.parametrize("order", [1, -1])
@on_each_loop
async def test_one_reason_is_told_where_all_addresses_fail(order: int) -> None:
    """That of the address which got furthest: no route may only mean that there is no IPv6."""
    refused, unreachable = (V4, ("127.0.0.1", free_port())), (V4, ("255.255.255.255", 1))
    with pytest.raises(ConnectionRefusedError):
        await first_connected([refused, unreachable][::order])
    [error] = await asyncio.gather(first_connected([unreachable, unreachable]), return_exceptions=True)
    assert isinstance(error, OSError)
    assert not isinstance(error, ConnectionRefusedError | TimeoutError)


@pytest.mark.threat(119)
@on_each_loop
async def test_who_gives_up_leaves_no_attempt_behind() -> None:
    """119: neither a task nor a socket, at whichever turn of the loop; one may just have connected."""
    async with Upstream([HELLO]) as upstream:
        with silent() as dead:
            for count in range(15):
                race = asyncio.create_task(first_connected([dead, (V4, ("127.0.0.1", upstream.port))], delay=0.0))
                await turns(count)
                race.cancel()
                with suppress(asyncio.CancelledError):
                    (await race).close()
        await turns()
        for peer in upstream.peers:
            await peer.ended.wait()


@on_each_loop
async def test_ipv6_serves() -> None:
    """Written in brackets in a URL, and without them in an origin."""
    try:
        with socket.create_server(("::1", 0), family=V6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "::1", 0) as server:
        await greeted(Dialer(Origin("http", "::1", server.sockets[0].getsockname()[1])))


@pytest.mark.threat(58)
@on_each_loop
async def test_the_environments_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `via` leads through one."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for spelling in (name, name.lower()):
            monkeypatch.setenv(spelling, f"http://127.0.0.1:{free_port()}")
    async with Upstream([HELLO]) as upstream:
        await greeted(Dialer(upstream.origin))


# -- Unix sockets


@on_each_loop
async def test_an_upstream_on_a_unix_socket_is_reached(tmp_path: Path) -> None:
    """By its path; the origin's host and port are only what it calls itself."""
    path = tmp_path / "api.sock"
    async with Upstream([HELLO], unix=path):
        await greeted(Dialer(Origin("http", "localhost", 80, str(path))))


@on_each_loop
async def test_a_unix_socket_with_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """A burst of requests is no reason to fail: `connect` bounds the time."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(path))
        listening.listen(0)
        first.connect(str(path))
        recorder = Recorder()
        connecting = asyncio.create_task(Dialer(Origin("http", "localhost", 80, str(path))).connect(recorder))
        await turns()
        assert not connecting.done()
        listening.accept()[0].close()
        await connecting
        recorder.transport.abort()
        await recorder.lost


@pytest.mark.parametrize(
    ("state", "error", "word"),
    [
        ("missing", UpstreamUnreachable, "There is no Unix socket"),
        ("stale", UpstreamRefused, "refused"),
        ("forbidden", UpstreamUnreachable, "may not connect"),
    ],
)
@on_each_loop
async def test_a_unix_socket_that_cannot_be_used_says_why(
    state: str, error: type[UpstreamError], word: str, tmp_path: Path
) -> None:
    """Not there; there and nobody listens; there and not for us."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        if state != "missing":
            listening.bind(str(path))
        if state == "forbidden":
            listening.listen()
            path.chmod(0)
            if os.access(path, os.W_OK):
                pytest.skip("this machine runs the tests as root, who may do everything")
        failed = await failure(Dialer(Origin("http", "localhost", 80, str(path))))
    assert type(failed) is error
    assert word in failed.detail


# -- TLS, both ways


def asking(authority: trustme.CA, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The context of a server that wants a certificate of its clients."""
    context = serving(authority)
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    return context


@pytest.fixture
def client_files(authority: trustme.CA, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A client certificate, its key, and both in one file."""
    issued = authority.issue_cert("client@example.com")
    cert, key, both = (tmp_path / name for name in ("client.pem", "client.key", "both.pem"))
    cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    return cert, key, both


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@on_each_loop
async def test_a_client_certificate_is_shown_to_an_upstream_that_asks(
    version: ssl.TLSVersion, authority: trustme.CA, bundle: Path, client_files: tuple[Path, Path, Path]
) -> None:
    """mTLS, with the key in a file of its own and beside the certificate."""
    cert, key, both = client_files
    async with Upstream([HELLO], tls=asking(authority, version)) as upstream:
        await greeted(Dialer(upstream.origin, tls=client_context(bundle, cert=cert, key=key)))
        await greeted(Dialer(upstream.origin, tls=client_context(bundle, cert=both)))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@on_each_loop
async def test_without_a_client_certificate_such_an_upstream_is_a_tls_error(
    version: ssl.TLSVersion, authority: trustme.CA, bundle: Path
) -> None:
    """In TLS 1.3 our handshake is over when the upstream says no: then the connection ends with its alert."""
    asks = asking(authority, version)

    def serve(sock: socket.socket) -> None:
        with suppress(ssl.SSLError), asks.wrap_socket(sock, server_side=True):
            pytest.fail("taken without a certificate")

    async with serving_blocking(serve) as port:
        dialer = Dialer(Origin("https", "127.0.0.1", port), tls=client_context(bundle))
        if version == ssl.TLSVersion.TLSv1_2:
            assert type(await failure(dialer)) is UpstreamTLS
        else:
            recorder = Recorder()
            await dialer.connect(recorder)
            recorder.transport.write(b"GET / HTTP/1.1\r\n\r\n")
            error = await recorder.lost
            assert isinstance(error, ssl.SSLError)
            assert error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


@on_each_loop
async def test_a_client_certificate_may_be_asked_for_later(
    authority: trustme.CA, bundle: Path, client_files: tuple[Path, Path, Path]
) -> None:
    """RFC 8446 section 4.6.2: for some paths only, say, when the request has come."""
    context = serving(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.post_handshake_auth = True
    authority.configure_trust(context)
    shown: list[object] = []

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(100)
            shown.append(tls.getpeercert())
            tls.verify_client_post_handshake()
            tls.sendall(HELLO)
            tls.recv(100)
            shown.append(tls.getpeercert())
            tls.sendall(HELLO)
            tls.recv(100)

    async with serving_blocking(serve) as port:
        recorder = Recorder()
        tls = client_context(bundle, cert=client_files[2])
        await Dialer(Origin("https", "127.0.0.1", port), tls=tls).connect(recorder)
        recorder.transport.write(b"GET /secret")
        await recorder.got(len(HELLO))
        recorder.transport.write(b"more")
        await recorder.got(2 * len(HELLO))
        recorder.transport.abort()
        await recorder.lost
    assert not shown[0]
    assert shown[1]


@pytest.mark.threat(71)
@pytest.mark.parametrize(
    ("host", "server_name", "sent"),
    [
        ("upstream.invalid", None, "upstream.invalid"),
        ("upstream.invalid.", None, "upstream.invalid"),
        ("127.0.0.1", None, None),
        ("127.0.0.1", "api.example.com", "api.example.com"),
        ("upstream.invalid", "api.example.com", "api.example.com"),
    ],
)
@on_each_loop
async def test_the_name_that_is_asked_for_is_the_one_that_is_verified(
    host: str, server_name: str | None, sent: str | None, authority: trustme.CA, bundle: Path
) -> None:
    """SNI is the upstream's host, if that is a name, or `server_name`; a certificate for the other is none."""
    context = serving(authority, sent or "127.0.0.1")
    asked: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    async with Upstream([HELLO], tls=context) as upstream, ConnectProxy(elsewhere={host: "127.0.0.1"}) as proxy:

        def named(server_name: str | None) -> Dialer:
            origin, via = Origin("https", host, upstream.port), OutboundProxy("127.0.0.1", proxy.port)
            return Dialer(origin, tls=client_context(bundle), server_name=server_name, via=via)

        await greeted(named(server_name))
        assert asked == [sent]
        assert (await failure(named("other.example.com"))).proxy_error == "tls_certificate_error"


@on_each_loop
async def test_who_gives_up_during_the_handshake_leaves_nothing_open(bundle: Path) -> None:
    """067, 119: the upstream sees the end of a connection that it never answered."""
    async with Upstream([]) as upstream:
        dialer = Dialer(Origin("https", "127.0.0.1", upstream.port), tls=client_context(bundle))
        connecting = asyncio.create_task(dialer.connect(Recorder()))
        await (await upstream.peer()).got(1)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await upstream.peers[0].ended.wait()


@pytest.mark.parametrize("rounds", [20])
@on_each_loop
async def test_who_gives_up_at_any_moment_leaves_nothing_open(
    rounds: int, authority: trustme.CA, bundle: Path
) -> None:
    """119: each turn of the loop is a moment at which a client may hang up."""
    async with Upstream([HELLO], tls=serving(authority)) as upstream:
        dialer = Dialer(upstream.origin, tls=client_context(bundle))
        for count in range(rounds):
            recorder = Recorder()
            connecting = asyncio.create_task(dialer.connect(recorder))
            await turns(count)
            connecting.cancel()
            with suppress(asyncio.CancelledError):
                await connecting
                recorder.transport.abort()
            if recorder.told:
                assert await recorder.lost is None
        await turns()
        for peer in upstream.peers:
            await peer.ended.wait()


# -- outbound proxies


@asynccontextmanager
async def answering(*steps: Step) -> AsyncIterator[tuple[Dialer, Upstream]]:
    """A dialer through something that answers a CONNECT in this way."""
    async with Upstream([REQUEST, *steps]) as proxy:
        yield Dialer(Origin("http", "upstream.invalid", 80), via=OutboundProxy("127.0.0.1", proxy.port)), proxy


@pytest.mark.parametrize("scheme", ["http", "https"])
@on_each_loop
async def test_everything_goes_through_a_tunnel(scheme: str, authority: trustme.CA, bundle: Path) -> None:
    """Plain HTTP too: the outbound proxy sees a name, which it is the one to resolve, and nothing it would log."""
    tls = serving(authority, "upstream.invalid") if scheme == "https" else None
    async with (
        Upstream([REQUEST, HELLO], tls=tls) as upstream,
        ConnectProxy(elsewhere={"upstream.invalid": "127.0.0.1"}) as proxy,
    ):
        dialer = Dialer(
            Origin(scheme, "upstream.invalid", upstream.port),
            tls=client_context(bundle) if scheme == "https" else None,
            via=OutboundProxy("localhost", proxy.port),
        )
        recorder = Recorder()
        await dialer.connect(recorder)
        request = b"GET / HTTP/1.1\r\nAuthorization: Bearer x\r\n\r\n"
        recorder.transport.write(request)
        assert await recorder.got(len(HELLO)) == HELLO
        authority_form = b"upstream.invalid:%d" % upstream.port
        assert proxy.heads == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority_form, authority_form)]
        assert bytes(upstream.peers[0].received) == request
        assert (request in proxy.passed) is (scheme == "http")
        recorder.transport.abort()
        await recorder.lost


@on_each_loop
async def test_an_ipv6_upstream_is_asked_for_in_brackets() -> None:
    """RFC 9112 section 3.2.3; the port is there although it is the usual one."""
    async with Upstream([REQUEST, b"HTTP/1.1 200 OK\r\n\r\n", HELLO]) as proxy:
        await greeted(Dialer(Origin("http", "2001:db8::1", 80), via=OutboundProxy("127.0.0.1", proxy.port)))
        assert bytes(proxy.peers[0].received).startswith(b"CONNECT [2001:db8::1]:80 HTTP/1.1\r\n")


@on_each_loop
async def test_basic_authentication_at_the_outbound_proxy(canaries: Canaries, artefacts: Artefacts) -> None:
    """RFC 7617, in UTF-8; without a user, and with a wrong one, it says what to mend and not who we are."""
    password = canaries.mint("password")
    async with Upstream([HELLO]) as upstream, ConnectProxy(user=f"t\u00f6ol:{password}") as proxy:

        def through(username: str | None, password: str | None) -> Dialer:
            secret = None if password is None else Secret(password)
            return Dialer(upstream.origin, via=OutboundProxy("127.0.0.1", proxy.port, username, secret))

        await greeted(through("t\u00f6ol", password))
        for wrong in (through(None, None), through("t\u00f6ol", "wrong")):
            failed = await failure(wrong)
            assert type(failed) is UpstreamVia
            assert "does not take this user" in failed.detail
            artefacts.add("the error", f"{failed!r} {failed.__cause__!r} {failed.__context__!r}")
            artefacts.add("the proxy that it is about", repr(OutboundProxy("h", 1, "u", Secret(password))))
        assert b"Proxy-Authorization" not in proxy.heads[1]
        assert len(upstream.peers) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 299 \xe4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nX-Empty:\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (HEAD_BYTES - 24) + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
@on_each_loop
async def test_any_2xx_opens_a_tunnel_that_begins_behind_its_head(head: bytes, *, whole: bool) -> None:
    """RFC 9110 section 9.3.6: lengths mean nothing there, and not one byte of the tunnel is lost."""
    steps = [head + HELLO] if whole or len(head) > 1000 else [bytes([each]) for each in head + HELLO]
    async with answering(*steps) as (dialer, _):
        await greeted(dialer)


OTHER: Final = "opens no way to the upstream"
STRANGE: Final = "did not answer as an HTTP proxy does"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", OTHER),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", OTHER),
        (b"HTTP/1.1 302 Found\r\nLocation: http://evil.example\r\n\r\n", OTHER),
        (b"HTTP/1.1 407 Who\r\n\r\n", "does not take this user"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", STRANGE),
        (b"HTTP/1.1 600 X\r\n\r\n", STRANGE),
        (b"HTTP/1.1 2000 X\r\n\r\n", STRANGE),
        (b"HTTP/2.0 200 OK\r\n\r\n", STRANGE),
        (b"HTTP/1.1  200 OK\r\n\r\n", STRANGE),
        (b"HTTP/1.1 200 OK\n\n", STRANGE),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", STRANGE),
        (b"HTTP/1.1 200 OK\r\n folded\r\n\r\n", STRANGE),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", STRANGE),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", STRANGE),
        (b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n", STRANGE),
        (b"SSH-2.0-server\r\n", STRANGE),
        (b"\x15\x03\x01\x00\x02\x02\n", STRANGE),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_BYTES + b"\r\n\r\n", STRANGE),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, STRANGE),
    ],
)
@on_each_loop
async def test_any_other_answer_opens_none_and_is_not_passed_on(answer: bytes, word: str) -> None:
    """064: at once, also where a head never ends; the error says what to mend, in words of our own."""
    async with answering(answer) as (dialer, proxy):
        failed = await failure(dialer)
        assert type(failed) is UpstreamVia
        assert (failed.status, failed.code) == (502, "upstream_unreachable")
        assert word in failed.detail
        await proxy.peers[0].ended.wait()


@on_each_loop
async def test_an_outbound_proxy_that_hangs_up_is_told_apart_from_the_upstream() -> None:
    """In the midst of its answer, or before it."""
    for steps in ([CLOSE], [b"HTTP/1.1 200 OK\r\n", CLOSE], [RESET]):
        async with answering(*steps) as (dialer, _):
            assert STRANGE in (await failure(dialer)).detail


@pytest.mark.parametrize("host", ["127.0.0.1", "proxy.invalid", "a" * 64 + ".example"])
@on_each_loop
async def test_an_outbound_proxy_that_cannot_be_reached_is_told_apart_from_the_upstream(host: str) -> None:
    """Nobody would look for `via` behind "the upstream refused the connection"."""
    failed = await failure(Dialer(Origin("http", "127.0.0.1", 1), via=OutboundProxy(host, free_port())))
    assert type(failed) is UpstreamVia
    assert "cannot be reached" in failed.detail


@on_each_loop
async def test_an_outbound_proxy_that_says_nothing_is_given_up_in_time() -> None:
    """067: `connect` bounds the tunnel too, and nothing stays open."""
    async with answering() as (dialer, proxy):
        pool = Pool(dialer, connect=0.05)
        with pytest.raises(UpstreamConnectTimeout):
            await pool.acquire()
        await (await proxy.peer()).ended.wait()
        assert pool.open == 0


@on_each_loop
async def test_a_certificate_is_verified_behind_a_tunnel_too(bundle: Path) -> None:
    """Who opens the connections up on the way is noticed, and gets no token."""
    async with Upstream([REQUEST], tls=serving(trustme.CA())) as upstream, ConnectProxy() as proxy:
        via = OutboundProxy("127.0.0.1", proxy.port)
        failed = await failure(Dialer(upstream.origin, tls=client_context(bundle), via=via))
        assert failed.proxy_error == "tls_certificate_error"
        assert upstream.requests == 0
