"""What answers a request runs by hand until it waits for something else, and is a task from then on."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from proxy.work import Work, in_task, present

#: Calls `ended` of each work, in its order.
Told = list[BaseException | None]


def begun(awaited: Awaitable[None]) -> tuple[Work, Told]:
    """A work that has been started, and what was told of its end."""
    told: Told = []
    work = Work(asyncio.get_running_loop(), awaited, told.append)
    work.start()
    return work, told


async def rest() -> None:
    """Rest as the wait for an upstream's head does."""
    work = present()
    assert work is not None
    await work


async def test_what_waits_for_nothing_is_over_at_once() -> None:
    """No turn of the loop passes."""

    async def nothing() -> None:
        pass

    _, told = begun(nothing())
    assert told == [None]


async def test_it_rests_until_somebody_lets_it_go_on_and_is_no_task_meanwhile() -> None:
    """As often as it likes; nobody else has to do anything."""
    seen: list[str] = []
    tasks = asyncio.all_tasks()

    async def twice() -> None:
        for name in ("one", "two"):
            await rest()
            seen.append(name)

    work, told = begun(twice())
    assert (seen, told) == ([], [])
    work.go_on()
    assert (seen, told) == (["one"], [])
    work.go_on()
    assert (seen, told) == (["one", "two"], [None])
    assert asyncio.all_tasks() == tasks


async def test_going_on_with_what_does_not_rest_does_nothing() -> None:
    """It is over, or it waits for something else that has not come."""
    event = asyncio.Event()

    async def waiting() -> None:
        await event.wait()

    work, told = begun(waiting())
    work.go_on()
    await asyncio.sleep(0)
    assert told == []
    event.set()
    await work.join()
    work.go_on()
    assert told == [None]


async def test_where_it_waits_for_anything_else_it_is_a_task() -> None:
    """With all that a task can: being found, and bounding time."""
    seen: list[object] = []

    async def waiting() -> None:
        seen.append(present())
        await asyncio.sleep(0)
        seen.append(present())
        seen.append(asyncio.current_task())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

    work, told = begun(waiting())
    await work.join()
    assert told == [None]
    assert seen[:2] == [work, None]
    assert isinstance(seen[2], asyncio.Task)


async def test_it_can_ask_to_be_a_task() -> None:
    """Where something would fail without one."""

    async def bounding() -> None:
        await in_task()
        async with asyncio.timeout(5):
            await asyncio.sleep(0)

    work, told = begun(bounding())
    await work.join()
    assert told == [None]


async def test_what_is_a_task_already_stays_it() -> None:
    """No turn of the loop is lost."""
    task = asyncio.current_task()
    turned = False

    def turn() -> None:
        nonlocal turned
        turned = True

    asyncio.get_running_loop().call_soon(turn)
    await in_task()
    assert asyncio.current_task() is task
    assert not turned


async def test_one_that_another_one_starts_is_its_own() -> None:
    """The answer to one request can begin while another is looked at."""
    inner: list[Work] = []

    async def within() -> None:
        await rest()

    async def around() -> None:
        mine = present()
        inner.append(begun(within())[0])
        assert present() is mine
        await rest()

    work, told = begun(around())
    work.go_on()
    assert told == [None]
    assert present() is None
    inner[0].go_on()
    await inner[0].join()


async def failing() -> None:
    """At once."""
    raise ValueError


async def failing_later() -> None:
    """When it is a task."""
    await asyncio.sleep(0)
    raise ValueError


async def failing_rested() -> None:
    """When what it rested for is there."""
    await rest()
    raise ValueError


@pytest.mark.parametrize("failing", [failing, failing_later, failing_rested])
async def test_what_it_raises_is_told(failing: Callable[[], Awaitable[None]]) -> None:
    """To whoever asked, and to nobody else."""
    work, told = begun(failing())
    work.go_on()
    await work.join()
    assert [type(each) for each in told] == [ValueError]


async def resting() -> None:
    """By hand."""
    await rest()


async def waiting() -> None:
    """As a task."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("idle", [resting, waiting])
async def test_cancelled_it_cleans_up_and_ends_once(idle: Callable[[], Awaitable[None]], turns: int) -> None:
    """Also where it became a task a moment ago, which has not run yet; and however often it is cancelled."""
    cleaned: list[str] = []

    async def cleaning() -> None:
        try:
            await idle()
        finally:
            cleaned.append("by hand")
            await asyncio.sleep(0)
            cleaned.append("as a task")

    work, told = begun(cleaning())
    for _ in range(turns):
        await asyncio.sleep(0)
    work.cancel()
    work.cancel()
    assert cleaned == []
    await work.join()
    assert cleaned == ["by hand", "as a task"]
    assert [type(each) for each in told] == [asyncio.CancelledError]
    work.cancel()
    await asyncio.sleep(0)
    assert len(told) == 1


async def test_cancelled_and_let_go_on_before_that_was_told_it_ends_where_it_waits_next() -> None:
    """The two come from different sides, in any order."""
    event = asyncio.Event()

    async def going() -> None:
        await rest()
        await event.wait()

    work, told = begun(going())
    work.cancel()
    work.go_on()
    await work.join()
    assert [type(each) for each in told] == [asyncio.CancelledError]


async def test_cancelled_when_it_goes_on_to_its_end_it_ended_well() -> None:
    """What is over is not undone."""
    work, told = begun(resting())
    work.cancel()
    work.go_on()
    await asyncio.sleep(0)
    assert told == [None]


async def test_many_can_wait_for_its_end() -> None:
    """And who waits no longer does not end it."""
    work, told = begun(resting())
    waiting = [asyncio.create_task(work.join()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert told == []
    work.go_on()
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), 5)
    assert told == [None]
