"""A fleet of proxies with one server for their tokens, as clients and vendors see it."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from proxy import build
from proxy.build.belonging import stays_here
from proxy.cli import main as cli
from proxy.clock import SystemClock
from proxy.config import Config, Source, load
from proxy.demo.double import Double
from proxy.demo.mainbrainer import MainBrainer
from proxy.demo.teletracker import TeleTracker
from proxy.stores import servertime
from tests.support.api import api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.redisserver import RedisServer, needs_redis, serving
from tests.support.vendors import Vendor

pytestmark = needs_redis

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Fleet:
    """Starts proxies to one vendor that keep their tokens on one server."""

    def __init__(
        self, proxying: StartProxy, vendor: Vendor[Any], clock: HeldClock, server: RedisServer, key: str
    ) -> None:
        self._proxying = proxying
        self._clock = clock
        self.vendor = vendor
        self.server = server
        self.environ = {**vendor.environ, "STORE_KEY": key}

    @property
    def config(self) -> dict[str, Any]:
        """The short form, with a store for a fleet."""
        store = {"kind": "redis", "url": self.server.url, "key": {"env": "STORE_KEY"}}
        return {**self.vendor.config, "store": store}

    def proxy(self) -> Any:
        """`async with fleet.proxy() as proxy`: one of them."""
        return self._proxying(self.config, environ=self.environ, clock=self._clock)

    @asynccontextmanager
    async def proxies(self, count: int) -> AsyncIterator[list[Proxy]]:
        """So many at once."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.proxy()) for _ in range(count)]

    def loaded(self) -> Config:
        """The configuration, as a command that runs beside the proxies loads it."""
        return load(Source(yaml.safe_dump(self.config), "text", None, "test"), environ=self.environ)

    @property
    def token_requests(self) -> dict[str, int]:
        """How many of each kind the vendor has seen."""
        double: Double[Any] = self.vendor.double
        return dict(double.token_requests)


@pytest.fixture
def server(tmp_path: Path, artefacts: Artefacts) -> Iterator[RedisServer]:
    """A server that remembers; all that it holds and writes is searched for canaries."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with serving(folder, *DURABLE) as made:
        yield made
        if made.process is not None:
            artefacts.add("redis", made.everything())


@pytest.fixture
def key(canaries: Canaries) -> str:
    """Of the store."""
    made = base64.b64encode(os.urandom(32)).decode()
    canaries.adopt(made, "key")
    return made


@pytest.fixture(autouse=True)
def server_time(clock: HeldClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock is held as well."""
    monkeypatch.setattr(servertime, "in_seconds", lambda _time: clock.wall())


@pytest.fixture
def fleet(
    proxying: StartProxy,
    tracker: Vendor[TeleTracker],
    clock: HeldClock,
    server: RedisServer,
    key: str,
) -> Fleet:
    """To a vendor whose refresh tokens rotate, and end everything when one is used twice."""
    return Fleet(proxying, tracker, clock, server, key)


@pytest.fixture
def others(
    proxying: StartProxy,
    brainer: Vendor[MainBrainer],
    clock: HeldClock,
    server: RedisServer,
    key: str,
) -> Fleet:
    """To a vendor without refresh tokens."""
    return Fleet(proxying, brainer, clock, server, key)


async def asked(proxy: Proxy, path: str = "/calls") -> int:
    """The status of one request."""
    return int((await proxy.ask("GET", path)).status)


async def code(proxy: Proxy, path: str = "/calls") -> tuple[int, str]:
    """Status and code of one that the proxy answers itself."""
    answer = await proxy.ask("GET", path)
    return int(answer.status), str(answer.json()["code"])


async def state(proxy: Proxy) -> dict[str, Any]:
    """What `/api/credentials` says of the one credential."""
    [found] = (await proxy.admin("GET", "/api/credentials")).json()["credentials"]
    return dict(found)


@pytest.mark.threat(88)
async def test_088_a_fleet_asks_once_for_each_expiry(fleet: Fleet, clock: HeldClock) -> None:
    """Four at once, ten times: whoever waits takes over what the first one got, and no client sees any of it."""
    double = fleet.vendor.double
    async with fleet.proxies(4) as proxies:
        for count in range(10):
            assert await asyncio.gather(*map(asked, proxies)) == [200] * 4
            assert [(await state(each))["generation"] for each in proxies] == [count + 1] * 4
            assert sum(fleet.token_requests.values()) == count + 1
            clock.move(3601)
        assert [(await state(each))["persisted"] for each in proxies] == [True] * 4
    assert fleet.token_requests == {"login": 1, "refresh": 9}
    assert double.refresh_reuses == 0


async def test_088_a_refused_token_is_replaced_by_the_one_that_another_got(fleet: Fleet) -> None:
    """All were refused the same token."""
    async with fleet.proxies(3) as proxies:
        assert await asyncio.gather(*map(asked, proxies)) == [200] * 3
        fleet.vendor.double.expire()
        assert await asyncio.gather(*map(asked, proxies)) == [200] * 3
    assert fleet.token_requests == {"login": 1, "refresh": 1}


async def test_a_restart_goes_on_with_the_stored_token(fleet: Fleet, clock: HeldClock) -> None:
    """Of the proxy, and of the server."""
    async with fleet.proxy() as proxy:
        assert await asked(proxy) == 200
    fleet.server.stop()
    fleet.server.start()
    async with fleet.proxy() as proxy:
        assert await asked(proxy) == 200
        fleet.server.stop()
        fleet.server.start()
        clock.move(3601)
        assert await asked(proxy) == 200
    assert fleet.token_requests == {"login": 1, "refresh": 1}


async def test_088_without_the_server_nothing_is_redeemed(fleet: Fleet, clock: HeldClock) -> None:
    """A token that is good serves on; then 503 of its own. Nothing reaches the vendor before the server is back."""
    async with fleet.proxies(2) as proxies:
        assert await asyncio.gather(*map(asked, proxies)) == [200] * 2
        fleet.server.stop()
        assert await asyncio.gather(*map(asked, proxies)) == [200] * 2
        clock.move(3601)
        for _ in range(3):
            assert [await code(each) for each in proxies] == [(503, "store_unavailable")] * 2
            clock.move(301)
        assert fleet.token_requests == {"login": 1}
        [line, *_] = proxies[1].lines("token_refresh_failed")
        assert "does not answer" in line["detail"]
        fleet.server.start()
        clock.move(301)
        assert await asyncio.gather(*map(asked, proxies)) == [200] * 2
    assert fleet.token_requests == {"login": 1, "refresh": 1}
    assert fleet.vendor.double.refresh_reuses == 0


async def test_091_without_the_server_what_is_not_redeemed_is_got_by_each_alone(
    others: Fleet, clock: HeldClock
) -> None:
    """It is said once, and shown; when the server is back they share again."""
    others.server.stop()
    async with others.proxies(2) as proxies:
        for _ in range(2):
            assert [await asked(each, "/customers") for each in proxies] == [200] * 2
            clock.move(86400)
        assert [(await state(each))["persisted"] for each in proxies] == [False] * 2
        assert len(proxies[1].lines("token_not_persisted")) == 2
        assert sum(others.token_requests.values()) == 4
        others.server.start()
        assert [await asked(each, "/customers") for each in proxies] == [200] * 2
        assert sum(others.token_requests.values()) == 5


async def test_091_a_rotated_token_is_stored_as_soon_as_the_server_is_back(fleet: Fleet, clock: HeldClock) -> None:
    """It went away while the token was asked for: nobody else redeems what has been redeemed."""
    double = fleet.vendor.double
    async with fleet.proxies(2) as (one, two):
        assert (await asked(one), await asked(two)) == (200, 200)
        clock.move(3601)
        double.set(token_endpoint="slow")
        asking = asyncio.create_task(asked(one))
        await double.holding()
        fleet.server.stop()
        double.set(token_endpoint="up")
        double.release()
        assert await asking == 200
        assert (await state(one))["persisted"] is False
        assert await code(two) == (503, "store_unavailable")
        fleet.server.start()
        async with asyncio.timeout(20):
            while not (await state(one))["persisted"]:
                pass
        clock.move(301)
        assert await asked(two) == 200
    assert fleet.token_requests == {"login": 1, "refresh": 1}
    assert double.refresh_reuses == 0


async def stood_still(fleet: Fleet, one: Proxy, two: Proxy, path: str) -> None:
    """The turn of the first one runs out while it asks; the second one has it then, and is through before."""
    double = fleet.vendor.double
    double.set(token_endpoint="slow")
    asking = asyncio.create_task(asked(one, path))
    await double.holding()
    fleet.server.ask("DEL", "bearer-proxy:{default}:turn")
    double.set(token_endpoint="up")
    assert await asked(two, path) == 200
    double.release()
    assert await asking == 200
    [line] = two.lines("token_outdated")
    assert (line["level"], line["generation"]) == ("warning", 2)


async def test_094_who_stood_still_takes_over_what_the_next_one_got(others: Fleet, clock: HeldClock) -> None:
    """What it got itself is told and dropped, and one token serves all."""
    async with others.proxies(2) as (one, two):
        assert (await asked(one, "/customers"), await asked(two, "/customers")) == (200, 200)
        clock.move(7200)
        await stood_still(others, one, two, "/customers")
        assert [(await state(each))["generation"] for each in (one, two)] == [2, 2]
        adopted = [line["generation"] for line in two.lines("token_adopted")]
        assert adopted == [1, 2]
    assert others.token_requests == {"login": 3}


async def test_094_a_refresh_token_that_somebody_may_have_redeemed_is_not_redeemed_again(
    fleet: Fleet, clock: HeldClock
) -> None:
    """No lease keeps a vendor from being asked late; the note beside the token does, where one can log in anew."""
    double = fleet.vendor.double
    async with fleet.proxies(2) as (one, two):
        assert (await asked(one), await asked(two)) == (200, 200)
        clock.move(3601)
        await stood_still(fleet, one, two, "/calls")
        assert double.refresh_reuses == 0
        [line] = two.lines("token_rotation_lost")
        assert (line["level"], line["anew"]) == ("warning", True)
        assert list(await asyncio.gather(asked(one), asked(two))) == [200, 200]
        assert len({(await state(each))["generation"] for each in (one, two)}) == 1
    assert fleet.token_requests == {"login": 2, "refresh": 1}


async def test_102_a_logout_elsewhere_is_no_lost_store(fleet: Fleet) -> None:
    """What was removed is used no more; what the server forgot may have been redeemed before, and is told."""
    async with fleet.proxy() as proxy:
        assert await asked(proxy) == 200
        fleet.server.ask("FLUSHALL")
        answer = await proxy.admin("POST", "/api/credentials/default/refresh")
        assert (answer.status, answer.json()["generation"]) == (200, 2)
        [lost], [undecided] = proxy.lines("stored_token_lost"), proxy.lines("token_rotation_lost")
        assert (lost["credential"], undecided["anew"]) == ("default", True)
        store = build.store(fleet.loaded(), clock=SystemClock())
        await store.forget("default")
        await store.close()
        answer = await proxy.admin("POST", "/api/credentials/default/refresh")
        assert (answer.status, answer.json()["generation"]) == (200, 3)
        assert [len(proxy.lines(f"{event}_lost")) for event in ("stored_token", "token_rotation")] == [1, 1]
    assert fleet.token_requests == {"login": 3}


# -- commands beside the proxies


@pytest.fixture
def written(server: RedisServer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration in a file, for a credential that a command may forget."""
    monkeypatch.setenv("STORE_KEY", key)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    credential = {"type": "oauth2", "grant": "device_code", "client_id": "tool", "issuer": "http://127.0.0.1:9"}
    store = {"kind": "redis", "url": server.url, "key": {"env": "STORE_KEY"}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"upstream": "http://127.0.0.1:9", "credential": credential, "store": store}))
    return str(path)


def test_102_logout_forgets_what_the_fleet_has(written: str, server: RedisServer) -> None:
    """All of them: the record's tag says that somebody removed it."""
    for _ in range(2):
        result = CliRunner().invoke(cli, ["logout", "-c", written])
        assert (result.exit_code, result.output) == (0, "nothing is stored for default\n")
    assert server.ask("HKEYS", "bearer-proxy:{default}:token") == [b"tag"]
    assert server.ask("EXISTS", "bearer-proxy:{default}:turn") == 0


@pytest.mark.parametrize("command", ["login", "logout"])
def test_a_command_says_that_the_server_is_away(written: str, server: RedisServer, command: str) -> None:
    """Before anybody is asked to log in."""
    server.stop()
    result = CliRunner().invoke(cli, [command, "-c", written])
    assert result.exit_code == 1
    assert f"The server {server.socket} (store.url) does not answer." in result.output
    assert "open this page" not in result.output


@pytest.mark.threat(53)
async def test_053_each_host_sends_its_own_identity(
    proxying: StartProxy,
    fleet_server: RedisServer,
    canaries: Canaries,
    tmp_path: Path,
    clock: HeldClock,
) -> None:
    """What a program prints, and what was got by that, is for this host: two with one configuration share none."""
    key = base64.b64encode(os.urandom(32)).decode()
    canaries.adopt(key, "key")
    login = tmp_path / "login"
    async with api() as upstream:
        store = {"kind": "redis", "url": fleet_server.url, "key": {"env": "STORE_KEY"}}
        credential = {"type": "exec", "command": ["cat", str(login)]}
        config = {"upstream": upstream.url, "credential": credential, "store": store}
        tokens = [canaries.mint("token"), canaries.mint("token")]
        async with AsyncExitStack() as stack:
            for token in tokens:
                login.write_text(token)
                proxy = await stack.enter_async_context(proxying(config, environ={"STORE_KEY": key}, clock=clock))
                assert (await proxy.ask("GET", "/")).status == 200
        assert [seen.all("authorization") for seen in upstream.seen] == [[f"Bearer {token}"] for token in tokens]
        login.unlink()
    assert fleet_server.ask("KEYS", "*") == []


HOSTS = {
    "program": {"type": "exec", "command": ["whoami"]},
    "machine": {"type": "metadata", "cloud": "gcp"},
    "pod": {"type": "file", "path": "/run/token"},
}
SERVER = {"type": "oauth2", "token_url": "https://a.example/t", "client_id": "x", "client_auth": "none"}


@pytest.mark.threat(53)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *((each, True) for each in HOSTS.values()),
        ({**SERVER, "grant": "client_credentials"}, False),
        ({**SERVER, "grant": "client_credentials", "extra": {"client_assertion": {"credential": "pod"}}}, True),
        ({**SERVER, "grant": "device_code", "device_url": "https://a.example/d"}, False),
        (
            {
                **SERVER,
                "grant": "device_code",
                "device_url": "https://a.example/d",
                "extra": {"client_assertion": {"credential": "pod"}},
            },
            False,
        ),
    ],
)
@pytest.mark.parametrize("kind", ["redis", "memory"])
def test_what_stays_with_a_host(given: dict[str, Any], kind: str, *, expected: bool) -> None:
    """Its own identity, and what stands on that, unless a person logged in for all; a store of one host has all."""
    store = {"kind": "redis", "url": "unix:///run/redis.sock", "key": {"env": "KEY"}} if kind == "redis" else {}
    route = {"prefix": "/", "upstream": "https://a.example", "credential": "default"}
    text = yaml.safe_dump({"routes": [route], "credentials": {**HOSTS, "default": given}, "store": store})
    environ = {"KEY": base64.b64encode(os.urandom(32)).decode()}
    config = load(Source(text, "test", None, "test"), environ=environ)
    assert stays_here("default", config) is (expected and kind == "redis")
