"""What a process does to itself at its start, seen from outside: core dumps, debuggers, descriptors, root."""

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from proxy.demo.teletracker import TeleTracker
from proxy.process import DUMPABLE, RESERVE, most_connections
from tests.support.client import connected
from tests.support.instances import ROOT, fleet
from tests.support.leaks import Artefacts
from tests.support.vendors import Vendor

FREE: Final = "127.0.0.1:0"
#: What a process says of itself after `close_to_others`: prctl(PR_GET_DUMPABLE), and its limits of core dumps.
ASK = """
import ctypes, json, os, resource
from proxy.process import close_to_others
close_to_others(os.environ)
print(json.dumps([ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE)]))
"""

#: What the collector has put aside after `settle` with so many exchanges, and how often it looks at so many objects
#: that wait.
SETTLE = """
import gc, json
from proxy.process import settle
settle({exchanges})
looks = []
gc.callbacks.append(lambda phase, info: looks.append(phase))
waiting = [[] for _ in range({objects})]
print(json.dumps([gc.get_freeze_count(), len(looks)]))
"""


def asked(environ: Mapping[str, str]) -> list[int]:
    """Dumpable, soft and hard limit of core dumps, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", ASK], cwd=ROOT, env={**os.environ, **environ}, capture_output=True, check=True
    )
    found: list[int] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize(
    ("exchanges", "objects", "is_looked_at"),
    [(0, 5_000, False), (0, 20_000, True), (5000, 150_000, False), (5000, 300_000, True)],
)
def test_the_collector_walks_through_neither_what_is_loaded_nor_what_waits_for_a_moment(
    exchanges: int, objects: int, *, is_looked_at: bool
) -> None:
    """As many objects as the exchanges are that the inspector keeps; where there are more, it does."""
    code = SETTLE.format(exchanges=exchanges, objects=objects)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    frozen, looks = json.loads(run.stdout)
    assert frozen > 1_000
    assert bool(looks) == is_looked_at


@pytest.mark.skipif(sys.platform != "linux", reason="this machine is no Linux, which alone has prctl")
@pytest.mark.threat(83)
def test_083_neither_core_dumps_nor_debuggers_see_the_process() -> None:
    """Unless somebody looks for a defect."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    assert asked({}) == [0, 0, 0]
    assert asked({DUMPABLE: "1"}) == [1, *before]


@pytest.mark.skipif(sys.platform != "linux", reason="this machine has no /proc/PID/limits")
@pytest.mark.threat(83, 129)
async def test_083_a_running_proxy_dumps_no_core_and_warns_of_root(
    tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts
) -> None:
    """As the kernel tells it; no secret stands among its arguments."""
    config = {"upstream": tracker.url, "credential": dict(tracker.credential)}
    async with fleet(tmp_path, config, tracker.environ, artefacts) as instances:
        running = await instances.start()
        folder = Path("/proc", str(running.process.pid))
        [core] = [line for line in (folder / "limits").read_text().splitlines() if line.startswith("Max core file")]
        assert core.split()[4:6] == ["0", "0"]
        artefacts.add("arguments", (folder / "cmdline").read_bytes())
        if os.geteuid() == 0:
            await running.event("running_as_root")
        else:
            assert not running.all("running_as_root")


@pytest.mark.threat(115)
def test_what_a_start_loads_is_not_for_the_collector() -> None:
    """It walks through all that is left again and again, and stops the proxy meanwhile."""
    ask = "import gc, proxy.server; from proxy.process import settle; settle(); print(len(gc.get_objects()))"
    left = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, check=True).stdout
    assert int(left) < 1000


@pytest.mark.parametrize(("soft", "most"), [(resource.RLIM_INFINITY, 1000), (4096, 1000), (1024, 456), (113, 1)])
def test_115_connections_stop_below_the_descriptors(monkeypatch: pytest.MonkeyPatch, soft: int, most: int) -> None:
    """Two for each client, and a reserve for what is ours."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, soft))
    assert most_connections(1000) == most


@pytest.mark.threat(115)
async def test_115_with_all_places_taken_a_refresh_still_works(
    tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts
) -> None:
    """One client more gets 503; those that are there are served, with a new token; then there is room again."""
    few = 256
    most = (few - RESERVE) // 2
    config: dict[str, Any] = {"upstream": tracker.url, "credential": dict(tracker.credential), "listen": FREE}
    async with fleet(tmp_path, config, tracker.environ, artefacts) as instances:
        running = await instances.start("prlimit", f"--nofile={few}:{few}")
        assert running.all("connections_capped")[0]["most"] == most
        async with connected(running.url, artefacts) as client, AsyncExitStack() as stack:
            assert (await client.ask("GET", "/calls", (), None)).status == 200
            where = urlsplit(running.url)
            for _ in range(most - 1):
                other = await stack.enter_async_context(connected(running.url, artefacts))
                assert (await other.ask("GET", "/calls", (), None)).status == 200
            tracker.double.expire()
            opening = [asyncio.open_connection(where.hostname, where.port) for _ in range(500)]
            others = await asyncio.gather(*opening, return_exceptions=True)
            try:
                assert (await client.ask("GET", "/calls", (), None)).status == 200
                refused = await running.get()
                assert (refused.status, refused.code) == (503, "overloaded")
            finally:
                for each in others:
                    if not isinstance(each, BaseException):
                        each[1].close()
        await running.event("token_refreshed", 2)
        assert (await instances.asked(running)) == [200]
