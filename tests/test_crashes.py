"""Processes that are killed in the middle of a refresh: the store always opens, and nobody is locked out.

What a kill can cost is the one rotation in flight, and that is told. A credential that can begin anew then logs in
by itself, once; for one that needs a person the refresh token is tried all the same, which costs that person a
login where the vendor had taken it already.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from proxy.build.opened import resting
from proxy.config import Source, load
from proxy.credentials.interactive import LoggedIn, keep
from proxy.demo.teletracker import TeleTracker
from proxy.grants.request import Granted
from proxy.redact import Secret
from tests.support.api import api
from tests.support.instances import FAILING, ROOT, Fleet, Running, fleet
from tests.support.leaks import Artefacts, Canaries
from tests.support.longer import TIMES
from tests.support.redisserver import needs_redis
from tests.support.strict import LIFETIME, Strict
from tests.support.vendors import Vendor
from tests.support.waiting import until

REACHED: Final = 77
#: What dies there has noted that it redeems; has it?
UNDECIDED: Final = {"after the note": False, "after the answer": True, "before the rename": True}
POINTS: Final = ["before the note", *UNDECIDED, "after the rename", "after the record"]
#: A server renames no files.
SERVED: Final = [point for point in POINTS if "rename" not in point]
TURN: Final = "bearer-proxy:{default}:turn"


@dataclass
class Account:
    """A credential at a vendor with strict rotation, and what the vendor saw. `log_in` is what a person does."""

    config: Mapping[str, Any]
    environ: Mapping[str, str]
    needs_person: bool
    expire: Callable[[], object]
    logins: Callable[[], int]
    redemptions: Callable[[], int]
    reuses: Callable[[], int]
    #: The turn of somebody dead is over: nobody has to wait until the lease runs out.
    bury: Callable[[], object]
    log_in: Callable[[], Any]


def _robot(tracker: Vendor[TeleTracker], config: Mapping[str, Any], bury: Callable[[], object]) -> Account:
    double = tracker.double

    async def log_in() -> None:
        """It does so by itself."""

    return Account(
        config,
        tracker.environ,
        needs_person=False,
        expire=double.expire,
        logins=lambda: double.token_requests["login"],
        redemptions=lambda: double.token_requests["refresh"],
        reuses=lambda: double.refresh_reuses,
        bury=bury,
        log_in=log_in,
    )


def _person(vendor: Strict, url: str, store: Mapping[str, Any], bury: Callable[[], object]) -> Account:
    credential = {
        "type": "oauth2",
        "grant": "authorization_code",
        "client_id": "tool",
        "client_auth": "none",
        "token_url": f"{url}/token",
        "authorization_url": f"{url}/login",
    }
    config = {"upstream": url, "credential": credential, "store": dict(store)}
    logins: list[str] = []

    async def log_in() -> None:
        """What the command does with what the vendor gives to a person."""
        logins.append(vendor.begin())
        kept, binding = resting(load(Source(yaml.safe_dump(config), "text", None, "test"), environ={}), "default")
        granted = Granted(Secret(vendor.issue()), Secret(logins[-1]), LIFETIME)
        try:
            await keep(kept, "default", binding, LoggedIn(granted, time.time()))
        finally:
            await kept.close()

    return Account(
        config,
        {},
        needs_person=True,
        expire=vendor.expire,
        logins=lambda: len(logins),
        redemptions=lambda: len(vendor.seen),
        reuses=lambda: vendor.reuses,
        bury=bury,
        log_in=log_in,
    )


Opening = Callable[[str, str], Any]


@pytest.fixture
def opening(
    request: pytest.FixtureRequest,
    tracker: Vendor[TeleTracker],
    canaries: Canaries,
    tmp_path: Path,
    artefacts: Artefacts,
) -> Opening:
    """`opening(store, who)`: an account with nothing stored but a login, and processes for it."""

    @asynccontextmanager
    async def opened(store: str, who: str) -> AsyncIterator[tuple[Account, Fleet]]:
        config = request.getfixturevalue({"file": "shared", "redis": "by_server"}[store])
        server = request.getfixturevalue("fleet_server") if store == "redis" else None

        def bury() -> None:
            if server is not None:
                server.ask("DEL", TURN)

        vendor = Strict(canaries)
        async with api(vendor.answer) as served:
            account = (
                _robot(tracker, config, bury)
                if who == "robot"
                else _person(vendor, served.url, config["store"], bury)
            )
            async with fleet(tmp_path, account.config, account.environ, artefacts) as instances:
                await account.log_in()
                yield account, instances

    return opened


def told(*some: Running) -> list[bool]:
    """What they logged of rotations that may be lost: did they begin anew?"""
    return [line["anew"] for each in some for line in each.all("token_rotation_lost")]


def _cases() -> list[Any]:
    others = [("file", "person", POINTS), ("redis", "robot", SERVED), ("redis", "person", SERVED)]
    found = [pytest.param("file", "robot", point, id=f"file-robot-{point}") for point in POINTS]
    for store, who, points in others:
        marks = [pytest.mark.slow, *([needs_redis] if store == "redis" else [])]
        found += [pytest.param(store, who, point, id=f"{store}-{who}-{point}", marks=marks) for point in points]
    return found


@pytest.mark.parametrize(("store", "who", "point"), _cases())
@pytest.mark.threat(90, 128)
async def test_090_whoever_dies_at_a_point_of_a_refresh_leaves_a_store_that_serves(
    opening: Opening, store: str, who: str, point: str
) -> None:
    """At most the one rotation in flight is lost; then the next process logs in by itself, or says who must."""
    async with opening(store, who) as (account, instances):
        dying = await instances.start(FAIL_AT=point, PYTHONPATH=f"{FAILING}:{ROOT}")
        assert (await dying.get()).status == 200
        account.expire()
        asking = asyncio.create_task(dying.get())
        assert await dying.process.wait() == REACHED
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        account.bury()
        heir = await instances.start()
        is_spent = account.needs_person and UNDECIDED.get(point, False)
        # The upstream's own refusal, where nobody is there to log in.
        assert (await heir.get()).status == (401 if is_spent else 200)
        # Then its log is read to the end.
        await heir.kill()
        assert heir.all("stored_token_unusable") == []
        assert told(heir) == ([not account.needs_person] if point in UNDECIDED else [])
        assert (len(heir.all("login_required")), account.reuses()) == (int(is_spent), int(is_spent))
        assert account.logins() == (2 if point in UNDECIDED and not account.needs_person else 1)
        if is_spent:
            await account.log_in()
            assert (await (await instances.start()).get()).status == 200


KILLS: Final = {("file", "robot"): 50, ("file", "person"): 12, ("redis", "robot"): 12, ("redis", "person"): 12}


async def killed(account: Account, instance: Running, draw: random.Random, *, behind: bool) -> None:
    """Kill it at a moment of a refresh: some time after a client asked, or (`behind`) the vendor was.

    With the second it is sure to be one that counts.
    """
    before = account.redemptions()
    account.expire()
    asking = asyncio.create_task(instance.get())
    if behind:
        await until(lambda: account.redemptions() > before)
    with pytest.raises(TimeoutError):
        # The moment is what is tested.
        await asyncio.wait_for(asyncio.Event().wait(), draw.uniform(0.0, 0.01 if behind else 0.04))
    await instance.kill()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    account.bury()


@pytest.mark.threat(90)
@pytest.mark.slow(seconds=55)
@pytest.mark.parametrize(
    ("store", "who"), [pytest.param(*pair, marks=[needs_redis] if "redis" in pair else []) for pair in KILLS]
)
async def test_090_kills_at_random_moments_cost_at_most_a_login_each(
    opening: Opening, store: str, who: str
) -> None:
    """And each of those is told. The moments are drawn from a seed, so that a failure can be looked at again."""
    draw = random.Random(f"90 {store} {who}")  # noqa: S311  moments, no secrets
    async with opening(store, who) as (account, instances):
        ended = 0
        for number in range(KILLS[store, who] * TIMES + 1):
            instance = await instances.start()
            status = (await instance.get()).status
            if status != 200:
                # A person's login has ended: one of which it is told that the rotation may be lost.
                await instance.kill()
                assert account.needs_person
                assert (status, len(instance.all("login_required")), told(instance)) == (401, 1, [False])
                ended += 1
                await account.log_in()
                instance = await instances.start()
                assert (await instance.get()).status == 200
            await killed(account, instance, draw, behind=number % 2 == 0)
        last = await instances.start()
        ended += (await last.get()).status == 401
        await last.kill()
        assert [line for each in instances.running for line in each.all("stored_token_unusable")] == []
        lost = told(*instances.running)
        # A dozen may all miss the moment in which a rotation can be lost.
        assert lost or KILLS[store, who] * TIMES < 50
        assert len(lost) <= account.redemptions()
        if account.needs_person:
            assert ended == account.reuses() <= len(lost)
        else:
            assert (ended, account.reuses(), account.logins()) == (0, 0, 1 + len(lost))
