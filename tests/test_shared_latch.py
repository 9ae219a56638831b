"""One wrong password is one failed login: for a fleet, for the processes of a machine, over restarts (107)."""

import asyncio
import base64
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from aiohttp import web

from proxy.build.belonging import kin_of
from proxy.cli.common import state_folder
from proxy.config import Source, load
from proxy.credentials.barring import LOOK_SECONDS, Kin
from proxy.demo.teletracker import TeleTracker
from proxy.errors import ConfigError, StoreBusy, StoreUnavailable
from proxy.stores.latch import KEPT, Latch
from proxy.stores.local import LocalStore
from proxy.stores.redisclient import RedisClient, Server
from proxy.stores.redisrejections import RejectedOnServer
from proxy.stores.rejections import Home, RejectedFolder, Rejection
from proxy.stores.seal import Ring
from tests.support.api import Seen, api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.instances import Running
from tests.support.leaks import Canaries
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.sharing import Starting
from tests.support.vendors import Vendor
from tests.support.waiting import until

FINGERPRINT: Final = hashlib.sha256(b"wrong").digest()
OTHER: Final = hashlib.sha256(b"wrong as well").digest()
REASON: Final = "The token endpoint rejects the credential 'c'."
#: In all, and how often the proxy is started again.
REQUESTS: Final = 1000
RESTARTS: Final = 20


@dataclass
class Shelf:
    """What all share, in memory; it can be away."""

    away: bool = False
    kept: dict[str, tuple[Rejection, ...]] = field(default_factory=dict)

    async def read(self, name: str) -> tuple[Rejection, ...] | None:
        """All, unless it is away; None where nothing was ever put."""
        if self.away:
            raise StoreUnavailable("away")
        return self.kept.get(name)

    async def add(self, name: str, rejection: Rejection, instead: Collection[Rejection]) -> None:
        """At the end."""
        self.kept[name] = (*(each for each in await self.read(name) or () if each not in instead), rejection)

    async def remove(self, name: str, some: Collection[Rejection]) -> None:
        """Leave the rest."""
        self.kept[name] = tuple(
            each for each in await self.read(name) or () if each.salt not in {one.salt for one in some}
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, digests cost nothing."""
    monkeypatch.setattr("proxy.stores.latch._SCRYPT_N", 2)


@pytest.fixture
def shelf() -> Shelf:
    """Empty."""
    return Shelf()


# -- one latch, two places


async def test_what_one_host_was_told_every_host_knows(tmp_path: Path, shelf: Shelf) -> None:
    """And what one forgets is forgotten by all, also where they had it in mind."""
    one, two = Latch(tmp_path / "one", shared=shelf), Latch(tmp_path / "two", shared=shelf)
    assert await two.is_set("c", FINGERPRINT) is None
    await one.set("c", FINGERPRINT, REASON, 1.7e9)
    assert await two.is_set("c", FINGERPRINT) == REASON
    assert await two.is_set("c", OTHER) is None
    await two.clear("c", FINGERPRINT)
    assert await one.is_set("c", FINGERPRINT) is None
    assert await Latch(tmp_path / "one", shared=shelf).is_set("c", FINGERPRINT) is None
    shelf.away = True
    assert await Latch(tmp_path / "one", shared=shelf).is_set("c", FINGERPRINT) is None


async def test_while_the_store_is_away_each_host_knows_what_it_was_told_itself(
    tmp_path: Path, shelf: Shelf
) -> None:
    """Over its restarts; the others try once."""
    await Latch(tmp_path / "one", shared=shelf).set("c", FINGERPRINT, REASON, 1.7e9)
    shelf.away = True
    assert await Latch(tmp_path / "one", shared=shelf).is_set("c", FINGERPRINT) == REASON
    two = Latch(tmp_path / "two", shared=shelf)
    assert await two.is_set("c", FINGERPRINT) is None
    await two.set("c", OTHER, "the other", 1.7e9)
    shelf.away = False
    # It could not be told to all, so nobody else can have taken it back.
    assert await Latch(tmp_path / "two", shared=shelf).is_set("c", OTHER) == "the other"
    assert await Latch(tmp_path / "one", shared=shelf).is_set("c", OTHER) is None


async def test_what_was_cleared_here_while_the_store_was_away_does_not_come_back(
    tmp_path: Path, shelf: Shelf
) -> None:
    """Not in this process; and the next time it is cleared for all."""
    latch = Latch(tmp_path, shared=shelf)
    await latch.set("c", FINGERPRINT, REASON, 1.7e9)
    shelf.away = True
    await latch.clear("c", FINGERPRINT)
    assert await latch.is_set("c", FINGERPRINT) is None
    shelf.away = False
    assert await latch.is_set("c", FINGERPRINT) is None
    await latch.clear("c", FINGERPRINT)
    assert shelf.kept == {"c": ()}
    await latch.set("c", FINGERPRINT, REASON, 1.7e9)
    assert await latch.is_set("c", FINGERPRINT) == REASON


async def test_a_store_that_can_be_written_is_enough(
    tmp_path: Path, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told of a state folder that is not needed."""
    blocked = tmp_path / "file"
    blocked.touch()
    latch = Latch(blocked, shared=shelf)
    assert await latch.try_out() is None
    await latch.set("c", FINGERPRINT, REASON, 1.7e9)
    assert await Latch(blocked, shared=shelf).is_set("c", FINGERPRINT) == REASON
    assert caplog.records == []
    shelf.away = True
    await latch.set("c", OTHER, REASON, 1.7e9)
    assert await latch.is_set("c", OTHER) == REASON
    assert caplog.messages == ["state_not_kept"]


async def test_a_shared_folder_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    """A volume that is not mounted: what the state folder has a copy of counts."""
    (tmp_path / "tokens").mkdir()

    def latch() -> Latch:
        return Latch(tmp_path / "state", shared=RejectedFolder(tmp_path / "tokens" / "rejected"))

    await latch().set("c", FINGERPRINT, REASON, 1.7e9)
    (tmp_path / "tokens").rename(tmp_path / "elsewhere")
    assert await latch().is_set("c", FINGERPRINT) == REASON
    (tmp_path / "tokens").mkdir()
    assert await latch().is_set("c", FINGERPRINT) is None


async def test_as_many_rejections_are_kept_as_is_said(tmp_path: Path, shelf: Shelf) -> None:
    """In both places, and the newest."""
    latch = Latch(tmp_path, shared=shelf)
    for number in range(KEPT + 2):
        await latch.set("c", bytes([number]), f"reason {number}", 1.7e9)
    kept = [f"reason {number}" for number in range(2, KEPT + 2)]
    for shared in (shelf, None):
        fresh = Latch(tmp_path, shared=shared)
        found = [await fresh.is_set("c", bytes([number])) for number in range(KEPT + 2)]
        assert found == [None, None, *kept]


@pytest.mark.threat(107)
@pytest.mark.parametrize("is_lost", [False, True], ids=["away", "lost"])
async def test_107_who_knows_of_a_rejection_knows_it_while_the_store_cannot_say(
    tmp_path: Path, shelf: Shelf, *, is_lost: bool
) -> None:
    """It is away, or has lost its data; nobody tries, and what one clears then is cleared for all."""
    one, two = Latch(tmp_path / "one", shared=shelf), Latch(tmp_path / "two", shared=shelf)
    await one.set("c", FINGERPRINT, REASON, 1.7e9)
    for latch in (one, two):
        assert await latch.is_set("c", FINGERPRINT) == REASON
    if is_lost:
        shelf.kept.clear()
    shelf.away = not is_lost
    for latch in (one, two, one, two, Latch(tmp_path / "one", shared=shelf)):
        assert await latch.is_set("c", FINGERPRINT) == REASON
        assert await latch.is_set("d", FINGERPRINT) is None
    # Who has not heard of it cannot know it, and may clear it all the same.
    fresh = Latch(tmp_path / "three", shared=shelf)
    assert await fresh.is_set("c", FINGERPRINT) is None
    shelf.away = False
    await (fresh if is_lost else one).clear("c", FINGERPRINT)
    for latch in (two, fresh):
        assert await latch.is_set("c", FINGERPRINT) is None


@pytest.mark.threat(107)
async def test_107_a_state_folder_that_is_gone_clears_nothing(tmp_path: Path) -> None:
    """Where it is the only place, for a process that knows."""
    latch = Latch(tmp_path / "state")
    await latch.set("c", FINGERPRINT, REASON, 1.7e9)
    (tmp_path / "state").rename(tmp_path / "elsewhere")
    assert await latch.is_set("c", FINGERPRINT) == REASON
    await latch.clear("c", FINGERPRINT)
    assert await latch.is_set("c", FINGERPRINT) is None


@pytest.mark.threat(107)
@pytest.mark.parametrize("is_shared", [False, True], ids=["folder", "store"])
async def test_107_more_rejected_secrets_than_are_kept_are_not_tried_in_turn(
    tmp_path: Path, shelf: Shelf, *, is_shared: bool
) -> None:
    """A process for each; those that gave way to newer ones stay known to their own, till one is cleared."""
    latches = {
        bytes([number]): Latch(tmp_path / (str(number) if is_shared else ""), shared=shelf if is_shared else None)
        for number in range(KEPT + 2)
    }
    for fingerprint, latch in latches.items():
        await latch.set("c", fingerprint, REASON, 1.7e9)
    for _ in range(2):
        for fingerprint, latch in latches.items():
            assert await latch.is_set("c", fingerprint) == REASON
    first, *_, last = latches
    if is_shared:
        assert await Latch(tmp_path / "0", shared=shelf).is_set("c", first) == REASON
    await latches[first].clear("c", first)
    assert await latches[first].is_set("c", first) is None
    assert await latches[last].is_set("c", last) == REASON
    await latches[last].clear("c", last)
    found = [await latch.is_set("c", fingerprint) for fingerprint, latch in latches.items()]
    assert found == [None, None, *[REASON] * (KEPT - 1), None]


@needs_redis
async def test_on_a_server_rejections_are_sealed_for_one_credential(fleet_server: RedisServer) -> None:
    """Another key, or another name, finds none; nothing of them is legible."""
    client = RedisClient(Server(path=str(fleet_server.socket)))

    def home(key: bytes, of: str = "c") -> Home:
        return RejectedOnServer(client.call, Ring([key], random=lambda size: b"n" * size), lambda _name: of)

    one = Rejection("5a" * 16, "d1" * 32, REASON, 1.7e9)
    two = replace(one, salt="5b" * 16)
    try:
        assert await home(b"k" * 32).read("c") is None
        await home(b"k" * 32).add("c", one, ())
        await home(b"k" * 32).add("c", two, ())
        assert await home(b"k" * 32).read("c") == (one, two)
        for mark in (REASON, "5a5a", "d1d1"):
            assert mark not in fleet_server.everything()
        assert await home(b"x" * 32).read("c") is await home(b"k" * 32).read("d") is None
        fleet_server.ask(
            "SET", "c", Ring([b"k" * 32], random=lambda size: b"n" * size).seal(b"[5]", b"rejections of c")
        )
        assert await home(b"k" * 32).read("c") is None
        await home(b"k" * 32).add("c", one, ())
        await home(b"k" * 32).remove("c", (replace(one, shared=True),))
        # Sealed, so that it is told from lost data.
        assert await home(b"k" * 32).read("c") == ()
    finally:
        await client.close()


@needs_redis
async def test_on_a_server_no_write_undoes_one_that_came_meanwhile(fleet_server: RedisServer) -> None:
    """Of somebody who has lost the turn: both are there, and what was removed stays removed; it ends some time."""
    client = RedisClient(Server(path=str(fleet_server.socket)))
    one, two, three = (Rejection(mark * 16, "d1" * 32, REASON, 1.7e9) for mark in ("5a", "5b", "5c"))
    between: list[Callable[[], Awaitable[None]]] = []

    async def call(*words: str | bytes | int) -> Any:
        if words[0] == "EVAL" and between:
            await between.pop()()
        return await client.call(*words)

    def home(call: Callable[..., Awaitable[Any]]) -> Home:
        return RejectedOnServer(call, Ring([b"k" * 32], random=os.urandom), lambda name: name)

    here, there = home(call), home(client.call)
    try:
        between.append(lambda: there.add("c", one, ()))
        await here.add("c", two, ())
        assert await here.read("c") == (one, two)
        between.append(lambda: there.remove("c", (one,)))
        await here.add("c", three, ())
        assert await here.read("c") == (two, three)
        between.extend([lambda: there.add("c", one, (one,))] * 100)
        with pytest.raises(StoreBusy):
            await here.remove("c", (two,))
        assert await there.read("c") == (two, three, one)
    finally:
        await client.close()


# -- turns of a machine


def local(folder: Path, lock: str = "c.lock", patience: float = 20.0) -> LocalStore:
    """The store of one more process."""
    return LocalStore(folder, {"c": lock}, patience=patience)


async def test_processes_without_a_store_take_turns(tmp_path: Path) -> None:
    """One after the other with one server; at once with different ones, and where there is no lock for them."""
    first, second, other = local(tmp_path), local(tmp_path), local(tmp_path, "c-elsewhere.lock")
    entered = asyncio.Event()

    async def enter() -> None:
        async with second.turn("c"):
            entered.set()

    async with first.turn("c"):
        entering = asyncio.create_task(enter())
        async with other.turn("c"), second.turn("d"), first.turn("d"):
            assert not entered.is_set()
    await entering
    assert entered.is_set()


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "free"])
async def test_who_waits_no_more_keeps_no_lock(tmp_path: Path, *, is_held: bool) -> None:
    """Cancelled in the middle of an attempt, of one that succeeds, or between two."""
    first, second = local(tmp_path), local(tmp_path)

    def is_free() -> bool:
        with (tmp_path / "c.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    async def enter() -> None:
        async with second.turn("c"):
            raise AssertionError

    for turns in (1, 2, 5) if is_held else (1, 1, 1):
        async with first.turn("c") if is_held else nullcontext():
            entering = asyncio.create_task(enter())
            for _ in range(turns):
                await asyncio.sleep(0)
            entering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await entering
        await until((tmp_path / "c.lock").exists)
        await until(is_free)


async def test_a_turn_that_cannot_be_had_stops_nobody(tmp_path: Path) -> None:
    """Another one of this process or another process stands still, or the folder cannot be written."""
    blocked = tmp_path / "file"
    blocked.touch()
    async with asyncio.timeout(20):
        async with local(tmp_path).turn("c"), local(tmp_path, patience=0.05).turn("c"):
            pass
        both = local(tmp_path, patience=0.05)
        async with both.turn("c"):
            async with both.turn("c"):
                pass
            # Whoever goes on without the turn does not give away another's.
            assert both._turns["c"].locked()
        assert not both._turns["c"].locked()
        async with local(blocked).turn("c"), local(blocked).turn("c"):
            pass


# -- where the state is


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_STATE_HOME": "/x", "STATE_DIRECTORY": "/var/lib/a", "HOME": "/h"}, "/x/bearer-proxy"),
        ({"STATE_DIRECTORY": "/var/lib/a", "HOME": "/h"}, "/var/lib/a"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/"}, "/var/lib/a"),
        ({"STATE_DIRECTORY": "", "HOME": "/h"}, "/h/.local/state/bearer-proxy"),
    ],
)
def test_a_unit_of_systemd_has_its_state_where_the_unit_says(environ: Mapping[str, str], folder: str) -> None:
    """Unless somebody says otherwise; its HOME may be read-only."""
    assert state_folder(environ) == Path(folder)


def test_without_any_folder_for_state_that_is_an_error() -> None:
    """With what to set."""
    with pytest.raises(ConfigError, match="set one"):
        state_folder({"PATH": "/bin"})


async def test_a_state_folder_that_cannot_be_written_is_told_at_the_start(
    proxying: StartProxy, tracker: Vendor[TeleTracker], canaries: Canaries, tmp_path: Path, clock: HeldClock
) -> None:
    """Once, with what mends it; not where nothing would be kept there."""
    (tmp_path / "state").touch()
    wrong = {**tracker.environ, "TRACKER_PASSWORD": canaries.mint("password")}
    async with proxying(tracker.config, environ=wrong, clock=clock) as proxy:
        [line] = proxy.lines("state_not_kept")
        assert "cannot be written" in line["detail"]
        assert "StateDirectory=" in line["detail"]
        assert (await proxy.ask("GET", "/calls")).status == 502
        assert len(proxy.lines("state_not_kept")) == 1
    static = {"type": "static", "token": {"env": "TOKEN"}}
    config = {"upstream": tracker.url, "credential": static}
    async with proxying(config, environ={"TOKEN": canaries.mint("token")}, clock=clock) as proxy:
        assert proxy.lines("state_not_kept") == []


# -- as the vendor sees it


async def rejected(*some: Running) -> None:
    """All at once, and each of them is told that the password is wrong."""
    answers = await asyncio.gather(*(each.get() for each in some))
    assert [(each.status, each.code) for each in answers] == [(502, "credential_rejected")] * len(some)


@pytest.mark.slow
@pytest.mark.parametrize("store", [pytest.param("by_server", marks=needs_redis), "shared"])
async def test_107_many_hosts_with_a_store_cost_one_failed_login(
    request: pytest.FixtureRequest, store: str, tracker: Vendor[TeleTracker], starting: Starting, canaries: Canaries
) -> None:
    """Each has a state folder of its own, and all begin at once; one that is new later knows it too."""
    wrong = {"TRACKER_PASSWORD": canaries.mint("password")}
    async with starting(request.getfixturevalue(store)) as instances:
        hosts = await asyncio.gather(*(instances.start(also=None, **wrong) for _ in range(4)))
        await rejected(*hosts)
        await rejected(*hosts)
        await rejected(await instances.start(also=None, **wrong))
    assert tracker.double.token_requests == {"login": 1}


async def test_107_processes_with_one_state_folder_cost_one_failed_login(
    tracker: Vendor[TeleTracker], starting: Starting, canaries: Canaries, tmp_path: Path
) -> None:
    """They keep their tokens in memory, each its own."""
    wrong = {"TRACKER_PASSWORD": canaries.mint("password"), "XDG_STATE_HOME": str(tmp_path / "state")}
    async with starting(tracker.config) as instances:
        tracker.double.set(token_endpoint="slow")
        processes = await asyncio.gather(*(instances.start(also=None, **wrong) for _ in range(4)))
        asking = asyncio.create_task(rejected(*processes))
        await tracker.double.holding()
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        await asking
    assert tracker.double.token_requests == {"login": 1}


@pytest.mark.slow
async def test_107_a_unit_that_restarts_costs_one_failed_login(
    tracker: Vendor[TeleTracker], starting: Starting, canaries: Canaries, tmp_path: Path
) -> None:
    """It has no home that can be written, only what systemd gives it."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "home").touch()
    unit = {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": "", "STATE_DIRECTORY": str(tmp_path / "lib")}
    wrong = {"TRACKER_PASSWORD": canaries.mint("password")}
    async with starting(tracker.config) as instances:
        for _ in range(3):
            instance = await instances.start(also=None, **unit, **wrong)
            await rejected(instance)
            assert instance.all("state_not_kept") == []
            await instance.kill()
    assert tracker.double.token_requests == {"login": 1}


@pytest.mark.slow(seconds=60)
async def test_107_twenty_restarts_and_a_thousand_requests_cost_one_failed_login(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting, canaries: Canaries
) -> None:
    """Of processes, each on a host of its own, that die without a word."""
    wrong = {"TRACKER_PASSWORD": canaries.mint("password")}
    async with starting(shared) as instances:
        for _ in range(RESTARTS):
            instance = await instances.start(also=None, **wrong)
            await rejected(*[instance] * (REQUESTS // RESTARTS))
            await instance.kill()
    assert tracker.double.token_requests == {"login": 1}


async def test_107_a_password_that_was_changed_costs_one_failed_login(
    proxying: StartProxy, tracker: Vendor[TeleTracker], canaries: Canaries, tmp_path: Path, clock: HeldClock
) -> None:
    """What is stored is revoked with it, and is tried again; the login is not."""
    key = base64.b64encode(os.urandom(32)).decode()
    canaries.adopt(key, "key")
    environ = {**tracker.environ, "STORE_KEY": key}
    store = {"kind": "file", "path": str(tmp_path / "tokens"), "key": {"env": "STORE_KEY"}}
    config = {**tracker.config, "store": store}
    async with proxying(config, environ=environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
    tracker.double.revoke_refresh()
    tracker.double._account = replace(tracker.double._account, password="changed")
    for _ in range(3):
        clock.move(3601)
        async with proxying(config, environ=environ, clock=clock) as proxy:
            for _ in range(3):
                answer = await proxy.ask("GET", "/calls")
                assert (answer.status, answer.code) == (502, "credential_rejected")
                clock.move(400)
    assert tracker.double.token_requests["login"] == 2


@asynccontextmanager
async def one_logged_in_and_one_rejected(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> AsyncIterator[tuple[Proxy, Proxy]]:
    """Two processes: the first logged in, then the password was changed, and the second was rejected."""
    async with (
        proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy,
        proxying(tracker.config, environ=tracker.environ, clock=clock) as other,
    ):
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double._account = replace(tracker.double._account, password="changed")
        assert (await other.ask("GET", "/calls")).status == 502
        yield proxy, other


async def test_107_who_is_logged_in_goes_on_while_others_are_rejected(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Two processes with one state folder: the password was changed, and a session ends; nobody logs in again."""
    right = tracker.double._account
    async with one_logged_in_and_one_rejected(proxying, tracker, clock) as (proxy, other):
        clock.move(3601)
        tracker.double.revoke_refresh()
        answer = await proxy.ask("GET", "/calls")
        assert (answer.status, answer.code) == (502, "credential_rejected")
        assert tracker.double.token_requests == {"login": 2, "refresh": 1}
        tracker.double._account = right
        for each in (proxy, other):
            assert (await each.admin("POST", "/api/credentials/default/refresh")).status == 200
            assert (await each.ask("GET", "/calls")).status == 200


async def test_107_a_refresh_that_succeeds_proves_nothing_about_a_password(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """One process lives on its refresh token, and others begin again and again: one failed login."""
    async with one_logged_in_and_one_rejected(proxying, tracker, clock) as (proxy, _other):
        for _ in range(5):
            clock.move(3601)
            assert (await proxy.ask("GET", "/calls")).status == 200
            async with proxying(tracker.config, environ=tracker.environ, clock=clock) as another:
                assert (await another.ask("GET", "/calls")).code == "credential_rejected"
    assert tracker.double.token_requests == {"login": 2, "refresh": 5}


@pytest.mark.threat(107)
async def test_107_who_was_rejected_notices_that_somebody_tries_again(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Two processes without a store are rejected; one is refreshed by hand, and serves: so does the other."""
    right = tracker.double._account
    async with (
        one_logged_in_and_one_rejected(proxying, tracker, clock) as (_logged_in, one),
        proxying(tracker.config, environ=tracker.environ, clock=clock) as other,
    ):
        assert (await other.ask("GET", "/calls")).code == "credential_rejected"
        tracker.double._account = right
        for _ in range(3):
            clock.move(LOOK_SECONDS)
            assert (await other.ask("GET", "/calls")).code == "credential_rejected"
        assert (await one.admin("POST", "/api/credentials/default/refresh")).status == 200
        assert (await other.ask("GET", "/calls")).code == "credential_rejected"
        clock.move(LOOK_SECONDS)
        assert (await other.ask("GET", "/calls")).status == 200
    assert tracker.double.token_requests == {"login": 4}


@pytest.mark.threat(107)
async def test_107_what_is_renewed_by_the_access_token_goes_on_while_others_are_rejected(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """As at Vault: the password was changed, and the token of before is prolonged; nobody logs in again."""
    password, seen, good = canaries.mint("password"), list[str](), set[str]()

    async def answer(got: Seen) -> web.StreamResponse:
        given = json.loads(got.body) if got.body else {}
        seen.append(got.target)
        if got.target == "/api":
            return web.Response(status=200 if got.all("authorization")[0].removeprefix("Bearer ") in good else 401)
        if given.get("password") != password and given.get("t") not in good:
            return web.Response(status=401)
        good.add(made := canaries.mint("token"))
        return web.json_response({"t": made, "l": 60})

    async with api(answer) as served:
        config = {
            "upstream": served.url,
            "credential": {
                "type": "login",
                "login": {"url": f"{served.url}/login", "encoding": "json", "fields": {"password": {"env": "PW"}}},
                "refresh": {"url": f"{served.url}/renew", "encoding": "json", "fields": {"t": "$access_token"}},
                "response": {"token": "/t", "lifetime": "/l"},
            },
        }
        environ = {"PW": password}
        async with (
            proxying(config, environ=environ, clock=clock) as proxy,
            proxying(config, environ=environ, clock=clock) as other,
        ):
            assert (await proxy.ask("GET", "/api")).status == 200
            password = "changed"
            assert (await other.ask("GET", "/api")).code == "credential_rejected"
            for _ in range(3):
                clock.move(61)
                assert (await proxy.ask("GET", "/api")).status == 200
            assert seen.count("/login") == 2
            assert seen.count("/renew") == 3
            good.clear()
            clock.move(61)
            assert (await proxy.ask("GET", "/api")).code == "credential_rejected"
            assert seen.count("/login") == 2


@needs_redis
@pytest.mark.threat(107)
async def test_107_a_server_that_goes_away_and_comes_back_empty_costs_no_further_failed_login(
    fleet_server: RedisServer,
    proxying: StartProxy,
    tracker: Vendor[TeleTracker],
    canaries: Canaries,
    clock: HeldClock,
) -> None:
    """Two hosts that have no copy of their own; then one is refreshed by hand, and the other serves, too."""
    (fleet_server.folder.parent / "state").touch()
    environ = {**tracker.environ, "STORE_KEY": base64.b64encode(os.urandom(32)).decode()}
    canaries.adopt(environ["STORE_KEY"], "key")
    store = {"kind": "redis", "url": fleet_server.url, "key": {"env": "STORE_KEY"}}
    config = {**tracker.config, "store": store}
    async with (
        proxying(config, environ=environ, clock=clock) as one,
        proxying(config, environ=environ, clock=clock) as other,
    ):
        right = tracker.double._account
        tracker.double._account = replace(right, password="changed")
        for change in (None, fleet_server.stop, fleet_server.start):
            if change is not None:
                change()
            for _ in range(2):
                for each in (one, other):
                    assert (await each.ask("GET", "/calls")).code == "credential_rejected"
                clock.move(LOOK_SECONDS)
        assert tracker.double.token_requests == {"login": 1}
        tracker.double._account = right
        assert (await one.admin("POST", "/api/credentials/default/refresh")).status == 200
        for each in (one, other):
            assert (await each.ask("GET", "/calls")).status == 200


# -- one user under several names


def alike(tracker: Vendor[TeleTracker], *accounts: int) -> dict[str, Any]:
    """A credential and a route for each account of one user."""
    names = [f"c{number}" for number in range(len(accounts))]
    return {
        "routes": [{"prefix": f"/{name}", "upstream": tracker.url, "credential": name} for name in names],
        "credentials": {
            name: {**tracker.credential, "account_id": account}
            for name, account in zip(names, accounts, strict=True)
        },
    }


async def all_asked(*proxies: Proxy) -> list[tuple[int, str]]:
    """Every credential of each, all at once, and of every other one in another order."""
    asking = [
        proxy.ask("GET", f"/c{number}/calls")
        for place, proxy in enumerate(proxies)
        for number in sorted(range(4), reverse=place % 2 == 1)
    ]
    answers = await asyncio.gather(*asking)
    return [(each.status, each.code) for each in answers]


@pytest.mark.threat(107)
async def test_107_one_wrong_password_under_many_names_costs_one_failed_login(
    proxying: StartProxy, tracker: Vendor[TeleTracker], canaries: Canaries, clock: HeldClock
) -> None:
    """One user with four accounts, in two processes, all at once; then a restart."""
    wrong = {**tracker.environ, "TRACKER_PASSWORD": canaries.mint("password")}
    config = alike(tracker, 4711, 4712, 4713, 4714)
    async with (
        proxying(config, environ=wrong, clock=clock) as proxy,
        proxying(config, environ=wrong, clock=clock) as other,
    ):
        assert await all_asked(proxy, other) == [(502, "credential_rejected")] * 8
    async with proxying(config, environ=wrong, clock=clock) as proxy:
        assert await all_asked(proxy) == [(502, "credential_rejected")] * 4
        reasons = [line["detail"] for line in proxy.lines("credential_rejected")]
    assert tracker.double.token_requests == {"login": 1}
    assert reasons == []


@pytest.mark.threat(107)
async def test_107_whoever_is_corrected_or_asked_for_is_tried(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """It was one account's fault: the others are tried when somebody says so, and go on when that one is right."""
    wrong = alike(tracker, 1, 4712, 4711, 4712)
    async with proxying(wrong, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/c0/calls")).code == "credential_rejected"
        answer = await proxy.ask("GET", "/c1/calls")
        assert answer.code == "credential_rejected"
        assert "'c1' logs in as 'c0' does" in answer.body.decode()
        assert (await proxy.admin("POST", "/api/credentials/c1/refresh")).status == 200
        assert (await proxy.ask("GET", "/c1/calls")).status == 200
        assert (await proxy.ask("GET", "/c2/calls")).code == "credential_rejected"
    async with proxying(alike(tracker, 4711, 4712, 4711, 4712), environ=tracker.environ, clock=clock) as proxy:
        assert [status for status, _ in await all_asked(proxy)] == [200] * 4


@pytest.mark.threat(107)
async def test_107_who_was_not_tried_is_not_rejected_for_good(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Its session ended while another one of the same user was at fault: that one is corrected, and both serve."""
    async with proxying(alike(tracker, 1, 4711), environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/c1/calls")).status == 200
        assert (await proxy.ask("GET", "/c0/calls")).code == "credential_rejected"
        tracker.double.revoke_refresh()
        clock.move(3601)
        answer = await proxy.ask("GET", "/c1/calls")
        assert answer.code == "credential_rejected"
        assert "'c1' logs in as 'c0' does" in answer.body.decode()
        assert tracker.double.token_requests == {"login": 2, "refresh": 1}
    async with proxying(alike(tracker, 4712, 4711), environ=tracker.environ, clock=clock) as proxy:
        for name in ("c0", "c1"):
            assert (await proxy.ask("GET", f"/{name}/calls")).status == 200


def kin(*fields: dict[str, Any], **more: Any) -> Kin | None:
    """Those of the first of credentials that log in with these fields."""
    given = {
        f"c{number}": {"type": "login", "login": {"url": "https://a.example/login", "fields": each}, **more}
        for number, each in enumerate(fields)
    }
    route = {"prefix": "/", "upstream": "https://a.example", "credential": "c0"}
    text = yaml.safe_dump({"routes": [route], "credentials": given})
    config = load(Source(text, "test", None, "test"), environ={"A": "cNrY-0123456789", "B": "cNrY-9876543210"})
    return kin_of("c0", config)


PASSWORD: Final = {"password": {"env": "A"}}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (PASSWORD, PASSWORD, True),
        ({**PASSWORD, "account": 1}, {**PASSWORD, "account": 2}, True),
        ({**PASSWORD, "user": {"env": "B"}}, {**PASSWORD, "user": {"env": "B"}, "account": 2}, True),
        ({**PASSWORD, "user": "ann"}, {**PASSWORD, "user": "bob"}, False),
        (PASSWORD, {"password": {"env": "B"}}, False),
    ],
)
def test_who_logs_in_with_the_same_texts_and_secrets_is_one_user(
    one: dict[str, Any], other: dict[str, Any], *, expected: bool
) -> None:
    """Numbers say which account; where steps follow, a rejection may be one of those."""
    found = kin(one, other)
    assert (found is not None) is expected
    assert found is None or (found.turn, list(found.others)) == ("~c0", ["c1"])
    after = kin(one, other, then=[{"url": "https://a.example/then", "fields": {"id": 1}}])
    assert (after is not None) is (one == other)
