"""Several real instances of the program at once, each a process with a configuration of its own."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.client import Answer, connected
from tests.support.leaks import Artefacts

ROOT: Final = Path(__file__).parents[2]
#: On the path of Python, lets a process fail where a test likes.
FAILING: Final = ROOT / "tests" / "support" / "failing"
#: The same, lets it say what it has.
COUNTING: Final = ROOT / "tests" / "support" / "counting"
#: Longer than any of them takes to start, with all the others.
DEADLINE: Final = 60.0


@dataclass
class Running:
    """One instance: its process, where it listens, and what it logged (JSON lines)."""

    process: asyncio.subprocess.Process
    artefacts: Artefacts
    url: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _reading: asyncio.Task[None] | None = None

    async def get(self, target: str = "/calls") -> Answer:
        """One request on a connection of its own."""
        async with connected(self.url, self.artefacts) as client:
            return await client.ask("GET", target, (), None)

    async def event(self, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th log line of this event, as soon as it is there."""
        async with asyncio.timeout(DEADLINE), self._news:
            await self._news.wait_for(lambda: len(self.all(name)) >= count)
        return self.all(name)[count - 1]

    def all(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event, so far."""
        return [line for line in self.lines if line.get("event") == name]

    async def has(self, generation: int) -> dict[str, Any]:
        """The log line that says that it has this token, got by itself or taken over; as soon as it is there."""
        async with asyncio.timeout(DEADLINE), self._news:
            await self._news.wait_for(lambda: self.had(generation))
        return self.had(generation)[0]

    def had(self, generation: int) -> list[dict[str, Any]]:
        """The same lines, so far."""
        found = [*self.all("token_refreshed"), *self.all("token_adopted")]
        return [line for line in found if line["generation"] == generation]

    async def stop(self) -> None:
        """SIGSTOP: it stands still, as a machine that is suspended."""
        self.process.send_signal(signal.SIGSTOP)
        await self.stopped()

    async def stopped(self) -> None:
        """Wait until it stands still; raises AssertionError where it ends instead."""
        # It does not reap the process: that is for the loop to do.
        flags = os.WSTOPPED | os.WEXITED | os.WNOWAIT
        found = await asyncio.to_thread(os.waitid, os.P_PID, self.process.pid, flags)
        assert found is not None
        assert found.si_code == os.CLD_STOPPED

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        if self._reading is not None:
            await self._reading

    def begin(self) -> None:
        """Read its log from now on."""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.artefacts.add("log of an instance", line)
            with suppress(ValueError):
                self.lines.append(json.loads(line))
            async with self._news:
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


@dataclass
class Fleet:
    """Starts instances with one configuration, each in a folder of its own below `folder`, and ends them."""

    folder: Path
    config: Mapping[str, Any]
    environ: Mapping[str, str]
    artefacts: Artefacts
    running: list[Running] = field(default_factory=list)
    started: int = 0
    #: The descriptors that instances inherit.
    descriptors: tuple[int, ...] = ()

    async def start(self, *inside: str, also: Mapping[str, Any] | None = None, **more: str) -> Running:
        """One more, started with `inside`; `also` are settings and `more` are variables for it alone."""
        self.started += 1
        home = self.folder / f"instance-{self.started}"
        home.mkdir(mode=0o700)
        # A path is the same in other networks.
        listen = f"unix:{home / 'http.sock'}" if inside else "127.0.0.1:0"
        free = {"listen": listen, "admin": {"listen": "127.0.0.1:0"}}
        written = {
            **free,
            "log": {"level": "debug", "format": "json", "access": False},
            **self.config,
            **(also or {}),
        }
        path = home / "config.yaml"
        path.write_text(yaml.safe_dump(written))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BEARER_", "XDG_"))}
        own = {
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "XDG_STATE_HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
        }
        process = await asyncio.create_subprocess_exec(
            *(*inside, sys.executable, "-m", "proxy", "run", "-c", str(path)),
            env={**kept, **own, **self.environ, **more},
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=self.descriptors,
        )
        made = Running(process, self.artefacts)
        self.running.append(made)
        made.begin()
        made.url = (await made.event("listening"))["url"]
        return made

    async def start_all(self, count: int) -> list[Running]:
        """So many at once."""
        return list(await asyncio.gather(*(self.start() for _ in range(count))))

    async def asked(self, *some: Running) -> list[int]:
        """The statuses that the clients of `some`, or of all, get; all ask at once."""
        answers = await asyncio.gather(*(each.get() for each in some or self.running))
        return [answer.status for answer in answers]

    async def end(self) -> None:
        """Kill whatever still runs."""
        await asyncio.gather(*(each.kill() for each in self.running))


@asynccontextmanager
async def fleet(
    folder: Path, config: Mapping[str, Any], environ: Mapping[str, str], artefacts: Artefacts
) -> AsyncIterator[Fleet]:
    """A fleet that ends with the block."""
    made = Fleet(folder, config, environ, artefacts)
    try:
        yield made
    finally:
        await made.end()
