"""A constant load while tokens end all the time: memory, descriptors and tasks of a process do not grow."""

import asyncio
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.admin.journal import MOMENT_SECONDS
from proxy.demo.teletracker import TeleTracker
from proxy.redact import GENERATIONS_KEPT
from tests.support.client import connected
from tests.support.instances import COUNTING, ROOT, Running
from tests.support.leaks import Artefacts
from tests.support.longer import TIMES
from tests.support.sharing import Starting
from tests.support.vendors import Vendor

#: `make nightly` takes more.
MINUTES: Final = TIMES
#: What both stores share is soaked with the file; the short setting looks at what is the server's alone.
SERVER_MINUTES: Final = 0.25 if TIMES == 1 else MINUTES
#: Expiries until caches, pools and threads are as large as they get, and the redactor forgets one for each.
WARM_UP: Final = GENERATIONS_KEPT + 2
#: Seconds between a client's requests, and between two expiries.
PAUSE: Final = 0.05
EXPIRY: Final = 1.0
#: An idle connection to the upstream rests for so many seconds, so what is at rest after two has none.
SHORT: Final = {"pool": {"idle": "1s"}}
LOOK: Final = 0.2
#: What the inspector has noted is written down by then, and takes less.
QUIET: Final = round((MOMENT_SECONDS + 1) / LOOK)
#: What the allocator keeps differs each time.
RSS_SLACK: Final = 3 * 2**20
#: Objects of the interpreter: caches of the libraries have bounds, and are not full after a warm-up.
OBJECTS_SLACK: Final = 1000
#: Connections to a store's server are as many as were ever needed at once: a turn, two looks, what is asked.
DESCRIPTORS_SLACK: Final = 3
#: The loop starts threads for files as it likes, up to these.
MOST_THREADS: Final = 32


@dataclass(frozen=True)
class Held:
    """What a process has at rest."""

    rss: int
    descriptors: int
    threads: int
    tasks: int
    objects: int


class Load:
    """Clients of each kind at each instance, and a vendor whose tokens end."""

    def __init__(self, instances: list[Running], double: TeleTracker) -> None:
        self._instances = instances
        self._double = double
        self._served: Counter[asyncio.Task[Any] | None] = Counter()
        self._news = asyncio.Condition()
        self.expiries = 0
        self.statuses: Counter[int] = Counter()

    async def last(self, *, expiries: int = 0, seconds: float = 0.0) -> None:
        """Run for that long, then let every client leave."""
        loop = asyncio.get_running_loop()
        ends_at, last = loop.time() + seconds, self.expiries + expiries
        async with asyncio.TaskGroup() as group:
            counted = [
                group.create_task(client(each)) for each in self._instances for client in (self._stays, self._comes)
            ]
            leaving = [group.create_task(self._hangs_up(each)) for each in self._instances]
            while loop.time() < ends_at or self.expiries < last:
                await self._all_served(counted)
                await asyncio.sleep(EXPIRY)
                self._double.expire()
                self.expiries += 1
            await self._all_served(counted)
            for task in (*counted, *leaving):
                task.cancel()

    async def _all_served(self, clients: list[asyncio.Task[None]]) -> None:
        """A token that ends before all were served with it would be refused twice, and rightly so.

        Twice: the first answer may have been on its way when the last token ended.
        """
        wanted = {task: self._served[task] + 2 for task in clients}
        async with self._news:
            await self._news.wait_for(lambda: all(self._served[task] >= count for task, count in wanted.items()))

    async def _stays(self, instance: Running) -> None:
        """Sends bodies on one connection."""
        async with connected(instance.url, Artefacts()) as client:
            while True:
                await self._note((await client.ask("POST", "/echo-size", (), b"x" * 20_000)).status)
                await asyncio.sleep(PAUSE)

    async def _comes(self, instance: Running) -> None:
        """Connects for each request."""
        while True:
            async with connected(instance.url, Artefacts()) as client:
                await self._note((await client.ask("GET", "/calls")).status)
            await asyncio.sleep(PAUSE)

    async def _hangs_up(self, instance: Running) -> None:
        """Does not wait for its answer."""
        while True:
            async with connected(instance.url, Artefacts()) as client:
                client.send(b"GET /calls HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.sleep(PAUSE)

    async def _note(self, status: int) -> None:
        self._served[asyncio.current_task()] += 1
        self.statuses[status] += 1
        async with self._news:
            self._news.notify_all()


def entries(instance: Running, folder: str) -> int:
    """How many there are in a folder below /proc/PID."""
    return len(list(Path(f"/proc/{instance.process.pid}/{folder}").iterdir()))


async def held(instance: Running) -> Held:
    """What it has, when nothing is opened or closed any more."""
    readings: list[int] = []
    async with asyncio.timeout(60):
        while len(readings) < QUIET or len(set(readings[-QUIET:])) > 1:
            readings.append(entries(instance, "fd"))
            await asyncio.sleep(LOOK)
    instance.process.send_signal(signal.SIGUSR1)
    told = await instance.event("counted", len(instance.all("counted")) + 1)
    pages = int(Path(f"/proc/{instance.process.pid}/statm").read_text().split()[1])
    rss = pages * os.sysconf("SC_PAGE_SIZE")
    return Held(rss, readings[-1], entries(instance, "task"), told["tasks"], told["objects"])


@pytest.mark.threat(119)
@pytest.mark.slow(seconds=95)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this machine has no /proc")
async def test_what_a_process_has_does_not_grow(
    either: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """Two of them share a store, and clients stay, come and hang up; none of them sees an error."""
    async with starting({**either, **SHORT}) as instances:
        for _ in range(2):
            await instances.start(PYTHONPATH=f"{COUNTING}:{ROOT}")
        load = Load(instances.running, tracker.double)
        await load.last(expiries=WARM_UP)
        began = await asyncio.gather(*map(held, instances.running))
        minutes = SERVER_MINUTES if either["store"]["kind"] == "redis" else MINUTES
        await load.last(seconds=minutes * 60)
        ended = await asyncio.gather(*map(held, instances.running))
    for before, after in zip(began, ended, strict=True):
        assert after.descriptors <= before.descriptors + DESCRIPTORS_SLACK
        assert after.tasks <= before.tasks
        assert after.threads <= max(before.threads, MOST_THREADS)
        assert after.objects <= before.objects + OBJECTS_SLACK
        assert after.rss <= before.rss + RSS_SLACK
    assert set(load.statuses) == {200}
    assert tracker.double.refresh_reuses == 0
    assert tracker.double.token_requests == {"login": 1, "refresh": load.expiries}
