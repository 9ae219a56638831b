"""A timer that is set anew far more often than it rings: when it rings, how often, and what it asks of the loop."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.alarm import Alarm
from tests.support.upstreams import on_each_loop


class Timer:
    """One timer of the loop below."""

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not call."""
        self.is_cancelled = True


class Loop:
    """A loop's clock and timers, which a test moves; `early` is how much too early it calls, as real ones may."""

    def __init__(self, early: float = 0.0) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.asked = 0
        self._early = early

    def time(self) -> float:
        """The instant."""
        return self.now

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        """A timer."""
        self.asked += 1
        timer = Timer(at, call)
        self.timers.append(timer)
        return timer

    @property
    def pending(self) -> list[Timer]:
        """Those that will still be called."""
        return [timer for timer in self.timers if not timer.is_cancelled]

    def move_to(self, instant: float) -> None:
        """Let time pass, and call whatever is due on the way."""
        while due := [timer for timer in self.pending if timer.at - self._early <= instant]:
            timer = min(due, key=lambda each: each.at)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at - self._early)
            self._early = 0.0
            timer.call()
        self.now = instant


class Bell:
    """An alarm, its loop, and the instants at which it rang."""

    def __init__(self, early: float = 0.0) -> None:
        self.loop = Loop(early)
        self.rang: list[float] = []
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.alarm = Alarm(loop, lambda: self.rang.append(self.loop.now))


def test_it_rings_once_at_its_instant() -> None:
    """Not before it, and not again behind it."""
    bell = Bell()
    bell.alarm.set(5.0)
    bell.loop.move_to(4.9)
    assert bell.rang == []
    bell.loop.move_to(100.0)
    assert bell.rang == [5.0]
    assert bell.loop.pending == []


def test_only_the_last_instant_counts() -> None:
    """Later or earlier than the one before."""
    for instants in ([5.0, 9.0], [9.0, 5.0], [7.0, 9.0, 5.0, 6.0]):
        bell = Bell()
        for at in instants:
            bell.alarm.set(at)
        bell.loop.move_to(100.0)
        assert bell.rang == [instants[-1]]


def test_moving_an_instant_back_costs_the_loop_nothing() -> None:
    """A connection does it for each of its requests; one timer looks once and is set anew."""
    bell = Bell()
    for number in range(1000):
        bell.alarm.set(10.0 + number)
    assert bell.loop.asked == 1
    bell.loop.move_to(1008.0)
    assert (bell.rang, bell.loop.asked) == ([], 2)
    bell.loop.move_to(1009.0)
    assert (bell.rang, bell.loop.asked) == ([1009.0], 2)


def test_moving_an_instant_forward_leaves_one_timer() -> None:
    """The other is given up, since it would ring too late."""
    bell = Bell()
    bell.alarm.set(10.0)
    bell.alarm.set(5.0)
    assert [timer.at for timer in bell.loop.pending] == [5.0]


def test_a_cleared_alarm_does_not_ring_and_can_be_set_again() -> None:
    """With the timer that is there, where that is early enough."""
    bell = Bell()
    bell.alarm.set(5.0)
    bell.alarm.clear()
    bell.alarm.set(8.0)
    bell.alarm.clear()
    bell.loop.move_to(6.0)
    assert (bell.rang, bell.loop.pending, bell.loop.asked) == ([], [], 1)
    bell.alarm.set(7.0)
    bell.loop.move_to(10.0)
    assert bell.rang == [7.0]


def test_a_closed_alarm_leaves_nothing_with_the_loop() -> None:
    """A connection that is gone is not kept alive by its timer; closing twice changes nothing."""
    bell = Bell()
    bell.alarm.set(5.0)
    bell.alarm.close()
    assert bell.loop.pending == []
    bell.alarm.close()
    bell.loop.move_to(10.0)
    assert bell.rang == []
    bell.alarm.set(11.0)
    bell.loop.move_to(12.0)
    assert bell.rang == [11.0]


def test_a_loop_that_calls_too_early_is_asked_again() -> None:
    """Its clock has a resolution, and a timer may come within it."""
    bell = Bell(early=0.5)
    bell.alarm.set(5.0)
    bell.loop.move_to(4.8)
    assert bell.rang == []
    bell.loop.move_to(6.0)
    assert bell.rang == [5.0]


def test_it_can_be_set_from_its_own_ringing() -> None:
    """An idle connection that lingers is set its last instant so."""
    loop = Loop()
    rang: list[float] = []

    def ring() -> None:
        rang.append(loop.now)
        if len(rang) < 3:
            alarm.set(loop.now + 2.0)

    alarm = Alarm(cast("asyncio.AbstractEventLoop", loop), ring)
    alarm.set(1.0)
    loop.move_to(100.0)
    assert rang == [1.0, 3.0, 5.0]


#: Set to so many seconds from now, clear, close, or let so many pass.
steps: Final = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 20)),
        st.tuples(st.just("move"), st.integers(0, 20)),
        st.tuples(st.sampled_from(["clear", "close"]), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_whatever_is_done_it_rings_as_a_timer_that_is_always_set_anew_would(steps: list[tuple[str, int]]) -> None:
    """And never has more than one timer with the loop."""
    bell = Bell()
    expected: list[float] = []
    at: float | None = None
    for what, seconds in steps:
        now = bell.loop.now
        if what == "set":
            at = now + seconds
            bell.alarm.set(at)
        elif what == "move":
            if at is not None and at <= now + seconds:
                expected.append(at)
                at = None
            bell.loop.move_to(now + seconds)
        else:
            at = None
            getattr(bell.alarm, what)()
        assert bell.rang == expected
        assert len(bell.loop.pending) <= 1


@pytest.mark.parametrize("instant", [-1.0, 0.0, 0.02])
@on_each_loop
async def test_on_a_real_loop_it_rings_at_an_instant_of_that_loops_clock(instant: float) -> None:
    """An instant that is over is due at once."""
    loop = asyncio.get_running_loop()
    rang = asyncio.Event()
    alarm = Alarm(loop, rang.set)
    at = loop.time() + instant
    alarm.set(at)
    assert not rang.is_set()
    await rang.wait()
    assert loop.time() >= at
    alarm.close()
