"""What the proxy counts of itself, and the page that says what there is."""

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web

from proxy import lag
from proxy.admin.machinery import Machinery
from proxy.admin.metrics import Metrics
from proxy.cli.reload import Reloading
from proxy.config import find, load
from tests.support.api import Seen, api
from tests.support.harness import HeldClock, StartProxy
from tests.support.heldloop import HeldLoop
from tests.support.metricspage import PAGE, exposed, page, rows
from tests.support.series import series
from tests.support.waiting import until

NO_POOLS: dict[str, dict[str, int]] = {}


def test_the_page_lists_what_is_exposed() -> None:
    """`python -m tests.support.metricspage` mends it."""
    text = PAGE.read_text("utf-8")
    assert page(text) == text
    assert text.count("| `bearer_proxy_") == len(list(rows()))


async def test_a_running_instance_exposes_what_the_page_lists(proxying: StartProxy) -> None:
    """No more and no less, before the first request."""
    async with proxying({"upstream": "http://127.0.0.1:9"}) as proxy:
        shown = (await proxy.admin("GET", "/metrics")).body
    heads = [[line for line in text.decode().splitlines() if line.startswith("#")] for text in (shown, exposed())]
    assert heads[0] == heads[1]


def test_lag_is_by_how_much_a_timer_rings_too_late() -> None:
    """Measured each second, from one ring to the next."""
    clock, told = HeldClock(), list[float]()
    loop = HeldLoop(clock)
    measured = lag.Lag(told.append)

    loop.call_soon(measured.start)
    loop.call_later(0.9, clock.move, 0.5)  # it computes, and does nothing else
    loop.let_pass(4.0)
    measured.stop()
    loop.let_pass(3.0)
    loop.close()
    assert told == pytest.approx([0.4, 0.0, 0.0], abs=1e-3)


def test_lag_is_exposed_as_a_histogram() -> None:
    """So that the worst of an hour can be told from the usual."""
    machinery = Machinery(lambda: NO_POOLS)
    for seconds in (0.0, 0.3, 7.0):
        machinery.lagged(seconds)
    found = series(Metrics(list, lambda: 0.0, machinery.families).text())
    assert found["loop_lag_seconds_count", ()] == 3
    assert found["loop_lag_seconds_sum", ()] == pytest.approx(7.3)
    buckets = {
        bound: found["loop_lag_seconds_bucket", (("le", bound),)] for bound in ("0.005", "0.25", "0.5", "5.0")
    }
    assert buckets == {"0.005": 1, "0.25": 1, "0.5": 2, "5.0": 2}


async def test_a_running_instance_measures_its_lag(proxying: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that was held up shows."""
    monkeypatch.setattr(lag, "LOOK_SECONDS", 0.05)
    async with proxying({"upstream": "http://127.0.0.1:9"}) as proxy:
        told = asyncio.Event()
        lagged = proxy.instance.machinery.lagged

        def note(seconds: float) -> None:
            lagged(seconds)
            told.set()

        proxy.instance._lag._told = note
        asyncio.get_running_loop().call_later(0.04, time.sleep, 0.2)
        await told.wait()
        found = series((await proxy.admin("GET", "/metrics")).body)
        assert found["loop_lag_seconds_count", ()] == 1
        assert found["loop_lag_seconds_sum", ()] > 0.1


async def test_the_pool_of_a_route_shows_who_works_rests_and_waits(proxying: StartProxy) -> None:
    """Two connections and three requests, one of which waits; then both connections rest."""
    arrived, release = asyncio.Semaphore(0), asyncio.Event()

    async def slow(_seen: Seen) -> web.StreamResponse:
        arrived.release()
        await release.wait()
        return web.Response(text="late")

    async with api(slow) as upstream, proxying({"upstream": upstream.url, "pool": {"size": 2}}) as proxy:

        async def pool() -> dict[str, float]:
            found = series((await proxy.admin("GET", "/metrics")).body)
            return {
                dict(labels).get("state", name.removeprefix("pool_")): value
                for (name, labels), value in found.items()
                if name.startswith("pool_")
            }

        assert await pool() == {"size": 2, "idle": 0, "busy": 0, "waiting": 0}
        asking = [asyncio.create_task(proxy.ask("GET", "/")) for _ in range(3)]
        for _ in range(2):
            await arrived.acquire()
        while (await pool())["waiting"] == 0:
            pass
        assert await pool() == {"size": 2, "idle": 0, "busy": 2, "waiting": 1}
        release.set()
        await asyncio.gather(*asking)
        assert await pool() == {"size": 2, "idle": 2, "busy": 0, "waiting": 0}


async def test_a_refused_reload_shows_until_one_is_taken(proxying: StartProxy, tmp_path: Path) -> None:
    """Whoever saved it may not look at the log."""
    path, asked = tmp_path / "config.yaml", asyncio.Event()
    name, given = ("config_last_reload_successful", ()), {"upstream": "http://127.0.0.1:9"}
    async with proxying(given) as proxy:
        good = proxy.written(given)
        path.write_text(good)
        instance, source = proxy.instance, find(str(path), {})
        reloading = Reloading(
            *(instance, source, load(source, environ={}), instance._world),
            environ={},
            asked=asked,
            applied=lambda: None,
        )
        task = asyncio.create_task(reloading.run())
        assert series(instance.metrics.text())[name] == 1
        for text, value in (("upstream: 17", 0), (good, 1)):
            path.write_text(text)
            asked.set()
            await until(lambda wanted=value: series(instance.metrics.text())[name] == wanted)  # type: ignore[misc]  # bound here
        task.cancel()
