"""A process that stands still in the middle of a refresh: no refresh token is used twice, and what is lost is told.

Those who share a folder wait: the kernel keeps the lock of whoever stands still. Those who share a server go on
when the lease has run out, and whoever goes on late finds that out (docs/adr/0011-a-store-for-a-fleet.md).
"""

import asyncio
from typing import Any, Final

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.client import Answer
from tests.support.instances import FAILING, ROOT, Fleet, Running
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.sharing import Starting
from tests.support.vendors import Vendor

pytestmark = pytest.mark.slow

IN_FLIGHT: Final = "in the token request"
#: Nobody can know then whether the refresh token was redeemed.
UNDECIDED: Final = ["after the note", IN_FLIGHT, "after the answer"]
POINTS: Final = ["before the note", *UNDECIDED, "after the record"]
#: With them there are eight, as in test_instances.py.
CROWD: Final = 5
EXPIRIES: Final = 3
#: So long a request to one of the others waits for a token.
SHORT: Final = {"timeouts": {"token": "1s"}}
TURN: Final = "bearer-proxy:{default}:turn"


class Standstill:
    """One of `instances` stands still at `point` of a refresh; `old` had the same token, `new` has none yet."""

    def __init__(self, instances: Fleet, double: TeleTracker, point: str) -> None:
        self._instances = instances
        self._double = double
        self._point = point
        self.still: Running
        self.old: Running
        self.new: Running
        self.others: list[Running] = []
        self._asking: asyncio.Task[Answer]

    async def begin(self, crowd: int = 0) -> None:
        """Start all of them, and `crowd` more; let it come that far, for a client that waits."""
        asked, double = self._instances.asked, self._double
        path = f"{FAILING}:{ROOT}"
        self.still = await self._instances.start(FAIL_AT=self._point, FAIL_BY="SIGSTOP", PYTHONPATH=path)
        # One after another: the points count from its own first token on.
        assert await asked(self.still) == [200]
        self.old = await self._instances.start(also=SHORT)
        assert await asked(self.old) == [200]
        more = await asyncio.gather(*(self._instances.start(also=SHORT) for _ in range(crowd)))
        assert await asked(self.old, *more) == [200] * (1 + crowd)
        self.new = await self._instances.start(also=SHORT)
        self.others = [self.old, self.new, *more]
        double.expire()
        double.set(token_endpoint="slow" if self._point == IN_FLIGHT else "up")
        self._asking = asyncio.create_task(self.still.get())
        if self._point == IN_FLIGHT:
            await double.holding()
            await self.still.stop()
        else:
            await self.still.stopped()
        # What is held stays so.
        double.set(token_endpoint="up")

    async def end(self) -> Answer:
        """Let it go on, and give what its client gets."""
        self._double.release()
        self.still.go_on()
        return await self._asking

    async def end_late(self) -> None:
        """Let it go on; its client has left long ago."""
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)
        self._double.release()
        self.still.go_on()

    async def assert_all_have_one_token(self) -> None:
        """All are served with the same one, and nobody had to be locked out for it."""
        everybody = [self.still, *self.others]
        assert [await served(each) for each in everybody] == [200] * len(everybody)
        assert await self._instances.asked() == [200] * len(everybody)
        taken = [entry.generation for entry in self._double.journal if entry.grant is None and entry.status == 200]
        assert len(set(taken[-len(everybody) :])) == 1
        assert self._double.refresh_reuses == 0

    async def storm(self) -> None:
        """Some expiries more: one token request each, however many ask."""
        before = dict(self._double.token_requests)
        for _ in range(EXPIRIES):
            self._double.expire()
            await self.assert_all_have_one_token()
        assert self._double.token_requests == before | {"refresh": before["refresh"] + EXPIRIES}


async def served(instance: Running) -> int:
    """The status of one request; until the pause after a failure is over, an instance may refuse it."""
    async with asyncio.timeout(30):
        while (answer := await instance.get()).status in {401, 503}:
            pass
    return answer.status


@pytest.mark.parametrize("point", POINTS)
async def test_093_whoever_stands_still_with_a_folder_is_waited_for(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting, point: str
) -> None:
    """Nobody asks for a token meanwhile; all are served when it goes on."""
    async with starting(shared) as instances:
        case = Standstill(instances, tracker.double, point)
        await case.begin()
        before = sum(tracker.double.token_requests.values())
        waited = await case.new.get()
        assert (waited.status, waited.code) == (503, "credential_unavailable")
        if point != "after the record":
            # The upstream's own refusal, since there is no other token.
            assert await instances.asked(case.old) == [401]
        assert sum(tracker.double.token_requests.values()) == before
        assert (await case.end()).status == 200
        await case.assert_all_have_one_token()
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}


@pytest.mark.slow(seconds=35)
@pytest.mark.threat(93)
async def test_093_whoever_stands_still_longer_than_others_wait_is_reported(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """They say that the store cannot be used, and ask for nothing; they go on when it does."""
    async with starting(shared) as instances:
        case = Standstill(instances, tracker.double, "after the answer")
        await case.begin()
        assert await instances.asked(*case.others) == [401, 503]
        for each in case.others:
            line = await each.event("token_refresh_failed")
            assert line["error"] == "store_unavailable"
        refused = await case.new.get()
        # In the pause before it tries again it reads what is stored, which the upstream refuses; else it waits.
        assert refused.status == 401 or refused.code == "credential_unavailable"
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        await case.end_late()
        await case.assert_all_have_one_token()
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}


async def test_093_seven_wait_for_one_that_stands_still_with_a_folder(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """Whatever they do meanwhile; and all of them go on together."""
    async with starting(shared) as instances:
        case = Standstill(instances, tracker.double, IN_FLIGHT)
        await case.begin(CROWD)
        for _ in range(EXPIRIES):
            answers = await asyncio.gather(*(each.get() for each in case.others))
            assert {answer.status for answer in answers} <= {401, 503}
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        assert (await case.end()).status == 200
        await case.assert_all_have_one_token()
        await case.storm()
    assert tracker.double.token_requests == {"login": 1, "refresh": 1 + EXPIRIES}


async def assert_told(case: Standstill, tracker: Vendor[TeleTracker], point: str) -> None:
    """What was lost is in the logs, and cost a login; where nothing was lost, neither."""
    lost = [line for each in case.others for line in each.all("token_rotation_lost")]
    assert len(lost) == (1 if point in UNDECIDED else 0)
    logins = 2 if point in UNDECIDED else 1
    assert tracker.double.token_requests == {"login": logins, "refresh": 1}


@needs_redis
@pytest.mark.parametrize("point", POINTS)
async def test_094_whoever_stands_still_with_a_server_is_not_waited_for(
    by_server: dict[str, Any],
    fleet_server: RedisServer,
    tracker: Vendor[TeleTracker],
    starting: Starting,
    point: str,
) -> None:
    """When its turn is over, others are served; what it does late changes nothing that they have."""
    async with starting(by_server) as instances:
        case = Standstill(instances, tracker.double, point)
        await case.begin()
        assert fleet_server.ask("DEL", TURN) == 1
        assert [await served(each) for each in case.others] == [200, 200]
        assert (await case.end()).status == 200
        if point in UNDECIDED:
            assert (await case.still.event("token_outdated"))["level"] == "warning"
        await case.assert_all_have_one_token()
    await assert_told(case, tracker, point)


@needs_redis
async def test_094_seven_go_on_without_one_that_stands_still_with_a_server(
    by_server: dict[str, Any], fleet_server: RedisServer, tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """One of them logs in, and tells why; the one that was left behind comes back into the fold."""
    async with starting(by_server) as instances:
        case = Standstill(instances, tracker.double, IN_FLIGHT)
        await case.begin(CROWD)
        assert fleet_server.ask("DEL", TURN) == 1
        assert await asyncio.gather(*map(served, case.others)) == [200] * len(case.others)
        assert (await case.end()).status == 200
        await case.assert_all_have_one_token()
        await assert_told(case, tracker, IN_FLIGHT)
        await case.storm()
    assert tracker.double.token_requests == {"login": 2, "refresh": 1 + EXPIRIES}


@needs_redis
@pytest.mark.slow(seconds=35)
@pytest.mark.parametrize("point", ["before the note", IN_FLIGHT])
async def test_094_whoever_stands_still_longer_than_the_lease_is_not_waited_for(
    by_server: dict[str, Any],
    fleet_server: RedisServer,
    tracker: Vendor[TeleTracker],
    starting: Starting,
    point: str,
) -> None:
    """The same with the true lease, which runs out while others wait for it."""
    async with starting(by_server) as instances:
        case = Standstill(instances, tracker.double, point)
        await case.begin()
        assert await instances.asked(*case.others) == [401, 503]
        assert fleet_server.ask("EXISTS", TURN) == 1
        # Who has no token takes over the stored one first, and learns by its own request that it is refused.
        assert [await served(each) for each in case.others] == [200, 200]
        await case.end_late()
        await case.assert_all_have_one_token()
    await assert_told(case, tracker, point)
