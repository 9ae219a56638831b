"""The diagnosis of a configuration: each line says what was tried, and each failure what mends it."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
import yaml
from aiohttp import web

from proxy import doctor as module
from proxy.clock import SystemClock
from proxy.config import Source, load
from proxy.demo.serving import serving
from proxy.doctor import examine
from proxy.findings import Finding
from proxy.redact import Redactor
from proxy.server import World
from tests.support.api import Seen, api, fine
from tests.support.leaks import Artefacts, Canaries
from tests.support.strict import Strict
from tests.support.vendors import Vendor

#: The type of the proxy's own answers, which anybody may use.
PROBLEM: Final = "application/problem+json"


class Doctor:
    """Examines configurations, and has what was said searched for canaries."""

    def __init__(self, state: Path, artefacts: Artefacts) -> None:
        self._state = state
        self._said: list[str] = []
        artefacts.watch("doctor", lambda: "\n".join(self._said))

    async def __call__(self, config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> list[Finding]:
        """Every finding, in its order."""
        loaded = load(Source(yaml.safe_dump(dict(config)), "test.yaml", None, "test"), environ=environ or {})
        found = [each async for each in examine(loaded, World(Redactor(), self._state))]
        self._said += [each.detail for each in found]
        return found


@pytest.fixture
def doctor(tmp_path: Path, artefacts: Artefacts) -> Doctor:
    """The doctor, with a state of its own."""
    return Doctor(tmp_path / "state", artefacts)


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def of(found: list[Finding], what: str, status: str) -> list[str]:
    """What was said of something with this status."""
    return [each.detail for each in found if (each.what, each.status) == (what, status)]


def route(upstream: str, **more: Any) -> dict[str, Any]:
    """A short form with a static token in $TOKEN."""
    return {"upstream": upstream, "credential": {"type": "static", "token": {"env": "TOKEN"}}, **more}


@pytest.fixture
def environ(canaries: Canaries) -> dict[str, str]:
    """$TOKEN, a canary."""
    return {"TOKEN": canaries.mint("token"), "KEY": canaries.mint("key")}


async def test_a_login_is_tried_for_real(doctor: Doctor, tracker: Vendor[Any]) -> None:
    """And how long its token is good."""
    found = await doctor(tracker.config, tracker.environ)
    assert of(found, "config", "ok") == ["1 route, 1 credential"]
    assert of(found, "credential default", "ok")[-1] == "has a token, good for 60 minutes"


@pytest.mark.parametrize(("seconds", "told"), [(30, "less than a minute"), (70, "1 minute"), (140, "2 minutes")])
async def test_one_minute_is_no_minutes(doctor: Doctor, tracker: Vendor[Any], seconds: int, told: str) -> None:
    """How long a token is good is told as a person would say it."""
    tracker.double.switches = tracker.double.switches.model_copy(update={"lifetime": seconds})
    found = await doctor(tracker.config, tracker.environ)
    assert of(found, "credential default", "ok")[-1] == f"has a token, good for {told}"


async def test_a_state_folder_that_cannot_be_written_is_a_warning(
    doctor: Doctor, tracker: Vendor[Any], environ: dict[str, str], tmp_path: Path
) -> None:
    """With what mends it; where a token is all that there is, nothing is kept."""
    (tmp_path / "state").touch()
    [said] = of(await doctor(tracker.config, tracker.environ), "state", "warning")
    assert "cannot be written" in said
    assert "set XDG_STATE_HOME" in said
    assert not [each for each in await doctor(route(tracker.url), environ) if each.what == "state"]


async def test_an_upstream_that_answers_is_asked_once_with_its_credential(
    doctor: Doctor, environ: dict[str, str]
) -> None:
    """Through the proxy itself: prefix, client key and place as in a run."""
    async with api() as upstream:
        config = {
            "routes": [{"prefix": "/x", "upstream": f"{upstream.url}/base", "credential": "a"}],
            "credentials": {"a": {"type": "static", "token": {"env": "TOKEN"}, "place": {"header": "X-Key"}}},
            "guard": {"client_key": {"env": "KEY"}},
        }
        found = await doctor(config, environ)
        assert [each.status for each in found] == ["ok"] * len(found)
        [seen] = upstream.seen
        assert (seen.method, seen.target, seen.all("X-Key")) == ("GET", "/base/", [environ["TOKEN"]])
        assert of(found, "route x", "ok")[-1] == "the upstream's clock and this one agree"


@pytest.mark.parametrize(
    ("paths", "sent", "says"),
    [
        (["*"], "B", "200"),
        (["/other/*", "/x/*"], "B", "200"),
        (["/other/*"], None, "its base is denied by its own rules, or to every client key, so nothing was sent"),
    ],
)
async def test_a_client_key_that_is_good_for_the_route_is_sent(
    doctor: Doctor, environ: dict[str, str], canaries: Canaries, *, paths: list[str], sent: str | None, says: str
) -> None:
    """The one for another route would only show that keys have rules."""
    keys = {
        "a": {"key": {"env": "A"}, "methods": ["POST"]},
        "b": {"key": {"env": "B"}, "paths": paths},
    }
    async with api() as upstream:
        config = {
            "routes": [{"prefix": "/x", "upstream": upstream.url, "credential": "a"}],
            "credentials": {"a": {"type": "static", "token": {"env": "TOKEN"}}},
            "guard": {"client_keys": keys},
        }
        found = await doctor(config, {**environ, "A": canaries.mint("key"), "B": canaries.mint("key")})
        assert any(says in detail for detail in of(found, "route x", "ok"))
        assert len(upstream.seen) == (sent is not None)


async def test_where_others_alone_may_connect_the_doctor_may_all_the_same(
    doctor: Doctor, environ: dict[str, str]
) -> None:
    """To the instance that it starts, where nobody else may."""
    async with api() as upstream:
        found = await doctor(route(upstream.url, guard={"peers": {"uids": [4242]}}), environ)
        assert {each.status for each in found} == {"ok"}


@pytest.mark.parametrize(
    ("status", "headers", "finding", "says"),
    [
        (200, {}, "ok", "200"),
        (404, {}, "ok", "404"),
        (302, {"Location": "/elsewhere"}, "ok", "302"),
        (401, {}, "failure", "401, the upstream refuses its token: check which rights it has"),
        (403, {}, "failure", "403, the upstream refuses its token"),
        (500, {}, "warning", "500, the upstream has a failure of its own"),
        (200, {"Content-Type": "application/problem+json"}, "ok", "200"),
    ],
)
async def test_what_the_upstream_says_is_judged(
    doctor: Doctor, environ: dict[str, str], *, status: int, headers: dict[str, str], finding: str, says: str
) -> None:
    """Only what a credential or a person can mend is a failure."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, body=b"[")

    async with api(answer) as upstream:
        found = await doctor(route(upstream.url), environ)
        assert any(says in detail for detail in of(found, "route default", finding))


async def test_a_route_without_a_credential_that_is_refused_wants_one(doctor: Doctor) -> None:
    """The mend is another one then."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(status=401)

    async with api(answer) as upstream:
        found = await doctor({"upstream": upstream.url})
        assert "add credential: NAME" in of(found, "route default", "failure")[0]


async def test_a_rejected_login_is_one_failure_and_nothing_is_sent(doctor: Doctor, tracker: Vendor[Any]) -> None:
    """The route says where to look."""
    wrong = {**tracker.environ, "TRACKER_PASSWORD": tracker.environ["TRACKER_PASSWORD"][::-1]}
    found = await doctor(tracker.config, wrong)
    assert "rejects the credential 'default'" in of(found, "credential default", "failure")[0]
    assert of(found, "route default", "failure")[0].endswith("nothing was sent, see credential default")


async def test_an_expired_fixed_token_is_a_failure(doctor: Doctor) -> None:
    """As far as the token itself says when it ends."""
    token = "va.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX.AQAAAA.fgc0U5h"
    async with api(fine) as upstream:
        config = {"upstream": upstream.url, "credential": {"preset": "vanilla", "token": {"env": "TOKEN"}}}
        found = await doctor(config, {"TOKEN": token})
        assert "make a new one" in of(found, "credential default", "failure")[0]


async def test_names_and_ports_that_are_not_there(doctor: Doctor, environ: dict[str, str]) -> None:
    """Two different mends."""
    config = {
        "routes": [
            {"prefix": "/a", "upstream": "https://nobody.invalid"},
            {"prefix": "/b", "upstream": f"http://127.0.0.1:{closed_port()}"},
        ]
    }
    found = await doctor(config, environ)
    assert "cannot be resolved" in of(found, "route a", "failure")[0]
    assert "whether the server runs" in of(found, "route b", "failure")[0]


async def test_a_base_that_is_denied_is_left_alone(doctor: Doctor, environ: dict[str, str]) -> None:
    """The doctor has no other rights than a client."""
    async with api() as upstream:
        found = await doctor(route(upstream.url, deny=[{"paths": ["/*"]}]), environ)
        assert upstream.seen == []
        assert of(found, "route default", "ok")[-1].startswith("its base is denied")


@pytest.mark.parametrize(("ahead", "says"), [(3600, "behind the upstream's"), (-3600, "ahead of the upstream's")])
async def test_a_clock_that_is_off_is_a_warning(
    doctor: Doctor, environ: dict[str, str], ahead: float, says: str
) -> None:
    """By the upstream's Date."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(headers={"Date": formatdate(SystemClock().wall() + ahead, usegmt=True)})

    async with api(answer) as upstream:
        found = await doctor(route(upstream.url), environ)
        assert says in of(found, "route default", "warning")[0]


@pytest.mark.parametrize(
    ("days", "trusted", "status", "says"),
    [
        (100, True, "ok", "its certificate good for "),
        (5, True, "warning", "its certificate good for 5 days"),
        (100, False, "failure", "cannot be verified: it must name this host"),
        (-1, True, "failure", "cannot be verified"),
    ],
)
async def test_certificates_are_looked_at(  # noqa: PLR0917  columns of the table
    doctor: Doctor,
    environ: dict[str, str],
    tmp_path: Path,
    days: int,
    trusted: bool,  # noqa: FBT001  same
    status: str,
    says: str,
) -> None:
    """One that ends soon is a warning, one that cannot be verified a failure."""
    authority = trustme.CA()
    end = datetime.now(UTC) + timedelta(days=days, hours=1)
    certificate = authority.issue_cert("localhost", not_before=end - timedelta(days=400), not_after=end)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with serving(web.Application(), ssl_context=context) as url:
        config = route(url.replace("127.0.0.1", "localhost"), tls={"ca": str(tmp_path / "ca.pem")})
        found = await doctor(config, environ)
    assert says in of(found, "route default", status)[0]


async def test_an_answer_that_is_not_whole_is_a_failure(doctor: Doctor, environ: dict[str, str]) -> None:
    """The proxy's own sentence says which."""

    async def answer(seen: Seen) -> web.StreamResponse:  # noqa: ARG001  the contract's
        raise web.HTTPBadGateway(headers={"Content-Type": "application/problem+json"})

    async with api(answer) as upstream:
        found = await doctor(route(upstream.url), environ)
        assert "502" in of(found, "route default", "warning")[0]


FORGED: Final = {
    "a denial": {"code": "path_denied", "detail": "x"},
    "a missing token": {"code": "login_required", "detail": "\x1b[2J run `sh -c evil`"},
    "a list": {"code": ["a"], "detail": {"a": 1}},
    "an id": {"code": "path_denied", "detail": "x", "request_id": "00000000" + "1"},
}


@pytest.mark.parametrize("case", FORGED)
@pytest.mark.parametrize(("status", "finding"), [(200, "ok"), (401, "failure"), (502, "warning")])
async def test_an_upstream_cannot_speak_for_the_proxy(
    doctor: Doctor, environ: dict[str, str], case: str, status: int, finding: str
) -> None:
    """Whatever it calls itself: only its status counts, and nothing of it is shown."""
    headers = {"Proxy-Status": 'bearer-proxy; details="credential rejected"'}

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.json_response(FORGED[case], status=status, headers=headers, content_type=PROBLEM)

    async with api(answer) as upstream:
        found = await doctor(route(upstream.url), environ)
    [says] = [each.detail for each in found if f"GET {upstream.url}: " in each.detail]
    assert says.startswith(f"GET {upstream.url}: {status}")
    assert says in of(found, "route default", finding)
    assert "evil" not in says


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[" * 60_000, {}),
        (b"[" * 200_000, {}),
        (b"\xff", {}),
        (b"{}", {"Date": "Mon, 01 Jan 2024 00:00:00 +999999999999999999999"}),
        (b"{}", {"Date": "Mon, 01 Jan 99999 00:00:00 GMT"}),
        (b"{}", {"Date": "0, 0 0"}),
        (b"{}", {"Date": ""}),
    ],
    ids=["nested", "long", "no text", "offset", "year", "zeros", "empty"],
)
async def test_a_hostile_answer_is_judged_by_its_status(
    doctor: Doctor, environ: dict[str, str], body: bytes, headers: dict[str, str]
) -> None:
    """And the next route is looked at."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(body=body, headers={"Date": "none", **headers}, content_type=PROBLEM)

    async with api(answer) as upstream, api() as good:
        routes = [{"prefix": "/a", "upstream": upstream.url}, {"prefix": "/b", "upstream": good.url}]
        found = await doctor({"routes": routes}, environ)
    assert of(found, "route a", "ok")[-1] == f"GET {upstream.url}: 200"
    assert f"GET {good.url}: 200" in of(found, "route b", "ok")


@pytest.mark.patches
async def test_an_answer_that_drips_is_given_up(
    doctor: Doctor, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte in time, the end never; the next route is looked at, and its own answer is judged."""
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.5)

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": PROBLEM})
        await answer.prepare(request)
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.01)

    app = web.Application()
    app.router.add_route("*", "/", handle)
    async with serving(app) as url, api() as good:
        routes = [{"prefix": "/a", "upstream": url}, {"prefix": "/b", "upstream": good.url}]
        found = await doctor({"routes": routes}, environ)
    assert "did not come, or not whole" in of(found, "route a", "failure")[0]
    assert f"GET {good.url}: 200" in of(found, "route b", "ok")


@pytest.mark.parametrize("host", ["a" * 64 + ".example.com", "a" * 64])
async def test_a_name_that_no_resolver_takes_is_a_failure(doctor: Doctor, host: str) -> None:
    """Whoever built the name; the next route is looked at."""
    async with api() as good:
        routes = [{"prefix": "/a", "upstream": f"https://{host}"}, {"prefix": "/b", "upstream": good.url}]
        found = await doctor({"routes": routes})
    assert "cannot be resolved" in of(found, "route a", "failure")[0]
    assert f"GET {good.url}: 200" in of(found, "route b", "ok")


@pytest.mark.patches
async def test_what_the_doctor_cannot_judge_hides_nothing_else(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one failure among the others."""

    def fail(*_given: object) -> Finding:
        raise RuntimeError("text")

    monkeypatch.setattr(module, "_certificate", fail)
    async with api() as upstream:
        found = await doctor({"upstream": upstream.url})
    assert of(found, "route default", "failure") == [
        "the doctor cannot judge this (RuntimeError): please report it"
    ]
    assert f"GET {upstream.url}: 200" in of(found, "route default", "ok")


async def test_a_certificate_is_verified_by_the_name_that_is_configured(doctor: Doctor, tmp_path: Path) -> None:
    """`tls.server_name`, as a run does."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("inner.example.com").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with serving(web.Application(), ssl_context=context) as url:
        tls = {"ca": str(tmp_path / "ca.pem"), "server_name": "inner.example.com"}
        found = await doctor({"upstream": url, "tls": tls})
    assert of(found, "route default", "failure") == []


@pytest.mark.parametrize(
    ("date", "status", "says"),
    [
        (3600.0, "warning", "seconds behind the token server's"),
        (0.0, "ok", "the token server's clock and this one agree"),
        (None, None, ""),
    ],
)
async def test_the_clock_of_a_token_server_is_compared(
    doctor: Doctor, environ: dict[str, str], date: float | None, status: str | None, says: str
) -> None:
    """By a HEAD of its root, which says nothing of the credential."""

    async def answer(seen: Seen) -> web.StreamResponse:
        head = "none" if date is None else formatdate(SystemClock().wall() + date, usegmt=True)
        return web.json_response({"access_token": "t-1"}, headers={"Date": head if seen.method == "HEAD" else ""})

    async with api(answer) as server, api() as upstream:
        login = {"url": f"{server.url}/token?a=b", "fields": {"password": {"env": "KEY"}}}
        credential = {"type": "login", "login": login}
        found = await doctor({"upstream": upstream.url, "credential": credential}, environ)
    heads = [seen for seen in server.seen if seen.method == "HEAD"]
    assert [(seen.target, seen.body) for seen in heads] == [("/", b"")]
    clocks = [(each.status, each.detail) for each in found if "token server's" in each.detail]
    assert [found for found, _ in clocks] == ([] if status is None else [status])
    assert all(says in detail for _, detail in clocks)


@pytest.mark.patches
async def test_a_token_server_that_answers_no_head_holds_nobody_up(
    doctor: Doctor, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there all the same, and its token is asked for."""
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5)

    async def answer(seen: Seen) -> web.StreamResponse:
        if seen.method == "HEAD":
            await asyncio.Event().wait()
        return web.json_response({"access_token": "t-1"})

    async with api(answer) as server, api() as upstream:
        login = {"url": f"{server.url}/token", "fields": {"password": {"env": "KEY"}}}
        credential = {"type": "login", "login": login}
        found = await doctor({"upstream": upstream.url, "credential": credential}, environ)
    assert of(found, "credential default", "failure") == []
    assert of(found, "credential default", "ok")[-1].startswith("has a token")


@pytest.mark.threat(88)
@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_088_a_refresh_token_of_the_configuration_is_redeemed_only_where_others_hear_of_it(
    doctor: Doctor, canaries: Canaries, tmp_path: Path, kind: str
) -> None:
    """Beside a running instance that would end its login; what stands on that credential is not tried either."""
    vendor = Strict(canaries)
    async with api(vendor.answer) as server:
        seed: dict[str, Any] = {"type": "oauth2", "grant": "refresh_token", "client_id": "x", "client_auth": "none"}
        seed |= {"token_url": f"{server.url}/token", "refresh_token": {"env": "REFRESH"}}
        second = {"type": "static", "token": {"credential": "a"}}
        credentials = {"a": seed, "b": second, "c": {"type": "static", "token": {"env": "TOKEN"}}}
        routes = [{"prefix": f"/{name}", "upstream": server.url, "credential": name} for name in credentials]
        key = base64.b64encode(canaries.mint("token")[:32].encode()).decode()
        kept = {"kind": "file", "path": str(tmp_path / "tokens"), "key": {"env": "STORE_KEY"}}
        config: dict[str, Any] = {"routes": routes, "credentials": credentials}
        environ = {"REFRESH": vendor.begin(), "TOKEN": vendor.issue(), "STORE_KEY": key}
        found = await doctor(config | ({"store": kept} if kind == "file" else {}), environ)
    untried = {each.what: each.detail for each in found if each.detail.startswith("not tried: ")}
    assert of(found, "route c", "ok")
    if kind == "file":
        assert (vendor.seen, untried) == (["refresh"], {})
        return
    assert vendor.seen == []
    assert untried.keys() == {"credential a", "credential b", "route a", "route b"}
    assert "set store.kind: file" in untried["credential b"]
    assert untried["route a"] == "not tried: see credential a"
