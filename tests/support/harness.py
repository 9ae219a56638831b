"""Runs a real proxy in the test's own loop: real sockets, the product's logging at DEBUG, a clock that is held."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest
import yaml

from proxy import logs
from proxy.clock import Clock, SystemClock
from proxy.config import Source, load
from proxy.lines import Lines
from proxy.redact import Redactor
from proxy.server import Instance, World
from tests.support.client import DEADLINE, Answer, connected
from tests.support.hooks import hooks_kept
from tests.support.leaks import Artefacts


@dataclass
class HeldClock:
    """Stands still unless the test moves it."""

    at: float = 1000.0
    epoch: float = 1_800_000_000.0
    slept: float = 0.0

    def now(self) -> float:
        """Seconds, as set."""
        return self.at

    def awake(self) -> float:
        """Without those that were slept."""
        return self.at - self.slept

    def wall(self) -> float:
        """Epoch seconds that move along."""
        return self.epoch + self.at

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.at += seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass in which the machine is suspended."""
        self.at += seconds
        self.slept += seconds


class Log(io.StringIO):
    """The text of a log; `grown` is set by each line."""

    def __init__(self) -> None:
        super().__init__()
        self.grown = asyncio.Event()

    def write(self, text: str) -> int:
        """Take it, and tell whoever waits."""
        self.grown.set()
        return super().write(text)


@dataclass
class Proxy:
    """A running proxy and what it said."""

    instance: Instance
    log: Log
    artefacts: Artefacts
    state: Path
    written: Callable[[Mapping[str, Any]], str]
    environ: Mapping[str, str]

    async def reload(
        self, config: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Serve by another configuration; `environ` None: with the variables of the start."""
        given = self.environ if environ is None else environ
        return await self.instance.reload(
            load(Source(self.written(config), "test.yaml", None, "test"), environ=given)
        )

    @property
    def url(self) -> str:
        """Where it listens first."""
        return self.instance.urls[0]

    async def ask(
        self,
        method: str,
        target: str = "/",
        headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        async with connected(self.url, self.artefacts) as client:
            return await client.ask(method, target, headers, body)

    def connect(self) -> Any:
        """A connection for several requests: `async with proxy.connect() as client`."""
        return connected(self.url, self.artefacts)

    async def admin(self, method: str, path: str) -> Answer:
        """Ask the admin listener, with its key."""
        assert self.instance.admin_url is not None
        headers = {"Authorization": f"Bearer {self.instance.admin_key.reveal()}", "Host": "localhost"}
        async with connected(self.instance.admin_url, self.artefacts) as client:
            return await client.ask(method, path, headers)

    def lines(self, event: str = "request") -> list[dict[str, Any]]:
        """The log lines of one event."""
        found = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in found if line["event"] == event]

    async def told(self, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until `holds` of the access log's lines; a hang becomes a failure."""
        async with asyncio.timeout(DEADLINE):
            while not holds(self.lines()):
                self.log.grown.clear()
                await self.log.grown.wait()


class StartProxy(Protocol):
    """`proxying(config, environ=…, clock=…)`: an async context manager that gives a `Proxy`."""

    def __call__(
        self,
        config: Mapping[str, Any],
        *,
        environ: Mapping[str, str] = ...,
        clock: Clock = ...,
        ca: Path | None = ...,
        unrouted_a_second: int = ...,
    ) -> Any:
        """Start a proxy for the block; by default every request has a line."""
        ...


@pytest.fixture
def proxying(tmp_path: Path, artefacts: Artefacts) -> StartProxy:
    """Starts proxies: JSON log at DEBUG, state and log searched for canaries at the end of the test."""
    artefacts.watch_tree(tmp_path)

    @asynccontextmanager
    async def start(
        config: Mapping[str, Any],
        *,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        ca: Path | None = None,
        unrouted_a_second: int = sys.maxsize,
    ) -> AsyncIterator[Proxy]:
        source = Source(_written(config), "test.yaml", None, "test")
        redactor = Redactor()
        log = Log()
        lines = Lines(log)
        artefacts.watch("log", log.getvalue)
        loaded = load(source, environ=environ or {})
        with _logging(redactor, lines, loaded.log.format):
            world = World(
                redactor,
                tmp_path / "state",
                clock or SystemClock(),
                random=lambda: 0.5,
                lines=lines,
                token_ca=ca,
                unrouted_a_second=unrouted_a_second,
            )
            instance = await Instance.start(loaded, world)
            try:
                yield Proxy(instance, log, artefacts, tmp_path / "state", _written, environ or {})
            finally:
                await instance.drain()

    return start


def _written(config: Mapping[str, Any]) -> str:
    log = {"level": "debug", "format": "json", **config.get("log", {})}
    return yaml.safe_dump({"listen": "127.0.0.1:0", "admin": {"listen": "127.0.0.1:0"}, **config, "log": log})


@contextmanager
def _logging(redactor: Redactor, lines: Lines, style: Literal["text", "json"]) -> Iterator[None]:
    """The product's logging while the block runs, pytest's afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with hooks_kept():
        logs.set_up(redactor, level="debug", style=style, lines=lines)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)
