"""The header filter, both ways: nothing crosses that must not, and what crosses is as it came, in its order.

An input is a field section of a client, or of an upstream's answer.
"""

import re
from types import SimpleNamespace
from typing import Final, cast

import h11

from proxy.accesslog import Exchange
from proxy.binding import Binding
from proxy.clientkeys import ClientKey
from proxy.credentials.credential import Rendered
from proxy.errors import ProxyError
from proxy.guard import Admission, Guard, Visitor
from proxy.headers import stripping
from proxy.http1.answer import AnswerHead
from proxy.http1.request import RequestSection
from proxy.http1.section import Malformed
from proxy.inbound import kept_lines
from proxy.injection import Place, render
from proxy.listener.request import Request
from proxy.outbound import outgoing
from proxy.redact import Secret
from proxy.rewrite import Rewriter
from proxy.routes import NO_POLICY, Origin, Route, RouteTable
from tests.fuzz.taking import Taking

KEY: Final = b"a-client-key-of-some-length"
TOKEN: Final = b"our-own-token-0123456789"
WORDS: Final = (
    *(b"\r\n", b"Authorization: Bearer x", b"X-Api-Key: x", b"X_Api_Key: x", b"x.api-key: x", b"authorization:"),
    *(b"Connection: close, x-a", b"\r\nX-A: 1", b"Keep-Alive: x", b"TE: trailers", b"Trailer: x", b"Upgrade: x"),
    *(b"Transfer-Encoding: chunked", b"Content-Length: 5", b"Expect: 100-continue", b"Proxy-Authorization: x"),
    *(b"X-Forwarded-For: x", b"Forwarded: x", b"X-Proxy-Key: ", KEY, b"Cookie: a=1; session=2; b=3", b"session="),
    *(b"Cookie: bearer_proxy_key=", b"Referer: http://localhost/", b"Origin: http://localhost", b"/~", b"Host: x"),
    *(b"Set-Cookie: bearer_proxy_x=1", b"Set-Cookie: a=b; Domain=x", b"Access-Control-Allow-Origin: *", TOKEN),
    *(b"Location: https://api.example/v2/x", b"Strict-Transport-Security: x", b"Link: <https://api.example/v2/>"),
    *(b"Refresh: 0; url=https://api.example/v2/", b"Connection: ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 204 \r\n"),
)
API: Final = Origin("https", "api.example", 443)
ROUTE: Final = Route("billing", API, prefix=b"/billing", base_path=b"/v2")
PLACES: Final = (
    Place("header", "Authorization", "Bearer"),
    Place("header", "X-Api-Key"),
    Place("cookie", "session"),
)
STRIP: Final = stripping(PLACES)
INJECTION: Final = render(PLACES, TOKEN.decode())
OURS: Final = [(b"authorization", b"Bearer " + TOKEN), (b"x-api-key", TOKEN)]
# What of a binding the two functions look at.
BINDING: Final = cast(
    "Binding",
    SimpleNamespace(
        route=ROUTE,
        upstream=str(ROUTE.upstream),
        strip=STRIP,
        bare=STRIP,
        rewriter=Rewriter(ROUTE, RouteTable([ROUTE])),
        host="upstream",
        forwarded=False,
        constants=b"",
    ),
)
RENDERED: Final = cast("Rendered", SimpleNamespace(echoes=(TOKEN,)))
GUARD: Final = Guard(client_keys=[ClientKey("", Secret(KEY.decode()), NO_POLICY)])
VISITOR: Final = Visitor("localhost", b"http://localhost", None)

#: RFC 9110 section 7.6.1, and its like.
HOPS: Final = frozenset(
    (
        b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te transfer-encoding "
        b"upgrade http2-settings"
    ).split()
)
#: Only a proxy may say these, and the client's key is for us.
NEVER_SENT: Final = frozenset(
    (
        b"trailer host content-length expect forwarded x-real-ip x-forwarded-for x-forwarded-host x-forwarded-proto"
        b" x-forwarded-port x-original-url x-rewrite-url x-proxy-key authorization x-api-key cookie"
    ).split()
)
NEVER_SHOWN: Final = frozenset(
    b"content-length strict-transport-security clear-site-data access-control-allow-origin "
    b"access-control-allow-credentials access-control-allow-headers".split()
)
#: Speak of origins, and are put into the other side's terms.
REFERENCES: Final = frozenset({b"origin", b"referer"})
REWRITTEN: Final = frozenset(b"location content-location link refresh set-cookie".split())

Lines = list[tuple[bytes, bytes]]


def check(data: bytes) -> None:
    """Raise AssertionError where a field crosses that must not, or not as it came."""
    taking = Taking(data)
    (_check_answer if taking.byte() % 2 else _check_request)(taking.rest())


def _check_request(raw: bytes) -> None:
    raw = b"Host: localhost" + (b"\r\n" + raw if raw else b"")
    try:
        section = RequestSection(raw, 1)
    except (Malformed, ProxyError):
        return
    request = Request("POST", b"/billing/x", section, body=None, client="127.0.0.1", port=8080)
    admission = Admission(VISITOR, b"/billing/x", None, b"/~" + KEY)
    made = outgoing(request, admission, BINDING, b"/v2/x", strip=STRIP, holds_key=GUARD.holds_key)
    head = made.head(INJECTION)
    sent = _lines(head, b"POST /v2/x HTTP/1.1")
    assert sent[-2:] == OURS, "ours are not the last"
    came = _lines(b"\r\n" + raw + b"\r\n\r\n", b"")
    framing = [(name, b"%d" % int(value)) for name, value in came if name == b"content-length"]
    framing += [(name, b"chunked") for name, _ in came if name == b"transfer-encoding"]
    if any(name == b"expect" for name, _ in came) and framing:
        framing.insert(0, (b"expect", b"100-continue"))
    assert sent[0] == (b"host", b"api.example")
    cookies = [value for name, value in sent if name == b"cookie"]
    assert len(cookies) == 1, "several cookie fields"
    _check_cookies(cookies[0], [value for name, value in came if name == b"cookie"])
    client = sent[1 : -3 - len(framing)]
    assert sent[-3 - len(framing) : -3] == framing, "framed otherwise"
    named = _named(came)
    for name, value in client:
        alias = name.translate(bytes.maketrans(b"_.", b"--"))
        assert alias not in HOPS | NEVER_SENT, f"{name!r} crossed"
        assert name not in named, f"{name!r} was for us"
        if name in REFERENCES:
            assert KEY not in value, "the client's key"
    _in_order(client, came, REFERENCES)
    _check_others_reading(head, sent)


def _check_answer(raw: bytes) -> None:
    try:
        head = AnswerHead(raw if raw.startswith(b"HTTP/") else b"HTTP/1.1 200 OK" + (b"\r\n" + raw if raw else b""))
    except Malformed:
        return
    exchange = Exchange("GET", "127.0.0.1", 0.0)
    admission = Admission(VISITOR, b"/billing/x", None, b"/~" + KEY)
    lines = kept_lines(head, admission, BINDING, RENDERED, exchange)
    sent = _lines(b"\r\n" + lines + b"\r\n", b"")
    came = _lines(b"\r\n" + head.raw + b"\r\n\r\n", b"") if head.raw else []
    named = _named(came)
    for name, value in sent:
        assert name not in HOPS | NEVER_SHOWN, f"{name!r} crossed"
        assert name not in named, f"{name!r} was for us"
        assert TOKEN not in value, "the token"
        assert name != b"set-cookie" or not value.lower().startswith(b"bearer_proxy_"), "a cookie of ours"
    assert exchange.echoes <= sum(TOKEN in name + value for name, value in came)
    _in_order(sent, came, REWRITTEN)


def _lines(head: bytes, first: bytes) -> Lines:
    """The fields of a whole head, read naively."""
    assert head.endswith(b"\r\n"), "no end"
    assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n"), "half a line end"
    line, *rest = head.split(b"\r\n")
    assert line == first
    assert b"" not in rest[:-2] or rest == [b"", b""], "an end within"
    pairs = [each.partition(b":") for each in rest if each]
    return [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]


def _named(came: Lines) -> set[bytes]:
    """What the Connection fields name."""
    options = [option for name, value in came if name == b"connection" for option in value.lower().split(b",")]
    return {option.strip(b" \t") for option in options} - {b""}


def _in_order(sent: Lines, came: Lines, rewritten: frozenset[bytes]) -> None:
    left = iter(came)
    for name, value in sent:
        assert any(name == each and (value == given or name in rewritten) for each, given in left), (
            f"{name!r} moved"
        )


def _check_cookies(sent: bytes, came: list[bytes]) -> None:
    pairs = [pair.strip(b" \t") for pair in sent.split(b";")]
    assert pairs[-1] == b"session=" + TOKEN
    names = [pair.partition(b"=")[0].strip(b" \t") for pair in pairs[:-1]]
    assert b"session" not in names
    assert not any(name.lower().startswith(b"bearer_proxy_") for name in names), "the client's key"
    left = iter([pair.strip(b" \t") for value in came for pair in value.split(b";")])
    assert all(pair in left for pair in pairs[:-1]), "cookies moved"


def _check_others_reading(head: bytes, sent: Lines) -> None:
    """Another strict parser reads the same fields."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(head)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert re.sub(rb"[ \t]+\Z", b"", event.target) == b"/v2/x"
    assert [(name, value.strip(b" \t")) for name, value in event.headers] == sent
