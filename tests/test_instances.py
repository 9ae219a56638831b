"""Several instances of the program that share one store: one refresh for all of them, whoever dies meanwhile."""

import asyncio
from typing import Any, Final

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.longer import TIMES
from tests.support.sharing import Starting
from tests.support.vendors import Vendor

INSTANCES: Final = 8
EXPIRIES: Final = 10 if TIMES == 1 else 50


@pytest.mark.slow
@pytest.mark.threat(88, 124)
async def test_088_eight_instances_refresh_once_for_all(
    either: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """As many token requests as expiries, no refresh token used twice, no client that sees an error."""
    async with starting(either) as instances:
        await instances.start_all(INSTANCES)
        for expiry in range(EXPIRIES):
            assert await instances.asked() == [200] * INSTANCES
            assert sum(tracker.double.token_requests.values()) == expiry + 1
            tracker.double.expire()
        assert await instances.asked() == [200] * INSTANCES
    assert tracker.double.token_requests == {"login": 1, "refresh": EXPIRIES}
    assert tracker.double.refresh_reuses == 0


@pytest.mark.threat(128)
async def test_one_that_dies_in_the_middle_of_a_refresh_locks_nobody_out(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """Its turn ends with it; at most the rotation in flight is lost, and the next one logs in by itself."""
    async with starting(shared) as instances:
        dying, *others = await instances.start_all(3)
        assert await instances.asked() == [200] * 3
        tracker.double.set(token_endpoint="slow")
        tracker.double.expire()
        first = asyncio.create_task(dying.get())
        await tracker.double.holding()
        await dying.kill()
        first.cancel()
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        assert await instances.asked(*others) == [200] * 2
    assert tracker.double.refresh_reuses == 0
    assert tracker.double.token_requests == {"login": 2, "refresh": 1}
