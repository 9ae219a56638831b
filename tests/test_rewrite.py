"""What becomes of an answer's fields: the upstream's own origin is told as ours, every other byte as it came."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy import build
from proxy.config import Source, load
from proxy.rewrite import CORS, REFERENCES, STICKY, Rewriter
from proxy.routes import Origin, Route, RouteTable

API = Origin("https", "api.example", 443)
OTHER = Origin("https", "other.example", 443)
#: The upstream's `/v2` appears as `/billing`.
BILLING = Route("billing", API, b"/billing", b"/v2")
OWN = b"http://localhost:8080"
KEY = b"/~a-key-of-16-chars"


def _rewriter(route: Route = BILLING, *others: Route, host: str = "upstream") -> Rewriter:
    return Rewriter(route, RouteTable([*others, route]), host=host)


def _value(
    name: str, value: bytes, rewriter: Rewriter | None = None, own: bytes = OWN, key: bytes = b""
) -> bytes | None:
    return (rewriter or _rewriter()).value(name.encode(), value, own_origin=own, key_prefix=key)


# -- references


@pytest.mark.parametrize("name", ["location", "content-location"])
@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("https://api.example/v2/x?y#z", "http://localhost:8080/billing/x?y#z"),
        ("https://api.example/v2/", "http://localhost:8080/billing/"),
        ("https://api.example/v2", "http://localhost:8080/billing"),
        ("https://api.example/v2?y=/v2", "http://localhost:8080/billing?y=/v2"),
        ("https://api.example/v2#z?", "http://localhost:8080/billing#z?"),
        ("HTTPS://Api.Example/v2/X", "http://localhost:8080/billing/X"),
        ("https://api.example:443/v2/x", "http://localhost:8080/billing/x"),
        ("https://api.example:/v2/x", "http://localhost:8080/billing/x"),
        ("//api.example/v2/x", "http://localhost:8080/billing/x"),
        ("//API.example:443/v2/x", "http://localhost:8080/billing/x"),
        ("/v2/x?y#z", "/billing/x?y#z"),
        ("/v2", "/billing"),
        ("/v2/", "/billing/"),
        ("/v2?", "/billing?"),
        ("/v2#", "/billing#"),
        ("/v2//x", "/billing//x"),
        ("/v2/\xff %zz%2f\"'<>;=", "/billing/\xff %zz%2f\"'<>;="),
        ("/v2/.well-known/..x/x../.../x.", "/billing/.well-known/..x/x../.../x."),
        ("/v2/x?/../\t#/..", "/billing/x?/../\t#/.."),
        (
            "https://api.example/v2/?next=https://api.example/v2/",
            "http://localhost:8080/billing/?next=https://api.example/v2/",
        ),
    ],
)
def test_061_a_reference_to_the_upstream_becomes_one_to_the_proxy(name: str, reference: str, expected: str) -> None:
    """In each of its spellings; what stands behind the path is not looked at."""
    assert _value(name, reference.encode("latin-1")) == expected.encode("latin-1")


@pytest.mark.threat(61)
@pytest.mark.parametrize(
    "reference",
    [
        # Another origin, however alike.
        "https://api.example.evil.example/v2/x",
        "https://api.example@evil.example/v2/x",
        "https://api.example:443@evil.example/v2/x",
        "https://api.example:pass@api.example/v2/x",
        "https://evil.example/https://api.example/v2/x",
        "https://evil.example?https://api.example/v2/x",
        "https://evil.example#@api.example/v2/x",
        "https://api.example\\@evil.example/v2/x",
        "https://api.example\\.evil.example/v2/x",
        "https://api.example\t.evil.example/v2/x",
        "https://api.example .evil.example/v2/x",
        "https://api.example.:443/v2/x",
        "https://api%2eexample/v2/x",
        "https://api.example:8443/v2/x",
        "https://api.example:0443/v2/x",
        "https://api.example::443/v2/x",
        "https://api.example:80/v2/x",
        "https://[api.example]/v2/x",
        "https://xapi.example/v2/x",
        "http://api.example/v2/x",
        "http://api.example:443/v2/x",
        "https:///api.example/v2/x",
        "https:/v2/x",
        "https:v2/x",
        "ftp://api.example/v2/x",
        "xhttps://api.example/v2/x",
        " https://api.example/v2/x",
        "//evil.example/v2/x",
        "//api.example.evil.example/v2/x",
        "//api.example:80/v2/x",
        "///api.example/v2/x",
        "////api.example/v2/x",
        "/\\api.example/v2/x",
        "/\\evil.example/v2/x",
        "/\t/evil.example/v2/x",
        "\\\\api.example/v2/x",
        "http://localhost:8080/v2/x",
        # No origin and no path from the root.
        "",
        "x",
        "v2/x",
        "./x",
        "../v2/x",
        "?page=2",
        "#top",
        "mailto:a@api.example",
        "data:text/html,/v2/",
        "*",
        "\xff",
        # The upstream, at a place where the proxy does not lead.
        "https://api.example/",
        "https://api.example",
        "https://api.example?v2",
        "https://api.example/v20/x",
        "https://api.example/V2/x",
        "https://api.example/v2%2fx",
        "https://api.example/v2;p/x",
        "https://api.example/login",
        "https://api.example//v2/x",
        "https://api.example/v2/../admin",
        "https://api.example/v2/%2e%2e/admin",
        "https://api.example/v2/..",
        "https://api.example/v2/x/..%5C../..",
        "https://api.example/v2/x/../y",
        "https://api.example/v2/./y",
        "https://api.example/v2/.",
        "https://api.example/v2/..;x/y",
        "https://api.example/v2/x%2f.%2Ey/../z",
        "https://api.example/v2/x\\..\\..\\z",
        "https://api.example/v2/.\t./z",
    ],
)
def test_061_every_other_reference_stays_as_it_came(reference: str) -> None:
    """Compared as an origin, not as a prefix: a browser would take some of these to somebody else."""
    assert _value("location", reference.encode("latin-1")) == reference.encode("latin-1")


@pytest.mark.parametrize(
    "path", ["/", "/login?to=/v2", "/v20", "/v2/../admin", "/v2/%2e%2e/admin", "/%76%32/x", "/billing/x"]
)
def test_a_path_that_the_proxy_does_not_lead_to_names_the_upstream(path: str) -> None:
    """Left alone it would be looked for below another route, and without a scheme in plain HTTP."""
    assert _value("location", path.encode()) == b"https://api.example" + path.encode()
    assert _value("location", b"//api.example:443" + path.encode()) == b"https://api.example" + path.encode()


ROOT = Route("root", API)
DEEP = Route("deep", API, b"", b"/v2")
KEPT = Route("kept", API, b"/billing", b"/base", strip_prefix=False)
PORT = Route("port", Origin("http", "10.0.0.1", 8000), b"/p")
SIX = Route("six", Origin("http", "::1", 80), b"/six")


@pytest.mark.parametrize(
    ("route", "reference", "expected"),
    [
        (ROOT, "/x", "/x"),
        (ROOT, "https://api.example/x", "http://localhost:8080/x"),
        (ROOT, "https://api.example", "http://localhost:8080/"),
        (ROOT, "https://api.example?y", "http://localhost:8080/?y"),
        (ROOT, "https://api.example//evil.example/x", "http://localhost:8080//evil.example/x"),
        (DEEP, "/v2/x", "/x"),
        (DEEP, "/v2", "/"),
        (DEEP, "/v2?y", "/?y"),
        # These would name another host if they stood alone.
        (DEEP, "/v2//evil.example/x", "http://localhost:8080//evil.example/x"),
        (DEEP, "/v2/\\evil.example/x", "http://localhost:8080/\\evil.example/x"),
        (DEEP, "/v2/\t/evil.example/x", "https://api.example/v2/\t/evil.example/x"),
        (KEPT, "/base/billing/x", "/billing/x"),
        (KEPT, "/base/other/x", "https://api.example/base/other/x"),
        (PORT, "http://10.0.0.1:8000/x", "http://localhost:8080/p/x"),
        (PORT, "http://10.0.0.1/x", "http://10.0.0.1/x"),
        (PORT, "//10.0.0.1:8000/x", "http://localhost:8080/p/x"),
        (PORT, "/", "/p/"),
        (SIX, "http://[::1]/x", "http://localhost:8080/six/x"),
        (SIX, "http://[::1]:80/x", "http://localhost:8080/six/x"),
        (SIX, "http://[::1]:443/x", "http://[::1]:443/x"),
    ],
)
def test_references_on_other_kinds_of_routes(route: Route, reference: str, expected: str) -> None:
    """At the root, with a base path, with a prefix that stays, with a port, with an IPv6 address."""
    assert _value("location", reference.encode(), _rewriter(route)) == expected.encode()


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("https://api.example/v2/x", "/x"),
        ("//api.example/v2", "/"),
        ("/v2/x", "/x"),
        ("https://api.example/v2//evil.example", "https://api.example/v2//evil.example"),
        ("https://api.example/v2/\\evil.example", "https://api.example/v2/\\evil.example"),
        ("/v2//evil.example", "/v2//evil.example"),
        ("/v2/\t/evil.example", "https://api.example/v2/\t/evil.example"),
        ("/login", "https://api.example/login"),
    ],
)
def test_without_a_name_of_ours_a_path_stands_alone(reference: str, expected: str) -> None:
    """As behind a Unix socket without Host; but never one that would be read as a host."""
    assert _value("location", reference.encode(), _rewriter(DEEP), own=b"") == expected.encode()


@pytest.mark.parametrize(
    ("route", "reference", "expected"),
    [
        (BILLING, "/v2/x", KEY + b"/billing/x"),
        (BILLING, "https://api.example/v2", OWN + KEY + b"/billing"),
        (DEEP, "/v2", KEY + b"/"),
        (DEEP, "/v2//x", KEY + b"//x"),
        (BILLING, "/login", b"https://api.example/login"),
        (BILLING, "https://evil.example/v2/x", b"https://evil.example/v2/x"),
        (BILLING, "x", b"x"),
    ],
)
def test_a_client_key_in_the_path_is_put_back_and_told_to_nobody_else(
    route: Route, reference: str, expected: bytes
) -> None:
    """Without it the next request would be refused."""
    assert _value("location", reference.encode(), _rewriter(route), key=KEY) == expected


@pytest.mark.parametrize(
    ("host", "reference", "expected"),
    [
        ("upstream", "https://localhost:8080/v2/x", "https://localhost:8080/v2/x"),
        ("client", "https://localhost:8080/v2/x", "http://localhost:8080/billing/x"),
        ("client", "HTTPS://LocalHost:8080/v2/x", "http://localhost:8080/billing/x"),
        ("client", "//localhost:8080/v2/x", "http://localhost:8080/billing/x"),
        ("client", "http://localhost:8080/v2/x", "http://localhost:8080/billing/x"),
        ("client", "https://api.example/v2/x", "http://localhost:8080/billing/x"),
        ("client", "http://localhost/v2/x", "http://localhost/v2/x"),
        ("client", "http://localhost:8080.evil.example/v2/x", "http://localhost:8080.evil.example/v2/x"),
        # Where the client asked to be sent back to, after a login say.
        ("client", "http://localhost:8080/billing/back?code=1", "http://localhost:8080/billing/back?code=1"),
        ("client", "http://localhost:8080/elsewhere", "http://localhost:8080/elsewhere"),
        ("app.example", "https://app.example/v2/x", "http://localhost:8080/billing/x"),
        ("app.example", "http://app.example/v2/x", "http://app.example/v2/x"),
        ("app.example:8443", "https://app.example:8443/v2/x", "http://localhost:8080/billing/x"),
        ("app.example:443", "https://App.example/v2/x", "http://localhost:8080/billing/x"),
    ],
)
def test_an_upstream_that_is_called_by_another_name_calls_itself_so(
    host: str, reference: str, expected: str
) -> None:
    """`host_header` as the client's name, or a literal."""
    assert _value("location", reference.encode(), _rewriter(host=host)) == expected.encode()


def test_an_address_that_the_client_told_with_its_key_stays() -> None:
    """At the root there is no prefix to know it by; and without a name of ours there is none to compare with."""
    back = OWN + KEY + b"/back?code=1"
    assert _value("location", back, _rewriter(ROOT, host="client"), key=KEY) == back
    assert _value("location", b"http:///x", _rewriter(ROOT, host="client"), own=b"") == b"http:///x"


SIBLING = Route("crm", API, b"/customers", b"/crm")
FOREIGN = Route("foreign", OTHER, b"/billing/foreign")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        # The proxy leads there by another route.
        ("/crm/5", "/customers/5"),
        ("https://api.example/crm/5", "http://localhost:8080/customers/5"),
        # Below our own prefix stands another upstream.
        ("/v2/foreign/x", "https://api.example/v2/foreign/x"),
        ("https://api.example/v2/foreign", "https://api.example/v2/foreign"),
        ("/v2/foreigner", "/billing/foreigner"),
        # A route for another host is not reached under this one.
        ("/hosted/x", "https://api.example/hosted/x"),
    ],
)
def test_a_reference_leads_to_where_it_named_by_whatever_route(reference: str, expected: str) -> None:
    """Or it names the upstream itself."""
    hosted = Route("hosted", API, b"/h", b"/hosted", host="h.localhost")
    rewriter = _rewriter(BILLING, SIBLING, FOREIGN, hosted)
    assert _value("location", reference.encode(), rewriter) == expected.encode()


def test_routes_of_one_host_lead_to_each_other() -> None:
    """They have the same name in front."""
    one = Route("one", API, b"", b"/v2", host="h.localhost")
    two = Route("two", API, b"/two", b"/v3", host="h.localhost")
    rewriter = _rewriter(one, two, BILLING)
    assert _value("location", b"/v3/x", rewriter) == b"/two/x"
    assert _value("location", b"/v2/two/x", rewriter) == b"https://api.example/v2/two/x"


# -- properties of references

_hosts = st.sampled_from(
    [
        "api.example",
        "API.EXAMPLE",
        "evil.example",
        "api.example.evil.example",
        "localhost",
        "apixexample",
        "",
        "[::1]",
    ]
)
_around = st.sampled_from(
    ["", "", "", ":443", ":80", ":", ":8443", "@", ":443@", "a@", ".", "\\", "\t", " ", "%2e", "x"]
)
_authorities = st.lists(st.one_of(_hosts, _around), min_size=1, max_size=4).map("".join)
_schemes = st.sampled_from(
    ["https://", "HTTPS://", "http://", "ftp://", "//", "https:/", "https:", "https:\\\\", "/\\", "///"]
)
_tails = st.lists(
    st.sampled_from(["/", "/v2", "/x", "//", "?a", "#b", "\\", "@api.example", "%2f", "\xff", ";", ":", "<", "x"]),
    max_size=6,
).map("".join)


def _names_the_upstream(reference: str) -> bool:
    """As the standard library reads it, resolved against the upstream."""
    try:
        parts = urlsplit(urljoin("https://api.example/v2/at/", reference))
        origin = (parts.scheme, parts.hostname, parts.port or 443)
    except ValueError:
        return False
    return origin == ("https", "api.example", 443) and "@" not in parts.netloc


@pytest.mark.threat(61)
@given(_schemes, _authorities, _tails, st.sampled_from(["upstream", "client"]), st.sampled_from([b"", KEY]))
def test_061_what_names_another_origin_is_never_touched(
    scheme: str, authority: str, tail: str, host: str, key: bytes
) -> None:
    """An independent reader says what does."""
    reference = scheme + authority + tail
    assume(not _names_the_upstream(reference))
    assume(host == "upstream" or "localhost" not in reference)
    assert _value("location", reference.encode("latin-1"), _rewriter(host=host), key=key) == reference.encode(
        "latin-1"
    )


_segments = st.lists(
    st.sampled_from(
        ["", "x", "v2", "billing", "foreign", "crm", "%2F", "\xe4", "a b", "..", ".", "%2e%2E", "~", ":", "@"]
    ),
    max_size=5,
)
_bases = st.sampled_from([b"", b"/v2", b"/v2/billing", b"/x"])
_prefixes = st.sampled_from([b"", b"/billing", b"/v2", b"/x/y"])
_routes = st.builds(
    Route, st.just("r"), st.just(API), prefix=_prefixes, base_path=_bases, strip_prefix=st.booleans()
)


def _asked(base: str, reference: str) -> str:
    """The URL that a client asks for: host or base's host, dot segments removed (RFC 3986 section 5.2)."""
    parts, around = urlsplit(reference), urlsplit(base)
    segments = parts.path.replace("%2e", ".").replace("%2E", ".").split("/")[1:] or [""]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    host = (parts.netloc or around.netloc).lower().removesuffix(":443")
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme or around.scheme}://{host}/{'/'.join(kept)}{query}"


@given(
    _routes,
    _segments,
    st.sampled_from(["https://api.example", "//API.example:443", ""]),
    st.sampled_from(["", "?y=/v2", "#z"]),
    st.sampled_from([b"", KEY]),
)
def test_a_client_that_follows_comes_to_the_place_that_was_named(
    route: Route, segments: list[str], origin: str, rest: str, key: bytes
) -> None:
    """Through the proxy, by whatever route, or at the upstream itself; with the very bytes of the path."""
    table = RouteTable([route, SIBLING, FOREIGN])
    assume(route.prefix not in {SIBLING.prefix, FOREIGN.prefix})
    inside = route.base_path if route.strip_prefix else route.base_path + route.prefix
    named = "".join(f"/{segment}" for segment in segments)
    for path in (named or "/", inside.decode() + named):
        assume(origin or path[1:2] != "/")
        assume(path)
        reference = origin + path + rest
        found = Rewriter(route, table).value(
            b"location", reference.encode("latin-1"), own_origin=OWN, key_prefix=key
        )
        assert found is not None
        asked = _asked(f"http://localhost:8080{key.decode()}/", found.decode("latin-1"))
        wanted = _asked("https://api.example/", reference)
        ours, mark, own_path = asked.partition("http://localhost:8080")
        if not mark:
            assert asked == wanted
            continue
        assert ours == ""
        own_path, mark, query = own_path.removeprefix(key.decode()).partition("?")
        reached = table.find("", own_path.encode("latin-1"))
        target = reached.target(own_path.encode("latin-1")).decode("latin-1")
        if reached is route and route.prefix == b"" and wanted.partition("?")[0] == f"{API}{inside.decode()}":
            # A request for the root has a slash: `/v2` itself is out of reach, `/v2/` is not.
            wanted = f"{API}{inside.decode()}/{mark}{query}"
        assert f"{reached.upstream}{target}{mark}{query}" == wanted


# -- links and refreshes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('<https://api.example/v2?page=2>; rel="next"', '<http://localhost:8080/billing?page=2>; rel="next"'),
        (
            "<https://api.example/v2/a>; rel=next, </v2/b>;rel=last,<c>,\t<https://evil.example/v2/>",
            "<http://localhost:8080/billing/a>; rel=next, </billing/b>;rel=last,<c>,\t<https://evil.example/v2/>",
        ),
        ("</v2/a,b;c>; rel=x", "</billing/a,b;c>; rel=x"),
        ('</v2/a>; title="x, </v2/b>"; rel=x', '</billing/a>; title="x, </v2/b>"; rel=x'),
        (r'</v2/a>; title="x\", </v2/b>", </v2/c>', r'</billing/a>; title="x\", </v2/b>", </billing/c>'),
        (r'</v2/a>; title="x\\", </v2/b>', r'</billing/a>; title="x\\", </billing/b>'),
        ('</v2/a>; title="x, </v2/b>', '</billing/a>; title="x, </v2/b>'),
        ('</v2/a>; title="x\\', '</billing/a>; title="x\\'),
        ('</v2/a">; rel=x, </v2/b>', '</billing/a">; rel=x, </billing/b>'),
        ('</v2/a>; anchor="/v2/x"', '</billing/a>; anchor="/v2/x"'),
        ("</v2/a>; rel=</v2/b>", "</billing/a>; rel=</v2/b>"),
        (", , </v2/a>", ", , </billing/a>"),
        ("</v2/a", "</v2/a"),
        ("</v2/a, </v2/b>", "</v2/a, </billing/b>"),
        ("</login>; rel=x", "<https://api.example/login>; rel=x"),
        ("<>", "<>"),
        ("/v2/a", "/v2/a"),
        ("\xff</v2/a>", "\xff</v2/a>"),
        ("</v2/\xff>;title=\xff", "</billing/\xff>;title=\xff"),
        ("", ""),
    ],
)
def test_targets_of_links_are_rewritten_each_and_nothing_else(value: str, expected: str) -> None:
    """RFC 8288 section 3: several in one field, commas and angle brackets in URIs and in quoted strings."""
    assert _value("link", value.encode("latin-1")) == expected.encode("latin-1")


_targets = st.sampled_from(
    [b"/v2/x,y", b"https://api.example/v2", b"https://evil.example/,<", b"x", b"", b"/login", b'"/v2"']
)
_parameters = st.sampled_from(
    [b"", b"; rel=next", b';title="a, </v2/x>; \\" ,"', b' ; x="" ', b';y="\\\\"', b";z=/v2/"]
)


@given(st.lists(st.tuples(_targets, _parameters), max_size=5), st.sampled_from([b",", b", ", b" ,\t", b",,"]))
def test_a_field_of_links_is_its_links_rewritten(links: list[tuple[bytes, bytes]], comma: bytes) -> None:
    """As if each had come alone, whatever stands between them."""
    links = [(target.replace(b"<", b""), parameters) for target, parameters in links]
    field = comma.join(b"<%b>%b" % link for link in links)
    rewritten = [(_value("location", target) or b"", parameters) for target, parameters in links]
    assert _value("link", field) == comma.join(b"<%b>%b" % link for link in rewritten)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5; url=https://api.example/v2/x", "5; url=http://localhost:8080/billing/x"),
        ("0;URL=/v2/x", "0;URL=/billing/x"),
        ("0.5,url = '/v2/x'", "0.5,url = '/billing/x'"),
        ('1 "/v2/x" trailing', '1 "/billing/x" trailing'),
        ("1; url='/v2/x", "1; url='/billing/x"),
        (" 1\t/v2/x", " 1\t/billing/x"),
        ("1;/v2/x", "1;/billing/x"),
        ("1; url=https://evil.example/v2/", "1; url=https://evil.example/v2/"),
        ("1; url=x", "1; url=x"),
        ("5", "5"),
        ("5;", "5;"),
        ("5; url=", "5; url="),
        ("/v2/x", "/v2/x"),
        ("5/v2/x", "5/v2/x"),
        ("url=/v2/x", "url=/v2/x"),
        ("", ""),
    ],
)
def test_the_target_of_a_refresh_is_rewritten(value: str, expected: str) -> None:
    """As browsers read it: with quotes of either kind or none, `url=` or not."""
    assert _value("refresh", value.encode()) == expected.encode()


# -- cookies


@pytest.mark.threat(10)
@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("a=b", "a=b"),
        ("", ""),
        ("a=b; HttpOnly; Max-Age=5;Expires=Wed, 21 Oct 2026 07:28:00 GMT ; Priority=High;; x", None),
        ("a=b; Domain=api.example", "a=b"),
        ("a=b; domain = .example ;DOMAIN=; HttpOnly", "a=b; HttpOnly"),
        ("a=b; Secure", "a=b"),
        ("a=b;secure; SECURE=1; Secured", "a=b; Secured"),
        ("a=b; Partitioned; Secure; Path=/", "a=b; Path=/billing"),
        ("a=b; SameSite=None; Secure", "a=b; SameSite=Lax"),
        ("a=b;samesite= NONE ", "a=b; SameSite=Lax"),
        ("a=b; SameSite=Strict", None),
        ("a=b; SameSite=Lax", None),
        ("a=b; SameSite", None),
        # All that looks like an attribute, in the value.
        ("Secure", None),
        ("Path=/v2", None),
        ("Domain=x; Path=/v2", "Domain=x; Path=/billing"),
        ('a="x, y=\xff \t"; Path=/v2/x; HttpOnly', 'a="x, y=\xff \t"; Path=/billing/x; HttpOnly'),
        # Paths.
        ("a=b; Path=/v2", "a=b; Path=/billing"),
        ("a=b; Path=/v2/", "a=b; Path=/billing/"),
        ("a=b;path= /v2/x ;HttpOnly", "a=b; Path=/billing/x;HttpOnly"),
        ("a=b; Path=/v2/x; Path=/", "a=b; Path=/billing/x; Path=/billing"),
        ("a=b; Path=", None),
        ("a=b; Path", None),
        ("a=b; Path=v2", None),
        ('a=b; Path="/v2"', None),
        # Without Secure browsers refuse the name.
        ("__Secure-a=b; Secure; Domain=x; Path=/", "__Secure-a=b; Secure; Path=/billing"),
        (
            "__Host-a=b; Secure; Path=/v2; SameSite=None; Partitioned",
            "__Host-a=b; Secure; Path=/billing; SameSite=None; Partitioned",
        ),
        ("__host-http-a=b; Secure", None),
        (" __HTTP-a=b; Secure", None),
        ("a__Secure-=b; Secure", "a__Secure-=b"),
        ("a=__Secure-b; Secure", "a=__Secure-b"),
    ],
)
def test_a_cookie_is_one_that_plain_http_under_our_name_can_hold(cookie: str, expected: str | None) -> None:
    """Name, value and every other attribute stay to the byte; None here: all of it does."""
    assert _value("set-cookie", cookie.encode("latin-1")) == (expected or cookie).encode("latin-1")


def test_a_cookie_path_that_is_the_same_here_stays_to_the_byte() -> None:
    """At the root of both."""
    for cookie in (b"a=b;path= /x ;HttpOnly", b"a=b; Path=/", b"a=b;PATH=/\t"):
        assert _value("set-cookie", cookie, _rewriter(ROOT)) == cookie


@pytest.mark.threat(10)
@pytest.mark.parametrize("path", ["/login", "/v20", "/v", "/V2", "/v2%2F", "//v2", "/billing"])
def test_010_a_cookie_for_another_path_of_the_upstream_is_dropped(path: str) -> None:
    """This route would never send it back, and left alone it might go to another route's upstream."""
    assert _value("set-cookie", f"a=b; Path={path}; HttpOnly".encode()) is None


@pytest.mark.parametrize(
    ("route", "path", "expected"),
    [
        (BILLING, b"/v2/x", KEY + b"/billing/x"),
        (BILLING, b"/", KEY + b"/billing"),
        (DEEP, b"/v2", KEY),
        (DEEP, b"/v2/", KEY + b"/"),
        (ROOT, b"/", KEY),
        (ROOT, b"/x", KEY + b"/x"),
    ],
)
def test_a_client_key_in_the_path_is_put_back_into_that_of_a_cookie(
    route: Route, path: bytes, expected: bytes
) -> None:
    """Else the browser would not send it along."""
    assert _value("set-cookie", b"a=b; Path=" + path, _rewriter(route), key=KEY) == b"a=b; Path=" + expected


def _is_sent(cookie_path: str, path: str) -> bool:
    """RFC 6265 section 5.1.4, in other words."""
    return path == cookie_path or path.startswith(cookie_path if cookie_path.endswith("/") else cookie_path + "/")


@given(_routes, _segments, _segments, st.booleans(), st.sampled_from(["", KEY.decode()]))
def test_a_browser_sends_a_cookie_with_the_requests_that_the_upstream_meant(
    route: Route,
    inside: list[str],
    asked: list[str],
    above: bool,  # noqa: FBT001  hypothesis gives all by name
    key: str,
) -> None:
    """With a path moved along, it comes with exactly the requests that it would come with there."""
    begin = (route.base_path if route.strip_prefix else route.base_path + route.prefix).decode()
    cookie_path = ("" if above else begin) + "".join(f"/{each}" for each in inside) or "/"
    own_path = route.prefix.decode() + "".join(f"/{each}" for each in asked) or "/"
    assume(".." not in asked and "%2e%2E" not in asked)
    target = route.target(own_path.encode("latin-1")).decode("latin-1")
    value = f"a=b; Path={cookie_path}".encode("latin-1")
    found = _value("set-cookie", value, _rewriter(route), key=key.encode())
    moved = None if found is None else found.decode("latin-1").removeprefix("a=b; Path=")
    assert (moved is not None and _is_sent(moved, key + own_path)) == _is_sent(cookie_path, target)


# -- what stops here, and the switches


@pytest.mark.threat(4, 73)
@pytest.mark.parametrize("name", [*sorted(CORS | STICKY), b"access-control-of-tomorrow"])
def test_004_073_grants_and_what_would_reach_beyond_the_proxy_stop_here(name: bytes) -> None:
    """Whatever they say."""
    for value in (b"*", b"max-age=1; includeSubDomains", b""):
        assert _value(name.decode(), value) is None


@pytest.mark.parametrize(
    ("switch", "names"),
    [
        ("location", REFERENCES),
        ("cookies", frozenset({b"set-cookie"})),
        ("cors", CORS),
        ("hsts", STICKY),
    ],
)
def test_each_kind_of_rewriting_can_be_switched_off(switch: str, names: frozenset[bytes]) -> None:
    """Its fields are not asked about then; all others are."""
    config = load(
        Source(f"upstream: https://api.example/v2\nrewrite: {{{switch}: false}}", "text", None, "test"), environ={}
    )
    rewriter = build.bindings(config, {})["default"].rewriter
    assert rewriter.names == (REFERENCES | CORS | STICKY | {b"set-cookie"}) - names
    assert rewriter.cors is (switch != "cors")


def test_a_configuration_gives_each_route_what_it_rewrites_with() -> None:
    """Base path, prefix, its siblings, the name that the upstream is called by; and whether it hears who called."""
    text = (
        "routes:\n"
        "  - {prefix: /billing/, upstream: https://api.example/v2/, host_header: client, forwarded: true}\n"
        "  - {prefix: /kept, upstream: https://api.example, strip_prefix: false}\n"
    )
    billing, kept = build.bindings(load(Source(text, "text", None, "test"), environ={}), {}).values()
    assert (billing.forwarded, kept.forwarded) == (True, False)
    assert _value("location", b"https://localhost:8080/v2/x", billing.rewriter) == OWN + b"/billing/x"
    assert _value("location", b"/kept/x", billing.rewriter) == b"/kept/x"
    assert _value("location", b"/v2/x", kept.rewriter) == b"/billing/x"
    assert _value("location", b"https://localhost:8080/kept", kept.rewriter) == b"https://localhost:8080/kept"


# -- all of them

_NAMES = sorted(REFERENCES | {b"set-cookie"})
_bytes = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"/v2",
                b"https://api.example",
                b"//",
                b"; Path=",
                b"; Secure",
                b"<",
                b">",
                b'"',
                b",",
                b"\\",
                b"5; url=",
            ]
        ),
        st.binary(max_size=4).map(lambda raw: bytes(byte for byte in raw if byte >= 32 and byte != 127)),
    ),
    max_size=10,
).map(b"".join)


@given(st.sampled_from(_NAMES), _bytes, st.sampled_from([OWN, b""]), st.sampled_from([KEY, b""]))
def test_063_no_value_brings_forth_a_control_character_or_an_error(
    name: bytes, value: bytes, own: bytes, key: bytes
) -> None:
    """Any bytes that a field may hold."""
    found = _rewriter().value(name, value, own_origin=own, key_prefix=key)
    assert found is None or not set(found) & {*range(9), *range(10, 32), 127}


@pytest.mark.threat(118)
@pytest.mark.parametrize(
    ("name", "begin", "piece"),
    [
        ("link", "", "<"),
        ("link", "", ",<"),
        ("link", "", ",<a"),
        ("link", "", ", "),
        ("link", "", '"'),
        ("link", "", '"\\'),
        ("link", '</v2>; x="', '\\"'),
        ("link", "</v2", "/."),
        ("refresh", "", " "),
        ("refresh", "5", "."),
        ("refresh", "5", " "),
        ("refresh", "5; url=", "'"),
        ("location", "https:", "/"),
        ("location", "https://", "api.example:443@"),
        ("location", "https://api.example", ":443"),
        ("location", "https://api.example/v2", "?#"),
        ("location", "/v2", "/%2e."),
        ("location", "/v2", "/%2f.."),
        ("content-location", "/v2", "/%2525"),
        ("set-cookie", "a=b", "; "),
        ("set-cookie", "a=b", ";path=/v2//"),
        ("set-cookie", "a=b; path=/v2", "/"),
    ],
)
def test_118_a_long_value_takes_linear_time(name: str, begin: str, piece: str) -> None:
    """A quadratic pattern would need minutes for these; a test that hangs is how it would show."""
    value = (begin + piece * (2**18 // len(piece))).encode()
    found = _value(name, value)
    assert found is not None
    assert len(found) <= 3 * len(value)
