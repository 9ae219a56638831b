"""A fleet on a network of its own, three machines and one server: whoever is cut off and comes back is served."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.instances import Fleet, Running
from tests.support.leaks import Artefacts
from tests.support.namespaces import Machine, Network, network, why_not
from tests.support.redisserver import RedisServer, needs_redis, serving
from tests.support.sharing import Starting
from tests.support.vendors import Vendor

#: To begin and to end takes longer than the rest of it.
pytestmark = [needs_redis, pytest.mark.slow]

MACHINES: Final = 3
PORT: Final = "6379"
TURN: Final = "bearer-proxy:{default}:turn"
#: Seconds that a token lives while one of them is cut off: longer than it takes to cut it off.
LIFETIME: Final = 5
LONG: Final = 3600


@pytest.fixture(scope="module")
def possible() -> None:
    """Skips where there can be no such network."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def lan(possible: None) -> Iterator[Network]:  # noqa: ARG001  it is asked for so that it skips
    """Three machines and what they share."""
    with network(MACHINES) as made:
        yield made


@pytest.fixture
def server(lan: Network, tmp_path: Path, artefacts: Artefacts) -> Iterator[RedisServer]:
    """On the network; the test looks inside by way of a path."""
    folder = tmp_path / "redis"
    folder.mkdir()
    options = ("--port", PORT, "--bind", lan.store, "--protected-mode", "no")
    with serving(folder, *options, inside=lan.inside) as made:
        yield made
        artefacts.add("redis", made.everything())


@pytest.fixture
async def instances(
    lan: Network,
    server: RedisServer,  # noqa: ARG001  they reach it by its address
    tracker: Vendor[TeleTracker],
    store_key: Path,
    starting: Starting,
) -> AsyncIterator[Fleet]:
    """One on each machine, none of which has asked for anything."""
    store = {"kind": "redis", "url": f"redis://{lan.store}:{PORT}", "key": {"file": str(store_key)}}
    async with lan.serving(tracker.double) as url:
        credential = {**tracker.credential, "base_url": url, "insecure_http": True}
        config = {"upstream": url, "insecure_http": True, "credential": credential, "store": store}
        async with starting(config) as made:
            for each in lan.machines:
                await made.start(*each.inside)
            yield made


async def served(instance: Running) -> None:
    """It serves again, as soon as it finds out that it can."""
    async with asyncio.timeout(30):
        while (await instance.get()).status != 200:
            pass


async def assert_all_have_one_token(instances: Fleet, double: TeleTracker) -> None:
    """All are served, with the same one."""
    assert await instances.asked() == [200] * MACHINES
    taken = [entry.generation for entry in double.journal if entry.grant is None and entry.status == 200]
    assert len(set(taken[-MACHINES:])) == 1
    assert double.refresh_reuses == 0


@asynccontextmanager
async def cut(machine: Machine, what: str, lan: Network) -> AsyncIterator[None]:
    """For the block it reaches nothing, or not the server of the store."""
    if what == "everything":
        machine.cut()
    else:
        machine.forget(lan.store)
    yield
    if what == "everything":
        machine.let_back()
    else:
        machine.remember(lan.store)


@pytest.mark.parametrize("what", ["everything", "the store"])
async def test_whoever_is_cut_off_redeems_nothing_and_is_served_again(
    lan: Network, instances: Fleet, tracker: Vendor[TeleTracker], what: str
) -> None:
    """The others refresh and are served; it says why it cannot, and has what they have as soon as it is back."""
    double = tracker.double
    double.set(lifetime=LIFETIME)
    *others, lost = instances.running
    assert await instances.asked() == [200] * MACHINES
    got = len(lost.all("token_refreshed"))
    async with cut(lan.machines[-1], what, lan):
        line = await lost.event("token_refresh_failed")
        assert line["error"] == "store_unavailable"
        async with asyncio.timeout(30):
            while (answer := await lost.get()).status == 200:
                pass
        assert (answer.status, answer.code) == (503, "store_unavailable")
        for each in others:
            await each.has(2)
        assert await instances.asked(*others) == [200] * len(others)
        assert len(lost.all("token_refreshed")) == got
        double.set(lifetime=LONG)
    await served(lost)
    # One more for all, whose end nobody meets here. Somebody may be refreshing at this very moment.
    double.expire()
    for each in instances.running:
        await served(each)
    await assert_all_have_one_token(instances, double)
    assert double.token_requests["login"] == 1


async def test_whoever_is_cut_off_in_its_token_request_locks_nobody_out(
    lan: Network, server: RedisServer, instances: Fleet, tracker: Vendor[TeleTracker]
) -> None:
    """The others see its note and log in anew; the answer that reaches it late changes nothing that they have."""
    double = tracker.double
    *others, lost = instances.running
    assert await instances.asked() == [200] * MACHINES
    double.set(token_endpoint="slow")
    double.expire()
    asking = asyncio.create_task(lost.get())
    await double.holding()
    double.set(token_endpoint="up")
    async with cut(lan.machines[-1], "everything", lan):
        assert server.ask("DEL", TURN) == 1
        assert await instances.asked(*others) == [200] * len(others)
        assert sum(len(each.all("token_rotation_lost")) for each in others) == 1
        double.release()
    assert (await asking).status == 200
    assert (await lost.event("token_outdated"))["level"] == "warning"
    await assert_all_have_one_token(instances, double)
    assert double.token_requests == {"login": 2, "refresh": 1}
