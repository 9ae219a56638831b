"""The admin listener: probes that anybody may ask, states behind a key, metrics from fixed words."""

import asyncio
import logging

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from proxy.accesslog import Exchange
from proxy.admin.app import admin_handler
from proxy.admin.entrance import Entrance
from proxy.admin.metrics import Metrics
from proxy.credentials.credential import Report
from proxy.demo.teletracker import TeleTracker
from proxy.errors import CredentialError
from proxy.guard import Guard
from proxy.redact import Secret
from tests.support.api import Seen, api
from tests.support.client import Answer, connected
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.listening import listening
from tests.support.series import series
from tests.support.vendors import Vendor


async def ask(proxy: Proxy, method: str, target: str, headers: list[tuple[str, str]] | None = None) -> Answer:
    """Ask the admin listener with just these headers."""
    assert proxy.instance.admin_url is not None
    async with connected(proxy.instance.admin_url, proxy.artefacts) as client:
        return await client.ask(method, target, headers or [])


def with_wrong_password(tracker: Vendor[TeleTracker], canaries: Canaries) -> dict[str, str]:
    """The vendor's environment with a password that it does not take."""
    return {**tracker.environ, "TRACKER_PASSWORD": canaries.mint("password")}


# -- probes


@pytest.mark.parametrize("host", ["10.0.0.7:8081", "evil.example", "localhost"])
@pytest.mark.parametrize(
    ("target", "content_type"),
    [
        ("/healthz", "text/plain; charset=utf-8"),
        ("/healthz?verbose=1", "text/plain; charset=utf-8"),
        ("/readyz", "application/json; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_probes_answer_whoever_asks(
    proxying: StartProxy, tracker: Vendor[TeleTracker], target: str, content_type: str, host: str
) -> None:
    """An orchestrator comes by address and has no key."""
    async with proxying(tracker.config, environ=tracker.environ) as proxy:
        answer = await ask(proxy, "GET", target, [("Host", host)])
        assert (answer.status, answer["content-type"]) == (200, content_type)
        assert answer["cache-control"] == "no-store"
        assert answer.body
        assert (await ask(proxy, "HEAD", target)).status == 200
        assert tracker.double.token_requests == {}


@pytest.mark.threat(126)
async def test_it_is_ready_until_a_token_cannot_be_had(
    proxying: StartProxy, tracker: Vendor[TeleTracker], canaries: Canaries
) -> None:
    """A credential that nobody used yet is no reason; a rejected one is, and the answer says which and why."""
    async with proxying(tracker.config, environ=with_wrong_password(tracker, canaries)) as proxy:
        before = await ask(proxy, "GET", "/readyz")
        assert before.json() == {"ready": True, "draining": False, "credentials": {}, "not_persisted": []}
        assert (await proxy.ask("GET", "/calls")).code == "credential_rejected"
        after = await ask(proxy, "GET", "/readyz")
        assert after.status == 503
        document = after.json()
        assert document["ready"] is False
        assert "default" in document["credentials"]["default"]
        assert (await ask(proxy, "GET", "/healthz")).status == 200


async def test_122_it_is_not_ready_while_it_drains(proxying: StartProxy) -> None:
    """The admin listener takes new connections until the last request is answered."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(_seen: Seen) -> web.StreamResponse:
        arrived.set()
        await release.wait()
        return web.Response(text="late")

    async with api(slow) as upstream, proxying({"upstream": upstream.url}) as proxy:
        asking = asyncio.create_task(proxy.ask("GET", "/"))
        await arrived.wait()
        draining = asyncio.create_task(proxy.instance.drain())
        await asyncio.sleep(0)
        answer = await ask(proxy, "GET", "/readyz")
        assert answer.status == 503
        assert answer.json() == {"ready": False, "draining": True, "credentials": {}, "not_persisted": []}
        with pytest.raises(ConnectionRefusedError):
            await proxy.ask("GET", "/")
        release.set()
        assert (await asking).body == b"late"
        await draining
        with pytest.raises(ConnectionRefusedError):
            await ask(proxy, "GET", "/readyz")


# -- what needs the key


KEY = "admin-key-of-the-tests-0123456789"
RIGHT = ("Authorization", f"Bearer {KEY}")
STATES = "/api/credentials"
REFRESH = "/api/credentials/default/refresh"


@pytest.mark.threat(12, 21)
@pytest.mark.parametrize(
    ("method", "target", "headers", "status", "code"),
    [
        ("GET", STATES, [], 401, "admin_key_required"),
        ("GET", STATES, [("Authorization", "Bearer wrong")], 401, "admin_key_required"),
        ("GET", STATES, [("Authorization", f"Bearer {KEY}x")], 401, "admin_key_required"),
        ("GET", STATES, [("Authorization", f"Basic {KEY}")], 401, "admin_key_required"),
        ("GET", STATES, [("Authorization", "Bearer \xff\xfe")], 401, "admin_key_required"),
        ("GET", STATES, [RIGHT, RIGHT], 401, "admin_key_required"),
        ("GET", f"{STATES}?key={KEY}", [], 401, "admin_key_required"),
        ("GET", STATES, [RIGHT, ("Host", "evil.example")], 403, "host_not_allowed"),
        ("GET", STATES, [RIGHT, ("Origin", "https://evil.example")], 403, "origin_not_allowed"),
        ("GET", STATES, [RIGHT, ("Sec-Fetch-Site", "cross-site")], 403, "origin_not_allowed"),
        ("POST", REFRESH, [], 401, "admin_key_required"),
        ("POST", REFRESH, [RIGHT, ("Origin", "null")], 403, "origin_not_allowed"),
        ("POST", "/api/credentials/other/refresh", [RIGHT], 404, "no_route"),
        ("GET", "/api/credentials/other/refresh/x", [RIGHT], 404, "no_route"),
        ("GET", "/none", [RIGHT], 404, "no_route"),
        ("GET", "/", [], 401, "admin_key_required"),
        ("GET", "/healthz/../api/credentials", [], 404, "no_route"),
        ("GET", "//healthz", [], 404, "no_route"),
        ("GET", "http://localhost/api/credentials", [RIGHT], 400, "bad_target"),
        ("DELETE", STATES, [RIGHT], 405, "method_not_allowed"),
        ("GET", REFRESH, [RIGHT], 405, "method_not_allowed"),
        ("GET", "/quit", [RIGHT], 405, "method_not_allowed"),
        ("POST", "/quit", [], 401, "admin_key_required"),
        ("POST", "/quit", [RIGHT, ("Origin", "https://evil.example")], 403, "origin_not_allowed"),
        ("POST", "/readyz", [], 405, "method_not_allowed"),
        ("TRACE", STATES, [RIGHT], 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_allowed_is_refused_and_does_nothing(
    proxying: StartProxy,
    tracker: Vendor[TeleTracker],
    *,
    method: str,
    target: str,
    headers: list[tuple[str, str]],
    status: int,
    code: str,
) -> None:
    """Key, Host, Origin, path and method are all checked; no token is asked for."""
    config = {**tracker.config, "admin": {"listen": "127.0.0.1:0", "key": {"env": "ADMIN_KEY"}}}
    async with proxying(config, environ={**tracker.environ, "ADMIN_KEY": KEY}) as proxy:
        answer = await ask(proxy, method, target, headers)
        assert (answer.status, answer.code) == (status, code)
        assert answer["proxy-status"] == f'bearer-proxy; details="{code}"'
        assert KEY.encode() not in answer.raw_head + answer.body
        assert KEY not in proxy.log.getvalue()
        assert tracker.double.token_requests == {}
        assert not proxy.instance.leave.is_set()
        if status == 401:
            assert answer["www-authenticate"] == 'Bearer realm="bearer-proxy admin"'


@pytest.mark.parametrize(("method", "target", "allow"), [("PUT", STATES, "GET, HEAD"), ("GET", REFRESH, "POST")])
async def test_a_wrong_method_is_told_the_right_ones(
    proxying: StartProxy, tracker: Vendor[TeleTracker], method: str, target: str, allow: str
) -> None:
    """RFC 9110 section 15.5.6."""
    async with proxying(tracker.config, environ=tracker.environ) as proxy:
        assert (await proxy.admin(method, target))["allow"] == allow


@pytest.mark.threat(21)
async def test_the_states_tell_everything_but_the_value(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """One object a credential; durations in seconds."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.move(100)
        [state] = (await proxy.admin("GET", STATES)).json()["credentials"]
        assert state.pop("refresh_expires_in") > state["expires_in"]
        assert state == {
            "name": "default",
            "state": "fresh",
            "generation": 1,
            "expires_in": 3500,
            "last_error": None,
            "next_attempt_in": None,
            "persisted": None,
        }


async def test_a_refresh_gets_the_next_generation(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The answer is the new state; the next request uses the new token."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        for generation in (1, 2):
            answer = await proxy.admin("POST", REFRESH)
            assert (answer.status, answer.json()["generation"]) == (200, generation)
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        assert (await proxy.ask("GET", "/calls")).status == 200
        assert proxy.lines()[-1]["generation"] == 2


async def test_a_refresh_that_fails_says_why(
    proxying: StartProxy, tracker: Vendor[TeleTracker], canaries: Canaries
) -> None:
    """The credential's own error, as a client of the proxy would see it."""
    async with proxying(tracker.config, environ=with_wrong_password(tracker, canaries)) as proxy:
        answer = await proxy.admin("POST", REFRESH)
        assert (answer.status, answer.code) == (502, "credential_rejected")
        [state] = (await proxy.admin("GET", STATES)).json()["credentials"]
        assert state["last_error"] == answer.json()["detail"]


class Broken:
    """A view with a defect."""

    is_draining = False
    leave = asyncio.Event()

    def reports(self) -> list[Report]:
        """Fail with something that must not come out."""
        raise RuntimeError("text of a defect")

    def problems(self) -> dict[str, CredentialError]:
        """None."""
        return {}

    async def refresh(self, name: str) -> Report:
        """Never asked."""
        raise KeyError(name)


async def test_a_defect_is_a_500_without_its_text(artefacts: Artefacts, caplog: pytest.LogCaptureFixture) -> None:
    """The text goes to the log, not to whoever asked."""
    handler = admin_handler(Broken(), Metrics(list, lambda: 0.0), Entrance(Secret(KEY)), Guard(), {})
    async with listening(handler) as listener, connected(listener.url, artefacts) as client:
        answer = await client.ask("GET", STATES, [RIGHT])
        assert (await client.ask("GET", "/healthz")).status == 200
    assert (answer.status, answer.code) == (500, "internal_error")
    assert b"text of a defect" not in answer.body
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.message == "internal_error"


# -- metrics


def exchange(**values: object) -> Exchange:
    """A finished exchange."""
    made = Exchange("GET", "127.0.0.1", 0.0)
    for name, value in {"route": "api", "status": 200, **values}.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("values", "name", "labels", "value"),
    [
        ({}, "requests_total", {"route": "api", "status": "2xx", "error": ""}, 1),
        ({"status": 0, "error": "client_closed"}, "requests_total",
         {"route": "api", "status": "none", "error": "client_closed"}, 1),
        ({"status": 404, "error": "no_route", "route": ""}, "requests_total",
         {"route": "", "status": "4xx", "error": "no_route"}, 1),
        ({"seconds": 0.02}, "request_duration_seconds_bucket", {"route": "api", "le": "0.025"}, 1),
        ({"seconds": 0.03}, "request_duration_seconds_bucket", {"route": "api", "le": "0.025"}, 0),
        ({"seconds": 0.5}, "request_duration_seconds_sum", {"route": "api"}, 0.5),
        ({"refusals": 1}, "refusals_total", {"route": "api"}, 1),
        ({"refusals": 1, "retried": True}, "retries_total", {"route": "api", "outcome": "cured"}, 1),
        ({"refusals": 2, "retried": True}, "retries_total", {"route": "api", "outcome": "futile"}, 1),
        ({"refusals": 2, "retried": True}, "refusals_total", {"route": "api"}, 2),
        ({"refusals": 1, "retried": True, "error": "upstream_timeout", "status": 504}, "retries_total",
         {"route": "api", "outcome": "futile"}, 1),
        ({"echoes": 3}, "echoes_dropped_total", {"route": "api"}, 3),
        ({"error": "host_not_allowed", "status": 403}, "guard_denials_total", {"code": "host_not_allowed"}, 1),
        ({"error": "path_denied", "status": 403}, "guard_denials_total", {"code": "path_denied"}, 1),
    ],
)  # fmt: skip
def test_an_exchange_is_counted(values: dict[str, object], name: str, labels: dict[str, str], value: float) -> None:
    """What the access line says, as numbers."""
    metrics = Metrics(list, lambda: 0.0)
    metrics.observe(exchange(**values))
    assert series(metrics.text())[name, tuple(sorted(labels.items()))] == value


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([200, 404]), st.floats(0, 100)), max_size=30))
def test_durations_are_counted_as_the_library_for_prometheus_does(seen: list[tuple[str, int, float]]) -> None:
    """Every bucket with its bound, the count and the sum; a route's statuses together."""
    metrics, registry = Metrics(list, lambda: 0.0), CollectorRegistry()
    bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
    name = "request_duration_seconds"
    library = Histogram(f"bearer_proxy_{name}", "text", ("route",), buckets=bounds, registry=registry)
    for route, status, seconds in [*seen, *((route, 200, bound) for route in "ab" for bound in bounds)]:
        metrics.observe(exchange(route=route, status=status, seconds=seconds))
        library.labels(route).observe(seconds)
    ours, theirs = (
        {key: pytest.approx(value) for key, value in series(text).items() if key[0].startswith(f"{name}_")}
        for text in (metrics.text(), generate_latest(registry))
    )
    theirs = {key: value for key, value in theirs.items() if not key[0].endswith("_created")}
    assert ours == theirs


def test_labels_are_escaped() -> None:
    """A name that the format would take for its own signs."""
    odd = 'a"b\\c\nd'
    metrics = Metrics(list, lambda: 0.0)
    metrics.observe(exchange(route=odd))
    assert series(metrics.text())["requests_total", (("error", ""), ("route", odd), ("status", "2xx"))] == 1


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"error": "upstream_timeout", "status": 504}, "guard_denials_total"),
        ({}, "refusals_total"),
        ({"refusals": 1}, "retries_total"),
        ({}, "echoes_dropped_total"),
    ],
)
def test_what_did_not_happen_is_not_counted(values: dict[str, object], name: str) -> None:
    """No series where there was no event."""
    metrics = Metrics(list, lambda: 0.0)
    metrics.observe(exchange(**values))
    assert not [key for key in series(metrics.text()) if key[0] == name]


def test_token_events_are_counted_by_credential() -> None:
    """Requests, tokens, failures with their cause; the age grows from the newest token on."""
    now = iter([10.0, 15.0, 15.0])
    metrics = Metrics(lambda: [Report("crm", "fresh", 1, 40.0), Report("old", "invalid", 0)], lambda: next(now))
    metrics.token_requested("crm")
    metrics.token_obtained("crm")
    metrics.token_requested("old")
    metrics.token_failed("old", "credential_rejected")
    crm, old = (("credential", "crm"),), (("credential", "old"),)
    found = series(metrics.text())
    assert {key: value for key, value in found.items() if key[0].startswith("token")} == {
        ("token_requests_total", crm): 1,
        ("token_requests_total", old): 1,
        ("tokens_obtained_total", crm): 1,
        ("token_failures_total", (("cause", "credential_rejected"), *old)): 1,
        ("token_usable", crm): 1,
        ("token_usable", old): 0,
        ("token_generation", crm): 1,
        ("token_generation", old): 0,
        ("token_expires_seconds", crm): 40,
        ("token_age_seconds", crm): 5,
    }


@pytest.mark.threat(81)
async def test_081_what_clients_send_makes_no_series(proxying: StartProxy, tracker: Vendor[TeleTracker]) -> None:
    """A thousand paths, queries and hosts later there are as many series as before, and none of those words."""
    async with proxying(tracker.config, environ=tracker.environ) as proxy, proxy.connect() as client:
        counts = []
        for count in (5, 1000):
            for number in range(count):
                host = f"word{number}.example" if number % 2 else "localhost"
                await client.ask("GET", f"/word{number}?word{number}=word{number}", [("Host", host)])
            text = (await ask(proxy, "GET", "/metrics")).body
            counts.append(len(series(text)))
            assert b"word" not in text
        assert counts[0] == counts[1] <= 200
        assert sum(value for (name, _), value in series(text).items() if name == "requests_total") == 1005


async def test_a_cured_refusal_shows_in_the_metrics(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """From the real thing: one refusal, one cured retry, two token requests, the new token's age."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.move(30)
        found = series((await ask(proxy, "GET", "/metrics")).body)
        route = proxy.lines()[-1]["route"]
        assert found["refusals_total", (("route", route),)] == 1
        assert found["retries_total", (("outcome", "cured"), ("route", route))] == 1
        for name, value in {
            "token_requests_total": 2,
            "token_generation": 2,
            "token_age_seconds": 30,
            "token_expires_seconds": 3570,
            "token_usable": 1,
        }.items():
            assert found[name, (("credential", "default"),)] == value, name


@pytest.mark.threat(9, 21)
async def test_a_browser_may_open_what_the_admin_listener_says(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """It is ours, not the upstream's; a link from another site leads nowhere all the same."""
    async with proxying(tracker.config, environ=tracker.environ) as proxy:
        url = proxy.instance.admin_url
        for site, code in (("none", "admin_key_required"), ("cross-site", "origin_not_allowed")):
            fields = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
            async with connected(url, proxy.artefacts) as client:
                assert (await client.ask("GET", "/api/credentials", fields)).code == code
