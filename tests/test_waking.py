"""The machine sleeps, and its clock is set: what rested is dropped, timers look, and tokens end when they end."""

import asyncio
import logging
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import pytest

from proxy import waking
from proxy.clock import SystemClock
from proxy.demo.teletracker import TeleTracker
from proxy.waking import JITTER_SECONDS, Waking
from tests.support.api import api
from tests.support.harness import HeldClock, StartProxy
from tests.support.vendors import Vendor
from tests.support.waiting import until

#: In a namespace of its own, a machine that slept for an hour (time_namespaces(7)).
SLEPT: Final = ("unshare", "--time", "--boottime", "3600")
READ: Final = "from proxy.clock import SystemClock as S; print(S().now() - S().awake())"


@cache
def cannot_sleep() -> str | None:
    """Why no namespace of time can be made here, None where one can."""
    if shutil.which(SLEPT[0]) is None:
        return "this machine has no unshare (util-linux)"
    tried = subprocess.run([*SLEPT, "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "this machine lets the tests make no namespace of time"


@pytest.mark.threat(96)
@pytest.mark.skipif(cannot_sleep() is not None, reason=str(cannot_sleep()))
def test_096_time_that_the_machine_slept_counts() -> None:
    """By the clock that ends are kept on, and not by the other."""
    run = [*SLEPT, sys.executable, "-c", READ]
    asleep = float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert asleep == pytest.approx(3600.0, abs=60.0)


@dataclass
class Called:
    """Who was called, and by what `Waking`."""

    clock: HeldClock
    random: float = 0.0
    calls: list[str] = field(default_factory=list)

    def waking(self) -> Waking:
        """One that looks when the test says so."""
        return Waking(
            self.clock,
            lambda: self.random,
            at_once=lambda: self.calls.append("at once"),
            soon=lambda: self.calls.append("soon"),
        )


@pytest.fixture
def called(clock: HeldClock) -> Called:
    """Nobody yet."""
    return Called(clock)


def test_the_clock_of_tokens_counts_at_least_what_the_timers_do() -> None:
    """On a machine that never slept both run alike."""
    clock = SystemClock()
    first, awake, second, later = clock.now(), clock.awake(), clock.now(), clock.awake()
    assert first <= second
    assert awake <= later


@pytest.mark.threat(96)
async def test_096_a_suspend_is_told_once(called: Called, caplog: pytest.LogCaptureFixture) -> None:
    """With its length in the log; the next look finds nothing new."""
    caplog.set_level(logging.INFO)
    watcher = called.waking()
    called.clock.move(100.0)
    called.clock.sleep(8 * 3600.0)
    watcher.look()
    assert called.calls == ["at once"]
    await until(lambda: called.calls == ["at once", "soon"])
    called.clock.move(100.0)
    watcher.look()
    assert called.calls == ["at once", "soon"]
    [record] = caplog.records
    assert (record.message, record.fields) == ("resumed", {"seconds": 28800.0})  # type: ignore[attr-defined]  # by `extra`


@pytest.mark.parametrize(("slept", "stepped"), [(0.0, 0.0), (5.0, 0.0), (0.0, 5.0), (0.0, -5.0)])
async def test_nothing_is_said_of_what_may_be_chance(called: Called, slept: float, stepped: float) -> None:
    """However long the machine was busy: two clocks are never read in the same instant."""
    watcher = called.waking()
    called.clock.move(1e6)
    called.clock.sleep(slept)
    called.clock.epoch += stepped
    watcher.look()
    assert called.calls == []
    assert watcher._waiting is None


@pytest.mark.parametrize(("stepped", "calls"), [(366 * 86400.0, ["at once"]), (-366 * 86400.0, [])])
async def test_095_a_wall_clock_that_was_set_is_no_suspend(
    called: Called, caplog: pytest.LogCaptureFixture, stepped: float, calls: list[str]
) -> None:
    """Forward it may be the pause of a virtual machine: that costs connections at rest, and no token request."""
    watcher = called.waking()
    called.clock.epoch += stepped
    watcher.look()
    watcher.look()
    assert (called.calls, watcher._waiting) == (calls, None)
    [record] = caplog.records
    assert (record.message, record.fields) == ("clock_stepped", {"seconds": stepped})  # type: ignore[attr-defined]  # same


async def test_a_suspend_in_which_the_wall_clock_went_along_is_no_step(
    called: Called, caplog: pytest.LogCaptureFixture
) -> None:
    """As on any laptop."""
    watcher = called.waking()
    called.clock.sleep(3600.0)
    watcher.look()
    assert "clock_stepped" not in caplog.text
    watcher.stop()


@pytest.mark.threat(96)
async def test_096_a_fleet_that_wakes_together_does_not_ask_together(called: Called) -> None:
    """Up to two seconds pass, by chance; a second suspend meanwhile begins them anew, and the end calls nobody."""
    called.random = 0.75
    watcher = called.waking()
    for _ in range(2):
        called.clock.sleep(60.0)
        watcher.look()
    assert called.calls == ["at once", "at once"]
    timer = watcher._waiting
    assert timer is not None
    left = timer.when() - asyncio.get_running_loop().time()
    assert round(left, 1) == 0.75 * JITTER_SECONDS
    watcher.stop()
    assert timer.cancelled()


async def test_it_looks_again_and_again_until_it_is_stopped(
    called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a timer of the loop."""
    monkeypatch.setattr(waking, "LOOK_SECONDS", 0.0)
    watcher = called.waking()
    watcher.start()
    for count in (1, 2, 3):
        called.clock.sleep(60.0)
        await until(lambda: called.calls.count("soon") == count)  # noqa: B023  awaited here
    watcher.stop()
    assert watcher._timer is not None
    assert watcher._timer.cancelled()


@pytest.mark.threat(96)
async def test_096_after_a_night_no_request_meets_what_the_evening_left(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that rested are dropped, though they might rest for days; one token request serves all."""
    monkeypatch.setattr(waking, "LOOK_SECONDS", 0.0)
    async with api() as upstream:
        config = {**tracker.config, "upstream": upstream.url, "pool": {"idle": "7d"}}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
            [pool] = [binding.pool for binding in proxy.instance._present.bindings.values()]
            assert (await proxy.ask("GET", "/")).status == 200
            assert pool.open == 1
            clock.sleep(8 * 3600.0)
            await until(lambda: pool.open == 0)
            answers = await asyncio.gather(*(proxy.ask("GET", "/") for _ in range(20)))
            assert {answer.status for answer in answers} == {200}
            assert [line["seconds"] for line in proxy.lines("resumed")] == [28800.0]
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}


@pytest.mark.threat(96)
async def test_096_a_token_that_came_due_in_a_suspend_is_refreshed_soon_after_it(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any request, where one used it lately; once, and its own timer does not ask again."""
    monkeypatch.setattr(waking, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(waking, "JITTER_SECONDS", 0.0)
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.sleep(3590.0)
        await until(lambda: len(proxy.lines("token_refreshed")) == 2)
        clock.sleep(60.0)
        await until(lambda: len(proxy.lines("resumed")) == 2)
        assert (await proxy.ask("GET", "/calls")).status == 200
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}


@pytest.mark.parametrize("jump", [366 * 86400.0, -366 * 86400.0])
async def test_095_a_wall_clock_that_is_set_changes_no_token(
    proxying: StartProxy,
    tracker: Vendor[TeleTracker],
    clock: HeldClock,
    monkeypatch: pytest.MonkeyPatch,
    jump: float,
) -> None:
    """By a year, while the proxy runs: the token is used to its end, and no longer."""
    monkeypatch.setattr(waking, "LOOK_SECONDS", 0.0)
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.epoch += jump
        await until(lambda: proxy.lines("clock_stepped"))
        clock.move(3500.0)
        assert (await proxy.ask("GET", "/calls")).status == 200
        assert tracker.double.token_requests == {"login": 1}
        clock.move(101.0)
        assert (await proxy.ask("GET", "/calls")).status == 200
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}
