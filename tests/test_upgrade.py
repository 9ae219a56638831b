"""The WebSocket tunnel: its handshake is a request like any other, and behind the 101 no byte is looked at.

Far ends that are scripted decide every byte; those of `websockets` decide whether it is a WebSocket at all.
"""

import asyncio
import contextlib
import hashlib
import random
import ssl
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from proxy.demo.teletracker import TeleTracker
from tests.support.client import Client
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.raw import head, held_by_kernel, within
from tests.support.routes import OK, Keyed, received
from tests.support.upstreams import (
    CLOSE,
    DEAF,
    EOF,
    HEAD_END,
    REQUEST,
    RESET,
    Got,
    Repeat,
    Script,
    Upstream,
    reset,
    turns,
)
from tests.support.vendors import Vendor
from tests.support.waiting import until

#: The example of RFC 6455 section 1.3.
KEY: Final = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
VERSION: Final = "Sec-WebSocket-Version: 13"
UPGRADE: Final = ("Connection: Upgrade", "Upgrade: websocket")
HANDSHAKE: Final = head("GET", "/ws", *UPGRADE, KEY, VERSION)
SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + ACCEPT + HEAD_END
)
#: What the client gets of it.
SWITCHED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + ACCEPT + HEAD_END
)
#: Bytes that would mean something to an HTTP parser.
TRICKY: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\0\xff\x88\x00"


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


@pytest.fixture
def between(proxying: StartProxy, keyed: Keyed) -> Callable[..., Any]:
    """Start a proxy before an upstream, and connect to it; gives both, the proxy and the connection."""

    @contextlib.asynccontextmanager
    async def start(upstream: Upstream, **route: Any) -> AsyncIterator[tuple[Proxy, Client]]:
        top: dict[str, Any] = {key: route.pop(key) for key in ("guard", "limits") if key in route}
        config = keyed.config(upstream.origin, top=top, **route)
        async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as client:
            yield proxy, client

    return start


async def opened(client: Client, wire: bytes = HANDSHAKE) -> None:
    """Send a handshake, and read the 101."""
    client.send(wire)
    assert await within(client.reader.readuntil(HEAD_END)) == SWITCHED


async def rest(client: Client) -> bytes:
    """All that still comes, to the connection's end."""
    return await within(client.reader.read())


async def line_of(proxy: Proxy) -> dict[str, Any]:
    """The one line of the access log."""
    await until(proxy.lines)
    [line] = proxy.lines()
    return line


def _clients(proxy: Proxy) -> int:
    """How many connections of clients there are."""
    return len(proxy.instance._data._connections)


# -- the handshake


async def test_a_handshake_goes_up_with_our_credential_and_without_the_clients(between: Any, keyed: Keyed) -> None:
    """Its own fields pass as they came, the two hop-by-hop ones are written anew, nothing else is added."""
    lines = [
        "Connection: keep-alive, Upgrade, X-Named", "X-Named: 1", "Upgrade: WebSocket", KEY, VERSION,
        "sec-websocket-protocol: chat, superchat", "Sec-WebSocket-Extensions: permessage-deflate; a=b",
        "Authorization: Bearer mine", "X-Forwarded-For: 10.0.0.1", "Cookie: a=1", "X-A:  b ",
    ]  # fmt: skip
    async with Upstream([REQUEST, SWITCH, CLOSE]) as upstream, between(upstream) as (_, client):
        await opened(client, head("GET", "/ws?a=b", *lines))
        got = received(upstream.peers[0].received)
    assert (got.method, got.target) == ("GET", "/ws?a=b")
    assert sorted(got.fields) == sorted(
        [
            ("Host", f"127.0.0.1:{upstream.port}"), ("Connection", "Upgrade"), ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", KEY.partition(": ")[2]), ("Sec-WebSocket-Version", "13"),
            ("sec-websocket-protocol", "chat, superchat"),
            ("Sec-WebSocket-Extensions", "permessage-deflate; a=b"), ("Cookie", "a=1"), ("X-A", " b "),
            ("Authorization", f"Bearer {keyed.token}"),
        ]
    )  # fmt: skip


async def test_a_101_passes_with_its_own_fields_and_none_that_frames(between: Any, keyed: Keyed) -> None:
    """062: and none that carries the token."""
    says = SWITCH[:-4] + (
        b"\r\nSec-WebSocket-Protocol: chat\r\nX-A: 1\r\nset-cookie: a=1\r\nSet-Cookie: bearer_proxy_x=1"
        b"\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\nX-Echo: %b\r\n\r\n" % keyed.token.encode()
    )
    async with Upstream([REQUEST, says, CLOSE]) as upstream, between(upstream) as (_, client):
        client.send(HANDSHAKE)
        answered = await within(client.reader.readuntil(HEAD_END))
    assert answered == SWITCHED[:-4] + b"\r\nSec-WebSocket-Protocol: chat\r\nX-A: 1\r\nset-cookie: a=1\r\n\r\n"


@pytest.mark.threat(6)
@pytest.mark.parametrize(
    ("origin", "arrives"),
    [
        ([], []),
        (["Origin: http://localhost"], ["{upstream}"]),
        (["Origin: https://app.example", "Sec-Fetch-Site: cross-site"], ["https://app.example"]),
    ],
    ids=["none", "own", "allowed"],
)
async def test_006_a_page_that_may_call_may_open_a_websocket(
    between: Any, origin: list[str], arrives: list[str]
) -> None:
    """Programs send no Origin; our own becomes the upstream's."""
    async with (
        Upstream([REQUEST, SWITCH, CLOSE]) as upstream,
        between(upstream, guard={"origins": ["https://app.example"]}) as (_, client),
    ):
        client.send(head("GET", "/ws", *UPGRADE, KEY, VERSION, *origin))
        answered = await within(client.reader.readuntil(HEAD_END))
        assert answered.startswith(b"HTTP/1.1 101 ")
        got = received(upstream.peers[0].received)
    assert got.all("origin") == [value.format(upstream=str(upstream.origin)) for value in arrives]


@pytest.mark.threat(6)
@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (head("GET", "/ws", *UPGRADE, KEY, VERSION, "Origin: https://evil.example"), "origin_not_allowed"),
        (head("GET", "/ws", *UPGRADE, KEY, VERSION, "Origin: null"), "origin_not_allowed"),
        (head("GET", "/ws", *UPGRADE, KEY, VERSION, "Origin: http://localhost:1"), "origin_not_allowed"),
        (head("GET", "/ws", *UPGRADE, KEY, VERSION, "Sec-Fetch-Site: cross-site"), "origin_not_allowed"),
        (HANDSHAKE.replace(b"Host: localhost", b"Host: evil.example"), "host_not_allowed"),
        (HANDSHAKE.replace(b"/ws", b"/no/ws"), "path_denied"),
        (HANDSHAKE.replace(b"/ws", b"/%00"), "bad_target"),
    ],
)
async def test_006_a_handshake_that_the_guard_refuses_reaches_nobody(between: Any, wire: bytes, code: str) -> None:
    """Browsers ask no leave for WebSockets: there is no preflight, so this is all that stands before them."""
    async with Upstream([]) as upstream, between(upstream, deny=[{"paths": ["/no/*"]}]) as (_, client):
        client.send(wire)
        assert (await client.answer()).code == code
        assert upstream.peers == []


@pytest.mark.threat(11)
async def test_a_handshake_needs_the_client_key_as_every_request_does(
    proxying: StartProxy, keyed: Keyed, canaries: Canaries
) -> None:
    """A browser can send it in the path or in a cookie alone; it does not reach the upstream."""
    key = canaries.mint("key")
    async with Upstream([REQUEST, SWITCH, CLOSE]) as upstream:
        config = keyed.config(upstream.origin, top={"guard": {"client_key": {"env": "KEY"}}})
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
            async with proxy.connect() as client:
                client.send(HANDSHAKE)
                assert (await client.answer()).code == "client_key_required"
            for wire in (
                HANDSHAKE.replace(b"/ws", f"/~{key}/ws".encode()),
                head("GET", "/ws", *UPGRADE, KEY, VERSION, f"Cookie: bearer_proxy_key={key}"),
            ):
                async with proxy.connect() as client:
                    await opened(client, wire)
        assert [received(peer.received).target for peer in upstream.peers] == ["/ws", "/ws"]
        assert all(key.encode() not in peer.received for peer in upstream.peers)


IMPROPER: Final = {
    "another method": head("POST", "/ws", *UPGRADE, KEY, VERSION),
    "a HEAD": head("HEAD", "/ws", *UPGRADE, KEY, VERSION),
    "a body": head("GET", "/ws", *UPGRADE, KEY, VERSION, "Content-Length: 28") + head("GET", "/2")[:28],
    "a chunked body": head("GET", "/ws", *UPGRADE, KEY, VERSION, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "no key": head("GET", "/ws", *UPGRADE, VERSION),
    "two keys": head("GET", "/ws", *UPGRADE, KEY, KEY, VERSION),
    "an empty key": head("GET", "/ws", *UPGRADE, "Sec-WebSocket-Key:", VERSION),
    "a short key": head("GET", "/ws", *UPGRADE, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==", VERSION),
    "a long key": head("GET", "/ws", *UPGRADE, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZXM=", VERSION),
    "a key that is no base64": head("GET", "/ws", *UPGRADE, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!==", VERSION),
    "a key beyond ASCII": head("GET", "/ws", *UPGRADE, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ\xe9==", VERSION),
    "no version": head("GET", "/ws", *UPGRADE, KEY),
    "another version": head("GET", "/ws", *UPGRADE, KEY, "Sec-WebSocket-Version: 8"),
    "two versions": head("GET", "/ws", *UPGRADE, KEY, VERSION, VERSION),
    "among others": head("GET", "/ws", "Connection: upgrade", "Upgrade: h2c, WebSocket", VERSION),
}  # fmt: skip


@pytest.mark.threat(41)
@pytest.mark.parametrize("name", IMPROPER)
async def test_041_an_improper_handshake_is_refused_and_its_connection_ends(between: Any, name: str) -> None:
    """RFC 6455 section 4.2.1; a body could hold another request, and is none."""
    async with Upstream([]) as upstream, between(upstream) as (proxy, client):
        client.send(IMPROPER[name])
        answer = await client.answer("HEAD" if name == "a HEAD" else "GET")
        assert answer.status == 400
        assert answer["proxy-status"] == 'bearer-proxy; details="bad_upgrade"'
        assert await client.at_end()
        assert upstream.peers == []
        assert (await line_of(proxy))["error"] == "bad_upgrade"


NOT_TAKEN: Final = {
    "h2c": head("GET", "/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"),
    "h2c with a body": head("POST", "/x", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 3") + b"abc",
    "another protocol": head("GET", "/x", "Connection: upgrade", "Upgrade: TLS/1.0, websocket/13", KEY, VERSION),
    "no Connection": head("GET", "/x", "Upgrade: websocket", KEY, VERSION),
    "no Upgrade": head("GET", "/x", "Connection: Upgrade", KEY, VERSION),
    "HTTP/1.0": head("GET", "/x", "Connection: Upgrade, keep-alive", UPGRADE[1], KEY, VERSION, version="1.0"),
}


@pytest.mark.threat(41)
@pytest.mark.parametrize("name", NOT_TAKEN)
async def test_041_any_other_upgrade_is_not_taken_and_leaves_an_ordinary_request(between: Any, name: str) -> None:
    """RFC 9110 section 7.8: the connection goes on speaking HTTP, and the upstream does not hear of it."""
    body = b"abc" if "body" in name else b""
    script: Script = [REQUEST, Got(body), OK, REQUEST, OK] if body else [REQUEST, OK, REQUEST, OK]
    async with Upstream(script) as upstream, between(upstream) as (_, client):
        client.send(NOT_TAKEN[name])
        assert (await client.answer()).body == b"fine"
        assert (await client.ask("GET", "/next")).body == b"fine"
        got = received(upstream.peers[0].received)
    assert got.target == "/x"
    assert got.all("connection") == got.all("upgrade") == got.all("http2-settings") == []
    assert upstream.requests == 2


@pytest.mark.parametrize("protocols", ["websocket", "WebSocket", "h2c, WEBSOCKET", "websocket, h2c"])
async def test_a_websocket_is_asked_for_in_any_spelling_and_among_others(between: Any, protocols: str) -> None:
    """Only what is taken goes up."""
    wire = head("GET", "/ws", "connection: UPGRADE", f"upgrade: {protocols}", KEY, VERSION)
    async with Upstream([REQUEST, SWITCH, CLOSE]) as upstream, between(upstream) as (_, client):
        await opened(client, wire)
        assert received(upstream.peers[0].received).all("upgrade") == ["websocket"]


# -- the upstream's answer to it


def switching(*lines: bytes) -> bytes:
    """A 101 of these fields."""
    return b"\r\n".join((b"HTTP/1.1 101 Switching Protocols", *lines, b"", b""))


WRONG: Final = {
    "no accept": switching(b"Upgrade: websocket", b"Connection: Upgrade"),
    "another accept": SWITCH.replace(b"s3pP", b"S3pP"),
    "two accepts": SWITCH.replace(ACCEPT, ACCEPT + b"\r\n" + ACCEPT),
    "no upgrade": switching(b"Connection: Upgrade", ACCEPT),
    "another protocol": SWITCH.replace(b"websocket", b"h2c"),
    "two protocols": SWITCH.replace(b"Upgrade: websocket", b"Upgrade: websocket\r\nUpgrade: h2c"),
    "no connection": switching(b"Upgrade: websocket", ACCEPT),
    "another connection": SWITCH.replace(b"Connection: Upgrade", b"Connection: close"),
    "nothing": switching(),
}


@pytest.mark.threat(42)
@pytest.mark.parametrize("name", WRONG)
async def test_042_a_101_that_does_not_answer_this_handshake_is_502(between: Any, name: str) -> None:
    """RFC 6455 section 4.1: no tunnel to whoever did not understand; that connection is used no more."""
    async with (
        Upstream([REQUEST, WRONG[name] + TRICKY], [REQUEST, OK]) as upstream,
        between(upstream) as (_, client),
    ):
        client.send(HANDSHAKE)
        answer = await client.answer()
        assert (answer.status, answer.code) == (502, "upstream_protocol")
        await within(upstream.peers[0].ended.wait())
        assert (await client.ask("GET")).body == b"fine"


@pytest.mark.threat(42)
@pytest.mark.parametrize("wire", [head("GET", "/"), NOT_TAKEN["h2c"]], ids=["no upgrade", "h2c"])
async def test_042_a_101_that_nobody_asked_for_is_502(between: Any, wire: bytes) -> None:
    """Even one that would answer a handshake."""
    async with Upstream([REQUEST, SWITCH]) as upstream, between(upstream) as (_, client):
        client.send(wire)
        assert (await client.answer()).code == "upstream_protocol"
        await within(upstream.peers[0].ended.wait())


@pytest.mark.parametrize(
    ("says", "status", "body"),
    [
        (OK, 200, b"fine"),
        (
            b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13, 8\r\nContent-Length: 2\r\n\r\nno",
            426,
            b"no",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", 200, b"fine"),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno", 401, b"no"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"fine"),
    ],
)
async def test_an_upstream_that_does_not_switch_gives_an_ordinary_answer(
    between: Any, says: bytes, status: int, body: bytes
) -> None:
    """It passes, and both connections go on."""
    async with Upstream([REQUEST, says, REQUEST, OK]) as upstream, between(upstream) as (_, client):
        client.send(HANDSHAKE)
        answer = await client.answer()
        assert (answer.status, answer.body, answer.all("connection")) == (status, body, [])
        assert (await client.ask("GET", "/next")).body == b"fine"
        assert len(upstream.peers) == 1


REFUSED: Final = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"


async def test_a_401_at_the_handshake_is_cured_by_a_newer_token(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """One refresh, the same handshake once more, and what the client sent ahead arrives behind the second 101."""
    script: Script = [REQUEST, REFUSED, REQUEST, SWITCH, Got(b"early"), b"late", CLOSE]
    async with Upstream(script) as upstream:
        config = {**tracker.config, "upstream": str(upstream.origin)}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy, proxy.connect() as client:
            await opened(client, HANDSHAKE + b"early")
            assert await rest(client) == b"late"
            line = await line_of(proxy)
        assert (line["status"], line["retried"], line["generation"]) == (101, True, 2)
        first, second = bytes(upstream.peers[0].received).split(HEAD_END)[:2]
        tokens = [received(each).all("authorization") for each in (first, second)]
        assert tokens[0] != tokens[1]
        assert [each.count(b"Sec-WebSocket-Key") for each in (first, second)] == [1, 1]


async def test_a_401_that_no_newer_token_cures_passes_behind_the_second_try(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Invariant 6: twice and no more."""
    async with Upstream([REQUEST, REFUSED, REQUEST, REFUSED, REQUEST, SWITCH]) as upstream:
        config = {**tracker.config, "upstream": str(upstream.origin)}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy, proxy.connect() as client:
            client.send(HANDSHAKE)
            answer = await client.answer()
            assert (answer.status, answer.body) == (401, b"no")
        assert upstream.requests == 2


async def test_without_a_token_no_handshake_goes_up(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Invariant 2."""
    tracker.double.set(token_endpoint="down")
    async with Upstream([]) as upstream:
        config = {**tracker.config, "upstream": str(upstream.origin)}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy, proxy.connect() as client:
            client.send(HANDSHAKE)
            assert (await client.answer()).code == "credential_unavailable"
        assert upstream.peers == []


# -- the tunnel


def _random(seed: int) -> random.Random:
    """Bytes and sizes that are the same in every run."""
    return random.Random(seed)  # noqa: S311  nothing here is secret


async def test_bytes_pass_untouched_both_ways_whatever_they_look_like(between: Any) -> None:
    """Those that came in one segment with the handshake and with the 101 first, each once and in its order."""
    script: Script = [
        REQUEST,
        SWITCH + b"first" + TRICKY,
        Got(b"early" + TRICKY),
        b"second",
        Got(TRICKY),
        TRICKY,
        CLOSE,
    ]
    async with Upstream(script) as upstream, between(upstream) as (_, client):
        await opened(client, HANDSHAKE + b"early" + TRICKY)
        expected = b"first" + TRICKY + b"second"
        assert await within(client.reader.readexactly(len(expected))) == expected
        client.send(TRICKY)
        assert await within(client.reader.readexactly(len(TRICKY))) == TRICKY
        assert bytes(upstream.peers[0].received).partition(HEAD_END)[2] == b"early" + TRICKY + TRICKY


async def test_megabytes_pass_both_ways_at_once(between: Any) -> None:
    """In pieces of every size, with the one direction not waiting for the other."""
    rng = _random(6455)
    down, up = rng.randbytes(4_000_000), rng.randbytes(4_000_000)
    go = asyncio.Event()
    pieces = [down[at : at + 77_777] for at in range(0, len(down), 77_777)]
    async with Upstream([REQUEST, SWITCH, *pieces, go, CLOSE]) as upstream, between(upstream) as (proxy, client):
        await opened(client)
        reading = asyncio.create_task(rest(client))
        at = 0
        while at < len(up):
            size = rng.choice([1, 100, 5_000, 300_000])
            client.send(up[at : at + size])
            await client.writer.drain()
            at += size
        peer = upstream.peers[0]
        head_size = bytes(peer.received).index(HEAD_END) + 4
        await within(peer.got(head_size + len(up)))
        go.set()
        arrived = await within(reading)
        assert hashlib.sha256(arrived).digest() == hashlib.sha256(down).digest()
        assert hashlib.sha256(peer.received[head_size:]).digest() == hashlib.sha256(up).digest()
        line = await line_of(proxy)
    assert (line["method"], line["status"], line["error"]) == ("GET", 101, None)
    assert (line["bytes_in"], line["bytes_out"]) == (len(up), len(down))


async def test_a_clients_end_is_passed_on_behind_its_last_byte_and_what_the_upstream_still_says_is_not_lost(
    between: Any,
) -> None:
    """A half-closed tunnel still carries the other half."""
    go = asyncio.Event()
    async with (
        Upstream([REQUEST, SWITCH, go, b"after all", CLOSE]) as upstream,
        between(upstream) as (proxy, client),
    ):
        await opened(client)
        client.send(b"last words")
        client.writer.write_eof()
        peer = upstream.peers[0]
        await within(peer.ended.wait())
        assert bytes(peer.received).endswith(HEAD_END + b"last words")
        assert proxy.lines() == []
        go.set()
        assert await rest(client) == b"after all"
        assert (await line_of(proxy))["error"] is None


@pytest.mark.parametrize("end", [CLOSE, EOF], ids=["closes", "ends its side"])
async def test_an_upstreams_end_is_passed_on_behind_its_last_byte(between: Any, end: Any) -> None:
    """However much the client had not read by then."""
    data = _random(101).randbytes(2_000_000)
    async with Upstream([REQUEST, SWITCH, data, end]) as upstream, between(upstream) as (proxy, client):
        await opened(client)
        assert await rest(client) == data
        await within(upstream.peers[0].ended.wait())
        assert (await line_of(proxy))["bytes_out"] == len(data)


async def test_066_an_upstream_that_breaks_off_breaks_the_tunnel_off(between: Any) -> None:
    """What came before passes; the log tells how it ended."""
    go = asyncio.Event()
    async with Upstream([REQUEST, SWITCH, b"half", go, RESET]) as upstream, between(upstream) as (proxy, client):
        await opened(client)
        assert await within(client.reader.readexactly(4)) == b"half"
        go.set()
        with contextlib.suppress(ConnectionResetError):
            assert await rest(client) == b""
        assert (await line_of(proxy))["error"] == "upstream_protocol"


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_009_a_client_that_hangs_up_ends_the_tunnel_behind_what_it_said(between: Any, how: str) -> None:
    """The upstream connection is freed."""
    async with Upstream([REQUEST, SWITCH, Got(b"bye"), CLOSE]) as upstream, between(upstream) as (proxy, client):
        await opened(client)
        client.send(b"bye")
        peer = upstream.peers[0]
        if how == "RST":
            await within(peer.got(b"bye"))
            reset(client.writer.get_extra_info("socket"))
        client.close()
        await within(peer.lost.wait())
        assert bytes(peer.received).endswith(HEAD_END + b"bye")
        assert (await line_of(proxy))["status"] == 101
        await until(lambda: not _clients(proxy))


async def test_the_connection_of_a_tunnel_serves_nobody_else_and_frees_its_place(between: Any) -> None:
    """In a pool of one."""
    go = asyncio.Event()
    async with Upstream([REQUEST, SWITCH, go, CLOSE], [REQUEST, OK]) as upstream:
        async with between(upstream, pool={"size": 1}) as (proxy, client):
            await opened(client)
            asking = asyncio.create_task(proxy.ask("GET"))
            await turns()
            assert not asking.done()
            go.set()
            assert await rest(client) == b""
            assert (await within(asking)).body == b"fine"
        assert [peer.requests for peer in upstream.peers] == [1, 1]


# -- bounds


async def test_a_tunnel_in_which_nobody_speaks_ends(between: Any) -> None:
    """After `timeouts.idle`; one that is used lives on, in whatever direction."""
    passed = asyncio.Event()
    async with (
        Upstream([REQUEST, SWITCH, Got(b"x" * 20), b"enough"]) as upstream,
        between(upstream, timeouts={"idle": 0.3}) as (proxy, client),
    ):
        await opened(client)
        loop = asyncio.get_running_loop()
        for number in range(20):  # one byte now and then, over more than the idle time
            loop.call_later(number * 0.025, client.send, b"x")
        loop.call_later(0.5, passed.set)
        assert await within(client.reader.readexactly(6)) == b"enough"
        await passed.wait()
        with contextlib.suppress(ConnectionResetError):
            assert await rest(client) == b""
        await within(upstream.peers[0].ended.wait())
        assert (await line_of(proxy))["error"] == "upstream_timeout"


async def test_114_a_client_that_does_not_read_stops_the_upstream_and_is_let_go(between: Any) -> None:
    """What it does not take waits at the upstream; after `timeouts.idle` both connections are free."""
    async with (
        Upstream([REQUEST, SWITCH, Repeat(bytes(100_000))]) as upstream,
        between(upstream, timeouts={"idle": 0.3}) as (proxy, client),
    ):
        await opened(client)
        client.stop_reading()
        await within(upstream.peers[0].lost.wait())
        line = await line_of(proxy)
        assert (line["error"], line["bytes_out"] < 64_000_000) == ("client_stalled", True)
        await until(lambda: not _clients(proxy))


@pytest.mark.parametrize("speaks", [False, True], ids=["and is silent", "and speaks on"])
async def test_114_an_upstream_that_does_not_read_stops_the_client_and_is_let_go(
    between: Any, *, speaks: bool
) -> None:
    """What it does not take waits at the client; that it speaks makes no difference."""
    unheard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: unheard.append(context))
    script: Script = [REQUEST, SWITCH, DEAF, *([Repeat(b"event")] if speaks else [])]
    async with Upstream(script) as upstream, between(upstream, timeouts={"idle": 0.3}) as (proxy, client):
        await opened(client)
        reading = asyncio.create_task(rest(client))
        client.send(bytes(40_000_000))
        with contextlib.suppress(ConnectionResetError):
            await reading
        line = await line_of(proxy)
        assert (line["error"], line["bytes_in"] < 40_000_000) == ("upstream_timeout", True)
        await until(lambda: not _clients(proxy))
    assert unheard == []


async def test_114_what_waits_in_a_tunnel_is_bounded(between: Any) -> None:
    """Both ends send, neither reads: next to nothing of it is in the proxy."""
    size = 40_000_000
    async with Upstream([REQUEST, SWITCH, DEAF, bytes(size)]) as upstream, between(upstream) as (proxy, client):
        await opened(client)
        client.stop_reading()
        client.send(bytes(size))
        await turns(3000)
        peer = upstream.peers[0]
        assert peer._transport is not None
        outside = client.writer.transport.get_write_buffer_size() + peer._transport.get_write_buffer_size()
        outside += held_by_kernel(urlsplit(proxy.url).port or 0, upstream.port)
        assert 2 * size - outside <= 2 * 512 * 1024
        client.writer.transport.abort()
        await within(peer.ended.wait())


async def test_122_a_tunnel_may_end_by_itself_while_the_instance_drains(between: Any) -> None:
    """Nothing of it is lost, and there are no new ones."""
    go = asyncio.Event()
    async with (
        Upstream([REQUEST, SWITCH, go, Got(b"more"), b"end", CLOSE]) as upstream,
        between(upstream) as (proxy, client),
    ):
        await opened(client)
        draining = asyncio.create_task(proxy.instance.drain())
        await until(lambda: proxy.lines("draining"))
        client.send(b"more")
        go.set()
        assert await rest(client) == b"end"
        await within(draining)
        assert (await line_of(proxy))["error"] is None


async def test_122_a_tunnel_that_does_not_end_is_cut_when_the_instance_has_drained(between: Any) -> None:
    """After `limits.drain`."""
    async with (
        Upstream([REQUEST, SWITCH]) as upstream,
        between(upstream, limits={"drain": 0.1}) as (proxy, client),
    ):
        await opened(client)
        await within(proxy.instance.drain())
        with contextlib.suppress(ConnectionResetError):
            assert await rest(client) == b""
        await within(upstream.peers[0].ended.wait())
        assert (await line_of(proxy))["error"] == "drain_timeout"


# -- real WebSockets


@contextlib.asynccontextmanager
async def chatting(handler: Callable[[ServerConnection], Any], **options: Any) -> AsyncIterator[tuple[Server, str]]:
    """A WebSocket server on loopback, and its URL as an upstream."""
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield server, f"{'https' if 'ssl' in options else 'http'}://127.0.0.1:{port}"


def websocket(proxy: Proxy, path: str = "/ws", **options: Any) -> connect:
    """A WebSocket client at the proxy."""
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    return connect(f"ws://localhost:{port}{path}", host=host, port=int(port), proxy=None, **options)


async def echo(peer: ServerConnection) -> None:
    """Send back whatever comes."""
    async for message in peer:
        await peer.send(message)


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_messages_of_every_kind_pass_between_two_websockets(
    proxying: StartProxy, keyed: Keyed, compression: str | None
) -> None:
    """Text, binary, empty, large, in fragments; with the extension and the protocol that the ends agreed on."""
    async with (
        chatting(echo, subprotocols=[Subprotocol("chat")], compression=compression) as (_, url),
        proxying(keyed.config(url), environ=keyed.environ) as proxy,
        websocket(proxy, subprotocols=[Subprotocol("chat")], compression=compression) as client,
    ):
        assert client.subprotocol == "chat"
        assert len(client.protocol.extensions) == (compression is not None)
        for message in ("", "text \N{SNOWMAN}", b"", b"\0\xff" * 10, "x" * 900_000, bytes(900_000)):
            await client.send(message)
            assert await within(client.recv()) == message
        await client.send(["one ", "two ", "three"])
        assert await within(client.recv()) == "one two three"


async def test_pings_pass_both_ways_and_are_answered_by_the_other_end(proxying: StartProxy, keyed: Keyed) -> None:
    """The proxy itself says nothing in a tunnel."""
    answered = asyncio.Event()

    async def pinging(peer: ServerConnection) -> None:
        await (await peer.ping(b"down"))
        answered.set()
        await peer.wait_closed()

    async with (
        chatting(pinging) as (_, url),
        proxying(keyed.config(url), environ=keyed.environ) as proxy,
        websocket(proxy) as client,
    ):
        await within(await client.ping(b"up"))
        await within(answered.wait())


@pytest.mark.parametrize("closes", ["client", "server"])
async def test_a_close_passes_with_its_code_and_its_reason(proxying: StartProxy, keyed: Keyed, closes: str) -> None:
    """Both ends end as they agreed, and the log has one line."""
    ends: list[tuple[int | None, str | None]] = []
    done = asyncio.Event()

    async def closing(peer: ServerConnection) -> None:
        if closes == "server":
            await peer.close(4001, "enough")
        else:
            await peer.wait_closed()
        ends.append((peer.close_code, peer.close_reason))
        done.set()

    async with chatting(closing) as (_, url), proxying(keyed.config(url), environ=keyed.environ) as proxy:
        client: ClientConnection
        async with websocket(proxy) as client:
            if closes == "client":
                await client.close(4001, "enough")
            else:
                with pytest.raises(ConnectionClosed) as closed:
                    await within(client.recv())
                assert not isinstance(closed.value, ConnectionClosedOK)
            ends.append((client.close_code, client.close_reason))
        await within(done.wait())
        line = await line_of(proxy)
    assert ends == [(4001, "enough")] * 2
    assert (line["status"], line["error"]) == (101, None)


async def test_a_websocket_server_sees_our_token_and_a_refused_one_is_renewed(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The client says nothing of either, and notices nothing."""
    tokens: list[str] = []

    def admit(_peer: ServerConnection, request: Request) -> Response | None:
        tokens.append(request.headers["Authorization"])
        return None if len(set(tokens)) > 1 else _peer.respond(HTTPStatus.UNAUTHORIZED, "no")

    async with chatting(echo, process_request=admit) as (_, url):
        config = {**tracker.config, "upstream": url}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
            async with websocket(proxy, additional_headers={"Authorization": "Bearer mine"}) as client:
                await client.send("hello")
                assert await within(client.recv()) == "hello"
            async with websocket(proxy) as client:
                await client.send("again")
                assert await within(client.recv()) == "again"
    assert len(tokens) == 3
    assert tokens[0] != tokens[1] == tokens[2]
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}


async def test_a_websocket_that_the_server_refuses_is_refused_with_its_own_answer(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """As it would be without the proxy."""

    def refuse(peer: ServerConnection, _request: Request) -> Response:
        return peer.respond(HTTPStatus.GONE, "moved away")

    async with (
        chatting(echo, process_request=refuse) as (_, url),
        proxying(keyed.config(url), environ=keyed.environ) as proxy,
    ):
        with pytest.raises(InvalidStatus) as refused:
            await websocket(proxy)
    assert (refused.value.response.status_code, refused.value.response.body) == (410, b"moved away")


async def test_a_websocket_goes_up_by_tls(proxying: StartProxy, keyed: Keyed, tmp_path: Path) -> None:
    """Its messages and its end; the certificate is checked as for every request."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    async with chatting(echo, ssl=context) as (_, url):
        config = keyed.config(url, tls={"ca": str(tmp_path / "ca.pem")})
        async with proxying(config, environ=keyed.environ) as proxy:
            async with websocket(proxy) as client:
                for message in ("hello", bytes(900_000)):
                    await client.send(message)
                    assert await within(client.recv()) == message
                await client.close(1000, "done")
                assert (client.close_code, client.close_reason) == (1000, "done")
            assert (await line_of(proxy))["error"] is None
        async with proxying(keyed.config(url), environ=keyed.environ) as proxy:
            with pytest.raises(InvalidStatus) as refused:
                await websocket(proxy)
            assert b"upstream_tls" in refused.value.response.body


async def test_many_websockets_live_beside_each_other(proxying: StartProxy, keyed: Keyed) -> None:
    """Each message comes back where it came from."""
    async with chatting(echo) as (_, url), proxying(keyed.config(url), environ=keyed.environ) as proxy:

        async def talk(number: int) -> None:
            async with websocket(proxy, f"/{number}") as client:
                for count in range(10):
                    await client.send(f"{number} {count}")
                    assert await within(client.recv()) == f"{number} {count}"

        await within(asyncio.gather(*map(talk, range(30))))
        await until(lambda: len(proxy.lines()) == 30)
        assert {line["status"] for line in proxy.lines()} == {101}
