"""A proxy with a relay in one place, clients that judge what they get, and far ends that count."""

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from proxy.demo.teletracker import TeleTracker
from proxy.errors import ProxyError
from tests.support.chaos import Relay, relaying
from tests.support.client import Answer
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Artefacts
from tests.support.redisserver import RedisServer, serving
from tests.support.tally import FRAMINGS, MARKER, Counting, counting, right
from tests.support.vendors import Vendor

Place = Literal["upstream", "token endpoint", "store"]

#: So that what is silent is noticed soon: only behind this place, since the rest is as it should be.
TIMEOUTS: Final[dict[Place, dict[str, float]]] = {
    "upstream": {"connect": 0.5, "first_byte": 0.5, "idle": 0.5},
    "token endpoint": {"token": 1.0},
    "store": {"token": 1.0},
}
#: No exchange takes longer than all its deadlines (the second attempt's too), whatever happens; and what a busy
#: machine needs besides.
SLACK: Final = 5.0
GUARDS: Final = {place: 2 * sum(each.values()) + SLACK for place, each in TIMEOUTS.items()}
#: Longer than any back-off, and than the tokens live.
LATER: Final = 3601.0
#: About as many bytes have the answers.
ANSWER: Final = 6000
SMALL: Final = bytes(range(256)) * 12
#: More than comes at once, so that it is sent on while it comes.
LARGE: Final = bytes(range(256)) * 400

#: What the proxy may say itself, where what lies behind this place fails.
CODES: Final[dict[Place, set[str]]] = {
    "upstream": {"upstream_unreachable", "upstream_protocol", "upstream_timeout"},
    "token endpoint": {"credential_unavailable"},
    "store": {"credential_unavailable", "store_unavailable"},
}


def listed(kind: type[ProxyError]) -> Iterator[tuple[str, int]]:
    """Each code below `kind` with its status."""
    yield kind.code, kind.status
    for each in kind.__subclasses__():
        yield from listed(each)


STATUSES: Final = dict(listed(ProxyError))


@dataclass
class Bench:
    """A proxy, a relay in one place, and what is behind it; `outcomes` is what clients saw."""

    place: Place
    proxy: Proxy
    relay: Relay
    upstream: Counting
    clock: HeldClock
    server: RedisServer | None
    outcomes: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def failures(self) -> list[str]:
        """Those of which nothing came but a code, or the beginning of an answer."""
        return [outcome for outcome in self.outcomes if outcome != "right"]

    async def exchange(self, method: str, framing: str, body: bytes | None = None) -> str:
        """One request on a connection of its own; `right`, a listed code, or `cut`; anything else fails here."""
        number = next(self.numbers)
        target, marker = f"/{framing}/{number}", f"number-{number}"
        async with asyncio.timeout(GUARDS[self.place]):
            try:
                answer = await self.proxy.ask(method, target, {MARKER: marker}, body)
            except ConnectionResetError:
                outcome = "cut"
            else:
                outcome = judged(answer, right(method, target, body or b"", ANSWER))
        assert outcome in {"right", "cut"} | CODES[self.place], outcome
        if method == "POST":
            came = self.upstream.heads[marker]
            assert came <= 1, f"a POST came {came} times; the client saw {outcome!r}"
            assert came or outcome != "right", "a POST never came, and was answered"
        self.outcomes.append(outcome)
        return outcome

    async def burst(self) -> None:
        """GETs and POSTs at once: the first ones on connections that were used before, the others on new ones."""
        await asyncio.gather(
            self.exchange("POST", "length", SMALL),
            *(self.exchange("GET", framing) for framing in FRAMINGS),
            self.exchange("POST", "chunked", LARGE),
        )

    def later(self) -> None:
        """Let so much time pass, here and at the store, that a new token is needed, and may be asked for."""
        self.clock.move(LATER)
        if self.server is not None:
            self.server.ask("DEL", "bearer-proxy:{default}:turn")

    async def serves(self) -> None:
        """It answers as it should: at once, or after what was under way has ended in an error."""
        outcomes: list[str] = []
        while outcomes[-2:] != ["right", "right"]:
            assert len(outcomes) < 8, outcomes
            self.later()
            outcomes += [await self.exchange("GET", "length"), await self.exchange("POST", "length", SMALL)]


def judged(answer: Answer, whole: bytes) -> str:
    """`right`, the code, `cut`; or a sentence on what it must not be."""
    if answer.code:
        return answer.code if answer.complete and STATUSES[answer.code] == answer.status else "a broken document"
    if answer.status != 200:
        return f"status {answer.status}"
    if not answer.complete:
        return "cut" if whole.startswith(answer.body) else "a wrong beginning"
    return "right" if answer.body == whole else "a wrong body that looks complete"


@dataclass
class Storage:
    """Serves a store, whose contents are searched for canaries; `key` is the one that seals them."""

    folder: Path
    key: str = field(repr=False)
    artefacts: Artefacts

    @contextmanager
    def serving(self, *, wanted: bool) -> Iterator[RedisServer | None]:
        """A server, where it is wanted."""
        if not wanted:
            yield None
            return
        self.folder.mkdir()
        with serving(self.folder) as server:
            yield server
            self.artefacts.add("redis", server.everything())


@dataclass
class Setup:
    """Starts benches, before a vendor with strict rotation."""

    proxying: StartProxy
    tracker: Vendor[TeleTracker] = field(repr=False)
    clock: HeldClock
    storage: Storage

    @asynccontextmanager
    async def bench(self, place: Place) -> AsyncIterator[Bench]:
        """With the relay in `place`."""
        async with counting(ANSWER) as upstream:
            with self.storage.serving(wanted=place == "store") as server:
                url = upstream.url if place == "upstream" else self.tracker.url
                target = server.socket if server is not None else int(url.rpartition(":")[2])
                async with (
                    relaying(target, marker=b"\r\n\r\n" if server is None else b"\r\n") as relay,
                    self.proxy(self.config(place, upstream.url, relay.port)) as proxy,
                ):
                    yield Bench(place, proxy, relay, upstream, self.clock, server)

    @asynccontextmanager
    async def another(self, bench: Bench, server: RedisServer) -> AsyncIterator[Bench]:
        """The same with a proxy of its own, which has always reached the store that they share."""
        config = self.config("store", bench.upstream.url, 0)
        config["store"]["url"] = server.url
        async with self.proxy(config) as proxy:
            yield dataclasses.replace(bench, proxy=proxy)

    def proxy(self, config: dict[str, Any]) -> Any:
        """`async with setup.proxy(config) as proxy`."""
        environ = {**self.tracker.environ, "STORE_KEY": self.storage.key}
        return self.proxying(config, environ=environ, clock=self.clock)

    def config(self, place: Place, upstream: str, port: int) -> dict[str, Any]:
        """All as it is, but what lies behind the relay."""
        here = f"http://127.0.0.1:{port}"
        config: dict[str, Any] = {
            "upstream": here if place == "upstream" else upstream,
            "credential": dict(self.tracker.credential),
            "timeouts": TIMEOUTS[place],
        }
        if place == "token endpoint":
            config["credential"]["base_url"] = here
        if place == "store":
            config["store"] = {"kind": "redis", "url": f"redis://127.0.0.1:{port}", "key": {"env": "STORE_KEY"}}
        return config
