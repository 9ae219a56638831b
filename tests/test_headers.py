"""Which fields, cookies and query parameters cross: stripped first, and every other byte as it came."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.fields import Field, basic_password, canonical, connection_options, cookie_values, without_scheme
from proxy.headers import (
    ALWAYS_DROPPED,
    FORWARDING,
    FRAMING,
    HOP_BY_HOP,
    Stripping,
    answer_lines,
    forwarded_lines,
    own_reference,
    request_lines,
    stripping,
)
from proxy.http1.section import BadText, Malformed, Section
from proxy.injection import AUTHORIZATION, Place
from proxy.query import query_names, query_values, strip_query
from tests.support.sections import section

API_KEY = Place("header", "X-Api-Key")
STRIP = stripping((AUTHORIZATION, API_KEY, Place("query", "access_token"), Place("cookie", "session")))
Raw = list[tuple[bytes, bytes]]


def never(_value: bytes) -> bool:
    """There is no client key."""
    return False


def _request(
    raw: Raw, strip: Stripping = STRIP, *, reference: bytes | None = b"reference"
) -> tuple[Raw, list[bytes]]:
    came = section(raw)
    lines, cookies = request_lines(came.fields, strip, came.options, lambda _value: reference, never)
    assert not lines or lines.endswith(b"\r\n")
    return [_split(line) for line in lines.split(b"\r\n")[:-1]], cookies


def _answer(raw: Raw, *echoes: bytes) -> tuple[Raw, int]:
    came = section(raw)
    lines, echoed = answer_lines(came.fields, came.options, echoes=echoes)
    return [_split(line) for line in lines], echoed


def _split(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b": ")
    return name, value


def _spellings(name: bytes) -> list[bytes]:
    return [name, name.upper(), name.title(), name.replace(b"-", b"_"), name.replace(b"-", b".").title()]


@pytest.mark.threat(40)
@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | FRAMING | FORWARDING | {b"x-proxy-key", b"authorization"}))
def test_040_fields_that_never_go_upstream(name: bytes) -> None:
    """Hop-by-hop, framing (38), forwarding (32), the client's credential (49) and key, in every spelling (47)."""
    raw = [(spelling, b"1") for spelling in _spellings(name)]
    assert _request([*raw, (b"X-Kept", b"2"), *raw])[0] == [(b"X-Kept", b"2")]


@pytest.mark.threat(28)
def test_028_the_old_name_of_destination_stops_here() -> None:
    """Apache's mod_dav takes it where there is no Destination; nobody judged it."""
    assert _request([(b"New-uri", b"/secret/x"), (b"X-Kept", b"2")])[0] == [(b"X-Kept", b"2")]


@pytest.mark.threat(40)
@pytest.mark.parametrize("name", sorted(HOP_BY_HOP - {b"trailer"} | {b"content-length"}))
def test_040_fields_that_never_come_back(name: bytes) -> None:
    """Hop-by-hop fields of an answer, and its length, which is written anew."""
    raw = [(name, b"1"), (name.title(), b"2")]
    assert _answer([*raw, (b"X-Kept", b"3"), *raw]) == ([(b"X-Kept", b"3")], 0)


def test_040_trailer_comes_back_since_trailers_do() -> None:
    """What it announces is passed on behind the body; towards the upstream, where nothing is, it stops."""
    assert _answer([(b"Trailer", b"X-Sum")]) == ([(b"Trailer", b"X-Sum")], 0)
    assert _request([(b"Trailer", b"X-Sum")])[0] == []


@pytest.mark.threat(4)
@pytest.mark.parametrize(
    "name", ["access-control-allow-origin", "Access-Control-Allow-Credentials", "ACCESS-CONTROL-EXPOSE-HEADERS"]
)
def test_004_the_cors_grants_of_an_upstream_do_not_come_back(name: str) -> None:
    """They were made for requests without our credential."""
    assert _answer([(name.encode(), b"*"), (b"Vary", b"Origin")]) == ([(b"Vary", b"Origin")], 0)


@pytest.mark.threat(39)
@pytest.mark.parametrize(
    "connections",
    [
        ["close, X-Named"],
        ["X-Named"],
        ["x-named"],
        ["", "X-NAMED"],
        ["close", "keep-alive,\tX-Named\t"],
        [",,X-Named,,"],
        [", ,X-Named"],
        ["close, Authorization, X-Api-Key, X-Named"],
    ],
)
def test_039_fields_that_connection_names_stop_here(connections: list[str]) -> None:
    """Both ways, in any case, over several Connection fields of which the first is empty."""
    raw = [(b"Connection", value.encode()) for value in connections]
    raw = [(b"X-Named", b"1"), *raw, (b"X-Other", b"2"), (b"x-named", b"3")]
    assert _request(raw)[0] == [(b"X-Other", b"2")]
    assert _answer(raw)[0] == [(b"X-Other", b"2")]


_name = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True).filter(
    lambda name: canonical(name) not in STRIP.names | {b"origin", b"referer", b"cookie"}
)
_value = st.lists(st.sampled_from([9, *range(32, 127), *range(128, 256)]), max_size=20).map(bytes)
_lines = st.lists(st.tuples(_name, _value).map(b":".join), max_size=8)


@given(_lines)
def test_029_every_other_field_crosses_byte_for_byte_with_duplicates_in_order(came: list[bytes]) -> None:
    """Non-UTF-8 values (E9), empty ones, odd case, white space around a value or none: as they came."""
    lines, cookies = request_lines(
        Section(b"\r\n".join(came)).fields, STRIP, frozenset(), lambda _value: None, never
    )
    assert lines == b"".join(line + b"\r\n" for line in came)
    assert cookies == []


@given(_lines)
def test_029_every_other_field_comes_back_byte_for_byte(came: list[bytes]) -> None:
    """With duplicates, in order."""
    came = [line for line in came if not line.lower().startswith(b"access-control-")]
    assert answer_lines(Section(b"\r\n".join(came)).fields, frozenset(), echoes=()) == (came, 0)


@pytest.mark.threat(47)
@pytest.mark.parametrize("alias", [b"X_Api_Key", b"x.api.key", b"X-API_KEY", b"X_API.KEY", b"x-api-key"])
def test_047_aliases_of_an_injected_field_are_dropped(alias: bytes) -> None:
    """WSGI and CGI map them to one variable; an alias of another field passes."""
    assert _request([(alias, b"theirs"), (b"X_Other.Key", b"passes")])[0] == [(b"X_Other.Key", b"passes")]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"a=b; c=d", [b"a=b; c=d"]),
        (b"a=b;c=d ;  e", [b"a=b;c=d ;  e"]),
        (b"session=x", []),
        (b"session=x; a=b", [b"a=b"]),
        (b"a=b; session=x", [b"a=b"]),
        (b"a=b; session=x; c=d", [b"a=b; c=d"]),
        (b"a=b;\tsession =x;c=\xff", [b"a=b;c=\xff"]),
        (b"Session=x; sessions=y; xsession=z", [b"Session=x; sessions=y; xsession=z"]),
        (b"bearer_proxy_key=k; a=b", [b"a=b"]),
        (b"Bearer_Proxy_Admin=k; bearer_proxy_=; a=b", [b"a=b"]),
        (b"session; a=session=x", [b"a=session=x"]),
        (b"=bearer_proxy_key=k; = Bearer_Proxy_x; a=b", [b"a=b"]),
        (b"=session=x; =a=b; ==c", [b"=a=b; ==c"]),
        (b"", []),
    ],
)
def test_cookies_of_ours_and_of_the_credential_are_taken_out(value: bytes, kept: list[bytes]) -> None:
    """All others stay as they came, several Cookie fields too."""
    assert _request([(b"Cookie", value), (b"cookie", b"z=1")]) == ([], [*kept, b"z=1"])


@pytest.mark.threat(10)
@pytest.mark.parametrize(
    ("value", "passes"),
    [
        (b"session=x; Path=/", True),
        (b"bearer_proxy_admin=x", False),
        (b" Bearer_Proxy_key=x", False),
        (b"=bearer_proxy_key=x", False),
        (b" = \tBearer_Proxy_key=x; Path=/", False),
        (b"==bearer_proxy_key=x", False),
        (b"bearer_proxy_key", False),
        (b"=x=bearer_proxy_key=x", True),
        (b"x_bearer_proxy_=x", True),
    ],
)
def test_010_an_upstream_sets_no_cookie_of_ours(value: bytes, *, passes: bool) -> None:
    """It would log a browser out of the inspector, or into another's; a nameless one comes back as its value."""
    assert _answer([(b"Set-Cookie", value)])[0] == ([(b"Set-Cookie", value)] if passes else [])


@pytest.mark.parametrize("name", [b"Origin", b"referer"])
def test_origin_and_referer_are_rewritten_or_dropped(name: bytes) -> None:
    """As the caller says; no other field is asked for."""
    assert _request([(name, b"old"), (b"X-Referer", b"old")])[0] == [(name, b"reference"), (b"X-Referer", b"old")]
    assert _request([(name, b"old")], reference=None)[0] == []


def test_a_reference_that_stays_keeps_its_line() -> None:
    """Only what is rewritten is written anew."""
    came = Section(b"Origin:https://page.example  \r\nREFERER:\tx ")
    lines, _ = request_lines(came.fields, STRIP, came.options, lambda value: value, never)
    assert lines == came.raw + b"\r\n"
    assert (
        request_lines(came.fields, STRIP, came.options, lambda _value: b"y", never)[0]
        == b"Origin: y\r\nREFERER: y\r\n"
    )


OWN = b"http://localhost:8080"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (OWN, b"https://api.example"),
        (b"HTTP://LocalHost:8080", b"https://api.example"),
        (OWN + b"/~key/billing/x?y", b"https://api.example/v2/x?y"),
        (OWN + b"/billing/", b"https://api.example/v2/"),
        (OWN + b"/billing", b"https://api.example/v2"),
        (OWN + b"/billing?y", b"https://api.example/v2?y"),
        (OWN + b"/billings/x", b"https://api.example/billings/x"),
        (OWN + b"0/x", OWN + b"0/x"),
        (OWN + b".evil.example", OWN + b".evil.example"),
        (b"http://localhost/x", b"http://localhost/x"),
        (b"null", b"null"),
        (b"", b""),
    ],
)
def test_a_reference_to_the_proxy_becomes_one_to_the_upstream(value: bytes, expected: bytes) -> None:
    """With the route's prefix and the client key taken out; any other origin, however alike, stays."""
    found = own_reference(
        value, OWN, b"/~key", prefix=b"/billing", upstream=b"https://api.example", base_path=b"/v2"
    )
    assert found == expected


def test_a_reference_on_a_root_route_or_without_an_origin_of_ours() -> None:
    """The root's prefix is empty; on a Unix socket there may be no origin."""
    api = b"https://api.example"
    assert own_reference(OWN + b"/x", OWN, b"", prefix=b"", upstream=api, base_path=b"/v2") == api + b"/v2/x"
    assert own_reference(OWN, OWN, b"", prefix=b"", upstream=api, base_path=b"/v2") == api
    assert own_reference(b"/x", b"", b"", prefix=b"", upstream=api, base_path=b"") == b"/x"


@pytest.mark.threat(20, 32)
@pytest.mark.parametrize(
    ("client", "host", "lines"),
    [
        ("127.0.0.1", b"localhost:8080", ["For: 127.0.0.1", "Host: localhost:8080", "Proto: http"]),
        ("::1", b"[::1]:8080", ["For: ::1", "Host: [::1]:8080", "Proto: http"]),
        ("fe80::1%eth0", b"h", ["For: fe80::1", "Host: h", "Proto: http"]),
        ("", b"localhost", ["Host: localhost", "Proto: http"]),
        ("", b"", ["Proto: http"]),
    ],
)
def test_032_what_is_said_of_the_client_is_what_we_know(client: str, host: bytes, lines: list[str]) -> None:
    """Its address (a Unix socket has none), the name by which it called, the scheme."""
    assert forwarded_lines(client, host, "http") == "".join(f"X-Forwarded-{line}\r\n" for line in lines).encode()


@pytest.mark.threat(63)
@pytest.mark.parametrize("byte", [*range(9), *range(11, 13), *range(14, 32), 127])
def test_063_control_characters_in_a_field_are_refused(byte: int) -> None:
    """An own writer would break on some of them, a terminal on others (E10)."""
    for line in (b"Y: a%cb", b"Y:%c", b"Y: b%c"):
        with pytest.raises(BadText):
            Section(b"X: fine\r\n" + line % byte)
    with pytest.raises(Malformed):
        Section(b"X: fine\r\na%cb: y" % byte)


def test_063_tabs_and_bytes_beyond_ascii_pass() -> None:
    """They are allowed in field values (RFC 9110 section 5.5)."""
    came: Raw = [(b"X", b"a\tb"), (b"Y", bytes(range(128, 256))), (b"Z", b"")]
    assert _answer(came) == (came, 0)
    assert _answer([]) == ([], 0)


@pytest.mark.threat(62)
def test_062_fields_that_echo_the_live_token_are_dropped_and_counted() -> None:
    """In any field, anywhere in the value, or in the name."""
    raw = [(b"X-Echo", b"Bearer live-token"), (b"Location", b"/?t=live%2Dtoken"), (b"X-Kept", b"live")]
    assert _answer([*raw, (b"X-live-token", b"1")], b"live-token", b"live%2Dtoken") == ([(b"X-Kept", b"live")], 3)


def test_what_a_route_strips_comes_from_places_and_names() -> None:
    """And can be widened for one request, as where the client key came as Authorization."""
    strip = stripping((API_KEY, Place("cookie", "c")), names=["X_Debug"], query=["stray"])
    assert strip.names == ALWAYS_DROPPED | {b"x-api-key", b"x-debug"}
    assert (strip.query, strip.cookies) == (frozenset({b"stray"}), frozenset({b"c"}))
    wider = strip.plus(AUTHORIZATION, Place("query", "q"), Place("cookie", "d"))
    assert wider.names == strip.names | {b"authorization"}
    assert (wider.query, wider.cookies) == (frozenset({b"stray", b"q"}), frozenset({b"c", b"d"}))
    for nothing in (stripping(()), Stripping()):
        assert (nothing.names, nothing.query, nothing.cookies) == (ALWAYS_DROPPED, frozenset(), frozenset())


@pytest.mark.threat(31)
@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("a=b&&c", "a=b&&c"),
        ("access_token=x", None),
        ("access_token", None),
        ("access_token=x&a=b", "a=b"),
        ("a=b&access_token=x", "a=b"),
        ("a=%7e&access_token=x&b=+", "a=%7e&b=+"),
        ("a;access_token=x;b&c", "a;b&c"),
        ("&access_token=x", None),
        ("&&access_token=x&", "&&"),
        ("access%5Ftoken=x&a", "a"),
        ("%61ccess_token=x", None),
        ("access_token=x&access_token=y&a&access_token", "a"),
        ("a&+access_token=x", "a"),
        # PHP sees one variable in all of these, ASP.NET in the last (47).
        ("access.token=x&a", "a"),
        ("access+token=x&a", "a"),
        ("access%20token=x&a", "a"),
        ("access_token[]=x&a", "a"),
        ("access_token%5B0%5D=x&a", "a"),
        ("Access_Token=x&a", "a"),
        ("access_tokens=x", "access_tokens=x"),
        ("a=access_token=x", "a=access_token=x"),
        ("q=%26access_token=x", "q=%26access_token=x"),
        ("", ""),
        (None, None),
    ],
)
def test_031_a_query_loses_the_named_parameters_and_no_other_byte(query: str | None, left: str | None) -> None:
    """However they are escaped or spelled, behind `&` and `;`, every duplicate."""
    found = strip_query(None if query is None else query.encode(), frozenset({b"access_token"}))
    assert found == (None if left is None else left.encode())


@pytest.mark.threat(31)
@given(st.lists(st.sampled_from(["a=b", "", "%zz", "x=%26", "access_token=1", "+", "c="]), min_size=1, max_size=8))
def test_031_what_is_left_of_a_query_is_its_other_pieces_in_order(pieces: list[str]) -> None:
    """Nothing to take out: not a byte changes."""
    query = "&".join(pieces).encode()
    left = [piece for piece in pieces if piece != "access_token=1"]
    assert strip_query(query, frozenset({b"access_token"})) == ("&".join(left).encode() or None if query else query)
    assert strip_query(query, frozenset()) == query


@pytest.mark.threat(31)
def test_031_values_and_keys_of_a_query() -> None:
    """Values are decoded, for comparison; keys stand as they came, for the log."""
    query = b"a=1+2&b=%2B;a=3&%61=4&a&=5&c\xff=6"
    assert query_values(query, b"a") == [b"1 2", b"3", b"4", b""]
    assert query_values(None, b"a") == []
    assert query_names(query, 64) == b"a&b&%61&a&&c\xff"
    assert query_names(query, 2) == b"a&b"
    assert query_names(b"", 2) == b""


@pytest.mark.parametrize(
    ("value", "password"),
    [
        (b"Basic " + base64.b64encode(b"user:pass:word"), b"pass:word"),
        (b" bASIC  " + base64.b64encode(b":x") + b" ", b"x"),
        (b"Basic " + base64.b64encode(b"user:"), b""),
        (b"Basic " + base64.b64encode(b"no colon"), None),
        (b"Basic not-base64!", None),
        (b"Basic \xff", None),
        (b"Basic", None),
        (b"Bearer " + base64.b64encode(b"user:pass"), None),
        (b"", None),
    ],
)
def test_the_password_of_a_basic_authorization(value: bytes, password: bytes | None) -> None:
    """RFC 7617; what is none has none."""
    assert basic_password(value) == password


def test_small_readers_of_fields() -> None:
    """Fields, options, cookies, names, schemes."""
    came = Section(b"A:1\r\nb: 2\r\na:\t3 ")
    assert came.values == {b"a": [b"1", b"3"], b"b": [b"2"]}
    expected: list[Field] = [(b"a", b"1", b"A:1"), (b"b", b"2", b"b: 2"), (b"a", b"3", b"a:\t3 ")]
    assert came.fields == expected
    assert connection_options([b"", b"Close,\tX-a ", b"x-A"]) - {b""} == {b"close", b"x-a"}
    assert cookie_values([b'a="1"; b=2', b" a =3; a; A=4"], b"a") == [b"1", b"3"]
    assert canonical(b"X_Api.Key") == b"x-api-key"
    assert [without_scheme(value) for value in (b"Bearer  x y ", b" x ", b"x ", b"")] == [b"x y", b"x", b"x", b""]
