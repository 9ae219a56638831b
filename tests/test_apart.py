"""Hosts whose clocks are apart and that share a store: nobody refreshes what another has just got (threat 95)."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.credentials.resting import record_of, token_of
from proxy.credentials.source import TokenSource
from proxy.errors import StoreUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Token
from proxy.redact import Secret
from proxy.stores.base import Store
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore
from proxy.stores.redisclient import RedisClient
from proxy.stores.seal import Ring
from proxy.stores.servertime import APART_SECONDS, ServerTime
from tests.support.fleetmodel import Apart
from tests.support.granting import Heard
from tests.support.harness import HeldClock
from tests.support.heldloop import HeldLoop
from tests.support.keeping import QuickLatch
from tests.support.redisdouble import RedisDouble, Word

#: Every host is asked so often, in seconds.
PACE: Final = 0.5


class Line(RedisClient):
    """Straight to a double, whose clock is `clock`; each way takes `seconds`. It can be away."""

    def __init__(self, double: RedisDouble, seconds: float = 0.0) -> None:
        self._double = double
        self._seconds = seconds
        self.is_away = False

    async def call(self, *words: Word) -> Any:
        """The answer."""
        await asyncio.sleep(self._seconds)
        if self.is_away:
            raise StoreUnavailable("The server does not answer.")
        answer = self._double.execute(*words)
        await asyncio.sleep(self._seconds)
        return answer

    async def close(self) -> None:
        """Nothing is open."""


class Shelf(MemoryStore):
    """Outlives its processes, and has no clock: each goes by its own."""

    lasting = True


@dataclass
class Vendor:
    """Tokens that end when they end, on a clock that nobody sets; `late` were served behind that."""

    clock: HeldClock
    lifetime: float
    begins_anew: bool = True
    renews: bool = True
    ends_at: dict[str, float] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    late: int = 0

    def can_refresh(self, refresh_token: Secret | None, _token: Secret | None) -> bool:
        """By a refresh token."""
        return refresh_token is not None

    async def obtain(
        self, refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """The next."""
        if refresh_token is not None:
            assert refresh_token.reveal() not in self.spent
            self.spent.add(refresh_token.reveal())
        value = f"access-{len(self.ends_at):08}"
        self.ends_at[value] = self.clock.now() + self.lifetime
        return Granted(Secret(value), Secret(f"refresh-{value}") if self.renews else None, self.lifetime)

    async def serve(self, source: TokenSource) -> None:
        """One request."""
        token = await source.token(30.0)
        self.late += self.clock.now() > self.ends_at[token.value.reveal()]


@dataclass
class Hosts:
    """Time, a server, a vendor, and hosts."""

    clock: HeldClock
    loop: HeldLoop
    double: RedisDouble
    vendor: Vendor
    shelf: Shelf = field(default_factory=Shelf)
    sources: list[TokenSource] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def begin(self, ahead: float, *, seconds: float = 0.0, by_server: bool = True) -> Apart:
        """One more, whose wall clock is `ahead`; a word to the server takes it `seconds`."""
        seen, heard = Apart(self.clock, ahead), Heard()
        store: Store = self.shelf
        if by_server:
            self.lines.append(line := Line(self.double, seconds))
            ring = Ring([bytes(32)], random=os.urandom)
            store = RedisStore(line, ring, prefix="p", random=os.urandom, now=self.clock.now)
        made = TokenSource(
            "c",
            self.vendor,
            fingerprint=lambda: b"the same secret",
            margin=60.0,
            clock=seen,
            latch=QuickLatch(),
            store=store,
            binding=b"",
            fits=lambda _value: True,
            random=lambda: 0.5,
            register=heard.register,
            events=heard,
        )
        self.sources.append(made)
        return seen

    def live(self, seconds: float) -> None:
        """Everybody is asked, again and again, for so long."""
        for _ in range(round(seconds / PACE)):
            for each in self.sources:
                self.loop.create_task(self.vendor.serve(each))
            self.loop.let_pass(PACE)


@contextmanager
def hosts(lifetime: float) -> Iterator[Hosts]:
    """None yet."""
    clock = HeldClock()
    loop = HeldLoop(clock)
    made = Hosts(clock, loop, RedisDouble(clock), Vendor(clock, lifetime))
    try:
        yield made
    finally:
        for each in made.sources:
            each.ahead.stop()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.let_pass(0.0)
        loop.close()


@pytest.mark.threat(95)
@given(
    ahead=st.tuples(st.floats(-400, 3700), st.floats(-400, 3700)),
    lifetime=st.sampled_from([60.0, 61.5, 300.0, 3600.0]),
    seconds=st.sampled_from([0.0, 0.01, 0.2]),
)
@example(ahead=(0.0, 3700.0), lifetime=3600.0, seconds=0.0)
@example(ahead=(0.0, -400.0), lifetime=60.0, seconds=0.0)
@example(ahead=(0.0, 290.0), lifetime=60.0, seconds=0.0)
def test_095_hosts_whose_clocks_are_apart_refresh_as_often_as_one(
    ahead: tuple[float, float], lifetime: float, seconds: float
) -> None:
    """By the server's clock; and what one has taken over is not sent behind its end."""
    with hosts(lifetime) as world:
        for each in ahead:
            world.begin(each, seconds=seconds)
        periods = 3
        world.live(periods * lifetime if lifetime < 300 else 60.0)
        needed = periods * lifetime / (0.9 * lifetime) if lifetime < 300 else 0
        assert len(world.vendor.ends_at) <= 1 + needed
        assert world.vendor.late == 0


@pytest.mark.threat(95)
@pytest.mark.parametrize("ahead", [-400.0, -30.0, 290.0, 3700.0, 31536000.0])
def test_095_a_clock_that_is_set_while_hosts_run_costs_nothing(ahead: float) -> None:
    """Neither that of one of them; the server's costs one refresh at most."""
    with hosts(3600.0) as world:
        world.begin(0.0)
        seen = world.begin(0.0)
        world.live(10.0)
        seen.ahead += ahead
        world.begin(ahead)
        world.live(20.0)
        assert len(world.vendor.ends_at) == 1
        world.clock.epoch += ahead
        world.begin(0.0)
        world.live(20.0)
        assert len(world.vendor.ends_at) <= 2


@pytest.mark.threat(95)
@pytest.mark.parametrize("renews", [True, False])
@pytest.mark.parametrize("ahead", [-400.0, 3700.0])
def test_095_what_was_got_while_the_server_was_away_is_stored_by_its_clock(ahead: float, *, renews: bool) -> None:
    """Also by a host that had never heard it, and whether or not anybody looks before it is stored."""
    with hosts(60.0) as world:
        world.begin(ahead)
        world.vendor.renews = renews
        world.lines[0].is_away = True
        world.live(10.0)
        world.lines[0].is_away = False
        if renews:
            world.live(10.0)
        else:
            world.loop.let_pass(10.0)
        world.begin(0.0)
        world.sources.pop(0).ahead.stop()
        world.live(20.0)
        assert len(world.vendor.ends_at) == 1
        world.live(40.0)
        assert (len(world.vendor.ends_at), world.vendor.late) == (2, 0)


@pytest.mark.threat(95)
@pytest.mark.parametrize("lifetime", [60.0, 3600.0])
@pytest.mark.parametrize("ahead", [-3700.0, -400.0, 400.0, 3700.0])
def test_095_without_a_servers_clock_two_that_are_apart_refresh_twice_a_lifetime_at_most(
    ahead: float, lifetime: float
) -> None:
    """In a folder that they should not share; and not at each look."""
    with hosts(lifetime) as world:
        world.begin(0.0, by_server=False)
        world.begin(ahead, by_server=False)
        world.live(120.0)
        lifetimes = 1 + 120.0 // (lifetime * 0.9)
        assert len(world.vendor.ends_at) <= 2 * lifetimes + 1


@pytest.mark.threat(95)
def test_095_the_lifetime_of_what_came_in_the_future_counts_from_the_look_before() -> None:
    """Unless there was none, or nobody knows its lifetime."""
    token = Token(Secret("t"), 2, 5000.0, 5060.0, Secret("r"))
    record = record_of(token, 1e9)
    found = token_of(record, 1e9, 1000.0, 998.0)
    assert (found.obtained_at, found.expires_at) == (998.0, 1058.0)
    assert token_of(record, 1e9, 1000.0).expires_at == 1000.0


@pytest.mark.threat(95)
def test_095_the_servers_clock_is_known_within_what_its_answers_allow(clock: HeldClock) -> None:
    """A slow answer makes it no less exact; one that cannot be is of a clock that was set."""
    time = ServerTime(clock.now)

    def hear(said: float, took: float) -> None:
        asked_at = clock.now()
        clock.move(took)
        time.hear([str(int(said)).encode(), str(int(said % 1 * 1e6)).encode()], asked_at)

    assert (time.is_known, time.epoch(5.0)) == (False, 5.0)
    hear(2e9, 0.0)
    assert time.epoch(0.0) == 2e9
    clock.move(7.0)
    hear(2e9 + 7, 3.0)
    assert time.epoch(0.0) == 2e9 + 10
    hear(1e9, 1.0)
    assert time.epoch(0.0) == 1e9 + 0.5


@pytest.mark.threat(95)
def test_095_a_clock_that_is_apart_is_told_once(clock: HeldClock, caplog: pytest.LogCaptureFixture) -> None:
    """With its mend; again when it was right meanwhile."""
    time = ServerTime(clock.now)
    time.hear([1_800_000_000, 0], clock.now())
    with caplog.at_level(logging.WARNING):
        for off in (0.0, APART_SECONDS, -APART_SECONDS):
            time.epoch(1.8e9 + off)
        assert caplog.records == []
        for off in (-31.0, -32.0, 0.0, 3700.0, 3700.0):
            time.epoch(1.8e9 + off)
    told = [each.__dict__["fields"]["detail"] for each in caplog.records if each.msg == "store_clock_apart"]
    assert [each.partition(",")[0] for each in told] == [
        "this machine's clock is 31 seconds behind that of the store's server",
        "this machine's clock is 3700 seconds ahead of that of the store's server",
    ]
    assert all(each.endswith("set the clock (NTP)") for each in told)
