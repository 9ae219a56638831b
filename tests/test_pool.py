"""The pool: how many connections there are, who gets which, and what a failed connect is called."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import pytest

from proxy.errors import (
    Overloaded,
    UpstreamConnectTimeout,
    UpstreamDNS,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from proxy.routes import Origin
from proxy.upstream.connection import Connection
from proxy.upstream.dial import Dialer
from proxy.upstream.pool import Pool
from tests.support.harness import HeldClock
from tests.support.upstreams import CLOSE, DEADLINE, REQUEST, Script, Upstream, on_each_loop, turns

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SERVE: Final[Script] = [REQUEST, OK] * 50


@asynccontextmanager
async def pooled(
    *scripts: Script,
    size: int = 2,
    idle: float = DEADLINE,
    connect: float = DEADLINE,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[Upstream, Pool]]:
    """An upstream (by default one that serves), and a pool of connections to it."""
    async with Upstream(*scripts or [SERVE]) as upstream:
        pool = Pool(Dialer(upstream.origin), size=size, idle=idle, connect=connect, now=now)
        try:
            yield upstream, pool
        finally:
            pool.close()


async def used(connection: Connection) -> Connection:
    """The connection after one clean exchange."""
    answer = connection.begin("GET")
    connection.write(b"GET / HTTP/1.1\r\n\r\n")
    await answer.wait_for_head()
    return connection


async def waiting(pool: Pool, count: int, *, fresh: bool = False) -> list[asyncio.Task[Connection]]:
    """Tasks that wait for a connection, in this order."""
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(pool.acquire(fresh=fresh)))
        await turns()
    assert not any(task.done() for task in tasks)
    return tasks


@on_each_loop
async def test_a_clean_connection_is_used_again_and_the_last_one_first() -> None:
    """LIFO: the warmest serves, the others may grow old and go."""
    async with pooled() as (upstream, pool):
        one, two = await used(await pool.acquire()), await used(await pool.acquire())
        pool.release(one)
        pool.release(two)
        assert await pool.acquire() is two
        assert await pool.acquire() is one
        assert (len(upstream.peers), pool.open, one.used) == (2, 2, 1)


@on_each_loop
async def test_what_rests_is_taken_at_once_and_what_does_not_is_not() -> None:
    """`take` waits for nobody and connects nothing: the last one first, each once, and then none."""
    async with pooled(size=3) as (upstream, pool):
        assert pool.take() is None
        one, two, busy = [await used(await pool.acquire()) for _ in range(3)]
        assert pool.take() is None
        pool.release(one)
        pool.release(two)
        assert [pool.take(), pool.take(), pool.take()] == [two, one, None]
        pool.release(busy)
        assert pool.take() is busy
        assert (len(upstream.peers), pool.open) == (3, 3)
        pool.close()
        pool.release(one)
        assert pool.take() is None


@pytest.mark.threat(43)
@pytest.mark.parametrize("what", ["data", "FIN", "an end that is only announced", "our own close", "its time"])
@on_each_loop
async def test_043_what_spoiled_while_it_rested_is_not_taken_but_closed(what: str) -> None:
    """The one below it is good, and taken in its place; a place in the pool is free."""
    async with pooled() as (upstream, pool):
        good, spoiled = await used(await pool.acquire()), await used(await pool.acquire())
        pool.release(good)
        pool.release(spoiled)
        with (await upstream.peer(1)).duplicate() as sock:
            if what == "data":
                sock.send(b"x")
            elif what == "FIN":
                sock.shutdown(socket.SHUT_WR)
            elif what == "an end that is only announced":
                spoiled.eof_received()  # as TLS may do it, while the socket says nothing
            elif what == "our own close":
                spoiled.close()
            else:
                spoiled.idle_until = spoiled.loop.time()
        assert pool.take() is good
        assert pool.take() is None
        assert pool.open == 1
        await (await upstream.peer(1)).ended.wait()


@on_each_loop
async def test_taken_is_in_use_until_it_is_released() -> None:
    """Who waits behind it gets it then, or its place, and the reaper leaves it alone."""
    async with pooled(size=1, idle=0.05) as (_, pool):
        pool.release(await used(await pool.acquire()))
        taken = pool.take()
        assert taken is not None
        [waiter] = await waiting(pool, 1)
        passed = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.1, passed.set_result, None)
        await passed
        assert taken.is_quiet()
        pool.release(taken)
        assert await waiter is taken


@on_each_loop
async def test_a_connection_that_was_not_proven_clean_is_closed_on_release() -> None:
    """Nothing is kept of an exchange that did not end; releasing twice changes nothing."""
    async with pooled() as (upstream, pool):
        connection = await pool.acquire()
        connection.begin("GET")
        pool.release(connection)
        pool.release(connection)
        assert pool.open == 0
        await (await upstream.peer()).ended.wait()


@pytest.mark.threat(43)
@pytest.mark.parametrize("what", ["data", "FIN"])
@on_each_loop
async def test_an_idle_connection_with_something_pending_is_replaced(what: str) -> None:
    """043: it is the pool that asks, at the last moment, also when the loop has not heard of it yet."""
    async with pooled() as (upstream, pool):
        old = await used(await pool.acquire())
        pool.release(old)
        with (await upstream.peer()).duplicate() as sock:
            if what == "data":
                sock.send(b"x")
            else:
                sock.shutdown(socket.SHUT_WR)
        new = await pool.acquire()
        assert new is not old
        assert (new.used, pool.open) == (0, 1)


@on_each_loop
async def test_a_handed_over_connection_with_something_pending_is_replaced_in_its_place() -> None:
    """043: the same for a connection that goes from one request to the next without resting."""
    async with pooled(size=1) as (upstream, pool):
        old = await used(await pool.acquire())
        [waiter] = await waiting(pool, 1)
        with (await upstream.peer()).duplicate() as sock:
            sock.send(b"x")
        pool.release(old)
        assert (await waiter).used == 0
        assert pool.open == 1


@on_each_loop
async def test_fresh_means_that_nobody_used_it_before() -> None:
    """An idle one is left for others while there is room, and makes room where there is none."""
    async with pooled(size=2) as (upstream, pool):
        idle = await used(await pool.acquire())
        pool.release(idle)
        fresh = await pool.acquire(fresh=True)
        assert (fresh.used, pool.open) == (0, 2)
        pool.release(await used(fresh))
        again = await pool.acquire(fresh=True)
        assert (again.used, pool.open) == (0, 2)
        await (await upstream.peer()).ended.wait()
        assert await pool.acquire() is fresh


@on_each_loop
async def test_a_waiter_for_a_fresh_one_takes_the_place_of_a_used_one() -> None:
    """Its turn is its turn: it does not lose its place to those behind it."""
    async with pooled(size=1) as (_, pool):
        first = await used(await pool.acquire())
        [fresh] = await waiting(pool, 1, fresh=True)
        [behind] = await waiting(pool, 1)
        pool.release(first)
        connection = await fresh
        assert (connection.used, pool.open) == (0, 1)
        pool.release(await used(connection))
        assert await behind is connection


@pytest.mark.threat(117)
@on_each_loop
async def test_there_are_never_more_connections_than_the_size() -> None:
    """117: 40 requests at once over 3 connections, each served."""
    async with pooled(size=3) as (upstream, pool):
        most = 0

        async def exchange() -> None:
            nonlocal most
            connection = await used(await pool.acquire())
            most = max(most, pool.open)
            pool.release(connection)

        await asyncio.gather(*(exchange() for _ in range(40)))
        assert (most, len(upstream.peers), upstream.requests) == (3, 3, 40)


@pytest.mark.threat(117)
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "closed"])
@on_each_loop
async def test_waiters_are_served_in_their_order_and_no_newcomer_passes_them(*, clean: bool) -> None:
    """117: a connection that comes back, and a place that becomes free, both go to the one who waits longest."""
    async with pooled(size=1) as (_, pool):
        connection = await used(await pool.acquire())
        order: list[int] = []

        async def wait(number: int) -> None:
            nonlocal connection
            connection = await pool.acquire()
            order.append(number)
            await used(connection)
            if not clean:
                connection.close()
            newcomer = asyncio.create_task(newcomers())
            await turns(1)
            pool.release(connection)
            late.append(newcomer)

        async def newcomers() -> None:
            pool.release(await used(await pool.acquire()))
            order.append(-1)

        late: list[asyncio.Task[None]] = []
        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(wait(number)))
            await turns(3)
        pool.release(connection)
        await asyncio.gather(*tasks)
        await asyncio.gather(*late)
        assert order == [0, 1, 2, 3, 4, *[-1] * 5]


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "closed"])
@pytest.mark.parametrize("when", ["before its turn", "at its turn", "while connecting"])
@on_each_loop
async def test_a_waiter_that_gives_up_loses_nothing(when: str, *, clean: bool) -> None:
    """A client that hangs up in the very moment of its turn passes the connection, or the place, on."""
    async with pooled(size=1) as (_, pool):
        connection = await used(await pool.acquire())
        first, second = await waiting(pool, 2, fresh=when == "while connecting")
        if when == "before its turn":
            first.cancel()
            await turns()
        if not clean:
            connection.close()
        pool.release(connection)
        if when == "while connecting":
            await turns(1)
        first.cancel()
        assert (await second).used == (1 if clean and when != "while connecting" else 0)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert pool.open == 1


@pytest.mark.threat(117)
@on_each_loop
async def test_the_wait_for_a_connection_is_bounded_and_leaves_nothing_behind() -> None:
    """117: `connect` bounds it, then 504; the next release serves the next request."""
    async with pooled(size=1, connect=0.05) as (_, pool):
        connection = await used(await pool.acquire())
        with pytest.raises(UpstreamConnectTimeout) as late:
            await pool.acquire()
        assert (late.value.status, late.value.proxy_error) == (504, "connection_timeout")
        pool.release(connection)
        assert await pool.acquire() is connection


@on_each_loop
async def test_an_idle_connection_is_closed_after_its_time() -> None:
    """Nobody has to ask for it: the upstream sees the end."""
    async with pooled(idle=0.05) as (upstream, pool):
        pool.release(await used(await pool.acquire()))
        assert pool.open == 1
        await (await upstream.peer()).ended.wait()
        assert pool.open == 0


@on_each_loop
async def test_each_idle_connection_has_its_own_time() -> None:
    """The one that was used last goes last, and is not forgotten."""
    async with pooled(idle=0.1) as (upstream, pool):
        one, two = await used(await pool.acquire()), await used(await pool.acquire())
        pool.release(one)
        loop = asyncio.get_running_loop()
        released = asyncio.Event()

        def release() -> None:
            pool.release(two)
            released.set()

        loop.call_later(0.05, release)
        await (await upstream.peer(0)).ended.wait()
        assert pool.open == 1
        await released.wait()
        await (await upstream.peer(1)).ended.wait()
        assert pool.open == 0


@pytest.mark.parametrize(("seconds", "kept"), [(0, False), (1, False), (2, True)])
@on_each_loop
async def test_the_upstreams_keep_alive_shortens_the_idle_time(seconds: int, *, kept: bool) -> None:
    """One second before the upstream would close it is the end: that race is not worth a reuse."""
    wire = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=%d\r\nContent-Length: 0\r\n\r\n" % seconds
    async with pooled([REQUEST, wire]) as (_, pool):
        connection = await used(await pool.acquire())
        pool.release(connection)
        assert (pool.open == 1) is kept
        if kept:
            assert connection.idle_until <= time.monotonic() + seconds - 1


@on_each_loop
async def test_096_what_rested_over_a_suspend_is_old_before_any_timer_rings(clock: HeldClock) -> None:
    """The timers of the loop stood still; the clock of the time at rest did not."""
    async with pooled(idle=300.0, now=clock.now) as (upstream, pool):
        old = await used(await pool.acquire())
        pool.release(old)
        clock.sleep(301.0)
        assert pool.take() is None
        assert (await used(await pool.acquire())) is not old
        assert (len(upstream.peers), pool.open) == (2, 1)


@on_each_loop
async def test_the_reaper_leaves_what_is_not_old_yet(clock: HeldClock) -> None:
    """Its timer and the clock of the time at rest need not agree: it looks again."""
    async with pooled(idle=0.02, now=clock.now) as (upstream, pool):
        pool.release(await used(await pool.acquire()))
        reaped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, reaped.set_result, None)
        await reaped
        assert pool.open == 1
        clock.move(0.02)
        await (await upstream.peer()).ended.wait()
        assert pool.open == 0


@on_each_loop
async def test_096_all_that_rests_can_be_dropped_and_the_next_one_connects_anew() -> None:
    """What is in use stays, and serves on."""
    async with pooled(size=3) as (upstream, pool):
        busy, *idle = [await used(await pool.acquire()) for _ in range(3)]
        for connection in idle:
            pool.release(connection)
        pool.drop_idle()
        for number in (1, 2):
            await (await upstream.peer(number)).ended.wait()
        assert pool.open == 1
        pool.release(await used(busy))
        assert await pool.acquire() is busy
        assert (await pool.acquire()).used == 0


@on_each_loop
async def test_a_closed_pool_closes_idle_connections_and_takes_none_back() -> None:
    """What is in use ends first; there are no new ones."""
    async with pooled() as (upstream, pool):
        busy, idle = await used(await pool.acquire()), await used(await pool.acquire())
        pool.release(idle)
        pool.close()
        await (await upstream.peer(1)).ended.wait()
        assert pool.open == 1
        pool.release(busy)
        assert pool.open == 0
        with pytest.raises(Overloaded):
            await pool.acquire()


@on_each_loop
async def test_a_lost_idle_connection_does_not_fill_the_pool() -> None:
    """The upstream closes all idle ones at once: the next request connects anew, whatever the size."""
    async with pooled([REQUEST, OK, CLOSE], [REQUEST, OK, CLOSE], SERVE, size=2) as (upstream, pool):
        for connection in [await used(await pool.acquire()), await used(await pool.acquire())]:
            pool.release(connection)
        await turns()
        assert (await pool.acquire()).used == 0
        assert (len(upstream.peers), pool.open) == (3, 1)


@contextmanager
def full_backlog() -> Iterator[int]:
    """The port of a listening socket whose queue is full: a further connect is not answered at all."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)  # noqa: FBT003  the socket module's own signature
            second.connect_ex(address)
            yield address[1]


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.threat(71)
@pytest.mark.parametrize(
    ("host", "error", "proxy_error"),
    [
        pytest.param("127.0.0.1", UpstreamRefused, "connection_refused", id="refused"),
        pytest.param("host.invalid", UpstreamDNS, "dns_error", id="no such name"),
        pytest.param("a" * 64 + ".example", UpstreamDNS, "dns_error", id="a name that cannot be one"),
        pytest.param("255.255.255.255", UpstreamUnreachable, "destination_unavailable", id="no address of a host"),
    ],
)
@on_each_loop
async def test_a_failed_connect_becomes_the_error_that_says_why(
    host: str, error: type[UpstreamError], proxy_error: str
) -> None:
    """067, 071: one boundary translates, by class and not by text; the place in the pool is free again."""
    pool = Pool(Dialer(Origin("http", host, free_port())), size=1, connect=DEADLINE)
    for _ in range(2):
        with pytest.raises(error) as failed:
            await pool.acquire()
        assert type(failed.value) is error
        assert failed.value.proxy_error == proxy_error
        assert pool.open == 0


@pytest.mark.threat(67)
@on_each_loop
async def test_a_connect_that_nobody_answers_ends_in_time() -> None:
    """067: 504 after `connect` seconds, and the place in the pool is free again."""
    with full_backlog() as port:
        pool = Pool(Dialer(Origin("http", "127.0.0.1", port)), connect=0.05)
        with pytest.raises(UpstreamConnectTimeout):
            await pool.acquire()
        assert pool.open == 0


@on_each_loop
async def test_a_failed_connect_gives_its_place_to_the_next_waiter() -> None:
    """Every waiter hears of the failure; none waits for a place that is free."""
    pool = Pool(Dialer(Origin("http", "127.0.0.1", free_port())), size=1, connect=DEADLINE)
    outcomes = await asyncio.gather(*(pool.acquire() for _ in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UpstreamRefused] * 5
    assert pool.open == 0


@pytest.mark.threat(119)
@on_each_loop
async def test_every_connection_that_came_is_ended_whatever_happened_on_it() -> None:
    """119: 100 connections that end in every way; the upstream sees the end of each, none is forgotten."""
    scripts: list[Script] = [
        [REQUEST, OK],
        [REQUEST, OK, CLOSE],
        [CLOSE],
        [REQUEST, b"garbage\r\n\r\n"],
        [REQUEST, OK + b"x"],
    ]
    async with pooled(*scripts * 20, size=1) as (upstream, pool):
        for _ in range(100):
            connection = await pool.acquire(fresh=True)
            with suppress(UpstreamError):
                await used(connection)
            pool.release(connection)
        pool.close()
        assert pool.open == 0
        assert len(upstream.peers) == 100
        for peer in upstream.peers:
            await peer.ended.wait()
