"""Connections that are slow, cut, refused or silent at any moment: answers are right, listed, or visibly cut short.

Between the proxy and its upstream, its token endpoint or its store stands a relay that does one of eight things
from one of six moments of an exchange on. `make test` takes each of the eight at a moment drawn from a seed.
"""

import asyncio
import base64
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from proxy.demo.teletracker import TeleTracker
from proxy.errors import ProxyError
from tests.support.chaos import KINDS, PHASES, Kind, Phase, Relay, Toxic, relaying
from tests.support.client import Answer
from tests.support.counting import FRAMINGS, MARKER, Counting, counting, right
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.redisserver import RedisServer, needs_redis, serving
from tests.support.vendors import Vendor

Place = Literal["upstream", "token endpoint", "store"]

#: Chosen so that the few have the two moments that matter most: a POST acted on and not answered, half an answer.
SEED: Final = 1576
#: So that what is silent is noticed soon.
TIMEOUTS: Final = {"token": 1.0, "connect": 0.5, "first_byte": 0.5, "idle": 0.5}
#: No exchange takes longer than all its deadlines (the second attempt's too), whatever happens; and a busy machine.
GUARD: Final = 2 * sum(TIMEOUTS.values()) + 10
#: Longer than any back-off, and than the tokens live.
LATER: Final = 3601.0
#: About as many bytes have the answers.
ANSWER: Final = 6000
UPLOAD: Final = bytes(range(256)) * 12

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


def drawn(place: Place, kind: Kind, phase: Phase) -> Toxic:
    """The toxic, and how much of it: the same each time."""
    draw = random.Random(f"{SEED} {place} {kind} {phase}")  # noqa: S311  no secrets
    seconds: dict[Kind, tuple[float | None, ...]] = {
        "latency": (0.05, 0.7),
        "slow close": (0.2, 0.7),
        "timeout": (0.2, None),
    }
    return Toxic(
        kind,
        phase,
        seconds=draw.choice(seconds.get(kind, (None,))),
        rate=20_000,
        # Answers of the vendor and of the store are short.
        size=draw.randint(1, 7)
        if kind == "slicer"
        else draw.choice((0, 1, 20, 1000 if place == "upstream" else 50)),
        most=draw.choice((2, None)),
    )


def few(place: Place) -> list[tuple[Kind, Phase]]:
    """Each kind, at moments of which all occur."""
    draw = random.Random(f"{SEED} {place}")  # noqa: S311  no secrets
    moments = [*PHASES, *draw.sample(PHASES, len(KINDS) - len(PHASES))]
    draw.shuffle(moments)
    return list(zip(KINDS, moments, strict=True))


MARKS: Final[dict[Place, tuple[pytest.MarkDecorator, ...]]] = {
    "upstream": (),
    "token endpoint": (),
    "store": (needs_redis,),
}


def cases(*, every: bool) -> list[Any]:
    """The parameters: all combinations, or a few of them, for each place."""
    found = []
    for place, marks in MARKS.items():
        pairs = [(kind, phase) for kind in KINDS for phase in PHASES] if every else few(place)
        found += [pytest.param(place, *pair, id="-".join((place, *pair)), marks=marks) for pair in pairs]
    return found


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
    posts: int = 0

    @property
    def failures(self) -> list[str]:
        """Those of which nothing came but a code, or the beginning of an answer."""
        return [outcome for outcome in self.outcomes if outcome != "right"]

    async def exchange(self, method: str, framing: str) -> str:
        """One request on a connection of its own; `right`, a listed code, or `cut`; anything else fails here."""
        self.posts += method == "POST"
        target, body = f"/{framing}/{len(self.outcomes)}-{self.posts}", UPLOAD if method == "POST" else None
        marker = f"post-{self.posts}"
        async with asyncio.timeout(GUARD):
            try:
                answer = await self.proxy.ask(method, target, {MARKER: marker}, body)
            except ConnectionResetError:
                outcome = "cut"
            else:
                outcome = judged(answer, right(method, target, body or b"", ANSWER))
        assert outcome in {"right", "cut"} | CODES[self.place]
        if method == "POST":
            assert self.upstream.heads[marker] <= 1
            assert outcome != "right" or self.upstream.heads[marker] == 1
        self.outcomes.append(outcome)
        return outcome

    async def burst(self) -> None:
        """GETs and POSTs at once: the first ones on connections that were used before, the others on new ones."""
        await asyncio.gather(
            self.exchange("POST", "length"),
            *(self.exchange("GET", framing) for framing in FRAMINGS),
            self.exchange("POST", "chunked"),
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
            assert len(outcomes) < 6, outcomes
            self.later()
            outcomes += [await self.exchange("GET", "length"), await self.exchange("POST", "length")]


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
    key: str
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


@pytest.fixture
def storage(tmp_path: Path, canaries: Canaries, artefacts: Artefacts) -> Storage:
    """With a new key."""
    key = base64.b64encode(os.urandom(32)).decode()
    canaries.adopt(key, "key")
    return Storage(tmp_path / "redis", key, artefacts)


@dataclass
class Setup:
    """Starts benches, before a vendor with strict rotation."""

    proxying: StartProxy
    tracker: Vendor[TeleTracker]
    clock: HeldClock
    storage: Storage

    @asynccontextmanager
    async def bench(self, place: Place) -> AsyncIterator[Bench]:
        """With the relay in `place`."""
        async with counting(ANSWER) as upstream:
            with self.storage.serving(wanted=place == "store") as server:
                url = upstream.url if place == "upstream" else self.tracker.url
                target = server.socket if server is not None else int(url.rpartition(":")[2])
                async with relaying(target, marker=b"\r\n\r\n" if server is None else b"\r\n") as relay:
                    config = self.config(place, upstream.url, relay.port)
                    environ = {**self.tracker.environ, "STORE_KEY": self.storage.key}
                    async with self.proxying(config, environ=environ, clock=self.clock) as proxy:
                        yield Bench(place, proxy, relay, upstream, self.clock, server)

    def config(self, place: Place, upstream: str, port: int) -> dict[str, Any]:
        """All as it is, but what lies behind the relay."""
        here = f"http://127.0.0.1:{port}"
        config: dict[str, Any] = {
            "upstream": here if place == "upstream" else upstream,
            "credential": dict(self.tracker.credential),
            "timeouts": TIMEOUTS,
        }
        if place == "token endpoint":
            config["credential"]["base_url"] = here
        if place == "store":
            config["store"] = {"kind": "redis", "url": f"redis://127.0.0.1:{port}", "key": {"env": "STORE_KEY"}}
        return config


@pytest.fixture
def setup(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, storage: Storage) -> Setup:
    """With secrets that are canaries."""
    return Setup(proxying, tracker, clock, storage)


async def survives(setup: Setup, place: Place, toxic: Toxic) -> None:
    """Warm up, spoil, take that away; then look at what the far ends saw."""
    double = setup.tracker.double
    async with setup.bench(place) as bench:
        await asyncio.gather(bench.serves(), bench.serves())
        await bench.relay.arm(toxic)
        for _ in range(1 if place == "upstream" else 2):
            if place != "upstream":
                bench.later()
            await bench.burst()
        # What is refused before it is connected the relay does not see.
        assert bench.relay.struck > 0 or ((toxic.kind, toxic.phase) == ("down", "connect") and bench.failures)
        await bench.relay.heal()
        await bench.serves()
        assert double.refresh_reuses == 0
        assert bench.upstream.tokens <= {f"Bearer {token}" for token in double.issued}
        assert bench.proxy.lines("internal_error") == []


@pytest.mark.parametrize(("place", "kind", "phase"), cases(every=False))
async def test_a_connection_that_fails_gives_a_right_answer_a_listed_code_or_a_visible_cut(
    setup: Setup, place: Place, kind: Kind, phase: Phase
) -> None:
    """In time, no POST twice, no refresh token twice; and without it the proxy serves again."""
    await survives(setup, place, drawn(place, kind, phase))


@pytest.mark.slow
@pytest.mark.parametrize(("place", "kind", "phase"), cases(every=True))
async def test_whatever_fails_at_whatever_moment(setup: Setup, place: Place, kind: Kind, phase: Phase) -> None:
    """All combinations of the same."""
    await survives(setup, place, drawn(place, kind, phase))
