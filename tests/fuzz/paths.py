"""The target at the upstream: whatever a client asks for stays below the route, in the eyes of any server.

An input is a route, a pipeline of steps and the target of a request. Servers are modelled as such pipelines, those
that are known and the one of the input, with a resolver of dots that shares nothing with the product's.
"""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from proxy.errors import BadTarget, NoRoute, PathDenied
from proxy.injection import Outgoing, Place, render
from proxy.query import strip_query
from proxy.routes import Origin, Policy, Route, RouteTable, Rule, split_target
from tests.fuzz.taking import Taking

WORDS: Final = (
    *(b"..", b"%2e", b"%252e", b"%2f", b"%252f", b"%5c", b"\\", b"//", b"/./", b"/../", b"..;", b";x=1", b"%3b"),
    *(b"admin", b"ADMIN", b"%61dmin", b"token", b"things/", b"ping", b"/billing/", b"/keep", b"/deny/", b"/read/"),
    *(b"?key=", b"&KEY=", b";key=1", b"k%65y", b"@evil.example", b"http://", b"%00", b"%0d%0a", b"#", b"key[]="),
)
API: Final = Origin("https", "api.example", 443)
ROUTES: Final = (
    Route("billing", API, prefix=b"/billing", base_path=b"/v2"),
    Route("keep", API, prefix=b"/keep", base_path=b"/base/deep", strip_prefix=False),
    Route(
        "deny", API, prefix=b"/deny", base_path=b"/v3", policy=Policy(None, [Rule(None, ("/v3/admin*", "*/token"))])
    ),
    Route(
        "read",
        API,
        prefix=b"/read",
        base_path=b"/v1",
        policy=Policy([Rule(frozenset({"GET"}), ("/v1/things/*", "/v1/ping"))], ()),
    ),
    Route("root", API),
)
TABLE: Final = RouteTable(ROUTES)
KEY: Final = b"key"

#: What a server may do to a path, and in which order: D decodes, B takes backslashes for slashes, P drops
#: parameters, M merges slashes, R resolves dots.
STEPS: Final = "DBPMR"
SERVERS: Final = (
    *("", "R", "DR", "RD", "MR", "RM", "DMR", "MRD", "DRM", "RDM", "PR", "PDR", "PRD", "DPR", "PDMR", "PMRD"),
    *("BR", "BDR", "DBR", "DBMR", "DBPMR", "RPR", "RMR", "DRDR", "DDR", "PDRDR", "DMRDMR", "BPDR", "PDBR", "DPBMR"),
)


def check(data: bytes) -> None:
    """Raise AssertionError where a target gets further than it may."""
    taking = Taking(data)
    meant = taking.choice(ROUTES)
    pipelines = (*SERVERS, "".join(taking.choice(STEPS) for _ in range(5)))
    target = meant.prefix + taking.rest()
    try:
        path, query = split_target(target)
        route = TABLE.find("localhost", path)
        upstream = route.target(path)
        route.policy.check("GET", upstream)
    except (BadTarget, NoRoute, PathDenied):
        return
    assert (path if query is None else path + b"?" + query) == target, "it was altered"
    assert route == _route(path), "another route"
    inside = route.base_path + (b"" if route.strip_prefix else route.prefix)
    assert upstream == (inside + path[len(route.prefix) :] or b"/"), "not cut and joined"
    for pipeline in pipelines:
        _holds(route, inside, _read(upstream, pipeline), pipeline)
    _check_head(upstream, query)


def _route(path: bytes) -> Route:
    """The longest prefix whose segments the path begins with."""
    segments = path.split(b"/")
    fitting = [each for each in ROUTES if segments[: each.prefix.count(b"/") + 1] == each.prefix.split(b"/")]
    return max(fitting, key=lambda each: len(each.prefix))


def _holds(route: Route, inside: bytes, read: bytes, pipeline: str) -> None:
    """What a server makes of the path is below `inside`, and the rules say the same of it."""
    said = f"{read!r}, by {pipeline}"
    # One that drops backslashes' or parameters' meaning only, and resolves nothing, has gone nowhere.
    assert read == inside or read.startswith((inside + b"/", inside + b";", inside + b"\\")), f"outside: {said}"
    if route.name == "deny":
        lower = read.lower()
        assert not lower.startswith(b"/v3/admin"), f"denied: {said}"
        assert not lower.endswith(b"/token"), f"denied: {said}"
    if route.name == "read":
        assert read.rstrip(b"/") == b"/v1/ping" or read.startswith(b"/v1/things/"), f"not allowed: {said}"


def _read(path: bytes, pipeline: str) -> bytes:
    decoded = 0
    for step in pipeline:
        if step == "D" and decoded < 2:
            path, decoded = unquote_to_bytes(path), decoded + 1
        elif step == "B":
            path = path.replace(b"\\", b"/")
        elif step == "P":
            path = b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))
        elif step == "M":
            path = re.sub(rb"/+", b"/", path)
        elif step == "R":
            path = _resolved(path)
    return path


def _resolved(path: bytes) -> bytes:
    """Without dot segments, one after the other (RFC 3986 section 5.2.4)."""
    path = re.sub(rb"/(?:\./)+", b"/", path)
    path = re.sub(rb"/\.\Z", b"/", path)
    while match := re.search(rb"/\.\.(?=/|\Z)", path):
        head = path[: match.start()]
        path = head[: max(head.rfind(b"/"), 0)] + (path[match.end() :] or b"/")
    return path


def _check_head(path: bytes, query: bytes | None) -> None:
    kept = strip_query(query, frozenset({KEY}))
    injection = render([Place("query", "key")], "our-own-token")
    head = Outgoing("GET", path, kept, b"Host: api.example\r\n", []).head(injection)
    line, end, rest = head.partition(b"\r\n")
    assert (end, rest) == (b"\r\n", b"Host: api.example\r\n\r\n"), "the line was ended"
    method, target, version = line.split(b" ")
    assert (method, version) == (b"GET", b"HTTP/1.1")
    assert re.fullmatch(rb"/[!-~]*", target), "no target"
    parts = urlsplit(str(API).encode() + target)
    assert (parts.scheme, parts.netloc) == (b"https", b"api.example"), "another origin"
    assert parts.path == path
    for separator in ("&", ";"):
        pairs = parse_qsl(
            parts.query.decode("ascii"), keep_blank_values=True, separator=separator, encoding="latin-1"
        )
        # What Python's text calls space besides is a part of the name for whoever reads bytes.
        values = [value for name, value in pairs if name.strip(" \t\n\r\v\f").lower() == "key"]
        # Who splits at semicolons alone may see ours behind another.
        assert values in (["our-own-token"], []), f"the client's own parameter: {values}"
    left = iter(re.split(rb"[&;]", query or b""))
    assert all(piece in left for piece in re.split(rb"[&;]", kept or b"")) or not kept, "parameters out of order"
