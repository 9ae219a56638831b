"""Answers that come before the body is sent: repeats from what was kept, Expect: 100-continue, refusals at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.client import Client
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.raw import behind_head, chunk, framed, head, unchunked, within
from tests.support.routes import OK, Keyed, received
from tests.support.upstreams import CLOSE, DEAF, HEAD_END, REQUEST, RESET, Got, Peer, Script, Step, Upstream, turns
from tests.support.vendors import Vendor

KIB: Final = 1024
MIB: Final = 1024 * KIB
#: What is kept of a body in most of these tests: 1 KiB in memory, 64 KiB on disk.
KEPT: Final = {"memory": "1KiB", "disk": "64KiB"}
REFUSED: Final = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 7\r\n\r\nrefused"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
NOT_REPLAYABLE: Final = 'bearer-proxy; details="refreshed, body not replayable"'

#: `async with refreshing(upstream) as (proxy, client)`.
Refreshing = Callable[[Upstream], Any]


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


@pytest.fixture
def refreshing(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock) -> Refreshing:
    """A proxy before an upstream that refuses as it likes; a refusal gets a new token from the vendor's double."""

    @contextlib.asynccontextmanager
    async def start(upstream: Upstream) -> AsyncIterator[tuple[Proxy, Client]]:
        config = {**tracker.config, "upstream": str(upstream.origin), "replay": KEPT}
        async with (
            proxying(config, environ=tracker.environ, clock=clock) as proxy,
            proxy.connect() as client,
        ):
            yield proxy, client

    return start


@cache
def pattern(size: int) -> bytes:
    """`size` bytes of which no two pieces are alike, none of them a CR."""
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


def uploaded(peer: Peer) -> bytes:
    """The content of the one request that came on this connection, which must be whole."""
    first, wire = received(peer.received), behind_head(peer.received)
    if first.all("transfer-encoding") == ["chunked"]:
        return unchunked(wire)
    assert first.all("content-length") == [str(len(wire))]
    return wire


def tokens(upstream: Upstream) -> list[str]:
    """The Authorization of the first request on each connection."""
    return [received(peer.received).all("authorization")[0] for peer in upstream.peers]


def upload(body: bytes, framing: str, *lines: str) -> bytes:
    """A whole POST."""
    line, end = framed(framing, len(body))
    return head("POST", "/", line, *lines) + (chunk(body) if end and body else body) + end


def deleted_files() -> int:
    """How many files this process holds open that have no name any more."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("this machine has no /proc/self/fd")
    count = 0
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            count += entry.readlink().name.endswith("(deleted)")
    return count


# -- repeats


@pytest.mark.threat(104)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(
    ("size", "on_disk"),
    [(0, 0), (1, 0), (KIB - 1, 0), (KIB, 0), (KIB + 1, 1), (60 * KIB, 1)],
    ids=["0", "1", "memory - 1", "memory", "memory + 1", "disk"],
)
async def test_104_a_refused_upload_is_repeated_from_memory_or_from_disk(
    refreshing: Refreshing, size: int, on_disk: int, framing: str
) -> None:
    """Byte for byte, with another token; on disk it has no name, and behind the answer nothing is left of it."""
    body, go = pattern(size), asyncio.Event()
    _, end = framed(framing, size)
    first: Script = [REQUEST, Got(end or size), REFUSED]
    second: Script = [REQUEST, Got(end or size), go, OK]
    before = deleted_files()
    async with Upstream(first, second) as upstream, refreshing(upstream) as (_, client):
        client.send(upload(body, framing))
        await within(upstream.until(lambda: len(upstream.peers) == 2 and upstream.peers[1].requests == 1))
        assert deleted_files() == before + on_disk
        go.set()
        assert (await client.answer()).body == b"fine"
        assert [uploaded(peer) for peer in upstream.peers] == [body, body]
        assert len(set(tokens(upstream))) == 2
        assert deleted_files() == before


@pytest.mark.threat(104)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_104_an_upload_beyond_what_is_kept_is_not_repeated_and_the_next_one_succeeds(
    refreshing: Refreshing, tracker: Vendor[TeleTracker], framing: str
) -> None:
    """The token is refreshed all the same; the refusal passes as it is, and says so."""
    body = pattern(80 * KIB)
    _, end = framed(framing, len(body))
    script: Script = [REQUEST, Got(end or len(body)), REFUSED, REQUEST, OK]
    before = deleted_files()
    async with Upstream(script, [REQUEST, OK]) as upstream, refreshing(upstream) as (proxy, client):
        client.send(upload(body, framing))
        answer = await client.answer()
        assert (answer.status, answer.body) == (401, b"refused")
        assert answer["proxy-status"] == NOT_REPLAYABLE
        assert deleted_files() == before
        assert (await proxy.ask("GET", "/")).body == b"fine"
    assert sum(peer.requests for peer in upstream.peers) == 2
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}


#: What an upstream may do behind an answer that came too early.
AFTERWARDS: Final[dict[str, list[Step]]] = {"reads on": [], "closes": [CLOSE], "resets": [RESET]}


@pytest.mark.threat(105)
@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(
    "sizes", [(512, 512), (20 * KIB, 20 * KIB), (20 * KIB, MIB)], ids=["memory", "disk", "beyond"]
)
async def test_105_a_refusal_within_an_upload_stops_it_and_the_whole_body_goes_once_more(
    refreshing: Refreshing, tracker: Vendor[TeleTracker], sizes: tuple[int, int], framing: str, then: str
) -> None:
    """linkerd#1017: what was kept goes first, then what the client still sends, which needs no room at all."""
    (before, _), body, refuse = sizes, pattern(sum(sizes)), asyncio.Event()
    line, end = framed(framing, len(body))
    pieces = [chunk(body[:before]), chunk(body[before:])] if end else [body[:before], body[before:]]
    first: Script = [REQUEST, refuse, REFUSED, *AFTERWARDS[then]]
    second: Script = [REQUEST, Got(body[-8:] + (b"\r\n" + end if end else b"")), OK]
    async with Upstream(first, second) as upstream, refreshing(upstream) as (_, client):
        client.send(head("POST", "/", line) + pieces[0])
        peer = await within(upstream.peer())
        await within(peer.got(body[before - 8 : before]))
        tracker.double.set(token_endpoint="slow")
        refuse.set()
        await within(tracker.double.holding())
        client.send(pieces[1] + end)
        await turns(200)
        assert body[before : before + 8] not in peer.received
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        assert (await client.answer()).body == b"fine"
        assert uploaded(upstream.peers[1]) == body
        await within(peer.ended.wait())
        assert len(set(tokens(upstream))) == 2


async def test_105_a_refusal_within_an_upload_passes_unchanged_where_no_newer_token_can_be_had(
    refreshing: Refreshing, tracker: Vendor[TeleTracker]
) -> None:
    """The client has not sent all of its body; the answer does not wait for the rest."""
    refuse = asyncio.Event()
    async with Upstream([REQUEST, refuse, REFUSED]) as upstream, refreshing(upstream) as (_, client):
        client.send(head("POST", "/", "Content-Length: 9") + b"abc")
        await within((await within(upstream.peer())).got(b"abc"))
        tracker.double.set(token_endpoint="down")
        refuse.set()
        answer = await client.answer()
        assert (answer.status, answer.body, answer.all("proxy-status")) == (401, b"refused", [])
        assert answer["connection"] == "close"
        assert len(upstream.peers) == 1


async def test_105_a_refusal_behind_more_than_is_kept_reaches_a_client_that_still_sends(
    refreshing: Refreshing,
) -> None:
    """No repeat is possible; the answer does not wait for the end of the upload."""
    body = pattern(400 * KIB)
    script: Script = [REQUEST, Got(200 * KIB), REFUSED, Got(MIB)]
    async with Upstream(script, [REQUEST, OK]) as upstream, refreshing(upstream) as (_, client):
        client.send(head("POST", "/", f"Content-Length: {2 * len(body)}") + body)
        answer = await client.answer()
        assert (answer.status, answer.body, answer["proxy-status"]) == (401, b"refused", NOT_REPLAYABLE)
        await within(upstream.peers[0].ended.wait())


@pytest.mark.threat(105)
@pytest.mark.parametrize("then", [*AFTERWARDS, "stops reading"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_105_an_early_answer_wins_however_the_upstream_ends_its_side(
    proxying: StartProxy, keyed: Keyed, framing: str, then: str
) -> None:
    """E19: twenty uploads each, twenty times 413 and never 502; the client sees it though it still sends."""
    body, runs = pattern(4 * MIB), 20
    too_large = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge"
    wire = upload(body, framing)
    async with (
        Upstream([REQUEST, Got(64 * KIB), too_large, *AFTERWARDS.get(then, [DEAF])]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        for _ in range(runs):
            async with proxy.connect() as client:
                client.send(wire)
                answer = await client.answer()
                assert (answer.status, answer.body) == (413, b"large")
        assert len(upstream.peers) == runs
        assert all(len(peer.received) < len(body) for peer in upstream.peers)


@pytest.mark.threat(57)
async def test_105_a_static_token_is_not_tried_again_within_an_upload(proxying: StartProxy, keyed: Keyed) -> None:
    """Its refusal passes at once, and says whose it is."""
    async with (
        Upstream([REQUEST, Got(b"abc"), REFUSED]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.send(head("POST", "/", "Content-Length: 9") + b"abc")
        answer = await client.answer()
        assert (answer.status, answer["connection"]) == (401, "close")
        assert answer["proxy-status"] == 'bearer-proxy; details="credential rejected"'
        await within(upstream.peers[0].ended.wait())
        assert len(upstream.peers) == 1


# -- Expect: 100-continue


def expecting(size: int, *lines: str, value: str = "100-continue", version: str = "1.1") -> bytes:
    """The head of an upload that waits for its 100."""
    return head("POST", "/", f"Content-Length: {size}", f"Expect: {value}", *lines, version=version)


def static(
    proxying: StartProxy, keyed: Keyed, upstream: Upstream
) -> contextlib.AbstractAsyncContextManager[tuple[Proxy, Client]]:
    """A proxy with a token that cannot change, and a connection to it."""

    @contextlib.asynccontextmanager
    async def start() -> AsyncIterator[tuple[Proxy, Client]]:
        async with (
            proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
            proxy.connect() as client,
        ):
            yield proxy, client

    return start()


@pytest.mark.threat(45)
@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
async def test_045_a_100_is_the_upstreams(proxying: StartProxy, keyed: Keyed, value: str) -> None:
    """The expectation is forwarded; the client waits for the upstream's word, with every byte of the body."""
    go = asyncio.Event()
    async with (
        Upstream([REQUEST, go, CONTINUE, Got(b"abc"), OK, REQUEST, OK]) as upstream,
        static(proxying, keyed, upstream) as (_, client),
    ):
        client.send(expecting(3, value=value))
        peer = await within(upstream.peer())
        got = await within(peer.got(HEAD_END))
        assert [each.lower() for each in received(got).all("expect")] == ["100-continue"]
        assert await nothing_comes(client)
        go.set()
        assert await within(client.reader.readuntil(HEAD_END)) == CONTINUE
        assert behind_head(peer.received) == b""
        client.send(b"abc")
        assert (await client.answer()).body == b"fine"
        assert behind_head(peer.received) == b"abc"
        assert (await client.ask("GET", "/")).body == b"fine"


async def nothing_comes(client: Client) -> bool:
    """Is there nothing for the client, though all that is ready had its turn?"""
    await turns(200)
    return not client.reader._buffer  # type: ignore[attr-defined]  # StreamReader has no other way to look


@pytest.mark.threat(45)
@pytest.mark.parametrize("size", [3, 2 * MIB], ids=["small", "more than is kept"])
async def test_045_a_refusal_of_an_expectation_costs_no_byte_of_the_body(refreshing: Refreshing, size: int) -> None:
    """The token is refreshed and the expectation sent again; the client sees one 100, and sends its body once."""
    body = pattern(size)
    second: Script = [REQUEST, CONTINUE, Got(size), OK]
    async with Upstream([REQUEST, REFUSED], second) as upstream, refreshing(upstream) as (_, client):
        client.send(expecting(size))
        assert await within(client.reader.readuntil(HEAD_END)) == CONTINUE
        client.send(body)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"fine")
        assert answer.raw_head.startswith(b"HTTP/1.1 200 ")
        assert behind_head(upstream.peers[0].received) == b""
        assert uploaded(upstream.peers[1]) == body
        assert [received(peer.received).all("expect") for peer in upstream.peers] == [["100-continue"]] * 2
        assert len(set(tokens(upstream))) == 2


@pytest.mark.threat(45)
@pytest.mark.parametrize("status", [b"401 Unauthorized", b"404 Not Found", b"413 Content Too Large", b"200 OK"])
async def test_045_a_final_answer_to_an_expectation_passes_and_its_connection_serves_nobody_else(
    proxying: StartProxy, keyed: Keyed, status: bytes
) -> None:
    """CVE-2024-24791: the announced body never came, so the next request on that connection would be taken for it.

    The client may send its body or leave it out (RFC 9110 section 10.1.1): on its connection nothing can follow.
    """
    final = b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nfinal"
    async with (
        Upstream([REQUEST, final], [REQUEST, OK]) as upstream,
        static(proxying, keyed, upstream) as (proxy, client),
    ):
        client.send(expecting(3))
        answer = await client.answer()
        assert (answer.status, answer.body) == (int(status[:3]), b"final")
        assert answer["connection"] == "close"
        assert behind_head(upstream.peers[0].received) == b""
        assert (await proxy.ask("GET", "/")).body == b"fine"
        assert len(upstream.peers) == 2
        await within(upstream.peers[0].ended.wait())


async def test_045_a_client_that_stops_waiting_for_its_100_is_served_too(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """Many upstreams know no expectations; the client sends after a while, and the body goes (RFC 9110 10.1.1)."""
    async with (
        Upstream([REQUEST, Got(b"abc"), OK, REQUEST, OK]) as upstream,
        static(proxying, keyed, upstream) as (_, client),
    ):
        client.send(expecting(3))
        await within((await within(upstream.peer())).got(HEAD_END))
        client.send(b"abc" + head("GET", "/2"))
        answers = [await client.answer(), await client.answer()]
        assert [answer.body for answer in answers] == [b"fine", b"fine"]
        assert len(upstream.peers) == 1


async def test_045_a_client_of_http_1_0_gets_no_100(proxying: StartProxy, keyed: Keyed) -> None:
    """RFC 9110 section 10.1.1: its expectation is ignored, and section 15.2: it gets no interim answer."""
    async with (
        Upstream([REQUEST, Got(b"abc"), CONTINUE + OK]) as upstream,
        static(proxying, keyed, upstream) as (_, client),
    ):
        client.send(expecting(3, version="1.0") + b"abc")
        assert (await within(client.reader.read())).startswith(b"HTTP/1.1 200 ")
        assert received(upstream.peers[0].received).all("expect") == []


@pytest.mark.threat(45)
@pytest.mark.parametrize("value", ["something", "100-continue, something", "200-continue", "100-continue=1", ""])
async def test_045_any_other_expectation_is_417_and_reaches_nobody(
    proxying: StartProxy, keyed: Keyed, value: str
) -> None:
    """RFC 9110 section 10.1.1; a body that may follow is not taken for a request."""
    async with Upstream([REQUEST, OK]) as upstream, static(proxying, keyed, upstream) as (_, client):
        client.send(expecting(3, value=value))
        answer = await client.answer()
        assert (answer.status, answer.code, answer["connection"]) == (417, "bad_expectation", "close")
        assert upstream.peers == []
