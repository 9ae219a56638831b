"""Another configuration while the proxy runs: all of it or nothing, and no request notices."""

import asyncio
import gc
import logging
import os
import signal
import sys
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from aiohttp import web

from proxy import runfile
from proxy.cli.reload import Reloading
from proxy.config import find, load
from proxy.config.watched import Watched, files
from proxy.demo.serving import serving
from proxy.demo.teletracker import TeleTracker
from proxy.errors import ConfigError
from tests.support.api import Seen, api, fine
from tests.support.client import connected
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.instances import DEADLINE, ROOT, Fleet, Running, fleet
from tests.support.leaks import Artefacts, Canaries
from tests.support.longer import TIMES
from tests.support.routes import Keyed
from tests.support.vendors import Vendor
from tests.support.waiting import until

GET: Final = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


class Held:
    """An upstream's answer that waits: `arrived` is set with the request, `release` lets it go."""

    def __init__(self, status: int = 200) -> None:
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self._status = status

    async def __call__(self, seen: Seen) -> web.StreamResponse:
        """Answer /slow once it is released, and others at once."""
        if not seen.target.endswith("/slow"):
            return await fine(seen)
        self.arrived.set()
        await self.release.wait()
        return web.Response(text="late", status=self._status)


def named(value: str) -> dict[str, Any]:
    """What of a route shows which configuration a request went by."""
    return {"headers": {"set": {"X-Configuration": value}}}


# -- under load


class Load:
    """Clients that never rest: what they were answered, by the kind of client."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.answers: Counter[tuple[str, int]] = Counter()
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """For as long as the block lasts; a client that fails ends it."""
        async with asyncio.TaskGroup() as group:
            kinds = (self._stays, self._stays, self._comes, self._uploads)
            tasks = [group.create_task(kind()) for kind in kinds]
            yield
            for task in tasks:
                task.cancel()

    async def served(self) -> None:
        """Each kind of client once more."""
        before = {kind: self._of(kind) for kind in ("stays", "comes", "uploads")}
        async with self._news:
            await self._news.wait_for(lambda: all(self._of(kind) > count for kind, count in before.items()))

    def _of(self, kind: str) -> int:
        return sum(count for (each, _status), count in self.answers.items() if each == kind)

    async def _note(self, kind: str, status: int) -> None:
        self.answers[kind, status] += 1
        async with self._news:
            self._news.notify_all()

    async def _stays(self) -> None:
        async with connected(self._running.url, Artefacts()) as client:
            while True:
                await self._note("stays", (await client.ask("GET", "/calls")).status)

    async def _comes(self) -> None:
        while True:
            await self._note("comes", (await self._running.get()).status)

    async def _uploads(self) -> None:
        async with connected(self._running.url, Artefacts()) as client:
            while True:
                answer = await client.ask("POST", "/echo-size", (), b"x" * 50_000)
                await self._note("uploads", answer.status)


@pytest.mark.threat(123)
@pytest.mark.parametrize("reloads", [6, pytest.param(50 * TIMES, marks=pytest.mark.slow)])
async def test_123_reloads_under_load_with_good_and_broken_configurations_fail_no_request(
    tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts, reloads: int
) -> None:
    """By SIGHUP, in turn; the token is had once, and the last good configuration is the one that serves."""
    async with fleet(tmp_path, tracker.config, tracker.environ, artefacts) as instances:
        running = await instances.start()
        load = Load(running)
        async with load.going_on():
            for number in range(1, reloads + 1):
                broken = {"upstrem": "typo"} if number % 2 else {}
                change(instances, {**tracker.config, **named(str(number)), **broken})
                running.process.send_signal(signal.SIGHUP)
                await running.event("reload_refused" if broken else "reloaded", (number + 1) // 2)
                await load.served()
        assert {status for _kind, status in load.answers} == {200}
        assert tracker.double.token_requests == {"login": 1}
        assert {line["changed"] for line in running.all("reloaded")} == {"route default"}
        assert not running.all("internal_error")


def change(instances: Fleet, config: Mapping[str, Any]) -> None:
    """Put another configuration into the file of the first instance, whole or not at all."""
    path = instances.folder / "instance-1" / "config.yaml"
    before = yaml.safe_load(path.read_text())
    kept = {key: before[key] for key in ("listen", "admin", "log")}
    written = path.with_name("new.yaml")
    written.write_text(yaml.safe_dump({**kept, **config}))
    written.replace(path)


# -- what a request notices, and what not


@asynccontextmanager
async def telling(more: asyncio.Event) -> AsyncIterator[str]:
    """An upstream that says which configuration it was asked by; /slow is a stream, whose end waits for `more`."""

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await more.wait()
        await response.write(b"last")
        return response

    async def tell(request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.headers["X-Configuration"])

    app = web.Application()
    app.add_routes([web.get("/slow", slow), web.get("/{rest:.*}", tell)])
    async with serving(app) as url:
        yield url


async def test_a_stream_goes_on_and_the_next_request_on_its_connection_goes_by_the_new_one(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """Nothing is left of the old one when the stream has ended."""
    more = asyncio.Event()
    async with telling(more) as upstream:
        config = keyed.config(upstream, **named("old"))
        async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as client:
            client.send(GET)
            await client.reader.readuntil(b"first")
            assert await proxy.reload(keyed.config(upstream, **named("new"))) == {"changed": "route default"}
            assert (await proxy.ask("GET", "/")).body == b"new"
            assert proxy.instance._past
            more.set()
            await client.reader.readuntil(b"last\r\n0\r\n\r\n")
            assert (await client.ask("GET", "/")).body == b"new"
            await until(lambda: not proxy.instance._past)


async def test_what_is_in_flight_over_two_reloads_is_finished_by_the_drain(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """Each request with what it began with; their answers say that the connection ends."""
    held = Held()
    async with api(held) as upstream:
        config = keyed.config(upstream.url, **named("0"))
        async with (
            proxying(config, environ=keyed.environ) as proxy,
            proxy.connect() as first,
            proxy.connect() as second,
        ):
            first.send(GET)
            await until(lambda: len(upstream.seen) == 1)
            await proxy.reload(keyed.config(upstream.url, **named("1")))
            second.send(GET)
            await until(lambda: len(upstream.seen) == 2)
            await proxy.reload(keyed.config(upstream.url, **named("2")))
            draining = asyncio.create_task(proxy.instance.drain())
            await until(lambda: proxy.lines("draining"))
            await proxy.reload(keyed.config(upstream.url, **named("3")))
            assert proxy.instance.is_draining
            held.release.set()
            for answer in (await first.answer(), await second.answer()):
                assert (answer.status, answer.body, answer["connection"]) == (200, b"late", "close")
            for client in (first, second):
                client.writer.close()
            await draining
        assert [seen.all("x-configuration") for seen in upstream.seen] == [["0"], ["1"]]


async def test_nothing_is_left_of_configurations_that_nobody_needs(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """Though a source and a connection go on that began with the first one."""
    async with proxying(tracker.config, environ=tracker.environ) as proxy, proxy.connect() as client:
        past = []
        for number in range(3):
            assert (await client.ask("GET", "/calls")).status == 200
            past.append(weakref.ref(proxy.instance._present))
            await proxy.reload({**tracker.config, **named(str(number))})
        assert (await client.ask("GET", "/calls")).status == 200
        await until(lambda: not proxy.instance._endings)
        gc.collect()
        assert [each() for each in past] == [None] * 3


async def test_a_route_comes_and_another_goes(proxying: StartProxy, keyed: Keyed) -> None:
    """And the event says so by their names."""
    async with api() as upstream:
        one = {"name": "one", "prefix": "/one", "upstream": upstream.url}
        two = {"name": "two", "prefix": "/two", "upstream": upstream.url}
        async with proxying({"routes": [one]}) as proxy:
            assert (await proxy.ask("GET", "/two")).code == "no_route"
            credentials = {"key": keyed.credential()}
            news = await proxy.reload(
                {"routes": [{**two, "credential": "key"}], "credentials": credentials}, environ=keyed.environ
            )
            assert news == {"added": "route two, credential key", "removed": "route one"}
            assert (await proxy.ask("GET", "/one")).code == "no_route"
            assert (await proxy.ask("GET", "/two")).status == 200
            assert upstream.seen[-1].all("authorization") == [f"Bearer {keyed.token}"]


# -- credentials


async def test_a_token_is_kept_with_its_generation_whatever_else_changes(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Where it goes, when it is refreshed, and the routes that have it."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        assert (await proxy.ask("GET", "/calls")).status == 200
        before = proxy.instance.reports()
        credential = {**tracker.credential, "margin": "10s", "headers": {"X-Sent-Along": "yes"}}
        routes = [{"prefix": f"/{name}", "upstream": tracker.url, "credential": "default"} for name in ("a", "b")]
        news = await proxy.reload({"routes": routes, "credentials": {"default": credential}})
        assert news["changed"] == "credential default"
        assert proxy.instance.reports() == before
        for target in ("/a/calls", "/b/calls"):
            assert (await proxy.ask("GET", target)).status == 200
        assert [line["generation"] for line in proxy.lines()] == [1, 2, 2, 2]
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        # The margin of the new one: a minute before the end the old one would refresh.
        clock.move(3600.0 - 30.0)
        assert proxy.instance.reports()[0].state == "fresh"


async def test_a_token_request_that_nobody_waits_for_ends_as_it_began(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """What it is sent with stays open until then."""
    tracker.double.set(token_endpoint="slow")
    async with proxying(tracker.config, environ=tracker.environ) as proxy:
        asked = asyncio.create_task(proxy.instance.refresh("default"))
        await tracker.double.holding()
        await proxy.reload({**tracker.config, **named("new")})
        assert (await proxy.ask("GET", "/none", {"Host": "elsewhere.example"})).status == 403
        assert proxy.instance._past
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        assert (await asked).generation == 1
        await until(lambda: not proxy.instance._past)
        assert tracker.double.token_requests == {"login": 1}


async def test_a_token_request_in_flight_serves_those_who_wait_and_those_who_come(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """One login for the requests before the reload and behind it."""
    tracker.double.set(token_endpoint="slow")
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        before = asyncio.create_task(proxy.ask("GET", "/calls"))
        await tracker.double.holding()
        await proxy.reload({**tracker.config, **named("new")})
        behind = asyncio.create_task(proxy.ask("GET", "/calls"))
        await until(lambda: len(proxy.instance._data._connections) == 2)
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        assert [(await task).status for task in (before, behind)] == [200, 200]
        assert tracker.double.token_requests == {"login": 1}
        tracker.double.expire()
        assert (await proxy.ask("GET", "/calls")).status == 200


async def test_the_same_rejected_secret_stays_barred_and_another_one_is_tried(
    proxying: StartProxy, tracker: Vendor[TeleTracker], canaries: Canaries
) -> None:
    """One wrong password is one failed login, over reloads as well; a corrected one clears the latch."""
    wrong = {**tracker.environ, "TRACKER_PASSWORD": canaries.mint("password")}
    async with proxying(tracker.config, environ=wrong) as proxy:
        assert (await proxy.ask("GET", "/calls")).code == "credential_rejected"
        assert await proxy.reload({**tracker.config, **named("new")}) == {"changed": "route default"}
        assert (await proxy.ask("GET", "/calls")).code == "credential_rejected"
        assert tracker.double.token_requests == {"login": 1}
        changed = await proxy.reload({**tracker.config, **named("new")}, environ=tracker.environ)
        assert changed == {"changed": "credential default"}
        assert (await proxy.ask("GET", "/calls")).status == 200
        assert (await proxy.admin("GET", "/readyz")).status == 200
        assert tracker.double.token_requests == {"login": 2}
        # And it is the old one that was rejected.
        await proxy.reload(tracker.config, environ=wrong)
        assert (await proxy.ask("GET", "/calls")).code == "credential_rejected"
        assert tracker.double.token_requests == {"login": 2}


async def test_a_token_does_not_go_to_an_upstream_for_which_it_was_not_got(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """As after a restart: what a token is bound to includes where it may go."""
    async with api() as elsewhere, proxying(tracker.config, environ=tracker.environ) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        first = set(tracker.double.issued)
        news = await proxy.reload({**tracker.config, "upstream": elsewhere.url})
        assert news == {"changed": "route default, credential default"}
        assert (await proxy.ask("GET", "/calls")).status == 200
        [sent] = elsewhere.seen[0].all("authorization")
        assert sent.removeprefix("Bearer ") not in first
        assert tracker.double.token_requests == {"login": 2}


async def test_a_credential_that_is_gone_ends_after_its_last_request(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """A request in flight can still refresh it, and is repeated; then nothing of it is left."""
    first, again = Held(401), Held()
    answers = iter((first, again))

    async def answer(seen: Seen) -> web.StreamResponse:
        return await next(answers)(seen)

    async with api(answer) as upstream:
        config = {**tracker.config, "upstream": upstream.url}
        async with proxying(config, environ=tracker.environ) as proxy, proxy.connect() as client:
            client.send(GET)
            await first.arrived.wait()
            source = proxy.instance._present.credentials["default"].source
            assert await proxy.reload({"upstream": upstream.url}) == {
                "removed": "credential default",
                "changed": "route default",
            }
            assert proxy.instance.reports() == []
            assert source.report().state == "fresh"
            first.release.set()
            await again.arrived.wait()
            again.release.set()
            assert (await client.answer()).body == b"late"
            assert tracker.double.token_requests == {"login": 1, "refresh": 1}
            await until(lambda: not proxy.instance._endings)
            assert source.ahead.next_look is None
        assert len({seen.all("authorization")[0] for seen in upstream.seen}) == 2


async def test_what_stands_on_another_credential_goes_on_with_that_ones_tokens(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """Before and behind reloads that keep the lender, and that change it."""
    routes = [
        {"prefix": f"/{name}", "upstream": tracker.url, "credential": name} for name in ("lender", "borrower")
    ]
    borrower = {"type": "static", "token": {"credential": "lender"}}
    config = {"routes": routes, "credentials": {"lender": dict(tracker.credential), "borrower": borrower}}
    async with proxying(config, environ=tracker.environ) as proxy:
        for number in range(3):
            assert (await proxy.ask("GET", "/borrower/calls")).status == 200
            assert (await proxy.ask("GET", "/lender/calls")).status == 200
            assert [line["generation"] for line in proxy.lines()[-2:]] == [number + 1] * 2
            tracker.double.expire()
            assert await proxy.reload(config) == {}
        assert tracker.double.token_requests == {"login": 1, "refresh": 2}


async def test_what_stands_on_a_credential_that_was_changed_asks_the_new_one(
    proxying: StartProxy, tracker: Vendor[TeleTracker], canaries: Canaries
) -> None:
    """Its own token is kept; the next one is got with what is lent now."""

    async def grant(_seen: Seen) -> web.StreamResponse:
        return web.json_response({"access_token": canaries.mint()})

    async with api(grant) as server, api() as elsewhere:
        login = {"url": f"{server.url}/login", "fields": {"with": {"credential": "lender"}}}
        credentials = {"lender": dict(tracker.credential), "borrower": {"type": "login", "login": login}}
        borrower = {"prefix": "/borrower", "upstream": tracker.url, "credential": "borrower"}
        lender = {"prefix": "/lender", "credential": "lender"}
        config = {"routes": [borrower, {**lender, "upstream": tracker.url}], "credentials": credentials}
        async with proxying(config, environ=tracker.environ) as proxy:
            assert (await proxy.instance.refresh("borrower")).generation == 1
            config["routes"] = [borrower, {**lender, "upstream": elsewhere.url}]
            assert await proxy.reload(config) == {"changed": "route lender, credential lender"}
            assert (await proxy.instance.refresh("borrower")).generation == 2
            sent = [seen.body.removeprefix(b"with=").decode() for seen in server.seen]
            assert sent == [token for token in tracker.double.issued if token in sent]
            assert len(set(sent)) == 2


async def test_a_credential_that_comes_takes_turns_with_other_processes(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """As one that was there at the start (threat 107)."""
    async with proxying({"upstream": tracker.url}) as proxy:
        await proxy.reload(tracker.config, environ=tracker.environ)
        assert (await proxy.ask("GET", "/calls")).status == 200
        assert [path.name.partition("-")[0] for path in (proxy.state / "turns").iterdir()] == ["default"]


async def test_a_refusal_that_no_newer_token_cures_is_not_tried_anew_after_a_reload(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """What a route knows of refusals is kept while route and token are the same (threat 98)."""
    tracker.double.set(forbidden_paths=["/calls"])
    async with proxying(tracker.config, environ=tracker.environ) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 403
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        await proxy.reload({**tracker.config, "limits": {"drain": 1}})
        assert (await proxy.ask("GET", "/calls")).status == 403
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}


async def test_a_file_that_is_followed_keeps_its_generation(
    proxying: StartProxy, canaries: Canaries, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Somebody else writes it; that it goes into another header now changes nothing."""
    path = tmp_path_factory.mktemp("secrets") / "token"
    path.touch(mode=0o600)
    credential = {"type": "file", "path": str(path)}
    async with api() as upstream:
        config = {"upstream": upstream.url, "credential": credential}
        async with proxying(config) as proxy:
            for _ in range(2):
                path.write_text(canaries.mint())
                await proxy.instance.refresh("default")
            other = {**credential, "place": {"header": "X-Token"}}
            assert await proxy.reload({**config, "credential": other}) == {"changed": "credential default"}
            assert (await proxy.ask("GET", "/")).status == 200
            assert proxy.lines()[-1]["generation"] == 2
            assert upstream.seen[-1].all("x-token") == [path.read_text()]


# -- guard, limits, log


async def test_the_guard_of_a_reload_holds_for_connections_that_are_there(
    proxying: StartProxy, canaries: Canaries
) -> None:
    """A key is asked for with the next request."""
    key = canaries.mint("key")
    async with api() as upstream, proxying({"upstream": upstream.url}) as proxy, proxy.connect() as client:
        assert (await client.ask("GET", "/")).status == 200
        config = {"upstream": upstream.url, "guard": {"client_key": {"env": "KEY"}}}
        assert await proxy.reload(config, environ={"KEY": key}) == {"changed": "guard"}
        assert (await client.ask("GET", "/")).code == "client_key_required"
        assert (await client.ask("GET", "/", {"X-Proxy-Key": key})).status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="this machine does not tell who connects")
async def test_who_may_not_connect_any_more_is_refused_with_the_next_request(proxying: StartProxy) -> None:
    """Over the connection that was open; one who may connect now comes anew."""
    others = {"peers": {"uids": [os.geteuid() + 1]}}
    async with api() as upstream, proxying({"upstream": upstream.url}) as proxy:
        async with proxy.connect() as client:
            assert (await client.ask("GET", "/")).status == 200
            await proxy.reload({"upstream": upstream.url, "guard": others})
            assert (await client.ask("GET", "/")).code == "peer_not_allowed"
            assert await client.at_end()
        await proxy.reload({"upstream": upstream.url})
        assert (await proxy.ask("GET", "/")).status == 200
        assert len(upstream.seen) == 2


async def test_where_it_cannot_be_known_who_connects_a_list_of_users_is_refused(
    proxying: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a start; what was there stays."""
    async with api() as upstream, proxying({"upstream": upstream.url}) as proxy:
        monkeypatch.setattr("proxy.peers._way_to_ask", lambda _diag: None)
        with pytest.raises(ConfigError, match="does not tell who connects"):
            await proxy.reload({"upstream": upstream.url, "guard": {"peers": {"uids": [1]}}})
        assert (await proxy.ask("GET", "/")).status == 200


async def test_limits_hold_for_what_comes(proxying: StartProxy) -> None:
    """More connections than there may be now stay, bodies are bounded from the next request on."""
    limits = {"connections": 1, "body_bytes": 10, "header_bytes": "2KiB"}
    async with (
        api() as upstream,
        proxying({"upstream": upstream.url}) as proxy,
        proxy.connect() as first,
        proxy.connect() as second,
    ):
        for client in (first, second):
            assert (await client.ask("GET", "/")).status == 200
        assert await proxy.reload({"upstream": upstream.url, "limits": limits}) == {"changed": "limits"}
        for client in (first, second):
            assert (await client.ask("GET", "/")).status == 200
        async with proxy.connect() as third:
            assert (await third.answer()).code == "overloaded"
        assert (await first.ask("POST", "/", (), b"x" * 11)).code == "too_large"
        await proxy.reload({"upstream": upstream.url, "limits": {**limits, "connections": 10}})
        answer = await proxy.ask("GET", "/", {"X-Long": "x" * 3000})
        assert answer.code == "headers_too_large"


async def test_the_access_log_can_be_switched_off_and_on(proxying: StartProxy) -> None:
    """Of the requests from then on."""
    async with api() as upstream, proxying({"upstream": upstream.url}) as proxy:
        for access in (True, False, True):
            await proxy.reload({"upstream": upstream.url, "log": {"access": access}})
            assert (await proxy.ask("GET", f"/{access}")).status == 200
        assert [line["path"] for line in proxy.lines()] == ["/True", "/True"]


async def test_the_admin_key_of_a_reload_opens_and_the_one_before_does_not(
    proxying: StartProxy, canaries: Canaries
) -> None:
    """Where it was a random one, that opens again when no key is given any more."""
    config = {"upstream": "http://127.0.0.1:9"}
    async with proxying(config) as proxy:
        random = proxy.instance.admin_key
        for key in (canaries.mint("key"), canaries.mint("key")):
            before = proxy.instance.admin_key.reveal()
            admin = {"listen": "127.0.0.1:0", "key": {"env": "KEY"}}
            assert await proxy.reload({**config, "admin": admin}, environ={"KEY": key}) == {"changed": "admin"}
            assert (await proxy.admin("GET", "/api/credentials")).status == 200
            async with connected(str(proxy.instance.admin_url), proxy.artefacts) as client:
                answer = await client.ask("GET", "/api/credentials", {"Authorization": f"Bearer {before}"})
                assert answer.code == "admin_key_required"
        await proxy.reload(config)
        assert proxy.instance.admin_key == random


@pytest.mark.parametrize("is_changed", [True, False])
async def test_what_the_admin_key_before_opened_ends_with_it(
    proxying: StartProxy, canaries: Canaries, *, is_changed: bool
) -> None:
    """A page listens to every exchange; whoever has the old key hears of none behind the reload."""
    keys = [canaries.mint("key"), canaries.mint("key")]
    admin = {"listen": "127.0.0.1:0", "key": {"env": "KEY"}}
    async with api() as upstream:
        config = {"upstream": upstream.url, "admin": admin}
        async with (
            proxying(config, environ={"KEY": keys[0]}) as proxy,
            connected(str(proxy.instance.admin_url), proxy.artefacts) as client,
        ):
            field = b"Authorization: Bearer " + keys[0].encode()
            client.send(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n" + field + b"\r\n\r\n")
            async with asyncio.timeout(DEADLINE):
                await client.reader.readuntil(b"\r\n\r\n")
                await proxy.reload({**config, "exec": {}}, environ={"KEY": keys[is_changed]})
                await proxy.ask("GET", "/behind-the-reload")
                if is_changed:
                    assert b"behind-the-reload" not in await client.reader.read()
                else:
                    await client.reader.readuntil(b"behind-the-reload")


# -- what is refused


@pytest.mark.threat(123)
@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"listen": ["127.0.0.1:0", "127.0.0.1:0"]}, ["listen"]),
        ({"listen": "unix:/tmp/another.sock"}, ["listen"]),
        ({"admin": {"listen": None}}, ["admin.listen"]),
        ({"admin": {"listen": "127.0.0.2:0"}}, ["admin.listen"]),
        (
            {"store": {"kind": "file", "path": "tokens", "key": {"env": "KEY"}}},
            ["store.kind", "store.path", "store.key"],
        ),
        ({"listen": "[::1]:0", "admin": {"listen": "[::1]:0"}}, ["listen", "admin.listen"]),
    ],
)
async def test_123_what_cannot_change_refuses_the_whole_reload(
    proxying: StartProxy, change: Mapping[str, Any], keys: list[str]
) -> None:
    """Each key is named, and nothing else of that configuration holds."""
    async with api() as upstream, proxying({"upstream": upstream.url}) as proxy:
        changed = {"upstream": "http://127.0.0.1:9", **change}
        with pytest.raises(ConfigError) as caught:
            await proxy.reload(changed, environ={"KEY": "A" * 43 + "="})
        assert [problem.partition(":")[0] for problem in caught.value.problems] == keys
        assert (await proxy.ask("GET", "/")).status == 200
        assert not proxy.instance._past


async def test_another_key_of_the_store_is_another_store(proxying: StartProxy, tmp_path: Path) -> None:
    """What is sealed with it would not open; the same key from the same place is none."""
    store = {"kind": "file", "path": str(tmp_path / "tokens"), "key": {"env": "KEY"}}
    config = {"upstream": "http://127.0.0.1:9", "store": store}
    async with proxying(config, environ={"KEY": "A" * 43 + "="}) as proxy:
        assert await proxy.reload(config) == {}
        with pytest.raises(ConfigError, match=r"^store\.key: this cannot change"):
            await proxy.reload(config, environ={"KEY": "B" * 42 + "A="})


@pytest.mark.threat(123)
async def test_123_what_shows_only_when_it_is_built_refuses_as_well(
    proxying: StartProxy, tracker: Vendor[TeleTracker], tmp_path: Path
) -> None:
    """A certificate that is none; the token of the configuration that stays is the same."""
    none = tmp_path / "ca.pem"
    none.write_text("no certificate")
    async with proxying(tracker.config, environ=tracker.environ) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        routes = [
            {"prefix": "/", "upstream": tracker.url, "credential": "default"},
            {"prefix": "/tls", "upstream": "https://localhost", "tls": {"ca": str(none)}},
        ]
        credential = {**tracker.credential, "margin": 0}
        with pytest.raises(ConfigError, match=r"tls\.ca cannot be used"):
            await proxy.reload({"routes": routes, "credentials": {"default": credential}})
        assert (await proxy.ask("GET", "/calls")).status == 200
        assert proxy.instance._present.config.credentials["default"].margin == 60.0
        assert tracker.double.token_requests == {"login": 1}


@pytest.mark.threat(123)
async def test_123_a_broken_configuration_is_told_in_one_event_and_changes_nothing(
    keyed: Keyed, tmp_path: Path, artefacts: Artefacts
) -> None:
    """By SIGHUP to the program, with every problem; once it is mended it holds."""
    async with (
        api() as upstream,
        fleet(tmp_path, keyed.config(upstream.url), keyed.environ, artefacts) as instances,
    ):
        running = await instances.start()
        change(instances, keyed.config(upstream.url, **named("new"), upstrem="x", prefx="y"))
        running.process.send_signal(signal.SIGHUP)
        refused = await running.event("reload_refused")
        assert refused["problems"] == 2
        assert "routes.0.upstrem" in refused["detail"]
        assert "routes.0.prefx" in refused["detail"]
        assert (await running.get("/")).status == 200
        assert upstream.seen[-1].all("x-configuration") == []
        change(instances, keyed.config(upstream.url, **named("new")))
        running.process.send_signal(signal.SIGHUP)
        assert (await running.event("reloaded"))["changed"] == "route default"
        assert (await running.get("/")).status == 200
        assert upstream.seen[-1].all("x-configuration") == ["new"]
        assert len(running.all("reload_refused")) == 1
        running.process.terminate()
        assert await running.process.wait() == 0


async def test_the_run_file_follows_the_admin_key(
    keyed: Keyed, canaries: Canaries, tmp_path: Path, artefacts: Artefacts
) -> None:
    """Or `bearer-proxy token` could not ask any more. The key is read from its file again."""
    path = tmp_path / "admin.key"
    path.touch(mode=0o600)
    admin = {"listen": "127.0.0.1:0", "key": {"file": str(path)}}
    async with api() as upstream:
        config = {**keyed.config(upstream.url), "admin": admin}
        async with fleet(tmp_path, config, keyed.environ, artefacts) as instances:
            path.write_text(canaries.mint("key"))
            running = await instances.start()
            home = instances.folder / "instance-1"
            found = runfile.path_for(str(home / "config.yaml"), {"XDG_RUNTIME_DIR": str(home)})
            path.write_text(key := canaries.mint("key"))
            running.process.send_signal(signal.SIGHUP)
            assert (await running.event("reloaded"))["changed"] == "admin"
            await until(lambda: getattr(runfile.read(found), "admin_key", None) == key)


async def test_what_is_no_file_is_not_read_again(keyed: Keyed, tmp_path: Path, artefacts: Artefacts) -> None:
    """A pipe that nobody writes to would hold up this reload and all that follow."""
    async with (
        api() as upstream,
        fleet(tmp_path, keyed.config(upstream.url), keyed.environ, artefacts) as instances,
    ):
        running = await instances.start()
        path = instances.folder / "instance-1" / "config.yaml"
        kept = path.rename(path.with_name("kept.yaml"))
        os.mkfifo(path)
        running.process.send_signal(signal.SIGHUP)
        assert "no file that can be read again" in (await running.event("reload_refused"))["detail"]
        kept.replace(path)
        change(instances, keyed.config(upstream.url, **named("new")))
        running.process.send_signal(signal.SIGHUP)
        await running.event("reloaded")


#: A thread that waits for what never comes, and nothing else to do.
HANGS: Final = """
import asyncio, threading
from proxy.cli.run import run_to_end
async def main():
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    return 3
raise SystemExit(run_to_end(main()))
"""


@pytest.mark.threat(122)
async def test_122_a_file_system_that_hangs_does_not_hold_up_the_end() -> None:
    """What reads from it in a thread cannot be broken off; the status is what it would have been."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGS, cwd=ROOT)
    try:
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 3
    finally:
        with suppress(ProcessLookupError):
            process.kill()


# -- who asks for it


@dataclass
class Following:
    """A proxy that follows a file, in the test's own loop."""

    proxy: Proxy
    path: Path
    asked: asyncio.Event
    applied: list[int]

    def write(self, config: Mapping[str, Any]) -> None:
        """Put another configuration there, whole."""
        new = self.path.with_name("new.yaml")
        new.write_text(self.proxy.written(config))
        new.replace(self.path)


@asynccontextmanager
async def following(
    proxying: StartProxy, folder: Path, config: Mapping[str, Any], environ: Mapping[str, str]
) -> AsyncIterator[Following]:
    """It looks at its files all the time."""
    path = folder / "config.yaml"
    async with proxying(config, environ=environ) as proxy:
        path.write_text(proxy.written(config))
        source = find(str(path), {})
        asked, applied = asyncio.Event(), list[int]()
        reloading = Reloading(
            *(proxy.instance, source, load(source, environ=environ), proxy.instance._world),
            environ=environ,
            asked=asked,
            applied=lambda: applied.append(1),
            look_seconds=0.01,
        )
        task = asyncio.create_task(reloading.run())
        yield Following(proxy, path, asked, applied)
        task.cancel()


async def test_a_changed_file_is_enough(proxying: StartProxy, keyed: Keyed, tmp_path: Path) -> None:
    """Nobody sends a signal; a broken one is told once, and so is the mended one."""
    async with (
        api() as upstream,
        following(proxying, tmp_path, keyed.config(upstream.url), keyed.environ) as follower,
    ):
        proxy = follower.proxy
        follower.write({"upstream": "nowhere"})
        await until(lambda: proxy.lines("reload_refused"))
        follower.write(keyed.config(upstream.url, **named("new")))
        await until(lambda: proxy.lines("reloaded"))
        assert (await proxy.ask("GET", "/")).status == 200
        assert upstream.seen[-1].all("x-configuration") == ["new"]
        assert (len(proxy.lines("reload_refused")), len(follower.applied)) == (1, 1)


async def test_a_changed_secret_file_is_enough(
    proxying: StartProxy, canaries: Canaries, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The next request has the new token."""
    path = tmp_path_factory.mktemp("secrets") / "token"
    path.touch(mode=0o600)
    path.write_text(canaries.mint())
    async with api() as upstream:
        config = {"upstream": upstream.url, "credential": {"type": "static", "token": {"file": str(path)}}}
        async with following(proxying, tmp_path, config, {}) as follower:
            path.write_text(token := canaries.mint())
            await until(lambda: follower.proxy.lines("reloaded"))
            assert follower.proxy.lines("reloaded")[0]["changed"] == "credential default"
            assert (await follower.proxy.ask("GET", "/")).status == 200
            assert upstream.seen[-1].all("authorization") == [f"Bearer {token}"]


def test_a_change_counts_when_the_files_rest(tmp_path: Path) -> None:
    """One that is being written is not read half; what was read, or refused, is not read again."""
    path, other = tmp_path / "config.yaml", tmp_path / "other"
    path.write_text("one")
    watched = Watched([path])
    assert not watched.look()
    for text in ("on", "one and a", "one and a half"):
        path.write_text(text)
        assert not watched.look()
    assert watched.look()
    watched.take()
    assert not watched.look()
    path.unlink()
    assert [watched.look() for _ in range(2)] == [False, True]
    watched.take()
    other.write_text("a secret")
    watched.follow([path, other])
    assert not watched.look()
    other.chmod(0o600 if other.stat().st_mode & 0o077 else 0o644)
    assert [watched.look() for _ in range(2)] == [False, True]


def test_the_files_of_tls_and_of_secrets_are_watched_and_those_that_are_followed_anyway_are_not(
    canaries: Canaries, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each by the path that it is read at."""
    secret = tmp_path_factory.mktemp("secrets") / "secret"
    secret.touch(mode=0o600)
    secret.write_text(canaries.mint())
    for name in ("upstream.pem", "login.pem", "token"):
        (tmp_path / name).touch(mode=0o600)
    login = {"url": "https://localhost/login", "fields": {"password": {"file": str(secret)}}}
    config = {
        "routes": [
            {"prefix": "/", "upstream": "https://localhost", "tls": {"ca": "upstream.pem"}, "credential": "a"}
        ],
        "credentials": {
            "a": {"type": "login", "login": login, "tls": {"ca": "login.pem"}},
            "b": {"type": "file", "path": "token"},
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    source = find(str(path), {})
    wanted = {path, secret, tmp_path / "upstream.pem", tmp_path / "login.pem"}
    assert set(files(load(source, environ={}), source)) == wanted


async def test_the_level_of_the_log_applies(proxying: StartProxy, keyed: Keyed, tmp_path: Path) -> None:
    """The event itself is above it."""
    config = keyed.config("http://127.0.0.1:9")
    async with following(proxying, tmp_path, config, keyed.environ) as follower:
        follower.write({**config, "log": {"level": "info"}})
        await until(lambda: follower.applied)
        assert logging.getLogger().level == logging.INFO
        assert follower.proxy.lines("reloaded")[0]["changed"] == "log"


async def test_a_warning_of_the_configuration_is_told_at_a_reload_as_well(
    proxying: StartProxy, keyed: Keyed, tmp_path: Path
) -> None:
    """As at the start."""
    config = keyed.config("http://127.0.0.1:9")
    async with following(proxying, tmp_path, config, keyed.environ) as follower:
        unused = {"default": keyed.credential(), "unused": keyed.credential()}
        follower.write({**config, "credentials": unused})
        await until(lambda: follower.applied)
        assert "unused" in follower.proxy.lines("config_warning")[0]["detail"]


@pytest.mark.threat(123)
async def test_123_a_defect_of_ours_changes_nothing_either(
    proxying: StartProxy, keyed: Keyed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and the next change is followed."""
    config = keyed.config("http://127.0.0.1:9")
    async with following(proxying, tmp_path, config, keyed.environ) as follower:
        monkeypatch.setattr("proxy.cli.reload.load", lambda *_, **__: 1 / 0)
        follower.asked.set()
        await until(lambda: follower.proxy.lines("reload_refused"))
        assert follower.proxy.lines("internal_error")
        monkeypatch.undo()
        follower.asked.set()
        await until(lambda: follower.applied)
