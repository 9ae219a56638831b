"""Every answer that the proxy makes itself: status, code, form, and what reaches the upstream (mostly nothing)."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.demo.teletracker import TeleTracker
from proxy.errors import NavigationNotAllowed, ProxyError, UpstreamLost
from proxy.problem import problem, status_line
from tests.support.api import api
from tests.support.client import Answer
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import OK, Keyed
from tests.support.upstreams import CLOSE, REQUEST, RESET, Script, Upstream
from tests.support.vendors import Vendor

#: Stands in every part of the requests below; no answer may hold it.
MARK = "zq7zq7"
ORIGIN = "https://app.example"


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


def check(answer: Answer, proxy: Proxy, status: int, code: str, *, error: str = "") -> None:
    """The form that all of them have (RFC 9457, RFC 9209), and the log's view of it."""
    assert (answer.status, answer.code) == (status, code)
    document = answer.json()
    assert set(document) == {"title", "status", "code", "detail", "request_id"}
    assert document["status"] == status
    assert document["title"][0].isupper()
    assert document["detail"].endswith(".")
    kind = f"error={error}; " if error else ""
    assert answer["proxy-status"] == f'bearer-proxy; {kind}details="{code}"'
    assert answer["cache-control"] == "no-store"
    assert answer["x-content-type-options"] == "nosniff"
    assert MARK.encode() not in (answer.raw_head + answer.body).lower()
    assert (answer.raw_head + answer.body).isascii()
    [line] = [line for line in proxy.lines() if line["request_id"] == document["request_id"]]
    assert (line["status"], line["error"]) == (status, code)


@dataclass(frozen=True)
class Case:
    """A request that is refused, the configuration that refuses it, and the answer."""

    name: str
    request: str
    status: int
    code: str
    config: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    #: What still comes of the request.
    rest: bytes = b""


def head(first: str = f"GET /{MARK}", *lines: str, host: str = "Host: localhost") -> str:
    """A request head with the mark in a field."""
    return "\r\n".join([f"{first} HTTP/1.1", host, f"X-{MARK}: {MARK}", *lines, "", ""])


def malformed(name: str, request: str) -> Case:
    """What the parser refuses."""
    return Case(name, request, 400, "bad_request")


def misframed(name: str, *lines: str, body: str = "") -> Case:
    """A body whose length is ambiguous: what is behind it could be anything."""
    return Case(name, head(f"POST /{MARK}", *lines) + body, 400, "bad_framing")


#: Who is understood and refused may ask again; with everybody else, and behind a CONNECT, the connection ends.
STAYS = {
    *("client_key_required", "host_not_allowed", "origin_not_allowed", "path_denied", "cors_denied", "no_route"),
    "method_not_allowed",
}
CHUNKED = "Transfer-Encoding: chunked"
KEY = {"guard": {"client_key": {"env": "KEY"}}}
ALLOW = {"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}
REFUSED = [
    malformed("no colon", head(f"GET /{MARK}", f"{MARK} {MARK}")),
    malformed("an unknown method", head(f"{MARK.upper()} /")),
    malformed("no HTTP at all", f"\x16\x03\x01{MARK}\r\n\r\n"),
    malformed("a space before the colon", head(f"GET /{MARK}", f"X-A : {MARK}")),
    malformed("a folded line", head(f"GET /{MARK}", "X-A: 1", f" {MARK}")),
    malformed("a bare CR", head(f"GET /{MARK}", f"X-A: 1\r{MARK}")),
    malformed("a NUL", head(f"GET /{MARK}", f"X-A: \0{MARK}")),
    malformed("a space in the target", head(f"GET /{MARK} {MARK}")),
    malformed("two spaces", head(f"GET  /{MARK}")),
    malformed("no host", head(host=f"X-Host: {MARK}")),
    malformed("two hosts", head(f"GET /{MARK}", f"Host: {MARK}")),
    misframed("two lengths", "Content-Length: 3", "Content-Length: 3", body="abc"),
    misframed("two different lengths", "Content-Length: 3", "Content-Length: 4", body="abcd"),
    misframed("a length and chunks", "Content-Length: 3", CHUNKED, body="0\r\n\r\n"),
    misframed("a signed length", "Content-Length: +3", body="abc"),
    misframed("a coding behind chunked", "Transfer-Encoding: chunked, gzip"),
    misframed("a coding before chunked", "Transfer-Encoding: gzip, chunked", body="0\r\n\r\n"),
    Case("an old protocol", head().replace("HTTP/1.1", "HTTP/0.9"), 400, "bad_request"),
    Case("a later protocol", head().replace("HTTP/1.1", "HTTP/2.0"), 400, "bad_request"),
    Case("bytes beyond ASCII", head(f"GET /{MARK}\xe9"), 400, "bad_target"),
    Case("absolute form", head(f"GET http://localhost/{MARK}"), 400, "bad_target"),
    Case("absolute form of another host", head(f"GET http://{MARK}/"), 400, "bad_target"),
    Case("asterisk form", head("OPTIONS *"), 400, "bad_target"),
    Case("a fragment", head(f"GET /{MARK}#x"), 400, "bad_target"),
    Case("an escaped NUL", head(f"GET /{MARK}%00"), 400, "bad_target"),
    Case("a broken escape", head(f"GET /{MARK}%zz"), 400, "bad_target"),
    Case("a cut escape", head(f"GET /{MARK}%2"), 400, "bad_target"),
    Case("dots that climb", head(f"GET /../{MARK}"), 400, "bad_target"),
    Case("escaped dots that climb", head(f"GET /a/%2e%2E/..%2f{MARK}"), 400, "bad_target"),
    Case("dots that climb when decoded twice", head(f"GET /%252e%252e/{MARK}"), 400, "bad_target"),
    Case("no client key", head(), 401, "client_key_required", KEY,
         {"WWW-Authenticate": 'Basic realm="bearer-proxy"'}),
    Case("another host", head(host=f"Host: {MARK}.example"), 403, "host_not_allowed"),
    Case("an empty host", head(host="Host:"), 403, "host_not_allowed"),
    Case("a host with userinfo", head(host=f"Host: {MARK}@localhost"), 403, "host_not_allowed"),
    Case("a host that begins well", head(host=f"Host: localhost.{MARK}"), 403, "host_not_allowed"),
    Case("another origin", head(f"GET /{MARK}", f"Origin: https://{MARK}"), 403, "origin_not_allowed"),
    Case("the null origin", head(f"GET /{MARK}", "Origin: null"), 403, "origin_not_allowed"),
    Case("our origin on another port", head(f"GET /{MARK}", "Origin: http://localhost:1"), 403,
         "origin_not_allowed"),
    Case("a navigation of another site", head(f"GET /{MARK}", "Sec-Fetch-Site: cross-site"), 403,
         "origin_not_allowed"),
    Case("another port of this site", head(f"GET /{MARK}", "Sec-Fetch-Site: same-site"), 403,
         "origin_not_allowed"),
    Case("a denied path", head(f"GET /no/{MARK}"), 403, "path_denied", {"deny": ["/no/*"]}),
    Case("a preflight of a stranger",
         head(f"OPTIONS /{MARK}", f"Origin: https://{MARK}", "Access-Control-Request-Method: PUT"), 403,
         "cors_denied"),
    Case("a preflight for no method",
         head(f"OPTIONS /{MARK}", f"Origin: {ORIGIN}", f"Access-Control-Request-Method: {MARK}/"), 403,
         "cors_denied", {"guard": {"origins": [ORIGIN]}}),
    Case("no route", head(f"GET /{MARK}/x"), 404, "no_route", {"prefix": "/api"}),
    Case("CONNECT", head(f"CONNECT {MARK}:443"), 405, "method_not_allowed", {}, ALLOW),
    Case("TRACE", head(f"TRACE /{MARK}"), 405, "method_not_allowed", {}, ALLOW),
    Case("a slow head", f"GET /{MARK} HTTP/1.1\r\nX-A: {MARK}", 408, "request_timeout",
         {"limits": {"header_time": 0.05}}),
    Case("a body that is announced too large", head(f"POST /{MARK}", "Content-Length: 11"), 413, "too_large",
         {"limits": {"body_bytes": 10}}, rest=b"x" * 11),
    Case("a long target", head(f"GET /{MARK}{'x' * 5000}"), 414, "target_too_long",
         {"limits": {"header_bytes": 4096}}),
    Case("another expectation", head(f"POST /{MARK}", f"Expect: {MARK}", "Content-Length: 3"), 417,
         "bad_expectation", rest=b"abc"),
    Case("a long field", head(f"GET /{MARK}", f"X-A: {MARK}{'x' * 5000}"), 431, "headers_too_large",
         {"limits": {"header_bytes": 4096}}),
]  # fmt: skip


@pytest.mark.threat(2, 5, 35, 80)
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_080_what_is_refused_is_told_in_fixed_words_and_reaches_nobody(
    proxying: StartProxy, keyed: Keyed, canaries: Canaries, case: Case
) -> None:
    """No byte of the request comes back, and none reaches the upstream."""
    top = {name: case.config[name] for name in ("guard", "limits") if name in case.config}
    deny = [{"paths": case.config["deny"]}] if "deny" in case.config else []
    async with Upstream([]) as upstream:
        config = keyed.config(upstream.origin, top=top, prefix=case.config.get("prefix", "/"), deny=deny)
        environ = {**keyed.environ, "KEY": canaries.mint("key")}
        async with proxying(config, environ=environ) as proxy, proxy.connect() as client:
            client.send(case.request.encode("latin-1"))
            answer = await client.answer()
            check(answer, proxy, case.status, case.code)
            assert {name: answer[name] for name in case.extra} == dict(case.extra)
            stays = case.code in STAYS and not case.request.startswith("CONNECT ")
            assert answer.all("connection") == ([] if stays else ["close"])
            client.send(case.rest)
            if stays:
                assert (await client.ask("GET", "/", {"Host": "elsewhere.example"})).code == "host_not_allowed"
            else:
                assert await client.at_end()
        assert upstream.peers == []


async def test_too_many_fields_are_refused(proxying: StartProxy, keyed: Keyed) -> None:
    """Their number is bounded, and their sum, not only the length of each."""
    async with Upstream([]) as upstream, proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy:
        for fields in (
            [(f"X-{number}", "") for number in range(300)],
            [("a", "")] * 2000,
            [(f"X-{n}", MARK * 800) for n in range(12)],
        ):
            answer = await proxy.ask("GET", "/", fields)
            check(answer, proxy, 431, "headers_too_large")
        assert upstream.peers == []


async def test_a_chunked_body_over_the_limit_is_413(proxying: StartProxy, keyed: Keyed) -> None:
    """It is noticed when it happens; the upstream sees no proper end of the part that it got."""
    async with Upstream([REQUEST]) as upstream:
        config = keyed.config(upstream.origin, top={"limits": {"body_bytes": 10}})
        async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as client:
            client.send(head(f"POST /{MARK}", CHUNKED).encode() + b"6\r\nabcdef\r\n")
            peer = await upstream.peer()
            await peer.got(b"abcdef")
            client.send(b"6\r\nghijkl\r\n0\r\n\r\n")
            check(await client.answer(), proxy, 413, "too_large")
            await peer.ended.wait()
            assert b"0\r\n\r\n" not in peer.received.partition(b"\r\n\r\n")[2]


async def test_a_broken_chunk_is_400(proxying: StartProxy, keyed: Keyed) -> None:
    """The client's body is not what its framing promised."""
    async with (
        Upstream([REQUEST]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        client.send(head(f"POST /{MARK}", CHUNKED).encode() + b"6\r\nabcdef\r\n")
        peer = await upstream.peer()
        await peer.got(b"abcdef")
        client.send(f"{MARK}\r\n".encode())
        check(await client.answer(), proxy, 400, "bad_framing")
        assert await client.at_end()
        await peer.ended.wait()


async def test_the_answer_to_a_head_has_no_body(proxying: StartProxy, keyed: Keyed) -> None:
    """But the length that it would have; the next answer on the connection is in order."""
    async with (
        api() as upstream,
        proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        refused = await client.ask("HEAD", "/", {"Host": "elsewhere.example"})
        assert (refused.status, refused.body) == (403, b"")
        assert int(refused["content-length"]) > 0
        assert (await client.ask("GET")).status == 200


@pytest.mark.threat(115)
async def test_over_the_limit_of_connections_is_503(proxying: StartProxy, keyed: Keyed) -> None:
    """The one too many is answered and closed; when another has gone, there is room again."""
    async with api() as upstream:
        config = keyed.config(upstream.url, top={"limits": {"connections": 1}})
        async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as first:
            assert (await first.ask("GET")).status == 200
            async with proxy.connect() as second:
                answer = await second.answer()
                check(answer, proxy, 503, "overloaded")
                assert await second.at_end()
            assert (await first.ask("GET")).status == 200


async def test_a_defect_of_ours_is_500(proxying: StartProxy, keyed: Keyed) -> None:
    """Its log line has the request id, and neither shows a byte of the request."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        proxy.instance._present.relay._table = None  # what a defect leaves behind
        answer = await proxy.ask("GET", f"/?{MARK}={MARK}", {f"X-{MARK}": MARK})
        check(answer, proxy, 500, "internal_error")
        [line] = proxy.lines("internal_error")
        assert line["request_id"] == answer.json()["request_id"]
        assert f"={MARK}" not in proxy.log.getvalue()
        assert upstream.seen == []


# -- the form


def every_error() -> list[type[ProxyError]]:
    """All leaves and branches of the tree."""
    found = [ProxyError]
    for each in found:
        found += each.__subclasses__()
    return [each for each in found if each.__module__ == "proxy.errors"]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_a_problem_document_says_the_same_in_its_body_and_in_its_fields(kind: type[ProxyError]) -> None:
    """RFC 9457 section 3, RFC 9209 section 2.1: whatever went wrong, a program finds out in the same way."""
    error = kind(untouched=False, silent=False) if issubclass(kind, UpstreamLost) else kind()
    lines, body = problem(error, "0123456789abcdef")
    fields = dict(line.decode("ascii").split(": ", 1) for line in lines)
    assert json.loads(body) == {
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "request_id": "0123456789abcdef",
    }
    assert fields.pop("Date").endswith(" GMT")
    assert fields["Content-Type"] == "application/problem+json"
    assert fields["Cache-Control"] == "no-store"
    assert fields["X-Content-Type-Options"] == "nosniff"
    kind_of = "" if error.proxy_error is None else f"error={error.proxy_error}; "
    assert fields["Proxy-Status"] == f'bearer-proxy; {kind_of}details="{error.code}"'
    assert len(fields) == len(lines) - 1 == 5 + len(error.headers())
    assert body.isascii()


@pytest.mark.threat(9)
def test_009_a_problem_document_that_a_browser_shows_loads_nothing() -> None:
    """An icon of our own origin neither: that would be a request with the token."""
    lines, _ = problem(NavigationNotAllowed(), "0123456789abcdef")
    assert b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; sandbox" in lines


@pytest.mark.threat(70)
@pytest.mark.parametrize(
    ("status", "line"),
    [(200, b"HTTP/1.1 200 OK"), (431, b"HTTP/1.1 431 Request Header Fields Too Large"), (299, b"HTTP/1.1 299 ")],
)
def test_070_a_status_has_the_standard_phrase_or_none(status: int, line: bytes) -> None:
    """An upstream's own phrase could say anything; the space behind the code stays (RFC 9112 section 4)."""
    assert status_line(status) == line


# -- credentials


async def test_a_credential_that_is_rejected_is_502(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, canaries: Canaries
) -> None:
    """And names the credential."""
    wrong = {**tracker.environ, "TRACKER_PASSWORD": canaries.mint("password")}
    async with proxying(tracker.config, environ=wrong, clock=clock) as proxy:
        answer = await proxy.ask("GET", f"/calls?{MARK}")
        check(answer, proxy, 502, "credential_rejected")
        assert "'default'" in answer.json()["detail"]
    assert "GET /calls" not in tracker.double.requests


@pytest.mark.parametrize("slow", [False, True], ids=["down", "too slow"])
async def test_a_credential_that_cannot_be_had_is_503_with_retry_after(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, *, slow: bool
) -> None:
    """The token endpoint is down, or does not answer within `timeouts.token`."""
    tracker.double.set(token_endpoint="slow" if slow else "down")
    config = {**tracker.config, "timeouts": {"token": 0.05}} if slow else tracker.config
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        answer = await proxy.ask("GET", f"/calls?{MARK}")
        check(answer, proxy, 503, "credential_unavailable")
        assert int(answer["retry-after"]) >= 1
        assert "GET /calls" not in tracker.double.requests
        tracker.double.set(token_endpoint="up")
        tracker.double.release()


# -- the upstream


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def test_an_upstream_that_refuses_the_connection_is_502(proxying: StartProxy, keyed: Keyed) -> None:
    """Nothing listens there."""
    async with proxying(keyed.config(f"http://127.0.0.1:{_free_port()}"), environ=keyed.environ) as proxy:
        check(await proxy.ask("GET", f"/{MARK}"), proxy, 502, "upstream_unreachable", error="connection_refused")


async def test_an_upstream_whose_name_does_not_resolve_is_502(proxying: StartProxy, keyed: Keyed) -> None:
    """The name is reserved for that (RFC 6761 section 6.4)."""
    config = keyed.config("http://upstream.invalid", insecure_http=True)
    async with proxying(config, environ=keyed.environ) as proxy:
        check(await proxy.ask("GET", f"/{MARK}"), proxy, 502, "upstream_dns", error="dns_error")


async def test_an_upstream_that_speaks_no_tls_is_502(proxying: StartProxy, keyed: Keyed) -> None:
    """The token is not sent."""
    async with Upstream([b"HTTP/1.1 400 Bad Request\r\n\r\n", CLOSE]) as upstream:
        async with proxying(keyed.config(f"https://127.0.0.1:{upstream.port}"), environ=keyed.environ) as proxy:
            check(await proxy.ask("GET", f"/{MARK}"), proxy, 502, "upstream_tls", error="tls_protocol_error")
        assert keyed.token.encode() not in upstream.peers[0].received


LENGTH = b"Content-Length: 0\r\n"
STRANGE: dict[str, tuple[Script, int, str, str]] = {
    "ends before an answer": ([REQUEST, CLOSE], 502, "upstream_unreachable", "http_response_incomplete"),
    "resets": ([REQUEST, RESET], 502, "upstream_unreachable", "http_response_incomplete"),
    "ends within the head": ([REQUEST, b"HTTP/1.1 200 OK\r\nX-A", CLOSE], 502, "upstream_unreachable",
                             "http_response_incomplete"),
    "speaks another protocol": ([REQUEST, b"SSH-2.0-x\r\n"], 502, "upstream_protocol", "http_protocol_error"),
    "says status 999": ([REQUEST, b"HTTP/1.1 999 X\r\n" + LENGTH + b"\r\n"], 502, "upstream_protocol",
                        "http_protocol_error"),
    "upgrades unasked": ([REQUEST, b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"], 502,
                         "upstream_protocol", "http_protocol_error"),
    "gives two lengths": ([REQUEST, b"HTTP/1.1 200 OK\r\n" + LENGTH * 2 + b"\r\n"], 502, "upstream_protocol",
                          "http_protocol_error"),
    "gives a length and chunks": (
        [REQUEST, b"HTTP/1.1 200 OK\r\n" + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], 502,
        "upstream_protocol", "http_protocol_error"),
    "sends control characters": ([REQUEST, b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\n" + LENGTH + b"\r\n"], 502,
                                 "upstream_bad_header", "http_protocol_error"),
    "sends endless fields": ([REQUEST, b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 1000 + b"\r\n"], 502,
                             "upstream_bad_header", "http_protocol_error"),
    "says nothing": ([REQUEST], 504, "upstream_timeout", "http_response_timeout"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
async def test_an_upstream_that_does_not_answer_as_it_must_is_told_apart(
    proxying: StartProxy, keyed: Keyed, name: str
) -> None:
    """502 or 504 with the registry's error type; the strange connection is not used again."""
    script, status, code, error = STRANGE[name]
    async with Upstream(script, [REQUEST, OK]) as upstream:
        config = keyed.config(upstream.origin, timeouts={"first_byte": 0.5 if status == 504 else 20.0})
        async with proxying(config, environ=keyed.environ) as proxy:
            check(await proxy.ask("GET", f"/{MARK}"), proxy, status, code, error=error)
            await upstream.peers[0].ended.wait()
            assert (await proxy.ask("GET")).status == 200
