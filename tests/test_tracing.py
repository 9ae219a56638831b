"""Trace context passes on; with a collector each exchange becomes a span, and none of them holds a secret."""

import asyncio
import importlib.util
import json
from typing import Any

import pytest
from aiohttp import web

from proxy import tracing
from proxy.config import Source, load
from proxy.demo.teletracker import TeleTracker
from proxy.errors import ConfigError
from tests.support.api import Seen, api
from tests.support.collector import Collector, Got, collecting
from tests.support.harness import StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.routes import Keyed
from tests.support.vendors import Vendor

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
STATE = ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
SERVER, CLIENT, INTERNAL = 2, 3, 1


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits long for a collector that is away."""
    monkeypatch.setattr(tracing, "EXPORT_SECONDS", 0.2)


def traced(collector: Collector, **more: Any) -> dict[str, Any]:
    """The section of a configuration."""
    return {"tracing": {"otlp": collector.url, **more}}


def by_kind(spans: list[Got]) -> tuple[list[Got], list[Got], list[Got]]:
    """Exchanges, attempts, and waits for a token, each in their order."""
    ordered = sorted(spans, key=lambda each: each.began_at)
    found = [[each for each in ordered if each.kind == kind] for kind in (SERVER, CLIENT, INTERNAL)]
    return found[0], found[1], found[2]


def is_sampled(traceparent: str) -> bool:
    """What its flags say; another one tells how random the trace's name is."""
    return bool(int(traceparent.split("-")[3], 16) & 1)


@pytest.mark.parametrize(
    "fields",
    [
        [("Traceparent", CONTEXT[1]), ("TraceState", STATE[1])],
        [CONTEXT, STATE, ("tracestate", "more=1")],
        [("traceparent", "no such thing"), STATE],
        [STATE],
        [],
    ],
    ids=["usual", "two states", "malformed", "state alone", "none"],
)
async def test_trace_context_passes_untouched(proxying: StartProxy, fields: list[tuple[str, str]]) -> None:
    """Where nobody collects spans it is a field like others: the same names, values and order."""
    async with api() as upstream, proxying({"upstream": upstream.url}) as proxy:
        assert (await proxy.ask("GET", "/", fields)).status == 200
        found = [each for each in upstream.seen[0].headers if each[0].lower().startswith("trace")]
        assert found == fields


async def test_an_exchange_is_a_span_in_the_trace_of_its_client(
    proxying: StartProxy, keyed: Keyed, artefacts: Artefacts
) -> None:
    """With the attempt below it, which the upstream finds its own spans below; the state passes untouched."""
    async with api() as upstream, collecting(artefacts) as collector:
        async with proxying({**keyed.config(upstream.url), **traced(collector)}, environ=keyed.environ) as proxy:
            assert (await proxy.ask("POST", "/calls?q=x", [CONTEXT, STATE], b"four")).status == 200
        [[exchange], [attempt], waits] = by_kind(collector.spans)
        assert (exchange.trace, exchange.parent, attempt.trace, attempt.parent) == (
            TRACE,
            PARENT,
            TRACE,
            exchange.span,
        )
        assert upstream.seen[0].all("traceparent") == [f"00-{TRACE}-{attempt.span}-01"]
        assert upstream.seen[0].all("tracestate") == [STATE[1]]
        assert waits == []
        assert exchange.name == f"POST {proxy.lines()[0]['route']}"
        assert exchange.attributes.pop("client.address") == "127.0.0.1"
        assert exchange.attributes == {
            "http.request.method": "POST",
            "url.scheme": "http",
            "url.path": "/calls",
            "http.request.body.size": 4,
            "http.response.body.size": 4,
            "http.response.status_code": 200,
            "bearer_proxy.route": "default",
            "bearer_proxy.credential": "default",
            "bearer_proxy.request_id": proxy.lines()[0]["request_id"],
            "bearer_proxy.retried": False,
        }
        assert attempt.attributes == {
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "server.address": upstream.url.removeprefix("http://"),
            "bearer_proxy.generation": 1,
        }
        assert exchange.began_at <= attempt.began_at <= attempt.over_at <= exchange.over_at
        assert collector.resource["service.name"] == "bearer-proxy"


async def test_a_cured_refusal_has_two_attempts_and_a_wait_between_them(
    proxying: StartProxy, tracker: Vendor[TeleTracker], artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt has a name of its own upstream; the inspector notes what it notes otherwise."""
    monkeypatch.setattr(tracing, "LEAST_WAIT_SECONDS", 0.0)  # however fast this machine is
    async with collecting(artefacts) as collector:
        config = {**tracker.config, **traced(collector)}
        async with proxying(config, environ=tracker.environ) as proxy:
            assert (await proxy.ask("GET", "/calls")).status == 200
            tracker.double.expire()
            assert (await proxy.ask("GET", "/calls")).status == 200
            shown = json.loads((await proxy.admin("GET", "/api/exchanges")).body)
        exchanges, attempts, waits = by_kind(collector.spans)
        assert len(exchanges) == 2
        assert len({each.span for each in attempts}) == 3
        below = [each for each in attempts if each.parent == exchanges[1].span]
        assert [each.attributes["http.response.status_code"] for each in below] == [401, 200]
        assert [each.attributes.get("bearer_proxy.refused") for each in below] == [True, None]
        assert [each.attributes.get("http.request.resend_count") for each in below] == [None, 1]
        assert [each.attributes["bearer_proxy.generation"] for each in below] == [1, 2]
        assert exchanges[1].attributes["bearer_proxy.retried"] is True
        *_, wait = [each for each in waits if each.parent == exchanges[1].span]
        assert wait.name == "token"
        assert below[0].over_at <= wait.began_at + 1e-6
        assert wait.over_at <= below[1].began_at + 1e-6
        assert len(shown["exchanges"]) == 2


@pytest.mark.parametrize("fields", [[], [STATE], [("traceparent", "00-0-0-01"), STATE], [CONTEXT, CONTEXT, STATE]])
async def test_without_a_trace_that_can_be_read_a_new_one_begins(
    proxying: StartProxy, artefacts: Artefacts, fields: list[tuple[str, str]]
) -> None:
    """What belonged to the other one ends here (W3C Trace Context section 3.2)."""
    async with api() as upstream, collecting(artefacts) as collector:
        async with proxying({"upstream": upstream.url, **traced(collector)}) as proxy:
            await proxy.ask("GET", "/", fields)
        [[exchange], [attempt], _] = by_kind(collector.spans)
        assert exchange.parent == ""
        assert exchange.trace not in ("", TRACE)
        [given] = upstream.seen[0].all("traceparent")
        assert given.split("-")[1:3] == [exchange.trace, attempt.span]
        assert is_sampled(given)
        assert upstream.seen[0].all("tracestate") == []


@pytest.mark.parametrize(
    ("fields", "ratio"), [([("traceparent", CONTEXT[1][:-1] + "0")], 1.0), ([], 0.0)], ids=["client", "ratio"]
)
async def test_what_is_not_sampled_makes_no_span_and_says_so(
    proxying: StartProxy, artefacts: Artefacts, fields: list[tuple[str, str]], ratio: float
) -> None:
    """The client decides; where it does not, the ratio."""
    async with api() as upstream, collecting(artefacts) as collector:
        async with proxying({"upstream": upstream.url, **traced(collector, ratio=ratio)}) as proxy:
            await proxy.ask("GET", "/", fields)
        assert collector.spans == []
        [given] = upstream.seen[0].all("traceparent")
        assert not is_sampled(given)
        assert not fields or given.split("-")[1] == TRACE


async def test_a_route_that_removes_the_field_sends_none(proxying: StartProxy, artefacts: Artefacts) -> None:
    """A vendor need not know of our traces."""
    async with api() as upstream, collecting(artefacts) as collector:
        headers = {"headers": {"remove": ["traceparent", "tracestate"]}}
        async with proxying({"upstream": upstream.url, **headers, **traced(collector)}) as proxy:
            await proxy.ask("GET", "/", [CONTEXT, STATE])
        assert [name for name, _ in upstream.seen[0].headers if name.lower().startswith("trace")] == []
        assert [each.trace for each in collector.spans] == [TRACE, TRACE]


@pytest.mark.threat(78)
async def test_078_no_secret_gets_into_a_span(
    proxying: StartProxy, keyed: Keyed, canaries: Canaries, artefacts: Artefacts
) -> None:
    """Neither the token, where a client puts it into a path, nor what it sends in query, fields and body."""
    async with api() as upstream, collecting(artefacts) as collector:
        hidden = [canaries.mint(each) for each in ("token", "token", "password", "token", "token")]
        async with proxying({**keyed.config(upstream.url), **traced(collector)}, environ=keyed.environ) as proxy:
            fields = [
                *(CONTEXT, ("tracestate", f"a={hidden[0]}"), ("Authorization", f"Bearer {hidden[1]}")),
                *(("X-Own", hidden[2]), ("Cookie", f"a={hidden[3]}")),
            ]
            [token] = keyed.environ.values()
            await proxy.ask("POST", f"/a/{token}/b?key={hidden[4]}", fields, hidden[2].encode())
            await proxy.ask("GET", "/", [("Host", f"{hidden[4]}.example"), CONTEXT])
        exchanges, attempts, _ = by_kind(collector.spans)
        assert [each.attributes["url.path"] for each in exchanges] == ["/a/***/b", "/"]
        assert exchanges[1].attributes["error.type"] == "host_not_allowed"
        assert len(attempts) == 1
        assert {each.state for each in collector.spans} == {""}
        assert not [each for each in collector.spans for value in hidden if value in repr(each)]


async def test_what_fails_says_why(
    proxying: StartProxy, tracker: Vendor[TeleTracker], canaries: Canaries, artefacts: Artefacts
) -> None:
    """An upstream that is not there fails in its attempt, a credential that is rejected before one."""
    async with collecting(artefacts) as collector:
        async with proxying({"upstream": "http://127.0.0.1:9", **traced(collector)}) as proxy:
            assert (await proxy.ask("GET", "/")).status == 502
        [[exchange], [attempt], _] = by_kind(collector.spans)
        assert exchange.failed
        assert attempt.failed
        assert exchange.attributes["error.type"] == attempt.attributes["error.type"] == "upstream_unreachable"

        collector.spans.clear()
        environ = {**tracker.environ, "TRACKER_PASSWORD": canaries.mint("password")}
        async with proxying({**tracker.config, **traced(collector)}, environ=environ) as proxy:
            assert (await proxy.ask("GET", "/calls")).code == "credential_rejected"
        [[exchange], attempts, waits] = by_kind(collector.spans)
        assert attempts == []
        assert [each.attributes["error.type"] for each in (exchange, *waits)] == ["credential_rejected"] * 2


async def test_a_collector_that_is_away_costs_no_request(proxying: StartProxy, artefacts: Artefacts) -> None:
    """Nor does it keep the proxy from its end; the log says that spans are lost."""
    async with collecting(artefacts) as collector:
        away = collector.url
    async with api() as upstream:
        async with proxying({"upstream": upstream.url, "tracing": {"otlp": away}}) as proxy:
            assert (await proxy.ask("GET", "/")).status == 200
        assert [line for line in proxy.log.getvalue().splitlines() if "opentelemetry" in line or "span" in line]


async def test_no_proxy_of_the_environment_sees_spans(
    proxying: StartProxy, artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with all that the proxy sends."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with api() as upstream, collecting(artefacts) as collector:
        async with proxying({"upstream": upstream.url, **traced(collector)}) as proxy:
            await proxy.ask("GET", "/")
        assert len(collector.spans) == 2


async def test_a_stream_is_a_span_when_it_ends(proxying: StartProxy, artefacts: Artefacts) -> None:
    """Also where the client hangs up."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def endless(_seen: Seen) -> web.StreamResponse:
        arrived.set()
        await release.wait()
        return web.Response()

    async with api(endless) as upstream, collecting(artefacts) as collector:
        async with proxying({"upstream": upstream.url, **traced(collector)}) as proxy:
            asking = asyncio.create_task(proxy.ask("GET", "/"))
            await arrived.wait()
            asking.cancel()
            await proxy.told(lambda lines: len(lines) == 1)
            release.set()
        exchanges, attempts, _ = by_kind(collector.spans)
        assert [each.attributes["error.type"] for each in exchanges] == ["client_closed"]
        assert len(attempts) == 1


async def test_another_collector_takes_a_restart(proxying: StartProxy, artefacts: Artefacts) -> None:
    """It is told by name."""
    async with collecting(artefacts) as collector, proxying({"upstream": "http://127.0.0.1:9"}) as proxy:
        with pytest.raises(ConfigError, match="tracing: this cannot change while the proxy runs"):
            await proxy.reload({"upstream": "http://127.0.0.1:9", **traced(collector)})


def test_without_the_extra_the_configuration_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence, at the start."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "opentelemetry" else real(name))
    text = "upstream: https://a.example\ntracing: {otlp: http://127.0.0.1:4318}\n"
    with pytest.raises(ConfigError, match=r"pip install 'bearer-proxy\[otel\]'"):
        load(Source(text, "test.yaml", None, "test"), environ={})
