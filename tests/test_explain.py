"""`explain` says what the proxy does: the same requests are explained and asked, and both are compared."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.clock import SystemClock
from proxy.config import Source, load
from proxy.explain.way import Explanation, explained
from proxy.redact import MASK, Redactor
from tests.support.api import Api, api
from tests.support.client import Answer, connected
from tests.support.harness import Proxy, StartProxy

KEY: Final = "client-key-of-the-tests"
READER: Final = "another-key-of-the-tests"
TOKEN: Final = "token-of-the-tests-0123456789"
ENVIRON: Final = {"T": TOKEN, "KEY": KEY, "READER": READER}
WITH_KEY: Final = ("X-Proxy-Key", KEY)
PAGE: Final = "http://localhost:3000"

Fields = Sequence[tuple[str, str]]


def document(upstream: str) -> dict[str, Any]:
    """Every kind of route, rule and placement that makes a difference to a head."""
    return {
        "routes": [
            {
                "prefix": "/billing",
                "upstream": f"{upstream}/v2",
                "credential": "header",
                "deny": [{"paths": ["/v2/auth/*"]}, {"methods": ["DELETE"]}],
                "headers": {"set": {"X-Tenant": "acme"}, "remove": ["X-Debug"]},
            },
            {
                "prefix": "/billing/read",
                "upstream": upstream,
                "allow": [{"methods": ["GET"], "paths": ["/open/*"]}],
            },
            {"prefix": "/query", "upstream": upstream, "credential": "query", "forwarded": True},
            {"prefix": "/cookie", "upstream": upstream, "credential": "cookie", "host_header": "client"},
            {"prefix": "/absent", "upstream": upstream, "credential": "header", "inject": "if-absent"},
            {"prefix": "/mark", "upstream": upstream, "credential": "header", "inject": {"replace": "PLACEHOLDER"}},
            {"host": "only.localhost", "prefix": "/here", "upstream": upstream},
        ],
        "credentials": {
            "header": {"type": "static", "token": {"env": "T"}, "headers": {"X-Api-Version": "3"}},
            "query": {"type": "static", "token": {"credential": "header"}, "place": {"query": "access_token"}},
            "cookie": {"type": "static", "token": {"credential": "header"}, "place": {"cookie": "session"}},
        },
        "guard": {
            "client_key": {"env": "KEY"},
            "client_keys": {"reader": {"key": {"env": "READER"}, "methods": ["GET"], "paths": ["/cookie/*"]}},
            "origins": [PAGE],
        },
        "admin": {"listen": None},
    }


#: Method, target, fields; Host is added where it is not there.
REQUESTS: Final[tuple[tuple[str, str, Fields], ...]] = (
    ("GET", "/billing/invoices?page=2&access_token=mine", [WITH_KEY, ("Authorization", "Bearer mine-mine-mine")]),
    ("GET", f"/~{KEY}/billing/a", [("Referer", "http://localhost/billing/b"), ("X-Debug", "1"), ("x_tenant", "b")]),
    (
        "GET",
        "/billing",
        [("Authorization", f"Bearer {KEY}"), ("Connection", "X-Own"), ("X-Own", "1"), ("TE", "gzip")],
    ),
    (
        "GET",
        "/billing/x",
        [WITH_KEY, ("X-Copy", f"has {KEY} in it"), ("X-Real-IP", "1.1.1.1"), ("Expect", "100-continue")],
    ),
    ("GET", "/billing/auth/login", [WITH_KEY]),
    ("GET", "/billing/%61uth/login", [WITH_KEY]),
    ("DELETE", "/billing/invoices/1", [WITH_KEY]),
    ("POST", "/billing/invoices/1", [WITH_KEY, ("X-HTTP-Method-Override", "DELETE"), ("Content-Length", "0")]),
    ("GET", "/billing/read/open/1", [WITH_KEY, ("Authorization", "Bearer passes-as-it-is")]),
    ("GET", "/billing/read/shut/1", [WITH_KEY]),
    ("GET", "/billing/../crm", [WITH_KEY]),
    ("GET", "/query/a?x=1&access_token=mine", [WITH_KEY, ("Cookie", "bearer_proxy_x=1; mine=2")]),
    ("GET", "/query", [WITH_KEY, ("X-Forwarded-For", "1.1.1.1")]),
    ("GET", "/cookie/a", [("X-Proxy-Key", READER), ("Cookie", "session=mine; a=b"), ("Cookie", "c=d")]),
    ("POST", "/cookie/a", [("X-Proxy-Key", READER), ("Content-Length", "0")]),
    ("GET", "/absent/a", [WITH_KEY]),
    ("GET", "/absent/a", [WITH_KEY, ("Authorization", "Bearer of-the-client-its-own")]),
    ("GET", "/mark/a", [WITH_KEY, ("Authorization", "Bearer PLACEHOLDER")]),
    ("GET", "/mark/a", [WITH_KEY, ("Authorization", "Bearer something-else")]),
    ("GET", "/here/a", [WITH_KEY, ("Host", "only.localhost")]),
    ("GET", "/here/a", [WITH_KEY]),
    ("GET", "/billing/a", []),
    ("GET", "/billing/a", [WITH_KEY, ("Host", "evil.example")]),
    ("GET", "/billing/a", [WITH_KEY, ("Origin", "https://evil.example")]),
    ("GET", "/billing/a", [WITH_KEY, ("Origin", PAGE)]),
    ("OPTIONS", "/billing/a", [("Origin", PAGE), ("Access-Control-Request-Method", "PUT")]),
    ("GET", "/billing/a", [WITH_KEY, ("Sec-Fetch-Mode", "navigate")]),
    ("TRACE", "/billing/a", [WITH_KEY]),
    ("NONSENSE", "/billing/a", [WITH_KEY]),
    ("GET", "/billing/a b", [WITH_KEY]),
    ("GET", "/billing/a", [WITH_KEY, ("Content-Length", "1"), ("Transfer-Encoding", "chunked")]),
    ("COPY", "/billing/a", [WITH_KEY, ("Destination", "/billing/auth/b")]),
    ("GET", "/billing/a", [WITH_KEY, ("Connection", "Upgrade"), ("Upgrade", "websocket")]),
)


def head(method: str, target: str, fields: Fields) -> bytes:
    """As a client sends it."""
    own = [] if any(name == "Host" for name, _ in fields) else [("Host", "localhost")]
    lines = [f"{name}: {value}" for name, value in (*own, *fields)]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode()


def explanation(upstream: str, raw: bytes) -> Explanation:
    """What is said of it."""
    config = load(Source(yaml.safe_dump(document(upstream)), "test.yaml", None, "test"), environ=ENVIRON)
    return explained(config, raw, port=8080, clock=SystemClock(), redactor=Redactor())


async def sent(proxy: Proxy, raw: bytes) -> Answer:
    """What the proxy does."""
    async with connected(proxy.url, proxy.artefacts) as client:
        client.send(raw)
        return await client.answer()


def compare(found: Explanation, answer: Answer, upstream: Api) -> None:
    """Outcome, place and every field."""
    if found.outcome != "forwarded":
        assert (answer.status, answer.code or None) == (found.status, found.code)
        assert upstream.seen == []
        assert (found.upstream, found.dropped, found.added, found.kept) == (None, [], [], [])
        return
    [seen] = upstream.seen
    path, _, query = seen.target.partition("?")
    names = [each.partition("=")[0] for each in query.split("&") if each]
    told = str(found.upstream).removeprefix(f"{seen.method} {upstream.url}")
    assert told.partition("?")[0] == path
    assert [each.removesuffix(f"={MASK}") for each in told.partition("?")[2].split("&") if each] == names
    fields = [note for note in (*found.added, *found.kept) if not note.name.startswith(("?", "Cookie "))]
    cookies = [note.name.removeprefix("Cookie ") for note in (*found.added, *found.kept) if " " in note.name]
    assert sorted(note.name for note in fields) == sorted(name for name, _ in seen.headers if name != "Cookie")
    pairs = [pair.partition("=")[0].strip() for value in seen.all("cookie") for pair in value.split(";")]
    assert sorted(cookies) == sorted(pairs)
    for note in fields:
        if MASK not in str(note.value):
            assert note.value in seen.all(note.name)
    assert all(note.why for note in (*found.dropped, *found.added))


@pytest.mark.parametrize(
    ("method", "target", "fields"), REQUESTS, ids=[f"{number}" for number in range(len(REQUESTS))]
)
async def test_what_is_explained_is_what_happens(
    proxying: StartProxy, method: str, target: str, fields: Fields
) -> None:
    """The same answer of ours, or the same request at the upstream, field by field; never a secret."""
    raw = head(method, target, fields)
    async with api() as upstream:
        async with proxying(document(upstream.url), environ=ENVIRON) as proxy:
            answer = await sent(proxy, raw)
        found = explanation(upstream.url, raw)
        compare(found, answer, upstream)
    assert not [secret for secret in (TOKEN, KEY, READER) if secret in repr(found)]


def whys(*requests: tuple[str, str, Fields]) -> dict[str, str]:
    """The reasons for what is dropped, by its name."""
    found = [explanation("http://127.0.0.1:9", head(*each)) for each in requests]
    return {note.name.lower(): note.why for each in found for note in each.dropped}


def test_each_thing_that_is_dropped_has_its_reason() -> None:
    """Why, and not only that."""
    found = whys(REQUESTS[2], REQUESTS[0], REQUESTS[1], REQUESTS[3], REQUESTS[11], REQUESTS[13])
    assert found == {
        "host": "it is written anew",
        "expect": "it is written anew",
        "x-proxy-key": "the client key is for the proxy alone",
        f"/~{MASK}": "the client key is for the proxy alone",
        "authorization": "that of credential header stands in its place",
        "connection": "it is about this connection alone",
        "te": "it is about this connection alone",
        "x-own": "Connection names it",
        "x-debug": "headers.remove of the route",
        "x_tenant": "headers.set of the route",
        "referer": "it named the proxy",
        "x-copy": "a client key stands in it",
        "x-real-ip": "only a proxy may say it",
        "?access_token": "credential query lets no other go along",
        "cookie bearer_proxy_x": "the proxy's own stay here",
        "cookie session": "that of credential cookie stands in its place",
    }
    of_the_key = whys(("GET", "/billing/read/open/1", [("Authorization", f"Bearer {KEY}")]))
    assert of_the_key["authorization"] == "the client key is for the proxy alone"
    beside = whys(("GET", "/query/a", [WITH_KEY, ("Authorization", "Bearer of-the-client")]))
    assert beside["authorization"] == "credential query lets no other go along"


@pytest.mark.parametrize(
    ("number", "stage", "rule"),
    [
        (0, "upstream", "allow and deny let it pass"),
        (4, "rules", "deny: all methods of /v2/auth/*"),
        (5, "rules", "deny: all methods of /v2/auth/*"),
        (6, "rules", "deny: DELETE of *"),
        (7, "rules", "deny: DELETE of *"),
        (9, "rules", "no entry of allow holds: GET of /open/*"),
        (11, "upstream", "the route has none"),
        (14, "guard", "the key of client reader is for GET of /cookie/*"),
    ],
)
def test_the_rule_is_named(number: int, stage: str, rule: str) -> None:
    """The entry that denied it, and how far the request came."""
    found = explanation("http://127.0.0.1:9", head(*REQUESTS[number]))
    assert (found.stage, found.rule) == (stage, rule)


@pytest.mark.parametrize(
    ("number", "name", "why"),
    [
        (0, "billing", "prefix /billing: the longest that matches"),
        (8, "billing-read", "prefix /billing/read: the longest that matches"),
        (19, "here", "host only.localhost, prefix /here: the longest of those that name this host"),
        (
            20,
            None,
            "the routes that name no host begin at /billing/read, /billing, /cookie, /absent, /query, /mark",
        ),
    ],
)
def test_the_route_is_named(number: int, name: str | None, why: str) -> None:
    """And why it is this one, or what there is instead."""
    found = explanation("http://127.0.0.1:9", head(*REQUESTS[number]))
    assert (found.route, found.route_why) == (name, why)


@pytest.mark.parametrize(
    ("number", "name", "why"),
    [
        (0, "header", f"in header Authorization (Bearer {MASK})"),
        (8, None, "the route has none: the client's own passes"),
        (11, "query", f"in query access_token ({MASK})"),
        (13, "cookie", f"in cookie session ({MASK})"),
        (15, "header", f"in header Authorization (Bearer {MASK})"),
        (16, None, "not that of the route, header: inject: if-absent, and the client has one"),
        (17, "header", f"in header Authorization (Bearer {MASK})"),
        (18, None, "not that of the route, header: the placeholder of inject is not there"),
    ],
)
def test_the_credential_is_named(number: int, name: str | None, why: str) -> None:
    """Where it goes, or why it does not."""
    found = explanation("http://127.0.0.1:9", head(*REQUESTS[number]))
    assert (found.credential, found.credential_why) == (name, why)


# -- the command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`explain` with these arguments, and this value of `listen`."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "config.yaml"

    def invoke(*arguments: str, listen: object = "127.0.0.1:8080") -> Result:
        path.write_text(yaml.safe_dump({**document("http://127.0.0.1:9"), "listen": listen}))
        return CliRunner().invoke(main, ["explain", *arguments, "-c", str(path)])

    return invoke


def test_the_command_tells_people_and_scripts(run: Callable[..., Result]) -> None:
    """A line for each thing, or one document; 0 where it would be forwarded."""
    given = (
        "GET",
        f"http://127.0.0.1:8080/~{KEY}/billing/a?page=2#part",
        "-H",
        "Accept: */*",
        "-H",
        "X-Key: s3cret",
    )
    people, scripts = run(*given), run(*given, "--json")
    assert (people.exit_code, scripts.exit_code) == (0, 0)
    lines = [line.split(maxsplit=1) for line in people.output.splitlines()]
    told = dict(lines)
    assert told["upstream"] == "GET http://127.0.0.1:9/v2/a?page"
    assert told["outcome"] == "forwarded"
    assert ["added", f"Authorization: Bearer {MASK} (credential header)"] in lines
    assert ["kept", f"X-Key: {MASK}"] in lines
    found = json.loads(scripts.output)
    assert (found["listener"], found["outcome"], found["route"]) == ("127.0.0.1:8080", "forwarded", "billing")
    assert {"name": "Accept", "value": "*/*", "why": ""} in found["kept"]
    for each in (people, scripts):
        assert not [secret for secret in (TOKEN, KEY, "s3cret") if secret in each.output]


def test_the_command_ends_with_1_where_a_request_would_be_refused(run: Callable[..., Result]) -> None:
    """With the status and the code that a client would see; a preflight that is granted is no refusal."""
    refused = run("GET", "/billing/a")
    assert refused.exit_code == 1
    assert refused.output.splitlines()[1].split() == ["guard", "refuses", "it"]
    assert "outcome     refused with 401 client_key_required: " in refused.output
    preflight = ("-H", f"Origin: {PAGE}", "-H", "Access-Control-Request-Method: PUT")
    granted = run("OPTIONS", "/billing/a", *preflight)
    assert (granted.exit_code, granted.output.splitlines()[-1]) == (0, "outcome     answered with 204")


@pytest.mark.parametrize(
    ("listen", "url", "listener", "outcome"),
    [
        ("127.0.0.1:8080", "/here/a", "127.0.0.1:8080", 404),
        ("127.0.0.1:8080", "http://only.localhost:8080/here/a", "127.0.0.1:8080", None),
        ("127.0.0.1:8080", "http://localhost:9090/x", "none has this port; as if it came to 127.0.0.1:8080", 404),
        (["unix:/p.sock", "127.0.0.1:80"], "http://localhost", "127.0.0.1:80", 404),
        (["127.0.0.1:0"], "http://evil.example:4711?a", "127.0.0.1:0", 403),
        ("unix:/p.sock", "/x", "unix:/p.sock", 404),
        (["systemd", "127.0.0.1:80"], "http://localhost:9090/x", "systemd", 404),
        (["127.0.0.1:9090", "systemd"], "http://localhost:9090/x", "127.0.0.1:9090", 404),
        ("systemd", "/x", "systemd", 404),
        ("unix:/p.sock", "http://evil.example/x", "none has this port; as if it came to unix:/p.sock", 404),
    ],
)
def test_the_listener_is_found_by_the_port(
    run: Callable[..., Result], listen: object, url: str, listener: str, outcome: int | None
) -> None:
    """Host is checked as on that listener: not on a Unix socket."""
    found = json.loads(run("GET", url, "--json", "-H", f"X-Proxy-Key: {KEY}", listen=listen).output)
    assert (found["listener"], found["status"]) == (listener, outcome)


def test_a_password_in_the_url_goes_as_clients_send_it(run: Callable[..., Result]) -> None:
    """By Basic, where the client key is looked for; a written field wins."""
    url = f"http://any:{KEY}@127.0.0.1:8080/query/a"
    assert json.loads(run("GET", url, "--json").output)["client"] == "the key that all share"
    assert (
        json.loads(run("GET", url, "--json", "-H", "Authorization: none").output)["code"] == "client_key_required"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["GET", "https://127.0.0.1/x"], "write it as a client calls the proxy"),
        (["GET", "billing"], "write it as a client calls the proxy"),
        (["GET", "/a", "-H", "Accept"], "write 'Name: value', in one line"),
        (["GET", "/a", "-H", "A: b\r\nC: d"], "write 'Name: value', in one line"),
        (["GET"], "Missing argument"),
    ],
)
def test_wrong_usage_is_status_2(run: Callable[..., Result], arguments: list[str], sentence: str) -> None:
    """With what to write instead."""
    ended = run(*arguments)
    assert ended.exit_code == 2
    assert sentence in ended.output
