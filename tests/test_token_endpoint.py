"""The client for token endpoints against real sockets: what it sends, how often, and what it says of failures."""

import asyncio
import re
import socket
import ssl
import threading
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme
import uvloop

from proxy.credentials import token_endpoint
from proxy.credentials.token_endpoint import TokenEndpoint
from proxy.errors import CredentialUnavailable
from proxy.grants.login import ResponseRules
from proxy.grants.reply import BODY_LIMIT, Fault, InvalidReply, read
from proxy.grants.request import TokenReply, TokenRequest
from proxy.tls import client_context

CANARY = "kanarie-51c0"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """A token endpoint that answers every request with the same bytes, then closes; it keeps what it got."""

    def __init__(self, answer: bytes, *, silent: bool, eager: bool) -> None:
        self.answer = answer
        self.silent = silent
        self.eager = eager
        self.requests: list[bytes] = []
        self.port = 0
        self.hung_up = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: `eager` answers before anything was asked, `silent` not before the client leaves."""
        if self.eager:
            writer.write(self.answer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
            if self.silent:
                await reader.read()
            writer.write(self.answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left, as some of the tests want
        finally:
            writer.close()
            self.hung_up.set()


Listen = Callable[..., Awaitable[Server]]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Starts servers on free ports of loopback."""
    async with AsyncExitStack() as stack:

        async def start(
            answer: bytes = OK,
            *,
            silent: bool = False,
            eager: bool = False,
            tls: ssl.SSLContext | None = None,
        ) -> Server:
            server = Server(answer, silent=silent, eager=eager)
            listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
            await stack.enter_async_context(listener)
            server.port = listener.sockets[0].getsockname()[1]
            return server

        yield start


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    """A client with the defaults."""
    client = TokenEndpoint()
    yield client
    await client.close()


def request(url: str, method: str = "POST", body: bytes | None = b"p=1") -> TokenRequest:
    """A request as `build` makes it."""
    length = () if body is None else (("Content-Length", str(len(body))),)
    return TokenRequest(method, url, (("Accept", "application/json"), ("X-Private", CANARY), *length), body)


async def failure(client: TokenEndpoint, wanted: TokenRequest) -> str:
    """The sentence with which sending fails; its traceback shows nothing of the HTTP client's own error."""
    with pytest.raises(CredentialUnavailable) as caught:
        await client.send(wanted)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return caught.value.detail


async def test_a_request_goes_out_exactly_as_it_was_built(listen: Listen, endpoint: TokenEndpoint) -> None:
    """Target byte for byte, only the given headers besides Host and Connection, and the length announced."""
    server = await listen()
    target = f"/a%2Fb/..;x/%7e?q=a%20b&q=%C3%A5&t={CANARY}"
    await endpoint.send(request(f"http://127.0.0.1:{server.port}{target}"))
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    assert line == f"POST {target} HTTP/1.1"
    assert sorted(fields) == [
        "Accept: application/json",
        "Connection: close",
        "Content-Length: 3",
        f"Host: 127.0.0.1:{server.port}",
        f"X-Private: {CANARY}",
    ]
    assert body == b"p=1"


async def test_an_answer_comes_back_whole_with_status_headers_and_body(
    listen: Listen, endpoint: TokenEndpoint
) -> None:
    """Also one that is an error, one in chunks, and a token in a large header."""
    token = "t" * 16_000
    server = await listen(
        b"HTTP/1.1 401 No\r\nX-Token: " + token.encode() + b"\r\nX-A: 1\r\nx-a: \xe9\r\n"
        b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n'
    )
    reply = await endpoint.send(request(f"http://127.0.0.1:{server.port}/"))
    assert reply == TokenReply(
        401,
        (("X-Token", token), ("X-A", "1"), ("x-a", "é"), ("Transfer-Encoding", "chunked")),
        b'{"a":1}',
    )


@pytest.mark.threat(54)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_handed_back_and_not_followed(
    listen: Listen, endpoint: TokenEndpoint, status: int
) -> None:
    """The second server sees nothing of the password (threat 54)."""
    other = await listen()
    location = f"http://127.0.0.1:{other.port}/".encode()
    server = await listen(b"HTTP/1.1 %d Go\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location))
    reply = await endpoint.send(request(f"http://127.0.0.1:{server.port}/"))
    assert reply.status == status
    assert other.requests == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_a_lost_connection_is_not_answered_by_sending_again(
    listen: Listen, endpoint: TokenEndpoint, method: str
) -> None:
    """The HTTP client would do so for idempotent methods; a refresh token must not be redeemed twice."""
    server = await listen(b"")
    sentence = await failure(endpoint, request(f"http://127.0.0.1:{server.port}/?{CANARY}", method, None))
    assert sentence == "The connection to the token endpoint was lost before its whole answer came."
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
)
async def test_a_body_that_breaks_off_is_no_answer(listen: Listen, endpoint: TokenEndpoint, answer: bytes) -> None:
    """Half of a token is none."""
    server = await listen(answer)
    assert "lost before its whole answer" in await failure(endpoint, request(f"http://127.0.0.1:{server.port}/"))


@pytest.mark.parametrize("answer", [f"{CANARY}\r\n\r\n".encode(), b"HTTP/1.1 200 OK\r\nBad\x00Name: x\r\n\r\n"])
async def test_what_is_not_http_is_said_to_be_so(listen: Listen, endpoint: TokenEndpoint, answer: bytes) -> None:
    """Without quoting it."""
    server = await listen(answer)
    sentence = await failure(endpoint, request(f"http://127.0.0.1:{server.port}/"))
    assert sentence == "The token endpoint's answer is not proper HTTP/1.1."


@pytest.mark.threat(72)
async def test_cookies_are_neither_kept_nor_sent(listen: Listen, endpoint: TokenEndpoint) -> None:
    """A session of one login must not colour the next."""
    server = await listen(b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1; Path=/\r\nContent-Length: 0\r\n\r\n")
    for _ in range(2):
        await endpoint.send(request(f"http://127.0.0.1:{server.port}/"))
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


@pytest.mark.threat(58)
async def test_proxies_and_netrc_of_the_environment_are_ignored(
    listen: Listen, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither may see, or change, what is sent."""
    server, outbound = await listen(), await listen()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{outbound.port}")
    await endpoint.send(request(f"http://127.0.0.1:{server.port}/"))
    assert outbound.requests == []
    assert b"authorization" not in server.requests[0].lower()


@pytest.mark.threat(56)
@pytest.mark.parametrize("size", [BODY_LIMIT, BODY_LIMIT + 1, 8 * 1024 * 1024])
async def test_a_large_body_is_cut_so_that_it_is_refused(
    listen: Listen, endpoint: TokenEndpoint, size: int
) -> None:
    """64 KiB pass; one byte more does not, and eight MiB are not read (threat 56)."""
    server = await listen(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
    reply = await endpoint.send(request(f"http://127.0.0.1:{server.port}/"))
    assert len(reply.body) == min(size, BODY_LIMIT + 1)
    with pytest.raises(InvalidReply) as caught:
        read(reply, ResponseRules(), now_wall=0.0)
    assert caught.value.fault is (Fault.NOT_JSON if size <= BODY_LIMIT else Fault.TOO_LARGE)
    await server.hung_up.wait()


@pytest.mark.threat(56, 65)
async def test_a_compressed_body_is_not_expanded(listen: Listen, endpoint: TokenEndpoint) -> None:
    """A small bomb stays small (threat 56)."""
    server = await listen(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08")
    reply = await endpoint.send(request(f"http://127.0.0.1:{server.port}/"))
    assert reply.body == b"\x1f\x8b\x08"
    assert ("Content-Encoding", "gzip") in reply.headers


async def test_a_silent_endpoint_ends_in_a_timeout(listen: Listen) -> None:
    """And its connection is closed."""
    server = await listen(silent=True)
    client = TokenEndpoint(timeout=0.2)
    sentence = await failure(client, request(f"http://127.0.0.1:{server.port}/?{CANARY}"))
    assert sentence == "The token endpoint did not answer in time."
    await server.hung_up.wait()
    await client.close()


async def test_nobody_there_is_no_connection(endpoint: TokenEndpoint, unused_tcp_port: int) -> None:
    """Refused, not lost."""
    sentence = await failure(endpoint, request(f"http://127.0.0.1:{unused_tcp_port}/?{CANARY}"))
    assert sentence == "No connection to the token endpoint could be made."


async def test_a_name_that_does_not_exist_is_a_matter_of_dns(endpoint: TokenEndpoint) -> None:
    """`.invalid` never resolves (RFC 6761 section 6.4)."""
    assert "could not be resolved" in await failure(endpoint, request(f"http://{CANARY}.invalid/"))


@pytest.mark.parametrize("host", [f"{'a' * 64}.example.com", "a..b", ".a"])
async def test_a_name_that_no_resolver_takes_is_a_matter_of_dns(endpoint: TokenEndpoint, host: str) -> None:
    """A server's metadata may name such a one."""
    assert "could not be resolved" in await failure(endpoint, request(f"https://{host}/?{CANARY}"))


@pytest.mark.parametrize("authority", ["a:99999", "a:x", "[::1", "[zz]"])
async def test_what_is_no_url_is_told(endpoint: TokenEndpoint, authority: str) -> None:
    """Without it."""
    sentence = await failure(endpoint, request(f"https://{authority}/?{CANARY}"))
    assert sentence == "The URL of the token endpoint cannot be used; check it in the configuration."


@pytest.mark.parametrize("url", ["http:///path", "ftp://127.0.0.1/", "nonsense"])
async def test_a_url_that_cannot_be_used_is_the_configurations_fault(endpoint: TokenEndpoint, url: str) -> None:
    """It says so instead of raising something foreign."""
    assert "check it in the configuration" in await failure(endpoint, request(f"{url}?{CANARY}"))


async def test_close_is_idempotent_and_the_endpoint_opens_again(listen: Listen, endpoint: TokenEndpoint) -> None:
    """An unused one has nothing to close."""
    await endpoint.close()
    server = await listen()
    for _ in range(2):
        assert (await endpoint.send(request(f"http://127.0.0.1:{server.port}/"))).status == 200
        await endpoint.close()
        await endpoint.close()


class TestTLS:
    """Verified, TLS 1.2 at least, and no key log."""

    @pytest.fixture
    def authority(self) -> trustme.CA:
        """A private CA."""
        return trustme.CA()

    @pytest.fixture
    def ca(self, authority: trustme.CA, tmp_path: Path) -> Path:
        """Its certificate as a file."""
        path = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(path))
        return path

    def server_side(self, authority: trustme.CA, name: str) -> ssl.SSLContext:
        """A server's context with a certificate for `name`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    async def test_a_private_authority_is_trusted_when_it_is_given(
        self, listen: Listen, authority: trustme.CA, ca: Path
    ) -> None:
        """The way for companies with a CA of their own."""
        server = await listen(tls=self.server_side(authority, "127.0.0.1"))
        client = TokenEndpoint(ca=ca)
        assert (await client.send(request(f"https://127.0.0.1:{server.port}/"))).status == 200
        await client.close()

    async def test_the_machines_certificates_are_read_once_and_not_for_plain_http(
        self, listen: Listen, authority: trustme.CA, ca: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are what is trusted where nothing is configured; to read them takes long."""
        contexts: list[ssl.SSLContext] = []

        def counted(ca: Path | None = None, *, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
            contexts.append(client_context(ca, cert=cert, key=key))
            return contexts[-1]

        monkeypatch.setattr(token_endpoint, "client_context", counted)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        plain, private = await listen(), await listen(tls=self.server_side(authority, "127.0.0.1"))
        client = TokenEndpoint()
        await client.send(request(f"http://127.0.0.1:{plain.port}/"))
        assert contexts == []
        for _ in range(2):
            assert (await client.send(request(f"HTTPS://127.0.0.1:{private.port}/"))).status == 200
        assert len(contexts) == 1
        await client.close()

    @pytest.mark.threat(55)
    @pytest.mark.parametrize(("given", "name"), [(False, "127.0.0.1"), (True, "other.example.com")])
    async def test_an_unknown_authority_or_another_name_gets_no_request(
        self, listen: Listen, authority: trustme.CA, ca: Path, *, given: bool, name: str
    ) -> None:
        """The secrets stay here (threat 55)."""
        server = await listen(tls=self.server_side(authority, name))
        client = TokenEndpoint(ca=ca if given else None)
        assert "No TLS connection" in await failure(client, request(f"https://127.0.0.1:{server.port}/?{CANARY}"))
        assert server.requests == []
        await client.close()

    async def test_a_server_that_does_not_speak_tls_is_a_tls_failure(
        self, listen: Listen, endpoint: TokenEndpoint
    ) -> None:
        """Plain HTTP on the port of an https URL."""
        server = await listen(eager=True)
        assert "No TLS connection" in await failure(endpoint, request(f"https://127.0.0.1:{server.port}/"))

    @pytest.mark.parametrize("given", [True, False])
    async def test_contexts_verify_and_refuse_old_versions(self, ca: Path, *, given: bool) -> None:
        """TLS 1.1 is over (RFC 8996); libraries of today no longer speak it, so the setting is looked at."""
        context = client_context(ca if given else None)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname

    @pytest.mark.threat(59)
    async def test_session_keys_are_not_written_to_a_file(
        self, listen: Listen, authority: trustme.CA, ca: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Whatever SSLKEYLOGFILE says."""
        server = await listen(tls=self.server_side(authority, "127.0.0.1"))
        log = tmp_path / "keys"
        monkeypatch.setenv("SSLKEYLOGFILE", str(log))
        client = TokenEndpoint(ca=ca)
        await client.send(request(f"https://127.0.0.1:{server.port}/"))
        await client.close()
        assert not log.exists()


def test_a_server_that_never_ends_tls_leaves_nothing_open_behind_the_event_loop(tmp_path: Path) -> None:
    """The connection is over when the answer is there: it is not in the way when a command ends."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    over = threading.Event()

    def answer() -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(OK)
            over.wait(10)

    async def ask() -> None:
        client = TokenEndpoint(ca=tmp_path / "ca.pem")
        await client.send(request(f"https://127.0.0.1:{listener.getsockname()[1]}/"))
        await client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(answer)
        with warnings.catch_warnings(record=True) as unclosed:
            uvloop.run(ask())
        over.set()
        served.result(10)
    assert not [str(warning.message) for warning in unclosed]
