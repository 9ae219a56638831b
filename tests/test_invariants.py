"""The ten invariants of docs/architecture.md, each attacked from several sides."""

import asyncio
import gzip
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from proxy.demo.teletracker import TeleTracker
from tests.support.api import Api, Seen, api
from tests.support.client import DEADLINE
from tests.support.harness import HeldClock, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import OK, Keyed, received
from tests.support.upstreams import CLOSE, REQUEST, Got, Script, Upstream, turns
from tests.support.vendors import Vendor


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


def login(endpoint: Api, upstream: object) -> dict[str, Any]:
    """The short form for a login at `endpoint` and an API at `upstream`."""
    step = {"url": f"{endpoint.url}/login", "encoding": "json", "fields": {"pin": {"env": "PIN"}}}
    credential = {"type": "login", "login": step, "response": {"token": "/t"}}
    return {"upstream": str(upstream), "credential": credential}


# -- 1


@pytest.mark.threat(23)
@pytest.mark.parametrize(
    "target",
    ["//{other}/x", "/http://{other}/", "/@{other}/", "/?url=http://{other}/", "http://{other}/", "{other}"],
)
@pytest.mark.parametrize("name", ["Host", "X-Forwarded-Host", "X-Original-URL", "Forwarded"])
async def test_invariant_1_a_credential_is_sent_only_to_the_origins_it_is_bound_to(
    proxying: StartProxy, keyed: Keyed, target: str, name: str
) -> None:
    """No part of a request chooses where it goes."""
    async with api() as upstream, api() as other:
        authority = other.url.removeprefix("http://")
        async with proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
            await proxy.ask("GET", target.format(other=authority), {name: authority})
        assert other.seen == []
        assert all(seen.all("host") == [upstream.url.removeprefix("http://")] for seen in upstream.seen)


@pytest.mark.threat(54, 61)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_invariant_1_also_where_the_upstream_or_the_token_endpoint_redirects(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock, status: int
) -> None:
    """A redirect of the upstream is the client's to follow; one of the token endpoint is an error."""

    async def redirect(_seen: Seen) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": f"{other.url}/stolen"})

    async def grant(_seen: Seen) -> web.StreamResponse:
        return web.json_response({"t": token})

    token, environ = canaries.mint("token"), {"PIN": canaries.mint("key")}
    async with api() as other, api(redirect) as upstream, api(grant) as endpoint:
        async with proxying(login(endpoint, upstream.url), environ=environ, clock=clock) as proxy:
            answer = await proxy.ask("GET")
            assert (answer.status, answer["location"]) == (status, f"{other.url}/stolen")
        endpoint.answer = redirect
        async with proxying(login(endpoint, upstream.url), environ=environ, clock=clock) as proxy:
            assert (await proxy.ask("GET")).code == "credential_unavailable"
        assert other.seen == []


async def test_invariant_1_each_route_has_its_own_credential_or_none(
    proxying: StartProxy, canaries: Canaries
) -> None:
    """Whatever the other routes have, and though a client repeats its fields on one connection."""
    environ = {"A": canaries.mint("token"), "B": canaries.mint("token")}
    async with api() as first, api() as second, api() as third:
        config = {
            "routes": [
                {"prefix": "/a", "upstream": first.url, "credential": "a"},
                {"prefix": "/b", "upstream": second.url, "credential": "b"},
                {"prefix": "/", "upstream": third.url},
            ],
            "credentials": {
                "a": {"type": "static", "token": {"env": "A"}},
                "b": {"type": "static", "token": {"env": "B"}},
            },
        }
        async with proxying(config, environ=environ) as proxy, proxy.connect() as client:
            for target in 3 * ("/a", "/b", "/c"):
                assert (await client.ask("GET", target)).status == 200
            for target in ("/a/../b", "/b/../c", "/a%2F..%2Fb"):
                await proxy.ask("GET", target)
        assert {value for seen in first.seen for value in seen.all("authorization")} == {f"Bearer {environ['A']}"}
        assert {value for seen in second.seen for value in seen.all("authorization")} == {f"Bearer {environ['B']}"}
        assert [seen.all("authorization") for seen in third.seen] == [[]] * len(third.seen)
        assert [len(each.seen) for each in (first, second)] == [3, 3]
        for each in (first, second, third):
            assert {seen.all("host")[0] for seen in each.seen} == {each.url.removeprefix("http://")}


# -- 2


GARBAGE = {
    "no JSON": b"<html>",
    "no token": b'{"x": 1}',
    "an empty token": b'{"t": ""}',
    "a token that is no text": b'{"t": {"a": 1}}',
    "a token with a line break": b'{"t": "abcdefghijkl\\r\\nX-Evil: 1"}',
    "a token beyond ASCII": b'{"t": "abcdefghijkl\\u00e9"}',
}


@pytest.mark.threat(52)
@pytest.mark.parametrize("reply", GARBAGE)
async def test_invariant_2_without_a_token_nothing_reaches_the_upstream(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock, reply: str
) -> None:
    """Nor with one that cannot be sent."""

    async def grant(_seen: Seen) -> web.StreamResponse:
        return web.Response(body=GARBAGE[reply], content_type="application/json")

    async with api() as upstream, api(grant) as endpoint:
        environ = {"PIN": canaries.mint("key")}
        async with proxying(login(endpoint, upstream.url), environ=environ, clock=clock) as proxy:
            for method in ("GET", "POST"):
                answer = await proxy.ask(method, "/", {"Authorization": "Bearer mine"}, b"x")
                assert (answer.status, answer.code) == (503, "credential_unavailable")
        assert upstream.seen == []
        assert len(endpoint.seen) == 1


@pytest.mark.threat(52)
@pytest.mark.parametrize("switch", ["down", "hang"])
async def test_invariant_2_also_where_the_token_has_just_ended(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, switch: str
) -> None:
    """An expired token is never sent, and the old one is no stand-in."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.move(3600)
        tracker.double.set(token_endpoint=switch)
        asking = asyncio.create_task(proxy.ask("GET", "/calls"))
        if switch == "hang":
            await tracker.double.holding()
            tracker.double.release()
        assert (await asking).code == "credential_unavailable"
    assert tracker.double.requests["GET /calls"] == 1


# -- 3


ATTACKS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "one of its own": ("/", [("Authorization", "Bearer mine")]),
    "several": ("/", [("authorization", "Bearer mine"), ("AUTHORIZATION", "Basic bWluZTptaW5l")]),
    "hop-by-hop": ("/", [("Connection", "authorization, x-api-key, cookie"), ("Authorization", "mine")]),
    "hop-by-hop twice": ("/", [("Connection", "close, Authorization"), ("connection", "X-Api-Key,Cookie")]),
    "another spelling": ("/", [("X_Api_Key", "mine"), ("x.api.key", "mine"), ("x-api_key", "mine")]),
    "the query": ("/?key=mine&%6bey=mine&KEY=mine&key[]=mine", []),
    "the query behind a semicolon": ("/?a=1;key=mine", []),
    "a cookie": ("/", [("Cookie", "session=mine; session=mine"), ("cookie", "session = mine")]),
    "a quoted cookie": ("/", [("Cookie", 'a="; session=mine; b="')]),
    "a fragmented query": ("/?&&key=mine&", []),
}


@pytest.mark.threat(49)
@pytest.mark.parametrize("attack", ATTACKS)
async def test_invariant_3_nothing_a_client_sends_removes_replaces_or_reveals_the_credential(
    proxying: StartProxy, keyed: Keyed, attack: str
) -> None:
    """Each place holds ours once and nothing else, and the answer shows none of them."""
    target, headers = ATTACKS[attack]
    places = [{"header": "Authorization"}, {"header": "X-Api-Key"}, {"query": "key"}, {"cookie": "session"}]
    async with Upstream([REQUEST, OK]) as upstream:
        config = keyed.config(upstream.origin)
        config["credentials"] = {"default": keyed.credential(place=places)}
        async with proxying(config, environ=keyed.environ) as proxy:
            answer = await proxy.ask("GET", target, headers)
        [peer] = upstream.peers
    got = received(peer.received)
    assert got.all("authorization") == [f"Bearer {keyed.token}"]
    assert got.all("x-api-key") == [keyed.token]
    assert got.target.endswith(f"key={keyed.token}")
    assert got.all("cookie")[0].endswith(f"session={keyed.token}")
    assert "mine" not in bytes(peer.received).decode("latin-1")
    assert got.names().count("Host") == 1
    assert answer.status == 200


@pytest.mark.threat(26)
@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "HEAD"])
async def test_invariant_3_no_method_reveals_the_credential(
    proxying: StartProxy, keyed: Keyed, method: str
) -> None:
    """TRACE would echo it; an echo in fields is dropped in every form that a field can hold."""

    async def echo(seen: Seen) -> web.StreamResponse:
        [value] = seen.all("authorization")
        return web.Response(headers={"X-Echo": value, "Set-Cookie": f"t={keyed.token}", "Link": f"<{keyed.token}>"})

    async with api(echo) as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        answer = await proxy.ask(method, "/", {"Max-Forwards": "0"})
        assert keyed.token.encode() not in answer.raw_head + answer.body
        assert len(upstream.seen) == (method in {"OPTIONS", "HEAD"})


async def test_invariant_3_also_where_an_upstream_repeats_its_head(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """What echoes no token of today may echo that of tomorrow: a known head is looked at again."""
    tokens = ["token-of-the-first-hour", "token-of-the-second-hour"]

    async def grant(_seen: Seen) -> web.StreamResponse:
        return web.json_response({"t": tokens[len(endpoint.seen) - 1], "in": 3600})

    echo = b"HTTP/1.1 200 OK\r\nX-Echo: token-of-the-second-hour\r\nContent-Length: 0\r\n\r\n"
    async with Upstream([REQUEST, echo] * 4) as upstream, api(grant) as endpoint:
        config = login(endpoint, upstream.origin)
        config["credential"]["response"]["lifetime"] = "/in"
        config["pool"] = {"idle": "2h"}
        async with proxying(config, environ={"PIN": canaries.mint("key")}, clock=clock) as proxy:
            answers = [await proxy.ask("GET") for _ in range(2)]
            clock.move(3600)
            answers += [await proxy.ask("GET") for _ in range(2)]
        sent = bytes(upstream.peers[0].received)
    assert [answer.all("x-echo") for answer in answers] == [[tokens[1]], [tokens[1]], [], []]
    assert [sent.count(token.encode()) for token in tokens] == [2, 2]


# -- 4


@pytest.mark.threat(75)
async def test_invariant_4_no_live_secret_appears_in_any_output(
    proxying: StartProxy, keyed: Keyed, canaries: Canaries
) -> None:
    """A client that holds them writes them wherever it can; log, metrics, states and refusals show none."""
    key = canaries.mint("key")
    async with api() as upstream:
        config = keyed.config(
            upstream.url, top={"guard": {"client_key": {"env": "KEY"}}}, deny=[{"paths": ["/no*"]}]
        )
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
            for secret in (keyed.token, key):
                for target in (
                    f"/{secret}",
                    f"/no/{secret}",
                    f"/?{secret}=1",
                    f"/{secret}%zz",
                    f"/~{key}/{secret}",
                ):
                    await proxy.ask("GET", target, {"X-Proxy-Key": key, "User-Agent": secret})
                    await proxy.ask("GET", target, {"Origin": f"https://{secret}.example"})
                await proxy.ask(secret[:20], "/")
            shown = [proxy.log.getvalue()]
            asked = [await proxy.admin("GET", path) for path in ("/metrics", "/readyz", "/api/credentials")]
            shown += [answer.body.decode() for answer in asked]
    assert len(proxy.lines()) == 22
    for secret in (keyed.token, key):
        assert not any(secret in text for text in shown)
    assert "***" in shown[0]


@pytest.mark.threat(22)
async def test_invariant_4_no_client_reads_the_key_of_another_out_of_a_head_that_comes_again(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """A reference is rewritten for the one who asked: its key's segment, and the name by which it called."""
    key = "client-key_0123456789"
    async with Upstream() as upstream:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {upstream.origin}/next\r\nContent-Length: 0\r\n\r\n".encode()
        upstream.plays([REQUEST, moved] * 6)
        config = keyed.config(upstream.origin, top={"guard": {"client_key": {"env": "KEY"}}})
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
            found = [
                (await proxy.ask("GET", target, {"Host": host, "X-Proxy-Key": key}))["location"]
                for target, host in 2 * [(f"/~{key}/x", "localhost"), ("/x", "localhost"), ("/x", "127.0.0.1:1")]
            ]
        assert len(upstream.peers) == 1
    assert found == 2 * [
        f"http://localhost/~{key}/next",
        "http://localhost/next",
        "http://127.0.0.1:1/next",
    ]


# -- 5


@pytest.mark.threat(86)
@pytest.mark.parametrize("status", [200, 500], ids=["it succeeds", "it fails"])
async def test_invariant_5_at_most_one_token_request_per_credential_is_in_flight(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock, status: int
) -> None:
    """Requests, refusals, a forced refresh and clients that go: all share it, and its failure."""
    token, at_once, most = canaries.mint("token"), 0, 0
    arrived, go = asyncio.Event(), asyncio.Event()

    async def grant(_seen: Seen) -> web.StreamResponse:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        arrived.set()
        await go.wait()
        at_once -= 1
        return web.json_response({"t": token}, status=status)

    async with api() as upstream, api(grant) as endpoint:
        environ = {"PIN": canaries.mint("key")}
        async with proxying(login(endpoint, upstream.url), environ=environ, clock=clock) as proxy:
            asking = [asyncio.create_task(proxy.ask("GET")) for _ in range(50)]
            await arrived.wait()
            forced = asyncio.create_task(proxy.admin("POST", "/api/credentials/default/refresh"))
            async with proxy.connect() as gone:
                gone.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            go.set()
            assert {(await each).status for each in asking} == {200 if status == 200 else 503}
            await forced
        assert most == 1
        assert len(endpoint.seen) <= 2  # the forced one may have come after the shared one


# -- 6


@pytest.mark.threat(103)
async def test_invariant_6_a_request_is_answered_by_the_upstream_at_most_twice(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """However often it is refused, and however the gate stands; the second time with another token."""
    seen_by_id: dict[str, list[str]] = {}

    async def refuse(seen: Seen) -> web.StreamResponse:
        seen_by_id.setdefault(seen.all("x-id")[0], []).append(seen.all("authorization")[0])
        return web.Response(status=401)

    async with api(refuse) as upstream:
        config = {**tracker.config, "upstream": upstream.url}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
            for number in range(60):
                answer = await proxy.ask("POST", "/", {"X-Id": str(number)}, b"abc")
                assert answer.status == 401
                clock.move(1)
    assert len(seen_by_id) == 60
    tries = Counter(map(len, seen_by_id.values()))
    assert set(tries) == {1, 2}
    assert all(len(set(tokens)) == len(tokens) for tokens in seen_by_id.values())


@pytest.mark.threat(103)
async def test_invariant_6_also_where_connections_are_lost_in_between(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """One resend for a lost connection, one repeat for a refusal: two answers, never three."""
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    scripts: list[Script] = [
        [REQUEST, OK, REQUEST, CLOSE],
        [REQUEST, refused, REQUEST, CLOSE],
        [REQUEST, refused, REQUEST, OK],
    ]
    async with Upstream(*scripts) as upstream:
        config = {**tracker.config, "upstream": str(upstream.origin)}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy, proxy.connect() as client:
            assert (await client.ask("GET")).status == 200
            answer = await client.ask("GET", "/lost")
        assert (answer.status, answer.code) == (502, "upstream_unreachable")
        assert upstream.requests == 4
        assert sum(peer.received.count(b"GET /lost ") for peer in upstream.peers) == 3


# -- 7


async def test_invariant_7_bytes_pass_unchanged(proxying: StartProxy, keyed: Keyed) -> None:
    """Path, query, field values, a compressed body and its coding, in both directions."""
    value = bytes([9, *range(0x21, 0x7F), *range(0x80, 0x100)]).decode("latin-1").strip()
    target = "/!\"$%25&'()*+,-.:;<=>@[\\]^_`{|}~%00".replace("%00", "") + "?!\"$&'()*+,/:;<=>?@[\\]^_`{|}~%7E&&=&"
    body = gzip.compress(bytes(range(256)) * 40, mtime=0)
    fields = f"X-V: {value}\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n".encode("latin-1")
    async with (
        Upstream([REQUEST, Got(body), b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        headers = {"X-V": value, "Content-Encoding": "gzip", "Accept-Encoding": "gzip;q=0.5"}
        answer = await proxy.ask("PUT", target, headers, body)
        sent = bytes(upstream.peers[0].received)
    got = received(sent)
    assert (got.method, got.target) == ("PUT", target)
    assert (got.all("x-v"), got.all("accept-encoding")) == ([value], ["gzip;q=0.5"])
    assert sent.partition(b"\r\n\r\n")[2] == body
    assert f"X-V: {value}\r\n".encode("latin-1") in answer.raw_head
    assert (answer["content-encoding"], answer.body) == ("gzip", body)


async def test_invariant_7_field_lines_interim_answers_and_trailers_pass_as_they_came(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """Case, order and white space of each line, both ways; a 103 in its place, and what stands behind the body."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink:</a>; rel=preload \r\n\r\n"
    answered = b"X-B:1\r\nx-b: \t2 \r\nX-None:\r\nTrailer: X-T"
    head = b"HTTP/1.1 200 OK\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n" % answered
    asked = b"X-A:1\r\nx-a: \t2 \r\nX-Empty:"
    script: Script = [REQUEST, hints, head, b"4\r\nfine\r\n0\r\nX-T:1 \r\nx-t:\t2\r\n\r\n"]
    async with (
        Upstream(script) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        async with proxy.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % asked)
            answer = await client.answer()
        sent = bytes(upstream.peers[0].received)
    assert b"\r\n%b\r\n" % asked in sent
    assert b"\r\n%b\r\n" % answered in answer.raw_head
    assert answer.interim == [hints]
    assert (answer.body, answer.complete, answer.trailers) == (b"fine", True, [b"X-T:1 ", b"x-t:\t2"])


async def test_an_interim_answer_speaks_of_the_proxy_as_the_final_one_does(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """A page that is told early what it will need asks for it where it asked for the page."""
    upstream = Upstream()
    async with upstream, proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy:
        link = f"Link: <{upstream.origin}/style.css>; rel=preload\r\n\r\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{link}"
        upstream.plays([REQUEST, f"HTTP/1.1 103 Early Hints\r\n{link}".encode(), head.encode()])
        answer = await proxy.ask("GET", "/", {"Host": "localhost:8080"})
    assert answer["link"] == "<http://localhost:8080/style.css>; rel=preload"
    assert answer.interim == [f"HTTP/1.1 103 Early Hints\r\nLink: {answer['link']}\r\n\r\n".encode()]


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 262145])
async def test_invariant_7_a_body_of_any_size_passes_chunked_and_not(
    proxying: StartProxy, keyed: Keyed, size: int
) -> None:
    """There and back."""

    async def echo(seen: Seen) -> web.StreamResponse:
        answer = web.Response(body=seen.body)
        if seen.target == "/chunked":
            answer.enable_chunked_encoding()
        return answer

    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    async with api(echo) as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        for target in ("/length", "/chunked"):
            answer = await proxy.ask("POST", target, {}, body)
            assert (answer.body, answer.complete) == (body, True)


# -- 8


@pytest.mark.parametrize("framing", ["Content-Length: 9", "Transfer-Encoding: chunked"])
async def test_invariant_8_a_body_that_ended_early_does_not_look_complete(
    proxying: StartProxy, keyed: Keyed, framing: str
) -> None:
    """Neither the upstream's to the client, nor the client's to the upstream."""
    part = b"4\r\nfine\r\n" if "chunked" in framing else b"fine"
    broken = f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + part
    async with (
        Upstream([REQUEST, broken, CLOSE], [REQUEST]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        answer = await proxy.ask("GET")
        assert (answer.body, answer.complete) == (b"fine", False)
        async with proxy.connect() as client:
            client.send(f"POST / HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode() + part)
            peer = await upstream.peer(1)
            await peer.got(part)
        async with asyncio.timeout(DEADLINE):
            await peer.ended.wait()
        assert bytes(peer.received).partition(b"\r\n\r\n")[2] == part


# -- 9


@pytest.mark.threat(69, 87)
async def test_invariant_9_a_client_that_hangs_up_frees_its_upstream_connection_and_cancels_no_refresh(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """With a pool of one connection the next client would wait for ever otherwise."""
    refused = b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with Upstream([REQUEST, refused], [REQUEST], [REQUEST, OK]) as upstream, asyncio.timeout(DEADLINE):
        config = {**tracker.config, "upstream": str(upstream.origin), "pool": {"size": 1}}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
            assert (await proxy.admin("POST", "/api/credentials/default/refresh")).status == 200
            tracker.double.set(token_endpoint="slow")
            async with proxy.connect() as client:
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await tracker.double.holding()  # it was refused, and waits for the refresh
            async with proxy.connect() as client:
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                peer = await upstream.peer(1)
                await peer.got(b"\r\n\r\n")
            await peer.ended.wait()
            tracker.double.set(token_endpoint="up")
            tracker.double.release()
            while len(proxy.lines("token_refreshed")) < 2:
                await turns()
            assert (await proxy.ask("GET")).status == 200
        tokens = [received(each.received).all("authorization") for each in upstream.peers]
    assert tokens[0] == tokens[1] != tokens[2]
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}


# -- 10


@pytest.mark.threat(22, 72)
async def test_invariant_10_one_clients_cookies_never_reach_another(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """No cookie is kept: not the upstream's, also on a shared connection, and not the token endpoint's."""
    tokens = [canaries.mint("token"), canaries.mint("token")]

    async def answer(seen: Seen) -> web.StreamResponse:
        status = 401 if seen.all("authorization") == [f"Bearer {tokens[0]}"] and len(upstream.seen) > 2 else 200
        return web.Response(status=status, headers={"Set-Cookie": "sid=1; Path=/"})

    async def grant(_seen: Seen) -> web.StreamResponse:
        return web.json_response({"t": tokens[len(endpoint.seen) - 1]}, headers={"Set-Cookie": "login=1; Path=/"})

    async with api(answer) as upstream, api(grant) as endpoint:
        config = {**login(endpoint, upstream.url), "pool": {"size": 1}}
        async with proxying(config, environ={"PIN": canaries.mint("key")}, clock=clock) as proxy:
            assert (await proxy.ask("GET", "/", {"Cookie": "own=1"}))["set-cookie"] == "sid=1; Path=/"
            assert (await proxy.ask("GET", "/")).status == 200
            assert (await proxy.ask("GET", "/", {"Cookie": "own=2"})).status == 200
        assert [seen.all("cookie") for seen in upstream.seen] == [["own=1"], [], ["own=2"], ["own=2"]]
        assert [seen.all("cookie") for seen in endpoint.seen] == [[], []]
