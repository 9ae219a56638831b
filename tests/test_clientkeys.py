"""Client keys: whose they are, what each may be used for, and where they never show."""

import base64
import hmac
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from proxy.clientkeys import ClientKey, ClientKeys
from proxy.fields import Fields
from proxy.redact import Secret
from proxy.routes import Policy, Rule
from tests.support.api import api
from tests.support.client import Client
from tests.support.harness import Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed, received
from tests.support.upstreams import REQUEST, Upstream

ALL: Final = Policy(None, ())
SHARED, READER, WRITER = (ClientKey(name, Secret(f"key-of-{name:_<12}"), ALL) for name in ("", "reader", "writer"))
EACH: Final = (SHARED, READER, WRITER)


def basic(password: str) -> str:
    """Credentials of the Basic scheme (RFC 7617)."""
    return base64.b64encode(f"anyone:{password}".encode()).decode()


#: Where a key stands in a request: the field and the target.
CARRIERS: Final[dict[str, tuple[dict[str, str], str]]] = {
    "header": ({"X-Proxy-Key": "{key}"}, "{path}"),
    "bearer": ({"Authorization": "Bearer {key}"}, "{path}"),
    "basic": ({"Authorization": "Basic {basic}"}, "{path}"),
    "cookie": ({"Cookie": "a=b; bearer_proxy_key={key}"}, "{path}"),
    "path": ({}, "/~{key}{path}"),
}


def carried(carrier: str, key: str, path: str = "/") -> tuple[str, dict[str, str]]:
    """Target and fields of a request that shows `key`."""
    words = {"key": key, "basic": basic(key), "path": path}
    pairs, target = CARRIERS[carrier]
    return target.format(**words), {name: value.format(**words) for name, value in pairs.items()}


@pytest.mark.threat(20, 22)
@pytest.mark.parametrize("key", EACH, ids=lambda key: key.name or "shared")
def test_020_each_key_is_known_for_its_owners(key: ClientKey) -> None:
    """In every field; another one's, a beginning, and something longer are nobody's."""
    keys, value = ClientKeys(EACH), key.secret.reveal()
    assert keys.shown(value.encode()) is key
    for carrier in ("header", "bearer", "basic", "cookie"):
        [(name, text)] = carried(carrier, value)[1].items()
        fields: Fields = {name.lower().encode(): [text.encode()]}
        found = {"Authorization": keys.in_authorization, "Cookie": keys.in_cookie}.get(name, keys.in_header)
        assert found(fields) is key
    for wrong in (value[:-1], value + "x", value.upper(), "", f" {value}"):
        assert keys.shown(wrong.encode()) is None
    assert keys.stands_in(f"http://localhost/~{value}/x".encode())
    assert not keys.stands_in(value[1:].encode())


@pytest.mark.threat(20)
@pytest.mark.parametrize("shown", [*(each.secret.reveal() for each in EACH), "key-of-nobody_____"])
def test_020_whatever_is_shown_is_compared_with_every_key(shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time, so that neither its letters nor its place in the list can be measured."""
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    keys = ClientKeys(EACH)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys.shown(shown.encode())
    assert compared == [each.secret.reveal().encode() for each in EACH]


def test_the_log_has_the_name_before_the_address() -> None:
    """The key that all share has none."""
    assert [each.at("127.0.0.1") for each in EACH] == ["127.0.0.1", "reader@127.0.0.1", "writer@127.0.0.1"]


def test_a_policy_is_asked_with_the_method() -> None:
    """As a route's `allow`."""
    key = ClientKey("a", Secret("k" * 16), Policy([Rule(frozenset({"GET"}), ("/v2/*",))], ()))
    key.policy.check("GET", b"/v2/x")


# -- through a proxy


@pytest.fixture
def environ(canaries: Canaries, keyed: Keyed) -> dict[str, str]:
    """The token, and three keys."""
    return {**keyed.environ, **{name: canaries.mint("key") for name in ("ALL", "READER", "WRITER")}}


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """The credential of the route."""
    return Keyed(canaries.mint("token"))


KEYS: Final[dict[str, Any]] = {
    "client_key": {"env": "ALL"},
    "client_keys": {
        "reader": {"key": {"env": "READER"}, "methods": ["GET", "HEAD"], "paths": ["/v2/*"]},
        "writer": {"key": {"env": "WRITER"}},
    },
}


def guarded(keyed: Keyed, upstream: object) -> dict[str, Any]:
    """A route below /v2 and /v3 alone, so that others are known by their answer."""
    config = keyed.config(upstream, top={"guard": KEYS})
    [route] = config["routes"]
    config["routes"] = [{**route, "prefix": prefix, "strip_prefix": False} for prefix in ("/v2", "/v3")]
    return config


@pytest.mark.threat(20, 22, 74)
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(("name", "client"), [("ALL", ""), ("READER", "reader@"), ("WRITER", "writer@")])
async def test_020_a_named_key_opens_in_every_carrier_and_stays_here(
    proxying: StartProxy, keyed: Keyed, environ: dict[str, str], *, carrier: str, name: str, client: str
) -> None:
    """The upstream sees none of it, the log whose it was."""
    target, headers = carried(carrier, environ[name], "/v2/x")
    async with Upstream([REQUEST, b"HTTP/1.1 204 No Content\r\n\r\n"]) as upstream:
        async with proxying(guarded(keyed, upstream.origin), environ=environ) as proxy:
            assert (await proxy.ask("GET", target, headers)).status == 204
            [line] = proxy.lines()
            assert line["client"] == f"{client}127.0.0.1"
        [peer] = upstream.peers
    got = received(peer.received)
    assert (got.target, got.all("authorization")) == ("/v2/x", [f"Bearer {keyed.token}"])
    assert environ[name].encode() not in peer.received
    assert basic(environ[name]).encode() not in peer.received


@pytest.mark.threat(22, 28)
@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v2/x", ""),
        ("HEAD", "/v2/x/y", ""),
        ("GET", "/v2/%78", ""),
        ("POST", "/v2/x", "path_denied"),
        ("OPTIONS", "/v2/x", "path_denied"),
        ("get", "/v2/x", "path_denied"),
        ("GET", "/v3/x", "path_denied"),
        ("GET", "/v2", "path_denied"),
        ("GET", "/", "path_denied"),
        ("GET", "/elsewhere", "path_denied"),
        ("GET", "/v2/../v3/x", "path_denied"),
        ("GET", "/v2/%2e%2e/v3/x", "path_denied"),
        ("GET", "/v2/%252e%252e/v3/x", "path_denied"),
        ("GET", "/v2/..%2fv3/x", "path_denied"),
        ("GET", "/v2\\..\\v3/x", "path_denied"),
        ("GET", "//v2/x", "path_denied"),
        ("GET", "/V2/x", "path_denied"),
    ],
)
@pytest.mark.parametrize("carrier", ["header", "path"])
async def test_022_a_key_is_good_for_its_methods_and_paths_alone(
    proxying: StartProxy, keyed: Keyed, environ: dict[str, str], *, carrier: str, method: str, path: str, code: str
) -> None:
    """In every reading of the path that is asked for, before any route; the log names the client all the same."""
    async with api() as upstream, proxying(guarded(keyed, upstream.url), environ=environ) as proxy:
        target, headers = carried(carrier, environ["READER"], path)
        answer = await proxy.ask(method, target, headers)
        if method == "get":  # no method of HTTP, and so nothing that the key is asked for
            assert answer.status in (400, 403)
        else:
            assert (answer.status, answer.code if method != "HEAD" else "") == ((403, code) if code else (200, ""))
            assert proxy.lines()[0]["client"] == "reader@127.0.0.1"
        assert len(upstream.seen) == (not code)


@pytest.mark.threat(22)
async def test_022_what_one_key_may_not_another_may(
    proxying: StartProxy, keyed: Keyed, environ: dict[str, str]
) -> None:
    """On one connection, with the same fields but for the key."""
    async with api() as upstream, proxying(guarded(keyed, upstream.url), environ=environ) as proxy:
        async with proxy.connect() as client:
            for name, status in (("READER", 403), ("WRITER", 200), ("ALL", 200), ("READER", 403)):
                assert (await client.ask("POST", f"/~{environ[name]}/v3/x")).status == status
                assert (await client.ask("POST", "/v3/x", {"X-Proxy-Key": environ[name]})).status == status
        assert [line["client"].partition("@")[0] for line in proxy.lines()] == [
            *("reader", "reader", "writer", "writer", "127.0.0.1", "127.0.0.1", "reader", "reader")
        ]


@pytest.mark.threat(5)
async def test_005_a_preflight_asks_for_no_key_and_so_for_no_policy(
    proxying: StartProxy, keyed: Keyed, environ: dict[str, str]
) -> None:
    """A browser sends none with it; the request that follows is asked."""
    page = "https://app.example"
    async with api() as upstream:
        config = guarded(keyed, upstream.url)
        config["guard"] = {**KEYS, "origins": [page]}
        async with proxying(config, environ=environ) as proxy:
            asks = {"Origin": page, "Access-Control-Request-Method": "PUT"}
            answer = await proxy.ask("OPTIONS", "/v2/x", asks)
            assert (answer.status, answer["access-control-allow-origin"]) == (204, page)
            put = {"Origin": page, "X-Proxy-Key": environ["READER"]}
            refused = await proxy.ask("PUT", "/v2/x", put)
            assert (refused.code, refused["access-control-allow-origin"]) == ("path_denied", page)
        assert upstream.seen == []


def everything(proxy: Proxy) -> str:
    """The whole log."""
    return proxy.log.getvalue()


@pytest.mark.threat(74, 78)
@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("path", ["/v2/x", "/v3/x"])
async def test_074_a_key_in_the_path_is_masked_in_the_log(
    proxying: StartProxy, keyed: Keyed, environ: dict[str, str], style: str, path: str
) -> None:
    """Whether the key opened (its segment is left off then), or stands where none is looked for."""
    async with api() as upstream:
        config = {**guarded(keyed, upstream.url), "log": {"format": style}}
        async with proxying(config, environ=environ) as proxy:
            await proxy.ask("GET", f"/~{environ['READER']}{path}")
            await proxy.ask("GET", f"/x/~{environ['WRITER']}{path}")
            await proxy.ask(
                "GET", f"{path}?k={environ['WRITER']}", {"Referer": f"http://localhost/~{environ['ALL']}/"}
            )
            shown = everything(proxy)
            assert "/x/~***" in shown
            assert shown.count("client_key_required") == 2
            assert not any(environ[name] in shown for name in environ)


@pytest.mark.threat(112, 115)
async def test_115_without_the_key_nobody_keeps_a_place(
    proxying: StartProxy, keyed: Keyed, environ: dict[str, str]
) -> None:
    """Whoever comes gets that of the oldest who has shown none, whatever he asked for; a key keeps its place."""
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with Upstream([REQUEST, answer, REQUEST, answer]) as upstream:
        config = {**guarded(keyed, upstream.origin), "limits": {"connections": 2}}
        async with proxying(config, environ=environ) as proxy, AsyncExitStack() as stack:
            proxy.instance._data._places._yield_seconds = 0.0  # however fast this machine is

            async def another() -> Client:
                return await stack.enter_async_context(proxy.connect())

            other, ours = await another(), await another()
            assert (await other.ask("GET", "/v2/x")).code == "client_key_required"
            target, headers = carried("header", environ["WRITER"], "/v2/x")
            assert (await ours.ask("GET", target, headers)).status == 204
            second = await another()
            assert await other.at_end()
            assert (await second.ask("GET", target, headers)).status == 204
            assert (await (await another()).answer()).code == "overloaded"
