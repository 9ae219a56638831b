"""Which requests are admitted: Host, Origin and Sec-Fetch-Site, navigation, preflights, the client key."""

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.clientkeys import ClientKey
from proxy.errors import (
    BadTarget,
    ClientKeyRequired,
    CorsDenied,
    HostNotAllowed,
    MethodNotAllowed,
    NavigationNotAllowed,
    OriginNotAllowed,
    OwnPageNotAllowed,
    Rejected,
)
from proxy.guard import Admission, Guard, Head, cors_lines, methods_of, preflight_lines
from proxy.http1.section import Malformed
from proxy.redact import Secret
from proxy.routes import Policy
from tests.support.sections import request_section

KEY = "client-key_0123456789"
PAGE = "http://app.example:3000"
#: Node's fetch sends a mode without a site; nothing is refused for it.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def _head(
    target: str = "/x",
    *fields: tuple[str, str],
    method: str = "GET",
    host: str | None = "localhost:8080",
    port: int | None = 0,
) -> Head:
    """The head of a request; without a Host field one of HTTP/1.0, which may come without."""
    pairs = fields if host is None else (("Host", host), *fields)
    section = request_section(
        ((name.encode(), value.encode("latin-1")) for name, value in pairs), minor=0 if host is None else 1
    )
    return Head(method, target.encode("latin-1"), section, port=port)


def _refusal(guard: Guard, head: Head) -> type[Rejected] | None:
    try:
        guard.admit(head)
    except Rejected as error:
        return type(error)
    return None


OPEN = Guard(hosts=["Api.Localhost", "[fd00::1]"], origins=[PAGE, "https://App.Example"])
BROWSED = Guard(browser=True)
SHARED = ClientKey("", Secret(KEY), Policy(None, ()))
LOCKED = Guard(origins=[PAGE], client_keys=[SHARED])

ACCEPTED = ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "api.localhost", "API.LocalHost", "[FD00::1]"]
HOSTILE = [
    "",
    "evil.example",
    "localhost.",
    "localhost.evil.example",
    "evil-localhost",
    "localhost, evil.example",
    "a, b",
    "localhost@evil.example",
    "evil.example@localhost",
    "localhost:80@evil.example",
    "user:localhost",
    "localhost/evil",
    "localhost/",
    "localhost?",
    "localhost#",
    "localhost\\evil",
    "localhost:",
    "localhost:80:80",
    "localhost:8o",
    "localhost:123456",
    "localhost :80",
    "localhost\t:80",
    "localhost \xa0",
    "loca%6chost",
    "127.0.0.1.nip.io",
    "127.0.0.2",
    "127.1",
    "0x7f000001",
    "2130706433",
    "0.0.0.0",
    "::1",
    "[::1",
    "[::1]x",
    "[::1%25lo]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "l\xf6calhost",
    "ﬁx".encode().decode("latin-1"),
    "http://localhost",
    "*",
    "null",
]


@pytest.mark.threat(1)
@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("port", ["", ":1", ":8080", ":65535"])
def test_001_our_own_names_pass_with_any_port_and_in_any_case(name: str, port: str) -> None:
    """And the origin that a page of ours would have follows from them."""
    admission = OPEN.admit(_head(host=name + port))
    assert admission.visitor.host == name.lower()
    assert admission.visitor.own_origin == f"http://{name}{port}".lower().encode()


@pytest.mark.threat(1, 7)
@pytest.mark.parametrize("host", HOSTILE)
@pytest.mark.parametrize("port", ["", ":8080"])
def test_001_every_other_host_is_refused(host: str, port: str) -> None:
    """DNS rebinding, and all that a lenient parser lets through (E5)."""
    assert _refusal(OPEN, _head(host=host + port)) is HostNotAllowed


#: What a browser says of a request (Fetch Metadata), and whether it would show the answer as a page.
FETCHES: list[tuple[str | None, str | None, bool]] = [
    ("navigate", "document", True),
    ("navigate", "iframe", True),
    ("navigate", "frame", True),
    ("navigate", "object", True),
    ("navigate", "embed", True),
    ("navigate", "fencedframe", True),
    ("Navigate", None, True),
    (None, "document", True),
    (None, "IFRAME", True),
    ("no-cors", "object", True),
    ("no-cors", "embed", True),
    (None, None, False),
    ("cors", None, False),
    ("cors", "empty", False),
    ("same-origin", "empty", False),
    ("cors", "script", False),
    ("cors", "style", False),
    ("cors", "font", False),
    ("no-cors", "script", False),
    ("no-cors", "image", False),
    ("same-origin", "worker", False),
    ("websocket", "websocket", False),
    ("websocket", "empty", False),
]


def _fetch(mode: str | None, dest: str | None, site: str = "same-origin") -> Head:
    pairs = (("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", dest), ("Sec-Fetch-Site", site))
    return _head("/x", *((name, value) for name, value in pairs if value is not None))


@pytest.mark.threat(9)
@pytest.mark.parametrize("site", ["same-origin", "none"])
@pytest.mark.parametrize(("mode", "dest", "is_page"), FETCHES)
def test_009_a_page_of_the_upstream_is_shown_only_where_that_is_wanted(
    *, mode: str | None, dest: str | None, is_page: bool, site: str
) -> None:
    """Typed into the address bar, or framed by a page of ours; what that page fetches passes."""
    refused = NavigationNotAllowed if is_page else None
    expected: tuple[type[Rejected] | None, type[Rejected] | None] = (refused, None)
    if site == "none" and (mode or "").lower() != "navigate":
        expected = (OriginNotAllowed, OriginNotAllowed)
    assert (_refusal(OPEN, _fetch(mode, dest, site)), _refusal(BROWSED, _fetch(mode, dest, site))) == expected


@pytest.mark.threat(2)
@pytest.mark.parametrize("mode", ["cors", "no-cors", "same-origin", "websocket", "", None])
@pytest.mark.parametrize("origin", [None, "http://localhost:8080", "null", "chrome-extension://abcdef"])
def test_002_what_nobody_typed_is_not_ours_although_no_site_asks(mode: str | None, origin: str | None) -> None:
    """An extension's `fetch` says `none`, and no Origin where it is a GET; only a person navigates."""
    pairs = (("Sec-Fetch-Mode", mode), ("Sec-Fetch-Site", "none"), ("Origin", origin))
    fields = [(name, value) for name, value in pairs if value is not None]
    for guard in (OPEN, BROWSED):
        assert _refusal(guard, _head("/x", *fields)) is OriginNotAllowed
    listed = Guard(origins=["chrome-extension://abcdef"])
    assert (_refusal(listed, _head("/x", *fields)) is None) is (origin == "chrome-extension://abcdef")


#: Of requests that a page of our own origin makes: with an Origin (and Fetch Metadata, or without), and a bare GET.
OF_OUR_OWN = [
    [("Origin", "http://{host}"), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")],
    [("Origin", "HTTP://{host}"), ("User-Agent", "Mozilla/5.0 (X11; Linux) Firefox/68.0")],
    [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")],
    [("Sec-Fetch-Site", "Same-Origin"), ("Sec-Fetch-Mode", "same-origin"), ("Service-Worker", "script")],
    [("Origin", "http://{host}"), ("User-Agent", "Mozilla/5.0 Chrome/149"), ("Upgrade", "websocket")],
]


@pytest.mark.threat(3, 9)
@pytest.mark.parametrize("agent", [None, "websocket-client/1.9", "Python/3.13 websockets/15.0"])
def test_003_a_program_may_call_our_origin_its_own(agent: str | None) -> None:
    """As libraries for WebSocket do by themselves; a browser cannot help saying that it is one."""
    fields = [("Origin", "http://localhost:8080"), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
    said = fields if agent is None else [*fields, ("User-Agent", agent)]
    assert _refusal(Guard(), _head("/x", *said, port=8080)) is None


@pytest.mark.threat(3, 9)
@pytest.mark.parametrize(
    "fields", [*OF_OUR_OWN, [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "no-cors")]], ids=repr
)
def test_003_whoever_shows_a_key_in_its_header_is_no_page_that_was_left(fields: list[tuple[str, str]]) -> None:
    """No page and no extension knows it; a cookie and Basic are what a browser sends by itself."""
    said = [(name, value.format(host="localhost:8080")) for name, value in fields]
    shown = _head("/x", *said, ("X-Proxy-Key", KEY), port=8080)
    assert _refusal(LOCKED, shown) is None
    basic = "Basic " + base64.b64encode(f":{KEY}".encode()).decode()
    for field in (("Cookie", f"bearer_proxy_key={KEY}"), ("Authorization", basic), ("X-Proxy-Key", "none")):
        assert _refusal(LOCKED, _head("/x", *said, field, port=8080)) in {OwnPageNotAllowed, OriginNotAllowed}
    assert _refusal(LOCKED, _head("/x", ("Sec-Fetch-Site", "cross-site"), ("X-Proxy-Key", KEY))) is OriginNotAllowed


@pytest.mark.threat(9)
@pytest.mark.parametrize("fields", OF_OUR_OWN)
@pytest.mark.parametrize(
    ("host", "port", "is_ours"),
    [
        ("localhost:8080", 8080, True),
        ("127.0.0.1:8080", 8080, True),
        ("[::1]:8080", 8080, True),
        ("Localhost:08080", 8080, True),
        ("localhost", 80, True),
        ("[::1]", 80, True),
        ("localhost:80", 80, True),
        ("localhost", 8080, False),
        ("[::1]", 8080, False),
        ("localhost:5173", 8080, False),
        ("localhost:80", 8080, False),
        ("localhost:8080", None, False),
    ],
)
def test_009_of_our_own_origin_there_is_no_page_unless_pages_are_shown(
    *, fields: list[tuple[str, str]], host: str, port: int | None, is_ours: bool
) -> None:
    """What says that it is one was left by an earlier server on our port: a tab, or a service worker.

    A server on another port, which forwards with its own Host, may have pages; so may an origin that is listed.
    """
    said = [(name, value.format(host=host)) for name, value in fields]
    head = _head("/x", *said, host=host, port=port)
    assert _refusal(Guard(), head) is (OwnPageNotAllowed if is_ours else None)
    assert _refusal(LOCKED, head) is (OwnPageNotAllowed if is_ours else ClientKeyRequired)
    assert _refusal(BROWSED, head) is None
    assert _refusal(Guard(origins=[f"http://{host}"]), head) is None


@pytest.mark.threat(3, 9)
def test_009_who_types_our_address_is_told_of_the_setting_and_curl_is_no_page() -> None:
    """A page that is typed is no page of ours yet; a program says nothing of sites."""
    typed = [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
    assert _refusal(OPEN, _head("/x", *typed, port=8080)) is NavigationNotAllowed
    assert _refusal(OPEN, _head("/x", ("Sec-Fetch-Mode", "cors"), port=8080)) is None


@pytest.mark.threat(2, 9)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(("mode", "dest"), [(mode, dest) for mode, dest, _ in FETCHES])
def test_009_a_link_from_another_site_leads_nowhere_all_the_same(
    mode: str | None, dest: str | None, site: str
) -> None:
    """Where a browser may show pages, too."""
    for guard in (OPEN, BROWSED):
        assert _refusal(guard, _fetch(mode, dest, site)) is OriginNotAllowed


def test_a_refused_page_has_the_code_of_its_family_and_a_mend_of_its_own() -> None:
    """Whoever opens the proxy in a browser reads which setting it is."""
    assert (NavigationNotAllowed.code, NavigationNotAllowed.status) == ("origin_not_allowed", 403)
    assert "guard.browser" in NavigationNotAllowed().detail


#: All that a field value may hold (RFC 9110 section 5.5).
_text = st.text(alphabet=[chr(number) for number in (9, *range(32, 127), *range(128, 256))], max_size=40)


@pytest.mark.threat(1)
@given(_text | st.sampled_from(ACCEPTED + HOSTILE).flatmap(lambda host: _text.map(host.__add__)))
def test_001_a_host_is_admitted_exactly_if_it_is_in_the_list(host: str) -> None:
    """The reference is a split at the last colon, and a set; white space around a value is no part of it."""
    text = host.strip(" \t")
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, "0"
    is_port = port.isascii() and port.isdigit() and len(port) <= 5
    expected = is_port and name.isascii() and name.lower() in {each.lower() for each in ACCEPTED}
    assert (_refusal(OPEN, _head(host=host)) is None) is expected


def test_001_exactly_one_host_field() -> None:
    """None is refused here; two, even such as agree, never come to be a head (RFC 9112 section 3.2)."""
    assert _refusal(OPEN, _head(host=None)) is HostNotAllowed
    with pytest.raises(Malformed):
        _head("/x", ("Host", "localhost"), host="localhost")


@pytest.mark.parametrize(
    ("host", "name", "own"),
    [("Whatever:1", "whatever", b"http://whatever:1"), ("a, b", "", b""), (None, "", b"")],
)
def test_a_unix_listener_asks_for_no_host(host: str | None, name: str, own: bytes) -> None:
    """Whoever can open the socket is admitted by its mode; a foreign page cannot."""
    admission = OPEN.admit(_head(host=host, port=None))
    assert (admission.visitor.host, admission.visitor.own_origin) == (name, own)
    assert _refusal(OPEN, _head("/x", ("Origin", "http://evil.example"), host=host, port=None)) is OriginNotAllowed
    assert _refusal(OPEN, _head("/x", *[("Origin", "")] * 2, host=host, port=None)) is OriginNotAllowed


#: Whether a request with this Origin and this Sec-Fetch-Site is admitted, for every method alike.
OWN, LISTED = "http://localhost:8080", PAGE
SITES = (None, "same-origin", "none", "same-site", "cross-site", "", "Same-Origin")
OWN_SITES = {None, "same-origin", "Same-Origin"}
ORIGINS: dict[str | None, set[str | None]] = {
    None: OWN_SITES,
    OWN: OWN_SITES,
    OWN.upper(): OWN_SITES,
    LISTED: set(SITES),
    "HTTPS://app.example": set(SITES),
    "null": set(),
    "": set(),
    "http://localhost": set(),
    "http://localhost:3000": set(),
    "https://localhost:8080": set(),
    "http://127.0.0.1:8080": set(),
    "http://localhost:8080.evil.example": set(),
    "http://evil.example": set(),
    "https://app.example.evil.example": set(),
    "chrome-extension://abcdef": set(),
    f"{PAGE}, http://evil.example": set(),
}


@pytest.mark.threat(2, 9)
@pytest.mark.parametrize("site", SITES)
def test_002_null_is_a_page_of_ours_where_pages_are_shown_and_the_browser_says_same_origin(
    site: str | None,
) -> None:
    """So it calls a form of a page with `Referrer-Policy: no-referrer`."""
    fields = [(name, value) for name, value in (("Origin", "null"), ("Sec-Fetch-Site", site)) if value is not None]
    refusals = [_refusal(guard, _head("/x", *fields, method="POST")) for guard in (OPEN, BROWSED)]
    assert refusals == [OriginNotAllowed, None if site == "same-origin" else OriginNotAllowed]


@pytest.mark.threat(2, 3, 8)
@pytest.mark.parametrize(("origin", "site"), list(itertools.product(ORIGINS, SITES)))
def test_002_origin_and_site_decide_for_every_method(origin: str | None, site: str | None) -> None:
    """A simple request of a foreign page is refused, GET too; curl, which sends neither, is not (3)."""
    fields = [(name, value) for name, value in (("Origin", origin), ("Sec-Fetch-Site", site)) if value is not None]
    found = {_refusal(OPEN, _head("/x", *fields, ("Sec-Fetch-Mode", "cors"), method=method)) for method in METHODS}
    assert found == {None if site in ORIGINS[origin] else OriginNotAllowed}


@pytest.mark.threat(6, 12)
@pytest.mark.parametrize(
    "fields",
    [
        [("Origin", OWN), ("Origin", OWN)],
        [("Origin", PAGE), ("Origin", PAGE)],
        [("Origin", OWN), ("Origin", "http://evil.example")],
        [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", "http://evil.example"), ("Upgrade", "websocket"), ("Connection", "Upgrade")],
        [("Origin", "null"), ("Upgrade", "websocket"), ("Connection", "Upgrade")],
    ],
)
def test_006_doubled_fields_and_websockets_get_no_exemption(fields: list[tuple[str, str]]) -> None:
    """Nor does anything else that a request header says (12)."""
    assert _refusal(OPEN, _head("/x", *fields)) is OriginNotAllowed


@pytest.mark.threat(4)
def test_004_an_allowed_page_is_named_and_only_its_origin_is_granted() -> None:
    """Never `*`, and a cache must not mix origins up."""
    admission = OPEN.admit(_head("/x", ("Origin", PAGE)))
    assert (admission.visitor.origin, admission.preflight) == (PAGE.encode(), False)
    assert OPEN.admit(_head("/x", ("Origin", OWN))).visitor.origin is None
    assert OPEN.allows_origin(b" " + PAGE.upper().encode())
    assert not OPEN.allows_origin(b"null")
    assert cors_lines(PAGE.encode()) == [
        b"Access-Control-Allow-Origin: http://app.example:3000",
        b"Access-Control-Allow-Credentials: true",
        b"Vary: Origin",
    ]


def test_004_an_allowed_page_may_read_every_field_by_its_name() -> None:
    """`*` stands for nothing where a request may carry cookies (Fetch, section 3.3.3)."""
    *_, exposed = cors_lines(PAGE.encode(), exposed=[b"X-A: 1", b"ETag:x: y", b"X-A: 2", b"", b"x-b:"])
    assert exposed == b"Access-Control-Expose-Headers: X-A, ETag, x-b"
    assert cors_lines(PAGE.encode(), exposed=[b""]) == cors_lines(PAGE.encode())


def _preflight(origin: str, *more: tuple[str, str], method: str = "PUT") -> Head:
    asks = ("Access-Control-Request-Method", method)
    return _head("/x", ("Origin", origin), asks, ("Sec-Fetch-Site", "cross-site"), *more, method="OPTIONS")


@pytest.mark.threat(5)
def test_005_a_preflight_of_an_allowed_page_is_ours_to_answer() -> None:
    """Without the client key, which a browser cannot send along; exactly what it asks for is granted."""
    head = _preflight(PAGE, ("Access-Control-Request-Headers", "x-a, authorization"))
    admission = LOCKED.admit(head)
    assert (admission.preflight, admission.visitor.origin) == (True, PAGE.encode())
    assert preflight_lines(head.section.values, PAGE.encode()) == [
        b"Access-Control-Allow-Origin: http://app.example:3000",
        b"Access-Control-Allow-Credentials: true",
        b"Access-Control-Allow-Methods: PUT",
        b"Access-Control-Max-Age: 600",
        b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        b"Access-Control-Allow-Headers: x-a, authorization",
    ]
    lines = b"".join(preflight_lines(_preflight(PAGE).section.values, PAGE.encode()))
    assert b"Allow-Headers" not in lines


@pytest.mark.threat(5)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", ""])
@pytest.mark.parametrize("guard", [OPEN, LOCKED])
def test_005_a_preflight_of_any_other_page_is_denied(guard: Guard, origin: str) -> None:
    """By a code of its own, so that the page's author learns which setting it is."""
    head = _preflight(origin, ("Access-Control-Request-Private-Network", "true"))
    assert _refusal(guard, head) is CorsDenied


@pytest.mark.threat(5)
@pytest.mark.parametrize(
    ("method", "names"),
    [("PUT\r\nX: y", "a"), ("", "a"), ("A" * 33, "a"), ("PUT", "a\r\nSet-Cookie: x"), ("PUT", '"')],
)
def test_005_a_preflight_for_what_is_no_method_or_name_is_denied(method: str, names: str) -> None:
    """Nothing of a request is copied into an answer unread."""
    fields = {
        b"access-control-request-method": [method.encode()],
        b"access-control-request-headers": [names.encode()],
    }
    with pytest.raises(CorsDenied):
        preflight_lines(fields, PAGE.encode())


def test_an_options_request_that_is_no_preflight_is_an_ordinary_request() -> None:
    """It has no Access-Control-Request-Method."""
    admission = OPEN.admit(_head("/x", ("Origin", PAGE), method="OPTIONS"))
    assert not admission.preflight


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


#: Target and fields that carry the key; the path that is left, the segment, whether Authorization was the key.
CARRIERS: list[tuple[str, list[tuple[str, str]], str, str, bool]] = [
    ("/x", [("X-Proxy-Key", KEY)], "/x", "", False),
    ("/x", [("x-proxy-key", f" {KEY} ")], "/x", "", False),
    ("/x", [("X-Proxy-Key", "wrong"), ("X-Proxy-Key", KEY)], "/x", "", False),
    ("/x", [("Authorization", f"Bearer {KEY}")], "/x", "", True),
    ("/x", [("Authorization", f"bEaReR  {KEY} ")], "/x", "", True),
    ("/x", [("Authorization", "Bearer other"), ("Authorization", f"Bearer {KEY}")], "/x", "", True),
    ("/x", [("Authorization", _basic("anyone", KEY))], "/x", "", True),
    ("/x", [("Authorization", _basic("", KEY).replace("Basic", "bASIC"))], "/x", "", True),
    ("/x", [("Cookie", f"a=b; bearer_proxy_key={KEY}")], "/x", "", False),
    ("/x", [("Cookie", "a=b"), ("Cookie", f'bearer_proxy_key="{KEY}"')], "/x", "", False),
    (f"/~{KEY}/x", [], "/x", f"/~{KEY}", False),
    (f"/~{KEY}", [], "/", f"/~{KEY}", False),
    (f"/~{KEY}/", [], "/", f"/~{KEY}", False),
    (f"/~{KEY}//x/%2F?a=b", [], "//x/%2F", f"/~{KEY}", False),
    (f"/~{KEY}/x", [("Authorization", f"Bearer {KEY}"), ("X-Proxy-Key", KEY)], "/x", f"/~{KEY}", True),
    (f"/~{KEY}/x", [("Authorization", "Bearer their-own")], "/x", f"/~{KEY}", False),
]


@pytest.mark.threat(20)
@pytest.mark.parametrize(("target", "fields", "path", "key_prefix", "authorization_is_key"), CARRIERS)
def test_020_the_client_key_is_found_in_every_carrier_and_consumed(
    *, target: str, fields: list[tuple[str, str]], path: str, key_prefix: str, authorization_is_key: bool
) -> None:
    """What is left of path is what is routed; whether Authorization was the key decides who owns it."""
    admission = LOCKED.admit(_head(target, *fields))
    assert (admission.path, admission.key_prefix) == (path.encode(), key_prefix.encode())
    assert admission.visitor.authorization_is_key is authorization_is_key


@pytest.mark.threat(11, 20)
@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/x", []),
        (f"/~{KEY}x/x", []),
        (f"/~{KEY[:-1]}/x", []),
        (f"/~{KEY.upper()}/x", []),
        (f"/x/~{KEY}", []),
        (f"//~{KEY}/x", []),
        (f"/%7e{KEY}/x", []),
        (f"/{KEY}/x", []),
        (f"/~{KEY};a/x", []),
        (f"/x?~{KEY}", []),
        ("/~/x", []),
        ("/x", [("X-Proxy-Key", "")]),
        ("/x", [("X-Proxy-Key", KEY + "x")]),
        ("/x", [("X_Proxy_Key", KEY)]),
        ("/x", [("Authorization", KEY)]),
        ("/x", [("Authorization", f"Token {KEY}")]),
        ("/x", [("Authorization", _basic(KEY, "wrong"))]),
        ("/x", [("Authorization", "Basic " + base64.b64encode(KEY.encode()).decode())]),
        ("/x", [("Authorization", "Basic \xff!")]),
        ("/x", [("Proxy-Authorization", f"Bearer {KEY}")]),
        ("/x", [("Cookie", f"other={KEY}")]),
        ("/x", [("Cookie", f"Bearer_Proxy_Key={KEY}")]),
        ("/x", [("Cookie", "bearer_proxy_key")]),
    ],
)
def test_020_a_request_without_the_client_key_is_refused(target: str, fields: list[tuple[str, str]]) -> None:
    """Only the whole first segment, only the password, only the exact value."""
    assert _refusal(LOCKED, _head(target, *fields)) is ClientKeyRequired


def test_without_a_client_key_a_tilde_is_an_ordinary_path() -> None:
    """And no value holds a key."""
    admission = OPEN.admit(_head("/~home/x", ("Authorization", "Bearer theirs")))
    assert (admission.path, admission.key_prefix) == (b"/~home/x", b"")
    assert not admission.visitor.authorization_is_key
    assert not OPEN.holds_key(KEY.encode())
    assert LOCKED.holds_key(f"http://localhost/~{KEY}/x".encode())


@pytest.mark.threat(24, 25, 26)
@pytest.mark.parametrize(
    ("head", "error"),
    [
        (_head("evil.example:443", method="CONNECT"), MethodNotAllowed),
        (_head(method="TRACE"), MethodNotAllowed),
        (_head("http://localhost/x"), BadTarget),
        (_head("*", method="OPTIONS"), BadTarget),
        (_head("/x", method="PROPFIND"), None),
    ],
)
def test_024_method_and_target(head: Head, error: type[Rejected] | None) -> None:
    """No tunnel, no echo, one form of target alone; cases 24 to 26, 45."""
    assert _refusal(OPEN, head) is error


#: Each name of a method's override, and every way in which its words can be joined.
OVERRIDES = [
    "".join(map(str.__add__, words, (*marks, "")))
    for words in (["X", "HTTP", "Method", "Override"], ["X", "HTTP", "Method"], ["X", "Method", "Override"])
    for marks in itertools.product("-_.", repeat=len(words) - 1)
]


@pytest.mark.threat(26, 47)
@pytest.mark.parametrize("name", OVERRIDES)
def test_026_the_method_is_overridden_in_every_spelling(name: str) -> None:
    """CGI knows no dash from an underscore, PHP no dot; what is named counts beside the method."""
    assert len(OVERRIDES) == 45
    assert methods_of(_head("/x", (name, " delete "), method="POST")) == ["POST", "DELETE"]
    assert methods_of(_head("/x", (name.upper(), "post"), method="POST")) == ["POST"]
    with pytest.raises(MethodNotAllowed):
        methods_of(_head("/x", (name, "Trace"), method="POST"))


@pytest.mark.threat(26)
def test_026_what_stands_before_a_comma_counts_as_well() -> None:
    """Express takes that; what is empty says nothing."""
    for value in ("DELETE, x", "DELETE,", ",delete"):
        assert "DELETE" in methods_of(_head("/x", ("X-HTTP-Method-Override", value), method="POST"))
    with pytest.raises(MethodNotAllowed):
        methods_of(_head("/x", ("X-HTTP-Method-Override", "TRACE, x"), method="POST"))


@pytest.mark.threat(118)
def test_118_a_request_is_meant_for_few_methods() -> None:
    """Each costs a look at all rules; a head has room for thousands."""
    few = [("X-HTTP-Method-Override", method) for method in ("PUT", "put", "PATCH", "DELETE")]
    assert methods_of(_head("/x", *few * 9, method="POST")) == ["POST", "PUT", "PATCH", "DELETE"]
    with pytest.raises(MethodNotAllowed):
        methods_of(_head("/x", *few, ("X-Method-Override", "GET"), method="POST"))


def test_the_checks_come_in_their_order() -> None:
    """A request that is wrong in every way is refused for the first of them, and so on."""
    wrong = [
        (_head("*", ("Origin", "null"), method="TRACE", host="evil"), MethodNotAllowed),
        (_head("*", ("Origin", "null"), host="evil"), BadTarget),
        (_head("/", ("Origin", "null"), host="evil"), HostNotAllowed),
        (_head("/", ("Origin", "null")), OriginNotAllowed),
        (_head("/"), ClientKeyRequired),
    ]
    assert [_refusal(LOCKED, head) for head, _ in wrong] == [error for _, error in wrong]


def test_what_a_section_says_is_worked_out_once_and_target_and_method_each_time() -> None:
    """A client repeats its fields: the key in one target must not open the door for the next one."""
    head = _head(f"/~{KEY}/x", ("Origin", PAGE), ("Access-Control-Request-Method", "PUT"))
    first = LOCKED.admit(head)

    def repeated(method: str, target: str) -> Head:
        return Head(method, target.encode(), head.section)

    assert LOCKED.admit(repeated("POST", f"/~{KEY}/y?z")).visitor is first.visitor
    assert _refusal(LOCKED, repeated("GET", "/x")) is ClientKeyRequired
    assert _refusal(LOCKED, repeated("TRACE", f"/~{KEY}/x")) is MethodNotAllowed
    assert LOCKED.admit(repeated("OPTIONS", "/x")).preflight
    assert not LOCKED.admit(repeated("PUT", f"/~{KEY}/x")).preflight


def test_what_one_guard_found_in_a_section_is_nothing_to_another() -> None:
    """After a reload the connection, and with it the section, may be the same; names, origins and key are not."""
    head = _head("/x", ("Origin", PAGE), ("X-Proxy-Key", KEY), host="api.localhost")
    assert OPEN.admit(head).visitor.origin == PAGE.encode()
    assert _refusal(LOCKED, head) is HostNotAllowed
    assert Guard(hosts=["api.localhost"], origins=[PAGE]).admit(head).visitor.key is None
    keyed = Guard(hosts=["api.localhost"], origins=[PAGE], client_keys=[SHARED])
    assert keyed.admit(head).visitor.key is SHARED
    assert _refusal(Guard(hosts=["api.localhost"]), head) is OriginNotAllowed


def test_077_neither_a_head_nor_an_admission_prints_the_client_key() -> None:
    """The key may stand in the path, which both hold."""
    head = _head(f"/~{KEY}/x", ("X-Proxy-Key", KEY))
    admission = LOCKED.admit(head)
    assert isinstance(admission, Admission)
    assert KEY not in f"{head!r}{head.section!r}{admission!r}{admission.visitor!r}{LOCKED!r}"
