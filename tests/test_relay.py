"""The way of a request over real sockets: what arrives at the upstream, and what comes back, byte for byte."""

import asyncio
import base64
import hashlib
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from aiohttp import web

from proxy.demo.serving import serving
from proxy.demo.teletracker import TeleTracker
from tests.support.api import Seen, api
from tests.support.client import DEADLINE, connected
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import OK, Keyed, received
from tests.support.upstreams import CLOSE, REQUEST, RESET, Got, Script, Upstream, turns
from tests.support.vendors import Vendor
from tests.support.waiting import until


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


def get(target: str = "/", *lines: str, version: str = "1.1", method: str = "GET") -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: localhost", *lines, "", ""]).encode("latin-1")


async def within(awaitable: Any) -> Any:
    """Wait; a hang becomes a failure."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


async def gone(proxy: Proxy) -> None:
    """Wait until the proxy has no client left."""
    while proxy.instance._data._connections:
        await turns()


# -- targets and routes


@pytest.mark.threat(23, 29)
@pytest.mark.parametrize(
    "target",
    [
        "/", "//", "///a//", "/a%2Fb", "/a%2fb", "/%7e", "/~", "/a/../b", "/a/./b/", "/%41", "/%25", "/%252e",
        "/a+b", "/a%20b", "/;p=1", "/a?b=1&&c", "/a?", "/?", "/??", "/a?b=%2F%2f", "/a?b=c/d?e", "/a?a=1&a=2&=",
        "//other.example/x", "/http://other.example/", "/a:b@c", "/'(*)!$,", "/[x]", '/a?q={"x":1}', "/%ff%FE",
    ],
)  # fmt: skip
async def test_023_a_target_arrives_as_it_was_sent(proxying: StartProxy, keyed: Keyed, target: str) -> None:
    """No byte of path or query is decoded, merged, resolved or written again."""
    async with (
        Upstream([REQUEST, OK]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        assert (await proxy.ask("GET", target)).status == 200
        assert received(upstream.peers[0].received).target == target


@pytest.mark.parametrize(
    ("host", "target", "arrives"),
    [
        ("localhost", "/", "b/"),
        ("localhost", "/a", "a/v2"),
        ("localhost", "/a/", "a/v2/"),
        ("localhost", "/a/x?y", "a/v2/x?y"),
        ("localhost", "/a?y", "a/v2?y"),
        ("localhost", "/ab", "b/ab"),
        ("localhost", "/a%2Fb", "b/a%2Fb"),
        ("localhost", "/A/x", "b/A/x"),
        ("localhost", "/a/long/x", "b/x"),
        ("localhost", "/a/longer", "a/v2/longer"),
        ("localhost", "/kept/x", "a/base/kept/x"),
        ("localhost", "//a/x", "b//a/x"),
        ("named.localhost", "/a/x", "a/named/a/x"),
        ("NAMED.localhost:99", "/", "a/named/"),
    ],
)
async def test_029_a_request_takes_the_route_of_its_host_and_its_longest_prefix(
    proxying: StartProxy, host: str, target: str, arrives: str
) -> None:
    """Several upstreams by prefix and by host, with base paths, stripped or not; prefixes end with a segment."""
    async with api() as first, api() as second:
        config = {
            "routes": [
                {"prefix": "/", "upstream": second.url},
                {"prefix": "/a", "upstream": f"{first.url}/v2"},
                {"prefix": "/a/long/", "upstream": second.url},
                {"prefix": "/kept", "upstream": f"{first.url}/base/", "strip_prefix": False},
                {"host": "named.localhost", "upstream": f"{first.url}/named"},
            ]
        }
        async with proxying(config) as proxy:
            assert (await proxy.ask("GET", target, {"Host": host})).status == 200
        seen = [f"a{each.target}" for each in first.seen] + [f"b{each.target}" for each in second.seen]
        assert seen == [arrives]


@pytest.mark.threat(28)
@pytest.mark.parametrize(
    "target",
    [
        "/admin", "/admin/", "/ADMIN/x", "/admin/x?y", "/%61dmin/x", "/%2561dmin/x", "//admin/x", "/x/../admin/y",
        "/x/%2e%2e/admin/y", "/x/..%2fadmin/y", "/./admin/y", "/x/%252e%252e/admin/y", "/%2fadmin/x",
    ],
)  # fmt: skip
async def test_028_a_denied_path_is_denied_in_every_reading(
    proxying: StartProxy, keyed: Keyed, target: str
) -> None:
    """However it is spelled, nothing arrives."""
    async with api() as upstream:
        config = keyed.config(upstream.url, deny=[{"paths": ["/admin/*"]}])
        async with proxying(config, environ=keyed.environ) as proxy:
            answer = await proxy.ask("GET", target)
            assert (answer.status, answer.code) == (403, "path_denied")
            assert (await proxy.ask("GET", "/administration")).status == 200
        assert [seen.target for seen in upstream.seen] == ["/administration"]


@pytest.mark.threat(28)
@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/v2/invoices/1", True),
        ("GET", "/v2/invoices/a%2Fb", True),
        ("POST", "/v2/invoices/1", False),
        ("GET", "/v2/INVOICES/1", False),
        ("GET", "/v2/invoices/../users", False),
        ("GET", "/v2/invoices/%2e%2e/users", False),
        ("GET", "/v2/invoices/..%2fusers", False),
        ("GET", "/v2/invoices/%252e%252e/users", False),
        ("GET", "/v2/users", False),
    ],
)
async def test_028_where_allow_is_given_every_reading_of_a_path_must_be_allowed(
    proxying: StartProxy, keyed: Keyed, method: str, target: str, *, allowed: bool
) -> None:
    """One reading that is not allowed is enough to refuse."""
    async with api() as upstream:
        config = keyed.config(upstream.url, allow=[{"methods": ["GET"], "paths": ["/v2/invoices/*"]}])
        async with proxying(config, environ=keyed.environ) as proxy:
            answer = await proxy.ask(method, target)
        assert (answer.status, answer.code) == ((200, "") if allowed else (403, "path_denied"))
        assert len(upstream.seen) == allowed


# -- header fields


async def test_037_request_fields_keep_order_spelling_and_duplicates(proxying: StartProxy, keyed: Keyed) -> None:
    """Bytes beyond ASCII included; framing and the credential come last, and Host is the upstream's."""
    lines = ["x-B: 1", "X-A: \xe9\xff", "x-b: 2", "Accept-Encoding: br", "X-Empty: ", "X_Under: 1", "X-T: a\tb"]
    async with (
        Upstream([REQUEST, OK]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.send(get("/", *lines))
        assert (await client.answer()).status == 200
        got = received(upstream.peers[0].received)
        assert got.fields == [
            ("Host", f"127.0.0.1:{upstream.port}"),
            ("x-B", "1"), ("X-A", "\xe9\xff"), ("x-b", "2"), ("Accept-Encoding", "br"), ("X-Empty", ""),
            ("X_Under", "1"), ("X-T", "a\tb"), ("Authorization", f"Bearer {keyed.token}"),
        ]  # fmt: skip


async def test_037_answer_fields_keep_order_spelling_and_duplicates(proxying: StartProxy, keyed: Keyed) -> None:
    """Set-Cookie twice, bytes beyond ASCII, a status without a phrase of ours; nothing is added."""
    head = (
        b"HTTP/1.1 299 Odd\r\nSet-Cookie: a=1; Path=/\r\nX-A: \xe9\xff\r\nset-cookie: b=2\r\nx-a: 2\r\n"
        b"Server: s\r\nDate: never\r\nVia: 1.1 x\r\nX-Empty:\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nfine"
    )
    async with (
        Upstream([REQUEST, head]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        answer = await proxy.ask("GET")
    assert (answer.status, answer.body) == (299, b"fine")
    assert answer.fields == [
        ("Set-Cookie", "a=1; Path=/"), ("X-A", "\xe9\xff"), ("set-cookie", "b=2"), ("x-a", "2"), ("Server", "s"),
        ("Date", "never"), ("Via", "1.1 x"), ("X-Empty", ""), ("Content-Encoding", "gzip"), ("Content-Length", "4"),
    ]  # fmt: skip


HOP_BY_HOP = [
    "Connection: X-Named, close-ish", "X-Named: 1", "Keep-Alive: timeout=9", "Proxy-Connection: keep-alive",
    "TE: trailers", "Trailer: X-T", "Proxy-Authenticate: Basic", "Upgrade: h2c", "HTTP2-Settings: AAA",
]  # fmt: skip


@pytest.mark.threat(40)
async def test_039_hop_by_hop_fields_cross_in_neither_direction(proxying: StartProxy, keyed: Keyed) -> None:
    """Those that Connection names included (RFC 9110 section 7.6.1); an answer's Trailer announces what passes."""
    mine = [*HOP_BY_HOP, "Proxy-Authorization: Basic eDp5", "X-Stays: 1"]
    theirs = "\r\n".join(["HTTP/1.1 200 OK", *HOP_BY_HOP, "X-Stays: 1", "Content-Length: 0", "", ""]).encode()
    async with (
        Upstream([REQUEST, theirs]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.send(get("/", *mine))
        answer = await client.answer()
        assert [name for name, _ in answer.fields] == ["Trailer", "X-Stays", "Content-Length"]
        assert received(upstream.peers[0].received).names() == ["Host", "X-Stays", "Authorization"]


@pytest.mark.threat(39)
async def test_040_naming_a_field_in_connection_takes_nothing_of_ours_away(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """A client cannot strip the credential, the Host or the framing by calling them hop-by-hop."""
    async with (
        Upstream([REQUEST, Got(b"abc"), OK]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        named = {"Connection": "authorization, host, content-length, transfer-encoding"}
        assert (await proxy.ask("POST", "/", named, b"abc")).status == 200
        got = received(upstream.peers[0].received)
        assert got.names() == ["Host", "Content-Length", "Authorization"]


@pytest.mark.threat(20, 32)
@pytest.mark.parametrize(
    "name",
    ["Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto", "X_Forwarded_For", "X-Forwarded-Port",
     "X-Real-IP", "X-Original-URL", "X-Rewrite-Url", "X.Forwarded.For"],
)  # fmt: skip
async def test_032_a_client_cannot_speak_as_a_proxy(proxying: StartProxy, keyed: Keyed, name: str) -> None:
    """Forwarding fields are dropped, in every spelling that a CGI upstream would take for the same."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        assert (await proxy.ask("GET", "/", {name: "10.0.0.1"})).status == 200
        assert upstream.seen[0].all(name) == []


async def test_a_route_sets_and_removes_fields_and_names_its_host(proxying: StartProxy, keyed: Keyed) -> None:
    """The client's own value of a set field is gone."""
    async with api() as upstream:
        rules = {"set": {"X-Tenant": "acme"}, "remove": ["X-Debug"]}
        config = keyed.config(upstream.url, headers=rules, host_header="other.example:8443")
        async with proxying(config, environ=keyed.environ) as proxy:
            assert (await proxy.ask("GET", "/", {"x-tenant": "evil", "x-debug": "1"})).status == 200
        [seen] = upstream.seen
    assert seen.all("x-tenant") == ["acme"]
    assert seen.all("x-debug") == []
    assert seen.all("host") == ["other.example:8443"]


@pytest.mark.threat(62)
async def test_062_an_answer_field_that_echoes_the_token_is_dropped(proxying: StartProxy, keyed: Keyed) -> None:
    """And only that field."""

    async def echo(seen: Seen) -> web.StreamResponse:
        [value] = seen.all("authorization")
        hidden = {
            "X-Base64": base64.b64encode(f"user:{keyed.token}".encode()).decode(),
            "X-Hex": keyed.token.encode().hex(),
        }
        return web.Response(headers={"X-Echo": value, "Location": f"/?t={keyed.token}&x", "X-Fine": "1", **hidden})

    async with api(echo) as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        answer = await proxy.ask("GET")
    assert answer.all("x-echo") == answer.all("location") == answer.all("x-base64") == answer.all("x-hex") == []
    assert answer["x-fine"] == "1"


@pytest.mark.threat(10)
async def test_cookies_of_ours_cross_in_neither_direction(proxying: StartProxy, keyed: Keyed) -> None:
    """Every other cookie does, with every byte."""

    async def set_cookies(_seen: Seen) -> web.StreamResponse:
        answer = web.Response()
        for line in ("bearer_proxy_key=stolen", "Bearer_Proxy_admin=x; Path=/", "a=1", "xbearer_proxy_=1"):
            answer.headers.add("Set-Cookie", line)
        return answer

    async with api(set_cookies) as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        cookies = [
            ("Cookie", 'a=1;b=2; bearer_proxy_key=k; c= "3"'),
            ("cookie", "bearer_proxy_x=1"),
            ("Cookie", "BEARER_PROXY_y=1; d=4"),
        ]
        answer = await proxy.ask("GET", "/", cookies)
        assert answer.all("set-cookie") == ["a=1", "xbearer_proxy_=1"]
        assert upstream.seen[0].all("cookie") == ['a=1;b=2; c= "3"; d=4']


@pytest.mark.parametrize(
    ("prefix", "sent", "arrives"),
    [
        ("/", "http://localhost:9/a?b", "{upstream}/a?b"),
        ("/", "http://LOCALHOST:9/a", "{upstream}/a"),
        ("/", "http://localhost:9", "{upstream}"),
        ("/", "http://localhost:99/a", "http://localhost:99/a"),
        ("/", "http://localhost:9.evil.example/", "http://localhost:9.evil.example/"),
        ("/", "https://other.example/http://localhost:9/", "https://other.example/http://localhost:9/"),
        ("/api", "http://localhost:9/api/x", "{upstream}/v2/x"),
        ("/api", "http://localhost:9/apix", "{upstream}/apix"),
    ],
)
async def test_a_referer_of_our_own_origin_becomes_the_upstreams(
    proxying: StartProxy, keyed: Keyed, prefix: str, sent: str, arrives: str
) -> None:
    """The upstream learns nothing of the proxy, and checks of the referring origin hold."""
    async with api() as upstream:
        base = "/v2" if prefix != "/" else ""
        config = keyed.config(upstream.url + base, prefix=prefix)
        async with proxying(config, environ=keyed.environ) as proxy:
            asked = await proxy.ask("GET", f"{prefix.rstrip('/')}/", {"Host": "localhost:9", "Referer": sent})
            assert asked.status == 200
        assert upstream.seen[0].all("referer") == [arrives.format(upstream=upstream.url)]


async def test_an_origin_of_our_own_becomes_the_upstreams(proxying: StartProxy, keyed: Keyed) -> None:
    """So that an upstream's own check of Origin holds."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        own = {"Host": "localhost:9", "Origin": "http://localhost:9", "Sec-Fetch-Site": "same-origin"}
        answer = await proxy.ask("POST", "/", own, b"x")
        assert answer.status == 200
        assert answer.all("access-control-allow-origin") == []
        assert upstream.seen[0].all("origin") == [upstream.url]


# -- framing and bodies


@pytest.mark.threat(38)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "PUT", "PATCH", "OPTIONS"])
async def test_038_a_known_length_stays_known_and_a_chunked_body_stays_chunked(
    proxying: StartProxy, keyed: Keyed, method: str
) -> None:
    """For every method that may have a body."""
    script: Script = [REQUEST, Got(b"abcdef"), OK, REQUEST, Got(b"0\r\n\r\n"), OK, REQUEST, OK]
    async with (
        Upstream(script) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        assert (await client.ask(method, "/", {}, b"abcdef")).status == 200
        client.send(
            get("/", "Transfer-Encoding: chunked", method=method)
            + b"3;x=y\r\nabc\r\n03\r\ndef\r\n0\r\nX-T: 1\r\n\r\n"
        )
        assert (await client.answer()).status == 200
        assert (await client.ask(method)).status == 200
        first, body, second, chunks, third, _ = (
            bytes(upstream.peers[0].received)
            .replace(b"abcdef" + method.encode(), b"abcdef\r\n\r\n" + method.encode())
            .split(b"\r\n\r\n", 5)
        )
    assert received(first).all("content-length") == ["6"]
    assert received(first).all("transfer-encoding") == []
    assert body == b"abcdef"
    assert received(second).all("content-length") == []
    assert received(second).all("transfer-encoding") == ["chunked"]
    assert b"".join(chunks.split(b"\r\n")[1:-1:2]) == b"abcdef"
    assert b"X-T" not in chunks
    assert received(third).all("content-length") == []


@pytest.mark.parametrize(
    ("method", "says", "status", "framing"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", 200, [("Content-Length", "10")]),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, []),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, []),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", 304, [("Content-Length", "10")]),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200,
         [("Content-Length", "4")]),
    ],
)  # fmt: skip
async def test_answers_without_a_body_leave_the_connections_in_order(
    proxying: StartProxy, keyed: Keyed, *, method: str, says: bytes, status: int, framing: list[Any]
) -> None:
    """The next exchange on the same two connections works."""
    async with (
        Upstream([REQUEST, says, REQUEST, OK]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        answer = await client.ask(method)
        assert (answer.status, answer.fields) == (status, framing)
        assert (await client.ask("GET", "/next")).body == b"fine"
        assert len(upstream.peers) == 1


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_an_upload_of_8_mib_arrives_whole(proxying: StartProxy, keyed: Keyed, *, chunked: bool) -> None:
    """More than is kept for a repeat, so it only streams through."""
    body = bytes(range(256)) * 32 * 1024
    async with (
        api() as upstream,
        proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        if chunked:
            client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
            for at in range(0, len(body), 100_000):
                piece = body[at : at + 100_000]
                client.send(b"%X\r\n%b\r\n" % (len(piece), piece))
                await client.writer.drain()
            client.send(b"0\r\n\r\n")
            assert (await client.answer()).status == 200
        else:
            assert (await client.ask("POST", "/", {}, body)).status == 200
        assert hashlib.sha256(upstream.seen[0].body).digest() == hashlib.sha256(body).digest()
        [line] = proxy.lines()
        assert line["bytes_in"] == len(body)


async def test_a_client_that_reads_slowly_slows_the_upstream_and_loses_nothing(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """The proxy holds a bounded part of a download; what waits, waits at the upstream."""
    block, blocks, sent = bytes(range(256)) * 256, 1024, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(block) * blocks))
        for _ in range(blocks):
            writer.write(block)
            await writer.drain()
            sent += len(block)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with (
        server,
        proxying(keyed.config(url), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.stop_reading()
        client.send(get())
        before = -1
        async with asyncio.timeout(DEADLINE):
            while sent != before or not sent:  # until nothing moves any more
                before = sent
                await turns(2000)
        # 64 MiB are on offer; the buffers of four sockets take up to about 20.
        assert sent < len(block) * blocks // 2
        client.go_on_reading()
        await client.reader.readuntil(b"\r\n\r\n")
        for _ in range(blocks):
            assert await client.reader.readexactly(len(block)) == block


@pytest.mark.threat(45)
async def test_a_100_comes_only_after_the_guard_and_the_token(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Until then the client keeps its body."""
    head = get("/echo-size", "Expect: 100-continue", "Content-Length: 3", method="POST")
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        async with proxy.connect() as client:
            client.send(head.replace(b"Host: localhost", b"Host: evil.example"))
            assert (await within(client.reader.readuntil(b"\r\n"))).startswith(b"HTTP/1.1 403 ")
        tracker.double.set(token_endpoint="slow")
        async with proxy.connect() as client:
            client.send(head)
            await tracker.double.holding()
            assert not client.reader._buffer  # nothing came yet
            tracker.double.set(token_endpoint="up")
            tracker.double.release()
            assert await within(client.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"abc")
            assert (await client.answer()).json()["data"][0]["length"] == 3


@pytest.mark.threat(45)
async def test_a_100_comes_only_with_a_token(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Without one the answer is final, the body is not asked for, and the connection says that it ends."""
    tracker.double.set(token_endpoint="down")
    async with (
        proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy,
        proxy.connect() as client,
    ):
        client.send(get("/echo-size", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        answer = await client.answer()
        assert b"100 Continue" not in answer.raw_head
        assert (answer.status, answer["connection"]) == (503, "close")


# -- clients of other habits


@pytest.mark.parametrize("keep", [False, True], ids=["close", "keep-alive"])
@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nfine",
        OK,
    ],
    ids=["chunked", "until-close", "length"],
)
async def test_a_client_of_http_1_0_gets_no_chunks(
    proxying: StartProxy, keyed: Keyed, says: bytes, *, keep: bool
) -> None:
    """The end of the connection, or a length, is the end of its answer."""
    async with (
        Upstream([REQUEST, says, CLOSE]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.send(get("/", *(["Connection: keep-alive"] if keep else []), version="1.0"))
        answer = await client.answer()
        assert answer.body == b"fine"
        assert answer.all("transfer-encoding") == []
        stays = keep and says is OK
        assert answer["connection"] == ("keep-alive" if stays else "close")
        assert received(upstream.peers[0].received).method == "GET"
        if not stays:
            assert await client.at_end()


async def test_046_pipelined_requests_are_answered_in_order(proxying: StartProxy, keyed: Keyed) -> None:
    """Also behind a body, and where one of them is refused; one that is not understood is the last."""

    async def answer(seen: Seen) -> web.StreamResponse:
        return web.Response(text=f"{seen.method} {seen.target} {seen.body.decode()}")

    async with (
        api(answer) as upstream,
        proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        post = get("/1", "Content-Length: 3", method="POST") + b"abc"
        stranger = get("/3").replace(b"localhost", b"elsewhere")
        client.send(post + get("/2") + stranger + get("/4") + get("/%00") + get("/6"))
        answers = [await client.answer() for _ in range(5)]
        assert [each.code or each.body for each in answers] == [
            b"POST /1 abc", b"GET /2 ", "host_not_allowed", b"GET /4 ", "bad_target",
        ]  # fmt: skip
        assert await client.at_end()


# -- ends that are no ends


@pytest.mark.parametrize("answered", [b"", OK.replace(b": 4", b": 400")], ids=["before", "within"])
async def test_009_a_client_that_hangs_up_frees_its_upstream_connection(
    proxying: StartProxy, keyed: Keyed, answered: bytes
) -> None:
    """Before the answer or within it, the upstream sees the end."""
    async with (
        Upstream([REQUEST, answered]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        async with proxy.connect() as client:
            client.send(get())
            peer = await within(upstream.peer())
            await within(peer.got(b"\r\n\r\n"))
            if answered:
                await within(client.reader.readuntil(b"fine"))
        await within(peer.ended.wait())


async def test_009_a_client_that_hangs_up_within_its_upload_ends_the_upstream_request(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """A body that ended early does not look complete to the upstream either."""
    async with (
        Upstream([REQUEST]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        async with proxy.connect() as client:
            client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
            peer = await within(upstream.peer())
            await within(peer.got(b"abc"))
        await within(peer.ended.wait())
        assert b"0\r\n\r\n" not in peer.received


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    ("says", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfine", CLOSE),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n", CLOSE),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\nzz\r\n", CLOSE),
        (b"HTTP/1.1 200 OK\r\n\r\nfine", RESET),
    ],
    ids=["length", "chunked", "broken chunk", "until close, reset"],
)
async def test_008_an_answer_that_breaks_off_looks_broken_to_the_client(
    proxying: StartProxy, keyed: Keyed, says: bytes, end: Any, version: str
) -> None:
    """Whatever its framing at the upstream and at the client."""
    go = asyncio.Event()
    async with (
        Upstream([REQUEST, says, go, end]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.send(get(version=version))
        if b"zz" not in says:
            await within(client.reader.readuntil(b"\r\n\r\n"))
            await within(client.reader.readuntil(b"fine"))
        go.set()
        try:
            rest = await within(client.reader.read())
        except ConnectionResetError:
            rest = b""  # an end by reset is no proper end of anything
            reset = True
        else:
            reset = False
        assert b"0\r\n\r\n" not in rest
        assert reset or version == "1.1" or b"Content-Length" in says
        [line] = proxy.lines()
        assert line["error"] == "upstream_protocol"


@pytest.mark.threat(67)
async def test_an_upstream_that_says_nothing_in_time_is_504(proxying: StartProxy, keyed: Keyed) -> None:
    """`timeouts.first_byte`."""
    async with Upstream([REQUEST]) as upstream:
        config = keyed.config(upstream.origin, timeouts={"first_byte": 0.05})
        async with proxying(config, environ=keyed.environ) as proxy:
            answer = await proxy.ask("GET")
            assert (answer.status, answer.code) == (504, "upstream_timeout")
            await within(upstream.peers[0].ended.wait())


@pytest.mark.threat(67)
async def test_an_upstream_that_pauses_too_long_is_cut(proxying: StartProxy, keyed: Keyed) -> None:
    """`timeouts.idle` between bytes: the head is out, so the end must be visible."""
    async with Upstream([REQUEST, OK.replace(b": 4", b": 9")]) as upstream:
        config = keyed.config(upstream.origin, timeouts={"idle": 0.5})
        async with proxying(config, environ=keyed.environ) as proxy:
            answer = await proxy.ask("GET")
            assert (answer.status, answer.complete) == (200, False)
            [line] = proxy.lines()
            assert line["error"] == "upstream_timeout"


@pytest.mark.threat(113)
async def test_a_client_that_pauses_too_long_within_its_body_is_408(proxying: StartProxy, keyed: Keyed) -> None:
    """And the upstream sees an end that is none."""
    async with Upstream([REQUEST]) as upstream:
        config = keyed.config(upstream.origin, timeouts={"idle": 0.5})
        async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as client:
            client.send(get("/", "Content-Length: 9", method="POST") + b"abc")
            answer = await client.answer()
            assert (answer.status, answer.code, answer["connection"]) == (408, "request_timeout", "close")
            await within(upstream.peers[0].ended.wait())


async def test_an_upstream_that_stops_reading_an_upload_is_504(proxying: StartProxy, keyed: Keyed) -> None:
    """`timeouts.first_byte` is also how long it may take no bytes."""
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        config = keyed.config(f"http://127.0.0.1:{listening.getsockname()[1]}", timeouts={"first_byte": 0.1})
        async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as client:
            client.send(get("/", "Content-Length: 64000000", method="POST") + bytes(64_000_000))
            answer = await client.answer()
            assert (answer.status, answer.code) == (504, "upstream_timeout")


@pytest.mark.threat(114)
async def test_a_client_that_stops_reading_is_let_go(proxying: StartProxy, keyed: Keyed) -> None:
    """After `timeouts.idle` its upstream connection is free, and its own connection is gone."""
    body = bytes(64_000_000)
    async with Upstream([REQUEST, b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n", body]) as upstream:
        # The upstream is to answer within it as well, on a busy machine too.
        config = keyed.config(upstream.origin, timeouts={"idle": 1})
        async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as client:
            client.stop_reading()
            client.send(get())
            peer = await within(upstream.peer())
            await within(peer.ended.wait())
            await within(gone(proxy))
            [line] = proxy.lines()
            assert line["error"] == "client_stalled"


@pytest.mark.threat(67)
async def test_a_connection_that_cannot_be_had_in_time_is_504(proxying: StartProxy, keyed: Keyed) -> None:
    """The only one of the pool is in use."""
    async with Upstream([REQUEST]) as upstream:
        config = keyed.config(upstream.origin, timeouts={"connect": 1}, pool={"size": 1})
        async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as first:
            first.send(get())
            holder = await within(upstream.peer())
            # Where connecting took too long, there would be none in use.
            await within(holder.got(b"\r\n\r\n"))
            answer = await proxy.ask("GET")
            assert (answer.status, answer.code) == (504, "upstream_timeout")
            assert "error=connection_timeout" in answer["proxy-status"]


async def test_104_a_401_within_an_upload_is_cured_by_a_repeat(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The upload stops, the token is refreshed, and all of the body goes once more."""
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    async with Upstream([Got(b"first"), refused], [Got(b"second\r\n0\r\n\r\n"), OK]) as upstream:
        config = {**tracker.config, "upstream": str(upstream.origin)}
        async with (
            proxying(config, environ=tracker.environ, clock=clock) as proxy,
            proxy.connect() as client,
        ):
            client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nfirst\r\n")
            again = await within(upstream.peer(1))
            await within(again.got(b"first"))
            client.send(b"6\r\nsecond\r\n0\r\n\r\n")
            answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"fine")
        assert bytes(again.received).endswith(b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")
        assert b"0\r\n\r\n" not in upstream.peers[0].received.partition(b"\r\n\r\n")[2]
        tokens = [received(peer.received).all("authorization") for peer in upstream.peers]
        assert tokens[0] != tokens[1]


async def test_103_a_lost_idle_connection_is_replaced_behind_the_clients_back(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """A GET on a connection that the upstream just closed goes to a fresh one."""
    async with (
        Upstream([REQUEST, OK, REQUEST, CLOSE], [REQUEST, OK]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        for target in ("/1", "/2"):
            assert (await client.ask("GET", target)).status == 200
        assert [peer.requests for peer in upstream.peers] == [2, 1]


# -- TLS, the client key, browsers, the end


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_https_upstream_is_verified_by_the_routes_own_ca(
    proxying: StartProxy, keyed: Keyed, tmp_path: Path, *, trusted: bool
) -> None:
    """Without the CA there is no connection, and no token leaves."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response(text="fine")

    app = web.Application()
    app.router.add_route("*", "/", answer)
    async with serving(app, ssl_context=context) as url:
        config = keyed.config(url, tls={"ca": str(tmp_path / "ca.pem")} if trusted else {})
        async with proxying(config, environ=keyed.environ) as proxy:
            answered = await proxy.ask("GET")
    if trusted:
        assert (answered.status, seen) == (200, [f"Bearer {keyed.token}"])
    else:
        assert (answered.status, answered.code, seen) == (502, "upstream_tls", [])
        assert "error=tls_certificate_error" in answered["proxy-status"]


KEY_CARRIERS = {
    "X-Proxy-Key": ([("X-Proxy-Key", "{key}")], "/x"),
    "Bearer": ([("Authorization", "bearer {key}")], "/x"),
    "Basic": ([("Authorization", "Basic {basic}")], "/x"),
    "cookie": ([("Cookie", "a=1; bearer_proxy_key={key}")], "/x"),
    "path": ([], "/~{key}/x"),
    "all at once": (
        [("X-Proxy-Key", "{key}"), ("Authorization", "Basic {basic}"), ("Cookie", "bearer_proxy_key={key}"),
         ("Referer", "http://localhost/~{key}/page"), ("Origin", "http://localhost")],
        "/~{key}/x",
    ),
    "two authorizations": ([("Authorization", "Bearer {key}"), ("Authorization", "Basic {basic}")], "/x"),
}  # fmt: skip


def _basic(key: str) -> str:
    return base64.b64encode(f"user:{key}".encode()).decode()


@pytest.mark.threat(20)
@pytest.mark.parametrize(
    "mode",
    [
        {"credential": None},
        {"inject": "overwrite"},
        {"inject": "if-absent"},
        {"inject": {"replace": "PLACEHOLDER"}},
    ],
    ids=["no credential", "overwrite", "if-absent", "replace"],
)
@pytest.mark.parametrize("carrier", KEY_CARRIERS)
async def test_the_client_key_opens_in_every_carrier_and_never_reaches_the_upstream(
    proxying: StartProxy, canaries: Canaries, keyed: Keyed, carrier: str, mode: dict[str, Any]
) -> None:
    """Whatever the route does with credentials; `X-Api-Key` is where this one goes."""
    key = canaries.mint("key")
    words = {"key": key, "basic": _basic(key)}
    pairs, target = KEY_CARRIERS[carrier]
    headers = [(name, value.format(**words)) for name, value in pairs]
    headers += [("X-Api-Key", "PLACEHOLDER")] if "replace" in str(mode) else []
    async with Upstream([REQUEST, OK]) as upstream:
        config = keyed.config(upstream.origin, top={"guard": {"client_key": {"env": "KEY"}}}, **mode)
        config["credentials"] = {"default": keyed.credential(place={"header": "X-Api-Key"})}
        if "credential" in mode:
            config = {"routes": [{"prefix": "/", "upstream": str(upstream.origin)}], "guard": config["guard"]}
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
            answer = await proxy.ask("GET", "/x")
            assert (answer.status, answer["www-authenticate"]) == (401, 'Basic realm="bearer-proxy"')
            assert (await proxy.ask("GET", target.format(**words), headers)).status == 200
        [peer] = upstream.peers
    got = received(peer.received)
    assert got.target == "/x"
    assert got.all("x-api-key") == ([] if "credential" in mode else [keyed.token])
    for secret in (key, words["basic"]):
        assert secret.encode() not in peer.received


@pytest.mark.threat(11, 20)
@pytest.mark.parametrize("wrong", ["", "x", "{key}x", "{head}", "~{key}"])
async def test_a_wrong_client_key_opens_nothing(
    proxying: StartProxy, canaries: Canaries, keyed: Keyed, wrong: str
) -> None:
    """A beginning of it or more than it neither."""
    key = canaries.mint("key")
    value = wrong.format(key=key, head=key[:-1])
    async with api() as upstream:
        config = keyed.config(upstream.url, top={"guard": {"client_key": {"env": "KEY"}}})
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
            for headers, target in (
                ({"X-Proxy-Key": value}, "/"),
                ({"Authorization": f"Bearer {value}"}, "/"),
                ({"Authorization": f"Basic {_basic(value)}"}, "/"),
                ({"Cookie": f"bearer_proxy_key={value}"}, "/"),
                ({}, f"/~{value}/"),
                ({}, f"/{key}/"),
            ):
                assert (await proxy.ask("GET", target, headers)).code == "client_key_required"
        assert upstream.seen == []


ALLOWED = "https://app.example"


@pytest.mark.threat(4)
async def test_004_an_allowed_page_gets_our_grant_and_not_the_upstreams(proxying: StartProxy, keyed: Keyed) -> None:
    """On the upstream's answers and on our own errors; credentialed, so never a star."""

    async def generous(_seen: Seen) -> web.StreamResponse:
        return web.Response(
            headers={"Access-Control-Allow-Origin": "*", "Access-Control-Max-Age": "9", "Vary": "Accept"}
        )

    async with api(generous) as upstream:
        top = {"guard": {"origins": [ALLOWED]}}
        config = keyed.config(upstream.url, top=top, deny=[{"paths": ["/no"]}])
        async with proxying(config, environ=keyed.environ) as proxy:
            page = {"Origin": ALLOWED, "Sec-Fetch-Site": "cross-site"}
            answer = await proxy.ask("GET", "/", page)
            assert answer["access-control-allow-origin"] == ALLOWED
            assert answer["access-control-allow-credentials"] == "true"
            assert answer.all("access-control-max-age") == []
            assert answer.all("vary") == ["Accept", "Origin"]
            refused = await proxy.ask("GET", "/no", page)
            assert (refused.code, refused["access-control-allow-origin"]) == ("path_denied", ALLOWED)
            plain = await proxy.ask("GET")
            assert plain.all("access-control-allow-origin") == []
            stranger = await proxy.ask("GET", "/", {"Origin": "https://evil.example"})
            assert stranger.code == "origin_not_allowed"
            assert stranger.all("access-control-allow-origin") == []
        assert len(upstream.seen) == 2


@pytest.mark.threat(5)
async def test_004_a_preflight_is_answered_here(proxying: StartProxy, keyed: Keyed, canaries: Canaries) -> None:
    """Browsers send no key with it; nothing reaches the upstream."""
    key = canaries.mint("key")
    async with api() as upstream:
        top = {"guard": {"origins": [ALLOWED], "client_key": {"env": "KEY"}}}
        async with proxying(keyed.config(upstream.url, top=top), environ={**keyed.environ, "KEY": key}) as proxy:
            asks = {
                "Access-Control-Request-Method": "PUT",
                "Access-Control-Request-Headers": "x-a,content-type",
            }
            answer = await proxy.ask("OPTIONS", "/x", {"Origin": ALLOWED, **asks})
            assert answer.status == 204
            assert answer["access-control-allow-origin"] == ALLOWED
            assert answer["access-control-allow-methods"] == "PUT"
            assert answer["access-control-allow-headers"] == "x-a,content-type"
            for bad in ({"Origin": "https://evil.example", **asks}, {"Origin": "null", **asks}):
                assert (await proxy.ask("OPTIONS", "/x", bad)).code == "cors_denied"
        assert upstream.seen == []


@pytest.mark.threat(122)
async def test_122_draining_finishes_what_is_in_flight(proxying: StartProxy, keyed: Keyed) -> None:
    """The answer says that the connection ends; new connections are not taken."""
    go = asyncio.Event()
    async with (
        Upstream([REQUEST, go, OK]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as idle,
        proxy.connect() as client,
    ):
        client.send(get())
        await within(upstream.peer())
        await within(upstream.peers[0].got(b"\r\n\r\n"))
        draining = asyncio.create_task(proxy.instance.drain())
        assert await idle.at_end()
        with pytest.raises(OSError, match=r"."):
            await proxy.ask("GET")
        go.set()
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"fine")
        assert await client.at_end()
        client.writer.close()
        await within(draining)


@pytest.mark.patches
async def test_a_defect_of_ours_is_a_500_that_tells_nothing(
    proxying: StartProxy, keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has the request id, the log the traceback, masked; the connection serves on."""
    async with Upstream([REQUEST, OK]) as upstream:
        async with (
            proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
            proxy.connect() as client,
        ):
            with monkeypatch.context() as patch:
                patch.setattr("proxy.relay.outgoing", lambda *_, **__: 1 / 0)
                broken = await client.ask("GET")
            fine = await client.ask("GET")
        assert (broken.status, broken.code, fine.status) == (500, "internal_error", 200)
        [line] = proxy.lines("internal_error")
        assert "ZeroDivisionError" in line["trace"]
        assert broken.json()["request_id"] == line["request_id"]


async def test_a_second_refusal_that_is_left_behind_gives_its_connection_back(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The client hangs up while the body of the second refusal is looked into; its connection is free again."""
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"
    never = asyncio.Event()
    scripts: list[Script] = [[REQUEST, refused + b'{"e": "x1"}', REQUEST, refused, never], [REQUEST, OK]]
    rules = [{"statuses": [401], "body": {"/e": "x1"}}]
    config = {**tracker.config, "pool": {"size": 1}}
    config["credential"] = {**config["credential"], "expired": rules}
    async with Upstream(*scripts) as upstream:
        config["upstream"] = str(upstream.origin)
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
            async with proxy.connect() as client:
                client.send(get())
                await within(upstream.until(lambda: upstream.requests == 2))
            assert (await proxy.ask("GET")).body == b"fine"


async def test_013_a_target_with_a_password_in_it_is_not_logged(proxying: StartProxy, canaries: Canaries) -> None:
    """An absolute-form target is refused; its userinfo would be in the path of the access line."""
    async with proxying({"upstream": "http://127.0.0.1:9"}) as proxy:
        target = f"http://ann:{canaries.mint('uuid')}@api.example.com/x"
        answer = await proxy.ask("GET", target)
        assert (answer.status, answer.code) == (400, "bad_target")
        assert [line["path"] for line in proxy.lines()] == [""]


async def test_the_log_of_an_upload_that_was_broken_off_tells_what_came(proxying: StartProxy, keyed: Keyed) -> None:
    """Bytes that were received, and that the client is gone."""
    async with (
        Upstream([Got(b"abc")]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        async with proxy.connect() as client:
            client.send(get("/", "Content-Length: 6", method="POST") + b"abc")
            await within((await within(upstream.peer())).got(b"abc"))
        await until(proxy.lines)
        [line] = proxy.lines()
        assert (line["bytes_in"], line["error"]) == (3, "client_closed")


@pytest.mark.threat(46)
async def test_114_a_client_that_asks_and_does_not_read_stops_being_served(proxying: StartProxy) -> None:
    """Pipelined requests whose answers nobody takes must not pile up in memory."""

    async def large(_seen: Seen) -> web.StreamResponse:
        return web.Response(body=b"x" * 200_000)

    async with api(large) as upstream, proxying({"upstream": upstream.url}) as proxy, proxy.connect() as client:
        client.stop_reading()
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300)
        served = -1
        while served != len(upstream.seen):
            served = len(upstream.seen)
            for _ in range(500):
                await asyncio.sleep(0)
        assert 0 < served < 100
        client.go_on_reading()
        for _ in range(300):
            assert (await client.answer()).complete


@pytest.mark.threat(26, 47)
@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "x-method-override", "X_HTTP_Method"])
async def test_026_rules_hold_for_the_method_that_a_field_puts_in_place(
    proxying: StartProxy, keyed: Keyed, name: str
) -> None:
    """Many frameworks take it for the request's own; what is allowed passes as it came."""
    async with api() as upstream:
        allow = [{"methods": ["GET", "HEAD"], "paths": ["/*"]}]
        async with proxying(keyed.config(upstream.url, allow=allow), environ=keyed.environ) as proxy:
            told = [await proxy.ask("GET", "/x", [(name, method)]) for method in ("delete", "TRACE", "head")]
    assert [(each.status, each.code) for each in told] == [
        (403, "path_denied"),
        (405, "method_not_allowed"),
        (200, ""),
    ]
    assert [seen.all(name) for seen in upstream.seen] == [["head"]]


@pytest.mark.threat(20)
@pytest.mark.parametrize("carrier", ["X-Proxy-Key", "path"])
@pytest.mark.parametrize(
    ("referer", "arrives"),
    [
        ("http://localhost/~{key}/a?b", "{upstream}/a?b"),
        ("http://localhost/x/~{key}/a", None),
        ("http://localhost/a?key={key}", None),
        ("https://other.example/~{key}/a", None),
        ("{key}", None),
    ],
)
async def test_020_a_key_in_a_referer_never_reaches_the_upstream(
    *, proxying: StartProxy, canaries: Canaries, keyed: Keyed, carrier: str, referer: str, arrives: str | None
) -> None:
    """The page's own address held it; where the request's holds it too, the rest is put in the upstream's terms."""
    key = canaries.mint("key")
    pairs, target = KEY_CARRIERS[carrier]
    fields = [("Host", "localhost"), *((name, value.format(key=key)) for name, value in pairs)]
    async with Upstream([REQUEST, OK]) as upstream:
        config = keyed.config(upstream.origin, top={"guard": {"client_key": {"env": "KEY"}}})
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
            sent = [*fields, ("Referer", referer.format(key=key))]
            assert (await proxy.ask("GET", target.format(key=key), sent)).status == 200
        [peer] = upstream.peers
    assert key.encode() not in peer.received
    expected = [arrives.format(upstream=upstream.origin)] if arrives is not None and carrier == "path" else []
    assert received(peer.received).all("referer") == expected


@pytest.mark.threat(49)
@pytest.mark.parametrize(
    ("place", "inject", "arrives"),
    [
        ({"header": "Authorization", "scheme": "Bearer"}, "overwrite", "/x?a=1&b=2"),
        ([{"header": "X-Token"}, {"header": "X-Auth", "scheme": "bearer"}], "overwrite", "/x?a=1&b=2"),
        ({"header": "X-Api-Key"}, "overwrite", "/x?a=1&access_token=theirs&Access.Token=x&b=2"),
        (
            {"header": "Authorization", "scheme": "Token"},
            "overwrite",
            "/x?a=1&access_token=theirs&Access.Token=x&b=2",
        ),
        ({"header": "X-A", "scheme": "Bearer"}, "if-absent", "/x?a=1&access_token=theirs&Access.Token=x&b=2"),
    ],
)
async def test_049_a_bearer_token_of_the_clients_in_the_query_does_not_go_beside_ours(
    proxying: StartProxy, keyed: Keyed, place: object, inject: str, arrives: str
) -> None:
    """RFC 6750 section 2: a request has one. Where ours is none in a header the name is as good as any."""
    async with Upstream([REQUEST, OK]) as upstream:
        config = keyed.config(upstream.origin, inject=inject)
        config["credentials"] = {"default": keyed.credential(place=place)}
        async with proxying(config, environ=keyed.environ) as proxy:
            target = "/x?a=1&access_token=theirs&Access.Token=x&b=2"
            assert (await proxy.ask("GET", target)).status == 200
        [peer] = upstream.peers
    assert received(peer.received).target == arrives
    assert peer.received.count(keyed.token.encode()) == (2 if isinstance(place, list) else 1)


@pytest.mark.threat(9)
async def test_009_our_own_port_is_known_for_what_it_is(proxying: StartProxy, keyed: Keyed, tmp_path: Path) -> None:
    """A page behind another port is not ours, and no page reaches a Unix socket."""
    async with api() as upstream:
        listen = ["127.0.0.1:0", f"unix:{tmp_path / 'p.sock'}"]
        async with proxying(keyed.config(upstream.url, top={"listen": listen}), environ=keyed.environ) as proxy:
            tcp, unix = proxy.instance.urls
            port = urlsplit(tcp).port or 0
            for url, host, expected in (
                (tcp, f"localhost:{port}", (403, "origin_not_allowed")),
                (tcp, f"localhost:{port - 1}", (200, "")),
                (unix, f"localhost:{port}", (200, "")),
            ):
                async with connected(url, proxy.artefacts) as client:
                    answer = await client.ask("GET", "/", {"Host": host, "Sec-Fetch-Site": "same-origin"})
                    assert (answer.status, answer.code) == expected
        assert len(upstream.seen) == 2


@pytest.mark.threat(20)
async def test_020_a_key_in_any_other_field_never_reaches_the_upstream(
    proxying: StartProxy, canaries: Canaries, keyed: Keyed
) -> None:
    """Where WebDAV moves something to is the upstream's own address; what else holds the key is dropped."""
    key = canaries.mint("key")
    async with Upstream([REQUEST, OK]) as upstream:
        config = keyed.config(upstream.origin, top={"guard": {"client_key": {"env": "KEY"}}})
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
            fields = [
                ("Host", "localhost"),
                ("Destination", f"http://localhost/~{key}/dav/b"),
                ("X-Base", f"http://localhost/~{key}/dav"),
                ("Cookie", f"a=1; base={key}; c=2"),
                ("X-Kept", "kept"),
            ]
            assert (await proxy.ask("MOVE", f"/~{key}/dav/a", fields)).status == 200
        [peer] = upstream.peers
    got = received(peer.received)
    assert key.encode() not in peer.received
    assert got.all("destination") == [f"{upstream.origin}/dav/b"]
    assert (got.all("x-base"), got.all("x-kept"), got.all("cookie")) == ([], ["kept"], ["a=1; c=2"])


@pytest.mark.threat(117)
async def test_117_two_hundred_clients_are_served_in_turn(proxying: StartProxy, keyed: Keyed) -> None:
    """Ten connections to the upstream serve all of them, and nobody gets three answers before another gets one."""
    clients, rounds = 200, 5
    served = [0] * clients
    spread = 0
    ready = asyncio.Barrier(clients)
    async with (
        api() as upstream,
        proxying(keyed.config(upstream.url, pool={"size": 10}), environ=keyed.environ) as proxy,
    ):

        async def ask(number: int) -> None:
            nonlocal spread
            async with proxy.connect() as client:
                assert (await client.ask("GET", "/")).status == 200
                await ready.wait()
                for _ in range(rounds):
                    assert (await client.ask("GET", "/")).status == 200
                    served[number] += 1
                    spread = max(spread, served[number] - min(served))

        await asyncio.gather(*map(ask, range(clients)))
        assert len(upstream.seen) == clients * (rounds + 1)
    assert served == [rounds] * clients
    assert spread <= 2
