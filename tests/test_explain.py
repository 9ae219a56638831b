"""`explain` says what the proxy does: the same requests are explained and asked, and both are compared."""

import io
import json
from collections.abc import Mapping, Sequence
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
