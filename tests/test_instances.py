"""Several instances of the program that share one store: one refresh for all of them, whoever dies meanwhile."""

import asyncio
from pathlib import Path
from typing import Any

from proxy.demo.teletracker import TeleTracker
from tests.support.instances import Fleet, fleet
from tests.support.leaks import Artefacts
from tests.support.vendors import Vendor

INSTANCES = 8
EXPIRIES = 10


async def asked(instances: Fleet) -> list[int]:
    """The statuses that each instance's client gets, all asking at once."""
    answers = await asyncio.gather(*(each.get() for each in instances.running))
    return [answer.status for answer in answers]


async def test_eight_instances_refresh_once_for_all(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts
) -> None:
    """As many token requests as expiries, no refresh token used twice, no client that sees an error."""
    async with fleet(tmp_path, shared, tracker.environ, artefacts) as instances:
        await instances.start_all(INSTANCES)
        for expiry in range(EXPIRIES):
            assert await asked(instances) == [200] * INSTANCES
            assert sum(tracker.double.token_requests.values()) == expiry + 1
            tracker.double.expire()
        assert await asked(instances) == [200] * INSTANCES
    assert tracker.double.token_requests == {"login": 1, "refresh": EXPIRIES}
    assert tracker.double.refresh_reuses == 0


async def test_one_that_dies_in_the_middle_of_a_refresh_locks_nobody_out(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts
) -> None:
    """Its turn ends with it; at most the rotation in flight is lost, and the next one logs in by itself."""
    async with fleet(tmp_path, shared, tracker.environ, artefacts) as instances:
        dying, *others = await instances.start_all(3)
        assert await asked(instances) == [200] * 3
        tracker.double.set(token_endpoint="slow")
        tracker.double.expire()
        first = asyncio.create_task(dying.get())
        await tracker.double.holding()
        await dying.kill()
        first.cancel()
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        answers = await asyncio.gather(*(each.get() for each in others))
        assert [answer.status for answer in answers] == [200] * 2
    assert tracker.double.refresh_reuses == 0
    assert tracker.double.token_requests == {"login": 2, "refresh": 1}
