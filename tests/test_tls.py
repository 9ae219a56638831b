"""TLS to the upstream: verified against the right authority and name, never old, and deaf to `SSLKEYLOGFILE`."""

import asyncio
import datetime as dt
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trustme

from proxy.errors import UpstreamCertificate, UpstreamError, UpstreamTLS, UpstreamTruncated
from proxy.routes import Origin
from proxy.tls import client_context
from proxy.upstream.attempt import send
from proxy.upstream.dial import Dialer
from proxy.upstream.pool import Pool
from tests.support.blocking import serving_blocking
from tests.support.upstreams import CLOSE, DEADLINE, REQUEST, RESET, Action, Script, Upstream, on_each_loop

HEAD: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SERVE: Final[Script] = [REQUEST, OK, REQUEST, OK]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of a company's own."""
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate, as a PEM file."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def serving(authority: trustme.CA, name: str = "127.0.0.1", *, expired: bool = False) -> ssl.SSLContext:
    """A server's context with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    end = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) if expired else None
    authority.issue_cert(name, not_after=end).configure_cert(context)
    return context


@asynccontextmanager
async def blocking(context: ssl.SSLContext) -> AsyncIterator[Origin]:
    """A server in a thread: asyncio's ends a failed handshake without the alert that says why."""

    def serve(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as sock:
            sock.recv(1000)
            sock.sendall(OK)
            sock.recv(1)

    async with serving_blocking(serve) as port:
        yield Origin("https", "127.0.0.1", port)


async def exchange(origin: Origin, context: ssl.SSLContext, count: int = 1) -> None:
    """Get the answer `ok` that often, on one connection."""
    pool = Pool(Dialer(origin, tls=context), size=1, connect=DEADLINE)
    try:
        for _ in range(count):
            attempt = await send(pool, "GET", HEAD, None, first_byte=DEADLINE)
            assert await attempt.answer.read(DEADLINE) == b"ok"
            attempt.end()
    finally:
        pool.close()


@on_each_loop
async def test_a_certificate_of_the_configured_authority_is_trusted(authority: trustme.CA, bundle: Path) -> None:
    """059: and its connection serves again, with the only protocol that is spoken here."""
    async with Upstream(SERVE, tls=serving(authority)) as upstream:
        await exchange(upstream.origin, client_context(bundle), 2)
        assert (len(upstream.peers), upstream.requests) == (1, 2)
        assert upstream.peers[0].alpn == "http/1.1"


@pytest.mark.threat(59)
@pytest.mark.parametrize("case", ["unknown authority", "another host", "expired"])
@on_each_loop
async def test_a_certificate_that_proves_nothing_is_refused(case: str, authority: trustme.CA, bundle: Path) -> None:
    """059: no byte of a request, and so no token, goes to such an upstream."""
    issuer = trustme.CA() if case == "unknown authority" else authority
    name = "other.example" if case == "another host" else "127.0.0.1"
    async with Upstream(SERVE, tls=serving(issuer, name, expired=case == "expired")) as upstream:
        with pytest.raises(UpstreamCertificate) as refused:
            await exchange(upstream.origin, client_context(bundle))
        assert (refused.value.code, refused.value.proxy_error) == ("upstream_tls", "tls_certificate_error")
        assert upstream.requests == 0


@on_each_loop
async def test_an_upstream_is_told_why_its_certificate_is_refused(bundle: Path) -> None:
    """RFC 8446 section 6.2: an alert says more to those who run it than a connection that ends."""
    context = serving(trustme.CA())
    reasons: list[str] = []

    def serve(sock: socket.socket) -> None:
        with pytest.raises(ssl.SSLError) as refused:
            context.wrap_socket(sock, server_side=True)
        reasons.append(refused.value.reason)

    async with serving_blocking(serve) as port:
        with pytest.raises(UpstreamCertificate):
            await exchange(Origin("https", "127.0.0.1", port), client_context(bundle))
    assert reasons == ["TLSV1_ALERT_UNKNOWN_CA"]


@pytest.mark.threat(59)
@on_each_loop
async def test_verification_is_off_only_where_the_config_says_so(authority: trustme.CA) -> None:
    """059: `insecure` takes any certificate; it is the only way to get there."""
    async with Upstream(SERVE, tls=serving(authority, "other.example")) as upstream:
        await exchange(upstream.origin, client_context(insecure=True))


@pytest.mark.threat(60)
@on_each_loop
async def test_the_machines_certificates_do_not_add_to_a_configured_bundle(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """060: `SSL_CERT_FILE` counts where no bundle is configured, and only there."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    environ = tmp_path / "environ.pem"
    authority.cert_pem.write_to_path(str(environ))
    monkeypatch.setenv("SSL_CERT_FILE", str(environ))
    async with Upstream(SERVE, tls=serving(authority)) as upstream:
        await exchange(upstream.origin, client_context())
        with pytest.raises(UpstreamCertificate):
            await exchange(upstream.origin, client_context(other))


@pytest.mark.threat(59)
@on_each_loop
async def test_the_keys_of_a_session_are_not_written_anywhere(
    authority: trustme.CA, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """059, E23: `SSLKEYLOGFILE` makes Python's default context write them, and ours does not."""
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    async with Upstream(SERVE, tls=serving(authority)) as upstream:
        await exchange(upstream.origin, client_context(bundle))
        assert not keys.exists()
        await exchange(upstream.origin, ssl.create_default_context(cafile=bundle))
        assert keys.read_text()


@pytest.mark.threat(59)
@on_each_loop
async def test_tls_1_1_is_refused(authority: trustme.CA, bundle: Path) -> None:
    """059: the same server is taken by a context that allows what is old."""
    old = serving(authority)
    lenient = client_context(bundle)
    for context in (old, lenient):
        context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = lenient.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with blocking(old) as origin:
        await exchange(origin, lenient)
        with pytest.raises(UpstreamTLS) as refused:
            await exchange(origin, client_context(bundle))
        assert refused.value.proxy_error == "tls_protocol_error"


@on_each_loop
async def test_an_upstream_that_speaks_no_tls_is_a_tls_error(bundle: Path) -> None:
    """The usual slip: https written for a plain port."""
    async with Upstream([b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as upstream:
        origin = Origin("https", "127.0.0.1", upstream.port)
        with pytest.raises(UpstreamTLS):
            await exchange(origin, client_context(bundle))
        assert upstream.requests == 0


@on_each_loop
async def test_a_handshake_that_nobody_answers_ends_in_time(bundle: Path) -> None:
    """067: `connect` bounds TCP and TLS together."""
    async with Upstream([]) as upstream:
        pool = Pool(Dialer(Origin("https", "127.0.0.1", upstream.port), tls=client_context(bundle)), connect=0.1)
        with pytest.raises(UpstreamError) as late:
            await pool.acquire()
        assert late.value.code == "upstream_timeout"
        await (await upstream.peer()).ended.wait()
        assert pool.open == 0


@pytest.mark.threat(66)
@pytest.mark.parametrize("end", [CLOSE, RESET], ids=lambda end: end.name)
@on_each_loop
async def test_a_declared_length_is_kept_over_tls_too(end: Action, authority: trustme.CA, bundle: Path) -> None:
    """066: the end of the session is not the end of a body."""
    go = asyncio.Event()
    async with Upstream([REQUEST, OK[:-1], go, end], tls=serving(authority)) as upstream:
        pool = Pool(Dialer(upstream.origin, tls=client_context(bundle)), connect=DEADLINE)
        attempt = await send(pool, "GET", HEAD, None, first_byte=DEADLINE)
        assert await attempt.answer.read(DEADLINE) == b"o"
        go.set()
        with pytest.raises(UpstreamTruncated):
            await attempt.answer.read(DEADLINE)
        attempt.end()
        assert pool.open == 0


@pytest.mark.threat(60)
@pytest.mark.parametrize("content", [None, b"", b"no certificate"], ids=["missing", "empty", "no PEM"])
def test_a_bundle_that_cannot_be_read_is_an_error_at_once(content: bytes | None, tmp_path: Path) -> None:
    """060: never a silent fall-back to what the machine trusts."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ssl.SSLError, FileNotFoundError)):
        client_context(path)
