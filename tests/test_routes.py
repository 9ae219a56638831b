"""Routes and targets: raw bytes in, raw bytes out, policies on every reading, an origin that nothing changes."""

import itertools
import posixpath
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import routes
from proxy.errors import BadTarget, NoRoute, PathDenied
from proxy.injection import Injection, Outgoing
from proxy.routes import NO_POLICY, Origin, Policy, Route, RouteTable, Rule, climbs, readings, split_target

API = Origin("https", "api.example", 443)

#: Everything that some software reads as a dot segment, a slash or nothing at all.
PIECES = [
    *(
        "a",
        "x",
        "admin",
        "%61dmin",
        "%2561dmin",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        ".%2e",
        "%252e%252e",
        "...",
        "~",
        "%7e",
    ),
    *(
        "%3f",
        "%2523",
        "/",
        "/",
        "/",
        "//",
        "%2f",
        "%2F",
        "%252f",
        "\\",
        "%5c",
        ";",
        ";x=1",
        "%3b",
        "%20",
        "+",
        "@evil.example",
        ":80",
    ),
]
paths = st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: f"/{''.join(pieces)}".encode())
#: The same with more aim: detours, then a name that some software reads as `admin`, then what it may not see.
DETOURS = [
    "x",
    "x%2fy",
    "x%5cy",
    "x\\y",
    "x;%2fy",
    "x;y",
    "",
    ".",
    "..",
    "..",
    "%2e%2e",
    "%252e%252e",
    "..;z",
    "%2e.",
]
NAMES = [
    "admin",
    "ADMIN",
    "%61dmin",
    "%2561dmin",
    "admin;x",
    "admin;x%2fy",
    "%61dmin;x%2fy",
    "admin%3bx",
    "admin%2f",
    "admin%3fx",
    "admin%23",
    "%61dmin%253fx%2fy",
]
detours = st.builds(
    lambda detour, slashes, name, tail: (
        "".join(map("".join, zip(slashes, detour, strict=False))) + name + tail
    ).encode(),
    st.lists(st.sampled_from(DETOURS), max_size=4).map(lambda detour: [*detour, ""]),
    st.lists(st.sampled_from(["/", "/", "/", "//", "/%2f"]), min_size=5, max_size=5),
    st.sampled_from(NAMES),
    st.sampled_from(["", "/", "/x", "//", "/.", "/x/..", "%2fx", "\\"]),
)


@pytest.mark.threat(29)
@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", None),
        ("/a%2Fb/%7e/%41", "/a%2Fb/%7e/%41", None),
        ("/a/../b/./c", "/a/../b/./c", None),
        ("//evil.example/x", "//evil.example/x", None),
        ("/\\evil.example", "/\\evil.example", None),
        ("/@evil.example:80", "/@evil.example:80", None),
        ("/x?", "/x", ""),
        ("/x?a=b&&c", "/x", "a=b&&c"),
        ("/x??a?b/..%2f", "/x", "?a?b/..%2f"),
        ("/x;p=1?%41=+&b=%25zz", "/x;p=1", "%41=+&b=%25zz"),
        ("/a%23f", "/a%23f", None),
        ("/!\"$&'()*+,-.:;<=>@[]^_`{|}~", "/!\"$&'()*+,-.:;<=>@[]^_`{|}~", None),
        ("/http://evil.example/", "/http://evil.example/", None),
        ("/%ff%80%0a", "/%ff%80%0a", None),
    ],
)
def test_029_a_target_is_split_and_not_a_byte_is_changed(target: str, path: str, query: str | None) -> None:
    """No `?` is not the same as an empty query."""
    assert split_target(target.encode()) == (path.encode(), None if query is None else query.encode())


@pytest.mark.threat(24, 30)
@pytest.mark.parametrize(
    "target",
    [
        *(
            "",
            "*",
            "x",
            "?a=b",
            "evil.example:443",
            "http://localhost/x",
            "https://evil.example/",
            "file:/etc",
            " /x",
        ),
        *(
            "/a#f",
            "/a?#f",
            "/#",
            "/%00",
            "/a%00b",
            "/x?a=%00",
            "/%",
            "/%z",
            "/%zz",
            "/%4",
            "/%4g",
            "/x?%",
            "/x?%zz",
        ),
        *("/a b", "/a\tb", "/a\r\nX: y", "/x\n", "/a\x00", "/a\x1b", "/a\x7f", "/\x80", "/ä", "/x?a=ä"),
    ],
)
def test_024_every_other_form_of_target_is_refused(target: str) -> None:
    """Absolute-form, authority-form, `*` (33), fragments (30), NUL, control characters, broken escapes."""
    with pytest.raises(BadTarget):
        split_target(target.encode())


@given(st.binary(max_size=30).map(b"/".__add__))
def test_024_whatever_is_taken_stands_on_one_line_and_is_put_together_again(target: bytes) -> None:
    """So no target can end the request line, and none is altered."""
    try:
        path, query = split_target(target)
    except BadTarget:
        return
    assert re.fullmatch(rb"[!-~]+", target)
    assert (path if query is None else path + b"?" + query) == target


TABLE = RouteTable(
    [
        Route("root", API),
        Route("bill", API, prefix=b"/bill"),
        Route("billing", API, prefix=b"/billing"),
        Route("deep", API, prefix=b"/billing/v2"),
        Route("escaped", API, prefix=b"/a%2Fb"),
        Route("hosted", API, host="billing.localhost"),
        Route("hosted-deep", API, host="billing.localhost", prefix=b"/deep"),
        Route("narrow", API, host="narrow.localhost", prefix=b"/only"),
    ]
)


@pytest.mark.parametrize(
    ("host", "path", "name"),
    [
        ("localhost", "/", "root"),
        ("localhost", "/bill", "bill"),
        ("localhost", "/bill/", "bill"),
        ("localhost", "/billing", "billing"),
        ("localhost", "/billings", "root"),
        ("localhost", "/billing/v1", "billing"),
        ("localhost", "/billing/v2", "deep"),
        ("localhost", "/billing/v2/x", "deep"),
        ("localhost", "/billing/v22", "billing"),
        ("localhost", "/billing%2Fv2/x", "root"),
        ("localhost", "/billing;x/v2", "root"),
        ("localhost", "/BILLING/x", "root"),
        ("localhost", "/%62illing/x", "root"),
        ("localhost", "//billing/x", "root"),
        ("localhost", "/x/../billing/x", "root"),
        ("localhost", "/a%2Fb/x", "escaped"),
        ("localhost", "/a%2fb/x", "root"),
        ("localhost", "/deep", "root"),
        ("", "/billing", "billing"),
        ("billing.localhost", "/billing", "hosted"),
        ("billing.localhost", "/deep/x", "hosted-deep"),
        ("narrow.localhost", "/only/x", "narrow"),
        ("narrow.localhost", "/bill", None),
    ],
)
def test_the_longest_prefix_on_a_segment_boundary_wins(host: str, path: str, name: str | None) -> None:
    """Of the raw bytes. If a route names the host, only routes that name it compete."""
    if name is None:
        with pytest.raises(NoRoute):
            TABLE.find(host, path.encode())
    else:
        assert TABLE.find(host, path.encode()).name == name


def test_a_table_shows_all_of_its_routes() -> None:
    """Those of a host and those of none, and an empty one finds nothing."""
    assert len({route.name for route in TABLE}) == 8
    with pytest.raises(NoRoute):
        RouteTable([]).find("localhost", b"/")


@pytest.mark.parametrize(
    ("prefix", "base", "strip", "path", "target"),
    [
        ("/billing", "/v2", True, "/billing", "/v2"),
        ("/billing", "/v2", True, "/billing/", "/v2/"),
        ("/billing", "/v2", True, "/billing/a%2Fb//c", "/v2/a%2Fb//c"),
        ("/billing", "/v2", True, "/billing/a/../b", "/v2/a/../b"),
        ("/billing", "", True, "/billing", "/"),
        ("/billing", "", True, "/billing//evil.example/x", "//evil.example/x"),
        ("/billing", "/v2", False, "/billing/x", "/v2/billing/x"),
        ("/billing", "", False, "/billing", "/billing"),
        ("", "/v2", True, "/", "/v2/"),
        ("", "/v2", True, "/billing", "/v2/billing"),
        ("", "", True, "/%7e?", "/%7e?"),
    ],
)
def test_base_and_rest_are_joined_as_bytes(prefix: str, base: str, *, strip: bool, path: str, target: str) -> None:
    """Base without trailing slash, then the rest as it came."""
    route = Route("r", API, prefix.encode(), base.encode(), strip)
    assert route.target(path.encode()) == target.encode()


CLIMBING = [
    *("/..", "/../x", "/a/../..", "/a/../../b", "/./..", "//..", "//../..", "/a//../..", "/%2e%2e", "/%2E./x"),
    *(
        "/.%2e/x",
        "/%252e%252e/x",
        "/%252E./x",
        "/..%2fx",
        "/..%5cx",
        "/..\\x",
        "/\\..\\..",
        "/..;x/y",
        "/a/..;/..;x",
    ),
    *("/..%3bx", "/%2e%2e;a=b/", "/a%2f..%2f..", "/a/%2e%2e/%2e%2e/b", "/..%252fx", "/..%255cx"),
    # Two segments for one that decodes slashes, one for those who do not, as RFC 3986 section 6.2.2 does not.
    *("/x%2fy/../../z", "/x%2fy/%2e%2e/%2e%2e/z", "/x%5cy/../../z", "/x\\y/../../z", "/a;%2fb/../../c"),
]
STAYING = [
    "/",
    "/a/..",
    "/a/../b",
    "/a/b/../../c",
    "/...",
    "/.../...",
    "/a..b/..c",
    "/.",
    "/%2e",
    "/a/%2e%2e/b",
    "/x?",
]


@pytest.mark.threat(28)
@pytest.mark.parametrize("rest", CLIMBING)
@pytest.mark.parametrize("strip", [True, False])
def test_028_dot_segments_that_climb_above_the_route_are_refused_in_every_reading(
    rest: str, *, strip: bool
) -> None:
    """Plain, escaped once and twice, behind backslashes and parameters."""
    with pytest.raises(BadTarget):
        Route("r", API, b"/r", b"/v2", strip).target(b"/r" + rest.encode())


@pytest.mark.parametrize("rest", STAYING)
def test_028_other_dot_segments_pass_as_they_came(rest: str) -> None:
    """They are the upstream's to read."""
    assert Route("r", API, b"/r", b"/v2").target(b"/r" + rest.encode()) == b"/v2" + rest.encode()


def _remove_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4, step by step as it is written there."""
    out = ""
    while path:
        if path.startswith("/./") or path == "/.":
            path = "/" + path[3:]
        elif path.startswith("/../") or path == "/..":
            path = "/" + path[4:]
            out = out.rpartition("/")[0]
        else:
            segment = re.match(r"/?[^/]*", path)
            assert segment is not None
            out, path = out + segment[0], path[segment.end() :]
    return out


def _unquote(path: str) -> str:
    return unquote_to_bytes(path).decode("latin-1")


def _rfc_3986(path: str) -> str:
    """Section 6.2.2: unreserved characters decoded, other escapes in capitals, dot segments removed."""

    def plain(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if re.fullmatch(r"[A-Za-z0-9._~-]", character) else match[0].upper()

    return _remove_dot_segments(re.sub(r"%([0-9A-Fa-f]{2})", plain, path))


def _merge(path: str) -> str:
    return re.sub("/+", "/", path)


def _tomcat(path: str) -> str:
    """Parameters go first, then escapes, then slashes and dots."""
    return _remove_dot_segments(_merge(_unquote(re.sub(r";[^/]*", "", path)).replace("\\", "/")))


def _cut(path: str) -> str:
    """What is left of a path where its query and its fragment are looked for behind the decoding."""
    return re.sub(r"[?#].*", "", path, flags=re.DOTALL)


#: How real software reads a path; each written from its documentation, not from `readings`.
UPSTREAMS: Final[dict[str, Callable[[str], str]]] = {
    "as it came": lambda path: path,
    "RFC 3986, then decoded": lambda path: _unquote(_rfc_3986(path)),
    "RFC 3986": _rfc_3986,
    "RFC 3986, then merged (Envoy)": lambda path: _merge(_rfc_3986(path)),
    "decoded": _unquote,
    "decoded, merged, dots removed (nginx)": lambda path: _remove_dot_segments(_merge(_unquote(path))),
    "decoded, cleaned (Go)": lambda path: posixpath.normpath(_unquote(path)).replace("//", "/"),
    "parameters removed, decoded, cleaned (Tomcat)": _tomcat,
    "decoded twice (a chain of two)": lambda path: _remove_dot_segments(
        _unquote(_remove_dot_segments(_unquote(path)))
    ),
    "a proxy that normalises before one that decodes": lambda path: _tomcat(_rfc_3986(path)),
    "decoded, then split from its query": lambda path: _cut(_unquote(path)),
    "decoded, split, merged, dots removed": lambda path: _remove_dot_segments(_merge(_cut(_unquote(path)))),
    "a chain of which the second splits again": lambda path: _remove_dot_segments(
        _cut(_unquote(_remove_dot_segments(_unquote(path))))
    ),
    "a proxy that decodes and splits before another one": lambda path: _tomcat(_cut(_unquote(_rfc_3986(path)))),
}


@pytest.mark.threat(28)
@pytest.mark.parametrize("upstream", UPSTREAMS)
@given(path=detours)
def test_028_a_path_that_any_upstream_reads_as_denied_is_denied(upstream: str, path: bytes) -> None:
    """Case is ignored as well, and a trailing slash."""
    read = UPSTREAMS[upstream](path.decode()).lower().rstrip("/") or "/"
    if re.fullmatch(r"/admin(/.*)?", read):
        with pytest.raises((PathDenied, BadTarget)):
            Policy(None, [Rule(None, ("/Admin", "/Admin/*"))]).check("GET", path)


@pytest.mark.threat(28)
@pytest.mark.parametrize("upstream", UPSTREAMS)
@given(path=detours | paths)
def test_028_a_path_that_any_upstream_reads_as_not_allowed_is_refused(upstream: str, path: bytes) -> None:
    """`allow` holds only if every reading is allowed."""
    read = UPSTREAMS[upstream](path.decode())
    if re.match(r"/x(/|$)", path.decode()) and not re.match(r"/x(/|$)", read):
        with pytest.raises((PathDenied, BadTarget)):
            Policy([Rule(None, ("/x", "/x/*"))], []).check("GET", path)


@pytest.mark.threat(28)
@pytest.mark.parametrize(
    "path",
    [
        *(
            "/admin",
            "/admin/",
            "/ADMIN",
            "//admin",
            "/./admin",
            "/x/../admin",
            "/%61dmin",
            "/%2561dmin",
            "/admin;x",
        ),
        *("/admin%2f", "/x/..%2fadmin", "/x/..%252fadmin", "/x\\..\\admin", "/x%5c..%5cadmin", "/x/..;y/admin"),
        *("/admin/.", "/admin/x/..", "/admin//", "/admin%3bx", "/%2e/admin", "/x%2fy/../%61dmin", "/%61dmin;x%2fy"),
        *("/admin%3fx", "/admin%23", "/admin%253f/x", "/ADMIN;y%3f", "/x/..%2fadmin%3Fx", "/admin%3f/../../x"),
        *("/x%2fy/%2e%2e/%61dmin", "/x//../../admin", "/ADM%49N", "/admin%5c", "/admin%20/../admin"),
    ],
)
def test_028_the_classic_ways_around_a_deny_rule(path: str) -> None:
    """Each of them was a CVE somewhere; an innocent neighbour passes."""
    policy = Policy(None, [Rule(None, ("/admin",))])
    with pytest.raises(PathDenied):
        policy.check("GET", path.encode())
    policy.check("GET", b"/administration")
    policy.check("GET", b"/x/admin")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/auth/*", "/auth/login", True),
        ("/auth/*", "/auth/", True),
        ("/auth/*", "/auth", True),
        ("/auth/*", "/authors", False),
        ("*/token", "/a/b/token/", True),
        ("*/token", "/token", True),
        ("*/token", "/tokens", False),
        ("/v*/x", "/v1/y/x", True),
        ("/a.c", "/abc", False),
        ("/a%2Fb", "/a%2fb", True),
        ("*", "/", True),
        ("/", "/", True),
        ("/", "/x", False),
    ],
)
def test_deny_patterns(pattern: str, path: str, *, matches: bool) -> None:
    """`*` crosses slashes, nothing else is special, a trailing slash makes no difference."""
    policy = Policy(None, [Rule(None, ("/other", pattern))])
    if matches:
        with pytest.raises(PathDenied):
            policy.check("GET", path.encode())
    else:
        policy.check("GET", path.encode())


@pytest.mark.parametrize(
    ("method", "path", "passes"),
    [
        ("GET", "/v2/invoices/1", True),
        ("GET", "/v2/invoices/1/", True),
        ("GET", "/v2/invoices", False),
        ("GET", "/V2/invoices/1", False),
        ("HEAD", "/v2/invoices/1", False),
        ("POST", "/v2/invoices/1", False),
        ("POST", "/v2/new", True),
        ("GET", "/v2/new", True),
        ("GET", "/v2/invoices/secret", False),
        ("POST", "/v2/invoices/secret", False),
        ("DELETE", "/v2/new", False),
        ("GET", "/v2/invoices/../new", True),
        ("GET", "/v2/invoices/../x", False),
        ("GET", "/v2/invoices/%2e%2e/%2e%2e/x", False),
        ("GET", "/", False),
    ],
)
def test_allow_and_deny_together(method: str, path: str, *, passes: bool) -> None:
    """When `allow` is given everything else is denied, by method too; `deny` holds even where `allow` does."""
    policy = Policy(
        [Rule(frozenset({"GET"}), ("/v2/invoices/*",)), Rule(frozenset({"GET", "POST"}), ("/v2/new",))],
        [Rule(None, ("/v2/invoices/secret",)), Rule(frozenset({"DELETE"}), ("*",))],
    )
    if passes:
        policy.check(method, path.encode())
    else:
        with pytest.raises(PathDenied):
            policy.check(method, path.encode())


def test_an_empty_allow_denies_everything_and_no_policy_nothing() -> None:
    """`allow: []` is given; no `allow` is not."""
    with pytest.raises(PathDenied):
        Policy([], []).check("GET", b"/")
    NO_POLICY.check("GET", b"/../..")


@pytest.mark.threat(118)
def test_118_a_path_with_too_many_readings_is_refused_at_once() -> None:
    """Hundreds of escapes and dots would otherwise have half a million readings."""
    path = f"/{''.join(map(''.join, itertools.product(PIECES, repeat=2)))}".encode()
    short = b"/a;b//\\./%2e%2e/%252e;c/%5cq%3f" * 2
    for many in (path, short):
        with pytest.raises(BadTarget, match="too many ways"):
            readings(many)
    with pytest.raises(BadTarget):
        Policy(None, [Rule(None, ("/x",))]).check("GET", path)
    for honest in (b"/web/https%3A%2F%2Fa.example%2Fb%2F..%2Fc%3Fx%3D1%252F2//d", b"/a;v=1/b%20c//d/../e.f;x=%2F"):
        assert len(readings(honest)) <= 20


#: Each costs much in its own way; all fit into a head of the default size.
COSTLY = {
    "everything": b"/a;b//\\./%2e%2e/%252e;c/%5cq",
    "parameters and slashes": b"/a;b//\\",
    "escapes of escapes": b"/%2525252541..",
    "dots": b"/a/..",
    "queries": b"/a%3fb%2523",
}


@pytest.mark.patches
@pytest.mark.threat(118)
@pytest.mark.parametrize("looks", [readings, climbs])
@pytest.mark.parametrize("tail", [b"", b"/%252e%252e;x\\..//%3f"])
@pytest.mark.parametrize("piece", COSTLY.values(), ids=COSTLY)
def test_118_the_work_that_a_path_makes_is_bounded_however_long_it_is(
    monkeypatch: pytest.MonkeyPatch, looks: Callable[[bytes], object], tail: bytes, piece: bytes
) -> None:
    """Counted in bytes that the steps look at: six times what may be read in all, and one reading more."""
    path = b"".join(itertools.repeat(piece, 32 * 1024 // len(piece))) + tail
    looked_at: list[int] = []

    def counted(step: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def counting(path: bytes) -> bytes:
            looked_at.append(len(path))
            return step(path)

        return counting

    monkeypatch.setattr(routes, "_STEPS", tuple(map(counted, routes._STEPS)))
    with suppress(BadTarget):
        looks(path)
    assert sum(looked_at) <= 6 * (64 + 32) * 1024
    assert len(looked_at) <= 6 * 101


def test_118_a_long_path_that_can_be_read_in_two_ways_passes() -> None:
    """As long as a head may be by default, with an escape in it."""
    path = b"/" + b"a" * (32 * 1024 - 10) + b"%20x"
    assert len(readings(path)) == 2
    assert not climbs(path + b"/..")


@given(paths)
def test_the_shortcut_of_climbs_overlooks_nothing(path: bytes) -> None:
    """Judged by every reading, it says the same as without its first look."""
    depths = []
    for reading in readings(path):
        steps = [{"": 0, ".": 0, "..": -1}.get(segment, 1) for segment in reading.split("/")]
        depths.append(min(itertools.accumulate(steps)))
    assert climbs(path) is (min(depths) < 0)


@pytest.mark.threat(23)
@given(
    path=paths.map(b"/r".__add__) | paths,
    prefix=st.sampled_from([b"", b"/r"]),
    base=st.sampled_from([b"", b"/v2"]),
    strip=st.booleans(),
    query=st.none() | st.sampled_from([b"", b"a=b&&c", b"//evil.example", b"@evil.example:80"]),
)
def test_023_no_target_changes_the_upstream_origin(
    *, path: bytes, prefix: bytes, base: bytes, strip: bool, query: bytes | None
) -> None:
    """The request line begins with the base, stays one line in origin-form, and Host is the configured one."""
    table = RouteTable([Route("r", API, prefix, base, strip)])
    try:
        target = split_target(path if query is None else path + b"?" + query)
        route = table.find("localhost", target[0])
        upstream = route.target(target[0])
    except (BadTarget, NoRoute):
        return
    assert route.upstream is API
    assert upstream.startswith(base + b"/" if upstream != base else base)
    host = b"Host: %b\r\n" % route.upstream.authority.encode()
    line, *rest = Outgoing("GET", upstream, target[1], host, []).head(Injection()).split(b"\r\n")
    assert rest == [b"Host: api.example", b"", b""]
    method, sent, version = line.split(b" ")
    assert (method, version, sent[:1]) == (b"GET", b"HTTP/1.1", b"/")
    assert sent.partition(b"?")[2] == (query or b"")


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (Origin("https", "api.example", 443), "https://api.example"),
        (Origin("http", "api.example", 443), "http://api.example:443"),
        (Origin("http", "127.0.0.1", 80), "http://127.0.0.1"),
        (Origin("https", "::1", 8443), "https://[::1]:8443"),
        (Origin("http", "::1", 80), "http://[::1]"),
    ],
)
def test_an_origin_as_text(origin: Origin, text: str) -> None:
    """The port only where it is not the scheme's own; IPv6 in brackets; a parser reads the same out of it."""
    assert str(origin) == text
    parts = urlsplit(text)
    assert (parts.scheme, parts.hostname) == (origin.scheme, origin.host)
    assert (parts.port or {"http": 80, "https": 443}[origin.scheme]) == origin.port
