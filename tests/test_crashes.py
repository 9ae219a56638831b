"""Processes that are killed in the middle of a refresh: the store always opens, and nobody is locked out."""

import asyncio
import random
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.instances import FAILING, ROOT, fleet
from tests.support.leaks import Artefacts
from tests.support.longer import TIMES
from tests.support.vendors import Vendor

REACHED: Final = 77
KILLS: Final = 50 * TIMES
#: What dies there has redeemed the refresh token, and nobody knows what came of it.
LOST: Final = {"after the note": False, "after the answer": True, "before the rename": True}
POINTS: Final = ["before the note", *LOST, "after the rename", "after the record"]


@pytest.mark.threat(90, 128)
@pytest.mark.parametrize("point", POINTS)
async def test_090_whoever_dies_at_a_point_of_a_refresh_leaves_a_store_that_serves(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts, point: str
) -> None:
    """At most the one rotation in flight is lost; then the next process logs in by itself."""
    async with fleet(tmp_path, shared, tracker.environ, artefacts) as instances:
        dying = await instances.start(FAIL_AT=point, PYTHONPATH=f"{FAILING}:{ROOT}")
        assert (await dying.get()).status == 200
        tracker.double.expire()
        asking = asyncio.create_task(dying.get())
        assert await dying.process.wait() == REACHED
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        heir = await instances.start()
        assert (await heir.get()).status == 200
        assert heir.all("stored_token_unusable") == []
    assert tracker.double.refresh_reuses == 0
    logins = 2 if point in LOST else 1
    assert tracker.double.token_requests["login"] == logins


@pytest.mark.threat(90)
@pytest.mark.slow
async def test_090_kills_at_random_moments_cost_at_most_a_login_each(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts
) -> None:
    """The moments are drawn from a seed, so that a failure can be looked at again."""
    draw = random.Random(90)  # noqa: S311  moments, no secrets
    async with fleet(tmp_path, shared, tracker.environ, artefacts) as instances:
        for _ in range(KILLS):
            instance = await instances.start()
            assert (await instance.get()).status == 200
            assert instance.all("stored_token_unusable") == []
            tracker.double.expire()
            asking = asyncio.create_task(instance.get())
            with pytest.raises(TimeoutError):
                # The moment is what is tested.
                await asyncio.wait_for(asyncio.Event().wait(), draw.uniform(0.0, 0.04))
            await instance.kill()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    assert tracker.double.refresh_reuses == 0
