"""The second path of COPY and MOVE: what may not be asked for is no place to move something to, either."""

import pytest

from proxy.clientkeys import ClientKey
from proxy.destination import permit_destinations
from proxy.errors import BadTarget, PathDenied, Rejected
from proxy.guard import Guard, Head
from proxy.redact import Secret
from proxy.routes import Origin, Policy, Route, RouteTable, Rule
from tests.support.api import api
from tests.support.harness import StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed
from tests.support.sections import request_section

API = Origin("https", "dav.example", 443)
KEY = "client-key_0123456789"
NARROW = ClientKey("narrow", Secret(KEY), Policy([Rule(frozenset({"MOVE", "PUT"}), ("/dav/mine/*",))], []))
DENIES = Policy(None, [Rule(None, ("/files/admin/*",))])


def _refusal(
    *values: str, route: Route, key: ClientKey | None = None, method: str = "MOVE", path: str = "/dav/mine/a"
) -> type[Rejected] | None:
    """How this Destination is refused in a request that stands below `/~KEY` where there is a key."""
    table = RouteTable([route, Route("inside", API, b"/dav/other"), Route("root", API)])
    fields = [(b"Host", b"localhost:8080"), *((b"Destination", value.encode()) for value in values)]
    target = f"/~{KEY}{path}" if key is not None else path
    head = Head(method, target.encode(), request_section(fields))
    admission = Guard(client_keys=() if key is None else [key]).admit(head)
    try:
        permit_destinations(head, [method], admission, route=route, table=table)
    except Rejected as error:
        return type(error)
    return None


def _route(policy: Policy = DENIES, *, base: bytes = b"/files", strip: bool = True) -> Route:
    return Route("dav", API, b"/dav", base, strip, policy=policy)


#: What clients call a place that is denied: by our origin, by the upstream's, and by a path alone.
DENIED = [
    "http://localhost:8080/dav/admin/x",
    "HTTP://LocalHost:8080/dav/Admin/x",
    "http://localhost:8080/dav/%61dmin/x",
    "http://localhost:8080/dav/x/..%2fadmin/x",
    "http://localhost:8080/dav/admin%3fx",
    "http://localhost:8080/dav/admin/x?y#z",
    "https://dav.example/files/admin/x",
    "HTTPS://Dav.Example/files/admin/x",
    "/files/admin/x",
    "/files//admin/x",
]
#: Places that are no part of the route, however they are called.
BEYOND = [
    "http://localhost:8080/elsewhere",
    "http://localhost:8080/davos",
    "http://localhost:8080/",
    "http://localhost:8080",
    "http://localhost:8080/dav/other/x",
    "https://dav.example/admin/x",
    "https://dav.example",
    "https://dav.example?x",
    "https://dav.example//files/x",
    "/admin",
    "/filesystem",
]
#: Names of some place that may be the same one.
UNKNOWN = [
    "http://127.0.0.1:8080/dav/admin/x",
    "https://dav.example:443/files/admin/x",
    "https://user@dav.example/files/admin/x",
    "https://dav.example.evil.example/files/x",
    "https://other.example/x",
    "//dav.example/files/admin/x",
    "/\\dav.example/files/admin/x",
    "admin/x",
    "",
]
FINE = [
    "http://localhost:8080/dav/b",
    "http://localhost:8080/dav",
    "https://dav.example/files/b?c",
    "/files/mine/b",
]


@pytest.mark.threat(28)
@pytest.mark.parametrize("value", [*DENIED, *BEYOND, *UNKNOWN])
@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_028_nothing_moves_to_where_no_request_may_go(value: str, method: str) -> None:
    """In all readings; a name that we do not know may be one of the upstream's."""
    assert _refusal(value, route=_route(), method=method) is PathDenied
    assert _refusal(FINE[0], value, route=_route(), method=method) is PathDenied


@pytest.mark.threat(28)
@pytest.mark.parametrize("value", FINE)
def test_028_what_a_request_may_ask_for_it_may_move_to(value: str) -> None:
    """By each of the names."""
    assert _refusal(value, route=_route()) is None


@pytest.mark.threat(28)
@pytest.mark.parametrize("method", ["PUT", "PROPFIND", "LOCK"])
def test_028_other_methods_lead_nowhere(method: str) -> None:
    """RFC 4918 knows the field with COPY and MOVE alone."""
    assert _refusal(DENIED[0], route=_route(), method=method) is None


@pytest.mark.threat(28)
def test_028_a_destination_that_climbs_is_refused_like_a_target() -> None:
    """Above the route, in any reading."""
    for value in (
        "http://localhost:8080/dav/../../admin",
        "/files/%2e%2e/admin",
        "https://dav.example/files/..;/x",
    ):
        assert _refusal(value, route=_route(Policy(None, ()))) is BadTarget


@pytest.mark.threat(28)
@pytest.mark.parametrize("place", ["sec\tret/x", ".\t./admin/x", "x%00.bak", "a%zz", "a b"])
def test_028_a_destination_that_no_target_could_be_is_refused(place: str) -> None:
    """A tab may stand in a field; who resolves the place leaves it out (WHATWG URL, section 4.4)."""
    for value in (f"http://localhost:8080/dav/{place}", f"/files/{place}"):
        assert _refusal(value, route=_route()) is BadTarget


@pytest.mark.threat(28)
@pytest.mark.parametrize("value", UNKNOWN)
def test_028_without_rules_another_server_is_the_upstreams_affair(value: str) -> None:
    """A base path is a rule: nothing beside it is ours to change."""
    assert _refusal(value, route=_route(Policy(None, ()), base=b"")) is None
    assert _refusal(value, route=_route(Policy(None, ()))) is PathDenied
    assert _refusal(value, route=_route(Policy([Rule(None, ("*",))], ()), base=b"")) is PathDenied


@pytest.mark.threat(22, 28)
@pytest.mark.parametrize(
    ("value", "fine"),
    [
        (f"http://localhost:8080/~{KEY}/dav/mine/b", True),
        ("http://localhost:8080/dav/mine/b", True),
        ("https://dav.example/files/mine/b", True),
        ("/files/mine/b", True),
        (f"http://localhost:8080/~{KEY}/dav/theirs/b", False),
        ("http://localhost:8080/dav/mine/../theirs/b", False),
        ("https://dav.example/files/theirs/b", False),
        ("/files/theirs/b", False),
        ("https://other.example/x", False),
    ],
)
def test_022_a_key_is_good_for_the_place_that_something_moves_to(value: str, *, fine: bool) -> None:
    """Its paths are those that a client asks for, before the route takes its prefix off."""
    for base in (b"/files", b""):
        at = value if base else value.replace("/files/", "/")
        route = _route(Policy(None, ()), base=base)
        assert _refusal(at, route=route, key=NARROW) is (None if fine else PathDenied)


@pytest.mark.threat(28)
def test_028_a_route_that_keeps_its_prefix_has_it_at_the_upstream() -> None:
    """So the place of the upstream stands behind base and prefix."""
    denies = Policy(None, [Rule(None, ("/files/dav/admin/*",))])
    kept = _route(denies, strip=False)
    assert _refusal("http://localhost:8080/dav/b", route=kept) is None
    assert _refusal("/files/dav/b", route=kept) is None
    for value in ("http://localhost:8080/dav/admin/b", "/files/dav/admin/b", "/files/b"):
        assert _refusal(value, route=kept) is PathDenied


@pytest.mark.threat(22, 28)
async def test_028_what_a_rule_denies_reaches_no_upstream_as_a_destination(
    proxying: StartProxy, canaries: Canaries
) -> None:
    """And what passes is in terms of the upstream; a method that is put in the place of POST counts."""
    keyed = Keyed(canaries.mint("token"))
    async with api() as upstream:
        config = keyed.config(upstream.url, deny=[{"paths": ["/admin/*"]}])
        async with proxying(config, environ=keyed.environ) as proxy:
            asked = [
                ("MOVE", "/admin/b"),
                ("COPY", "/admin%2fb"),
                ("POST", "/admin/b"),
                ("MOVE", "/b"),
                ("PUT", "/b"),
            ]
            told = [
                await proxy.ask(
                    method,
                    "/a",
                    {
                        "Host": "localhost",
                        "Destination": f"http://localhost{path}",
                        "X-HTTP_Method-Override": "MOVE",
                    }
                    if method == "POST"
                    else {"Host": "localhost", "Destination": f"http://localhost{path}"},
                )
                for method, path in asked
            ]
    assert [(each.status, each.code) for each in told] == [(403, "path_denied")] * 3 + [(200, "")] * 2
    assert [seen.all("destination") for seen in upstream.seen] == [[f"{upstream.url}/b"]] * 2
