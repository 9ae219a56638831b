"""Tokens on a real server: what is sealed, who has the turn and for how long, what a holder who slept may write."""

import asyncio
import json
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from redis import Redis

from proxy.errors import StoreOutdated, StoreUnavailable, TurnLost
from proxy.redact import Secret
from proxy.stores.base import Missing, Record
from proxy.stores.lease import Lease
from proxy.stores.redis import RedisStore
from proxy.stores.redisclient import RedisClient, Server
from proxy.tls import client_context
from tests.support.harness import HeldClock
from tests.support.leaks import Artefacts, Canaries
from tests.support.places import ServerPlace
from tests.support.redisserver import RedisServer, ServerRefusedError, free_port, needs_redis, serving
from tests.support.waiting import until

pytestmark = needs_redis

KEY, NEWER = b"k" * 32, b"n" * 32
BINDING, OTHER = b"b" * 32, b"o" * 32
TOKEN, TURN = "fleet:{c}:token", "fleet:{c}:turn"


@pytest.fixture
def server(tmp_path: Path, artefacts: Artefacts) -> Iterator[RedisServer]:
    """A server of its own; what it holds at the end is searched for canaries, and so is its folder."""
    artefacts.watch_tree(tmp_path)
    with serving(tmp_path) as made:
        yield made
        if made.process is not None:
            artefacts.add("redis", made.everything())


@pytest.fixture
def record(canaries: Canaries) -> Record:
    """A record of canaries."""
    return Record(4, Secret(canaries.mint()), 1.8e9, 1.8e9 + 3600, Secret(canaries.mint("uuid")), 1.9e9)


@pytest.fixture
async def fleet(server: RedisServer) -> AsyncIterator[ServerPlace]:
    """No store yet."""
    made = ServerPlace(server)
    yield made
    await made.close()


async def held(store: RedisStore, name: str = "c") -> bool:
    """Does somebody hold the turn?"""
    try:
        async with asyncio.timeout(0.2), store.turn(name):
            return False
    except TimeoutError:
        return True


# -- records


@pytest.mark.threat(131)
async def test_131_the_server_holds_nothing_in_the_clear(
    fleet: ServerPlace, record: Record, artefacts: Artefacts
) -> None:
    """Neither does it hear any of it: keys, values, dump and every command are searched for the canaries."""
    store = fleet.open()
    with Redis(unix_socket_path=str(fleet.server.socket), protocol=2) as client, client.monitor() as monitor:
        async with store.turn("c"):
            await store.save("c", BINDING, record)
            await store.load("c", BINDING)
        fleet.server.ask("PING")
        heard = []
        for each in monitor.listen():
            heard.append(str(each["command"]))
            if each["command"] == "PING":
                break
    assert any("EVAL" in each for each in heard)
    artefacts.add("commands", "\n".join(heard))
    assert fleet.server.ask("HGET", TOKEN, "sealed").startswith(b"bearer-proxy 1 ")


@pytest.mark.threat(132)
@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "another's"])
async def test_132_what_is_not_as_it_was_written_does_not_open(
    fleet: ServerPlace, record: Record, harm: str
) -> None:
    """The next token takes its place."""
    store = fleet.open()
    await store.save("c", BINDING, record)
    await store.save("d", BINDING, record)
    sealed = fleet.server.ask("HGET", TOKEN, "sealed")
    other = fleet.server.ask("HGET", "fleet:{d}:token", "sealed")
    harmed = {
        "flipped": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "cut": sealed[:-1],
        "empty": b"",
        "another's": other,
    }
    fleet.server.ask("HSET", TOKEN, "sealed", harmed[harm])
    assert await store.load("c", BINDING) is Missing.UNREADABLE
    await store.save("c", BINDING, record)
    assert await store.load("c", BINDING) == record


@pytest.mark.parametrize("name", ["}:token", "{c}", "a\nb", "c:turn", "d}"])
async def test_no_name_is_anothers_key(fleet: ServerPlace, record: Record, name: str) -> None:
    """Names are quoted."""
    store = fleet.open()
    await store.save("c", BINDING, record)
    async with store.turn("c"), store.turn(name):
        await store.save(name, BINDING, replace(record, generation=9))
    assert await store.load("c", BINDING) == record
    assert fleet.server.ask("DBSIZE") == 2


async def test_a_server_that_has_forgotten_is_no_logout(fleet: ServerPlace, record: Record) -> None:
    """It says nothing where there was something, and takes what is stored again."""
    store = fleet.open()
    await store.save("c", BINDING, record)
    fleet.server.ask("FLUSHALL")
    assert [await store.load("c", BINDING) for _ in range(2)] == [Missing.NOTHING] * 2
    await store.save("c", BINDING, record)
    assert await fleet.open().load("c", BINDING) == record


# -- turns


async def test_who_waits_in_vain_leaves_nothing_behind(fleet: ServerPlace) -> None:
    """Cancelled at every step: before it asks, while it asks, while it waits, while it holds, while it lets go."""
    one, two = fleet.open(), fleet.open()

    async def hold() -> None:
        async with two.turn("c"):
            pass

    for steps in range(40):
        task = asyncio.create_task(hold())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: not two._ending)
        assert fleet.server.ask("EXISTS", TURN) == 0, steps
    async with one.turn("c"):
        waiting = asyncio.create_task(hold())
        for _ in range(20):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert await held(fleet.open())
    assert not await held(two)


async def test_a_turn_is_kept_for_as_long_as_it_takes(fleet: ServerPlace) -> None:
    """It is renewed each third of the lease; seen on the server, which would let go by itself."""
    store = fleet.open()
    async with store.turn("c"):
        for _ in range(3):
            await until(lambda: fleet.server.ask("PTTL", TURN) < 400)
            await until(lambda: fleet.server.ask("PTTL", TURN) > 400)
        await store.confirm("c")
    await store.confirm("c")


@pytest.mark.threat(94)
async def test_094_a_turn_that_was_lost_is_noticed_and_not_taken_back(fleet: ServerPlace) -> None:
    """Neither is that of the next holder ended by it."""
    one, two = fleet.open(), fleet.open()
    async with one.turn("c"):
        fleet.server.ask("DEL", TURN)
        with pytest.raises(TurnLost, match="ran out before a token was asked for"):
            await one.confirm("c")
        async with two.turn("c"):
            with pytest.raises(TurnLost):
                await one.confirm("c")
            await two.confirm("c")
            assert await held(fleet.open())
    assert not await held(two)


@pytest.mark.threat(94)
async def test_094_a_late_save_is_refused(fleet: ServerPlace, record: Record) -> None:
    """The one that slept may write neither over what the next holder wrote nor over what it removed."""
    one, two = fleet.open(), fleet.open()
    await one.save("c", BINDING, record)
    async with one.turn("c"):
        assert await one.load("c", BINDING) == record
        fleet.server.ask("DEL", TURN)
        async with two.turn("c"):
            await two.load("c", BINDING)
            await two.save("c", BINDING, replace(record, generation=5))
        with pytest.raises(StoreOutdated, match="has stored a later token"):
            await one.save("c", BINDING, replace(record, generation=5, obtained_at=2e9))
        found = await one.load("c", BINDING)
        assert found == replace(record, generation=5)
        await two.forget("c")
        with pytest.raises(StoreOutdated):
            await one.save("c", BINDING, record)
        assert await one.load("c", BINDING) is Missing.LOGGED_OUT


async def test_094_a_late_save_that_replaces_nothing_new_is_not_lost(fleet: ServerPlace, record: Record) -> None:
    """Its refresh token is the only one that is good; the holder of the turn writes over it nevertheless."""
    one, two = fleet.open(), fleet.open()
    await one.save("c", BINDING, record)
    async with one.turn("c"):
        await one.load("c", BINDING)
        fleet.server.ask("DEL", TURN)
        async with two.turn("c"):
            assert await two.load("c", BINDING) == record
            await one.save("c", BINDING, replace(record, generation=5))
            assert await two.load("c", BINDING) == replace(record, generation=5)
            await one.save("c", BINDING, replace(record, generation=6))
            await two.save("c", BINDING, replace(record, generation=7))
        with pytest.raises(StoreOutdated):
            await one.save("c", BINDING, replace(record, generation=8))


async def test_094_whoever_has_the_turn_notes_nothing_over_what_came_since_it_read(
    fleet: ServerPlace, record: Record
) -> None:
    """The one that had it before was late, and redeems that very refresh token: the write tells who may."""
    one, two = fleet.open(), fleet.open()
    noted = replace(record, redeeming=True)
    await one.save("c", BINDING, record)
    async with one.turn("c"):
        await one.load("c", BINDING)
        fleet.server.ask("DEL", TURN)
        async with two.turn("c"):
            assert await two.load("c", BINDING) == record
            await one.save("c", BINDING, noted)
            with pytest.raises(StoreOutdated):
                await two.save("c", BINDING, noted)
            assert await two.load("c", BINDING) == noted
            await two.save("c", BINDING, noted)


async def test_who_has_read_nothing_writes_only_where_nothing_is(fleet: ServerPlace, record: Record) -> None:
    """The server came back while somebody had asked without a turn. With the turn it may write over anything."""
    one, two, three = fleet.open(), fleet.open(), fleet.open()
    async with one.turn("c"):
        await two.save("c", BINDING, record)
        with pytest.raises(StoreOutdated):
            await three.save("c", BINDING, replace(record, generation=5))
        assert await one.load("c", BINDING) == record
    async with three.turn("c"):
        await three.save("c", BINDING, replace(record, generation=5))
    assert await one.load("c", BINDING) == replace(record, generation=5)


async def test_a_late_save_is_not_lost_on_a_server_that_has_forgotten(fleet: ServerPlace, record: Record) -> None:
    """Nothing that is later is there. But nothing is redeemed there, and what was removed is another matter."""
    one, two = fleet.open(), fleet.open()
    async with one.turn("c"):
        await one.save("c", BINDING, record)
        await one.save("c", BINDING, replace(record, redeeming=True))
        fleet.server.ask("FLUSHALL")
        with pytest.raises(StoreOutdated):
            await one.save("c", BINDING, replace(record, redeeming=True))
        await one.save("c", BINDING, replace(record, generation=5))
        assert await two.load("c", BINDING) == replace(record, generation=5)
        fleet.server.ask("DEL", TURN)
        await two.forget("c")
        with pytest.raises(StoreOutdated):
            await one.save("c", BINDING, record)


async def test_094_what_may_have_been_there_is_not_put_where_nothing_is(fleet: ServerPlace, record: Record) -> None:
    """Somebody may have redeemed it before the server lost all. Elsewhere a late save replaces what was read."""
    store = fleet.open()
    with pytest.raises(StoreOutdated):
        await store.save("c", BINDING, record, again=True)
    await store.save("c", BINDING, record)
    later = replace(record, generation=5)
    await store.save("c", BINDING, later, again=True)
    assert await store.load("c", BINDING) == later
    fleet.server.ask("FLUSHALL")
    async with store.turn("c"):
        with pytest.raises(StoreOutdated):
            await store.save("c", BINDING, later, again=True)
        assert await store.load("c", BINDING) is Missing.NOTHING


async def test_what_is_sent_twice_happens_once(fleet: ServerPlace, record: Record) -> None:
    """The answer to the first was lost: the same tag and the same owner are no others'."""
    answers = []
    store = fleet.open()
    call = store._client.call

    async def twice(*words: str | bytes | int) -> Any:
        answers.append((await call(*words), answer := await call(*words)))
        return answer

    store._client.call = twice  # type: ignore[method-assign]  # a server whose first answer is lost
    async with store.turn("c"):
        await store.load("c", BINDING)
        await store.save("c", BINDING, record)
        await store.confirm("c")
    # A record comes with the time of its reading.
    assert all(first == second or first[1] == second[1] for first, second in answers[:-1])
    assert answers[-1] == (1, 0)
    assert await store.load("c", BINDING) == record


async def test_whoever_is_cancelled_in_a_command_does_not_go_on(fleet: ServerPlace) -> None:
    """At every step of it: a deadline around it would pass, and who waits for its end would wait for ever."""
    client = fleet.open()._client
    was_done = False
    for steps in range(200):
        asking = asyncio.create_task(client.call("HGET", TOKEN, "tag"))
        for _ in range(steps):
            await asyncio.sleep(0)
        was_done = asking.done()
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled() is not was_done, steps
        if was_done:
            break


async def test_094_a_pause_between_question_and_answer_counts(clock: HeldClock) -> None:
    """Of the lease there must be enough left for a token request."""
    pauses = [0.0, 0.0, 10.0, 10.1]

    async def call(*_words: object) -> int:
        clock.move(pauses.pop(0) if pauses else 0.0)
        return 1

    async def sleep(_seconds: float) -> None:
        await asyncio.Event().wait()

    lease = Lease(call, "k", "me", seconds=30.0, now=clock.now, sleep=sleep, jitter=lambda: 0.5)
    await lease.take()
    for _ in range(2):
        await lease.confirm()
    with pytest.raises(TurnLost):
        await lease.confirm()
    await lease.let_go()


async def test_who_waits_asks_more_and_more_seldom(clock: HeldClock) -> None:
    """With jitter, so that a fleet does not ask as one."""
    pauses: list[float] = []

    async def call(*_words: object) -> int:
        return len(pauses) == 7

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    for jitter, factor in ((0.0, 0.5), (0.5, 1.0)):
        pauses.clear()
        lease = Lease(call, "k", "me", seconds=30.0, now=clock.now, sleep=sleep, jitter=lambda at=jitter: at)  # type: ignore[misc]  # bound early
        asking = asyncio.create_task(lease.take())
        await asking
        assert pauses[:7] == pytest.approx([factor * each for each in (0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5)])
        await lease.let_go()


# -- processes

#: Takes the turn, reads, and does what it is told, line by line, with the word of what came of it.
HOLDER: Final = """
import asyncio, os, sys
from dataclasses import replace
from proxy.clock import SystemClock
from proxy.stores.redis import RedisStore, Timing
from proxy.stores.redisclient import RedisClient, Server
from proxy.stores.seal import Ring
async def main():
    ring = Ring((b"k" * 32,), random=os.urandom)
    timing = Timing(lease=float(sys.argv[2]), patience=20.0)
    store = RedisStore(
        RedisClient(Server(path=sys.argv[1])), ring, prefix="fleet", random=os.urandom, now=SystemClock().now,
        timing=timing,
    )
    async with store.turn("c"):
        record = await store.load("c", b"b" * 32)
        print("holds", flush=True)
        while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
            try:
                if word == "confirm":
                    await store.confirm("c")
                elif word == "save":
                    await store.save("c", b"b" * 32, replace(record, generation=record.generation + 1))
                print("done", flush=True)
            except Exception as error:
                print(type(error).__name__, flush=True)
    await store.close()
asyncio.run(main())
"""


@dataclass
class Holder:
    """Another process that has the turn."""

    process: asyncio.subprocess.Process

    async def says(self) -> str:
        """Its next word."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            return (await self.process.stdout.readline()).decode().strip()

    async def told(self, word: str) -> str:
        """What comes of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        return await self.says()


@asynccontextmanager
async def holder(server: RedisServer, lease: float) -> AsyncIterator[Holder]:
    """A process that has taken the turn."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(server.socket), str(lease)),
        cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    made = Holder(process)
    try:
        assert await made.says() == "holds"
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_088_a_turn_has_one_holder_among_all_processes(fleet: ServerPlace, record: Record) -> None:
    """And passes when that process is through."""
    store = fleet.open()
    await store.save("c", BINDING, record)
    async with holder(fleet.server, 30.0) as other:
        assert await held(store)
        assert (await other.told("confirm"), await other.told("save")) == ("done", "done")
        assert other.process.stdin is not None
        other.process.stdin.close()
        async with store.turn("c"):
            assert await store.load("c", BINDING) == replace(record, generation=5)
            assert await other.process.wait() == 0


@pytest.mark.threat(128)
async def test_090_a_process_that_dies_with_the_turn_locks_others_out_for_one_lease(fleet: ServerPlace) -> None:
    """No longer."""
    store = fleet.open()
    async with holder(fleet.server, 0.5) as other:
        other.process.kill()
        await other.process.wait()
        async with store.turn("c"):
            await store.confirm("c")


async def test_094_a_process_that_stood_still_longer_than_its_lease_does_no_harm(
    fleet: ServerPlace, record: Record
) -> None:
    """It neither asks with a turn that it has lost, nor writes over what came after it; both is told."""
    store = fleet.open()
    await store.save("c", BINDING, record)
    async with holder(fleet.server, 0.5) as other:
        other.process.send_signal(signal.SIGSTOP)
        async with store.turn("c"):
            assert await store.load("c", BINDING) == record
            await store.save("c", BINDING, replace(record, generation=9))
        other.process.send_signal(signal.SIGCONT)
        assert await other.told("confirm") == "TurnLost"
        assert await other.told("save") == "StoreOutdated"
    assert await store.load("c", BINDING) == replace(record, generation=9)


# -- a server that fails


def _everything(store: RedisStore, record: Record) -> dict[str, Callable[[], Awaitable[object]]]:
    """All that can be asked of a store."""

    async def turn() -> None:
        async with store.turn("c"):
            pass

    return {
        "turn": turn,
        "load": lambda: store.load("c", BINDING),
        "save": lambda: store.save("c", BINDING, record),
        "forget": lambda: store.forget("c"),
    }


async def refusals(store: RedisStore, record: Record) -> set[str]:
    """What each of them ends in."""
    said = set()
    for each in _everything(store, record).values():
        with pytest.raises(StoreUnavailable) as caught:
            await each()
        assert caught.value.code == "store_unavailable"
        said.add(caught.value.detail)
    return said


async def test_a_server_that_is_gone_is_told_and_one_that_is_back_is_used(
    fleet: ServerPlace, record: Record
) -> None:
    """Connections from before the restart are no trouble; here it forgets what it held."""
    store = fleet.open()
    async with store.turn("c"):
        await store.save("c", BINDING, record)
    fleet.server.stop()
    assert await refusals(store, record) == {f"The server {fleet.server.socket} (store.url) does not answer."}
    fleet.server.start()
    assert await store.load("c", BINDING) is Missing.NOTHING
    async with store.turn("c"):
        await store.save("c", BINDING, record)
        await store.confirm("c")
    assert await fleet.open().load("c", BINDING) == record


async def test_a_restart_in_the_middle_of_a_turn_ends_nothing(
    tmp_path: Path, record: Record, artefacts: Artefacts
) -> None:
    """With persistence the turn goes on where it was, and so does the record."""
    artefacts.watch_tree(tmp_path)
    with serving(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        fleet = ServerPlace(server)
        one, two = fleet.open(lease=30.0), fleet.open()
        async with one.turn("c"):
            await one.save("c", BINDING, record)
            server.stop()
            server.start()
            await one.confirm("c")
            assert await held(two)
            await one.save("c", BINDING, replace(record, generation=5))
        assert not await held(two)
        assert await two.load("c", BINDING) == replace(record, generation=5)
        await fleet.close()


async def test_a_turn_that_a_server_forgot_is_lost(fleet: ServerPlace, record: Record) -> None:
    """Without persistence somebody else may have it; a write over what was not read is refused."""
    one, two = fleet.open(lease=30.0), fleet.open()
    async with one.turn("c"):
        fleet.server.stop()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await one.confirm("c")
        fleet.server.start()
        with pytest.raises(TurnLost):
            await one.confirm("c")
        async with two.turn("c"):
            await two.save("c", BINDING, record)
        await one.load("d", BINDING)
    assert not await held(two)


async def test_a_server_that_says_nothing_has_its_time(fleet: ServerPlace, record: Record) -> None:
    """Each command ends. What the server does late is in nobody's way for longer than a lease."""
    store = fleet.open()
    store._client = RedisClient(Server(path=str(fleet.server.socket)), seconds=0.1)
    await store.save("c", BINDING, record)
    fleet.server.pause()
    assert await refusals(store, record) == {f"The server {fleet.server.socket} (store.url) does not answer."}
    fleet.server.resume()
    await until(lambda: not store._ending)
    async with store.turn("c"):
        await store.save("c", BINDING, record)
    assert await fleet.open().load("c", BINDING) == record


async def test_what_the_server_refuses_is_told_without_its_words(fleet: ServerPlace, record: Record) -> None:
    """A full one, a replica, a key of another make."""
    store = fleet.open()
    fleet.server.ask("SET", TOKEN, "something else")
    with pytest.raises(StoreUnavailable, match=r"\(store.url\) refused a command: its user must be allowed"):
        await store.load("c", BINDING)
    fleet.server.ask("DEL", TOKEN)
    fleet.server.ask("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable, match="takes no writes: it is full, or a replica"):
        await store.save("c", BINDING, record)
    fleet.server.ask("REPLICAOF", "NO", "ONE")
    fleet.server.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="takes no writes: it is full, or a replica"):
        await store.save("c", BINDING, record)
    fleet.server.ask("CONFIG", "SET", "maxmemory", "0")
    await store.save("c", BINDING, record)


NEEDED: Final = ("eval", "get", "set", "del", "pexpire", "hget", "hmget", "hset", "hdel", "time")
RULES: Final = ("~fleet:*", *(f"+{each}" for each in NEEDED))


async def test_a_user_of_the_access_list_needs_these_commands(
    fleet: ServerPlace, record: Record, canaries: Canaries
) -> None:
    """On these keys alone; who we are is shown to nobody, and a wrong password is told."""
    password = canaries.mint("password")
    fleet.server.ask("ACL", "SETUSER", "proxy", "on", f">{password}", "resetchannels", *RULES)
    store = fleet.open(username="proxy", password=Secret(password))
    async with store.turn("c"):
        await store.save("c", BINDING, record)
        await store.confirm("c")
    assert await store.load("c", BINDING) == record
    await store.forget("c")
    admin = canaries.mint("password")
    fleet.server.ask("ACL", "SETUSER", "admin", "on", f">{admin}", "~*", "+@all")
    fleet.server.user, fleet.server.password = "admin", admin
    fleet.server.ask("ACL", "SETUSER", "default", "off")
    wrong = Secret(canaries.mint("password"))
    for refused in ({}, {"password": wrong}, {"username": "proxy", "password": wrong}, {"username": "nobody"}):
        [said] = await refusals(fleet.open(**refused), record)
        assert "does not let this user in, or not do what it must: check store.username" in said


async def test_a_password_alone_is_that_of_the_default_user(
    fleet: ServerPlace, record: Record, canaries: Canaries, artefacts: Artefacts, caplog: pytest.LogCaptureFixture
) -> None:
    """A user who may not do something is told so as well; the library logs nothing."""
    password = canaries.mint("password")
    fleet.server.ask("CONFIG", "SET", "requirepass", password)
    fleet.server.password = password
    with caplog.at_level(logging.DEBUG):
        store = fleet.open(password=Secret(password))
        await store.save("c", BINDING, record)
        assert await store.load("c", BINDING) == record
        fleet.server.ask("ACL", "SETUSER", "default", "-hmget")
        with pytest.raises(StoreUnavailable, match=r"must be allowed|does not let"):
            await store.load("c", BINDING)
        fleet.server.ask("ACL", "SETUSER", "default", "-hset")
        with pytest.raises(StoreUnavailable, match=r"must be allowed|does not let"):
            await store.save("c", BINDING, record)
        fleet.server.ask("ACL", "SETUSER", "default", "+@all")
    artefacts.add("log", caplog.text)


async def test_databases_are_apart(fleet: ServerPlace, record: Record) -> None:
    """By their number."""
    await fleet.open(database=3).save("c", BINDING, record)
    assert await fleet.open().load("c", BINDING) is Missing.NOTHING
    assert await fleet.open(database=3).load("c", BINDING) == record


# -- TLS


@dataclass
class Secured:
    """A server that speaks TLS alone, and asks for certificates."""

    port: int
    bundle: Path
    client: Path
    server: RedisServer


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    """Its certificate names localhost."""
    authority = trustme.CA()
    port, bundle, own, client = free_port(), tmp_path / "ca.pem", tmp_path / "own.pem", tmp_path / "client.pem"
    authority.cert_pem.write_to_path(str(bundle))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(own))
    authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(str(client))
    files = ("--tls-cert-file", str(own), "--tls-key-file", str(own), "--tls-ca-cert-file", str(bundle))
    try:
        with serving(tmp_path, "--tls-port", str(port), *files) as server:
            yield Secured(port, bundle, client, server)
    except ServerRefusedError:
        pytest.skip("this machine's redis-server speaks no TLS")


@pytest.mark.threat(59)
async def test_059_a_server_with_tls_is_verified_and_shown_a_certificate(
    secured: Secured, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name and authority; no key of a session goes to a file."""
    keys = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    shown = client_context(secured.bundle, cert=secured.client)
    fleet = ServerPlace(secured.server)
    at: dict[str, Any] = {"path": None, "port": secured.port}
    store = fleet.open(host="localhost", tls=shown, **at)
    async with store.turn("c"):
        await store.save("c", BINDING, record)
    assert await store.load("c", BINDING) == record
    contexts: list[tuple[str, ssl.SSLContext | None]] = [
        ("127.0.0.1", shown),
        ("localhost", client_context(cert=secured.client)),
        ("localhost", client_context(secured.bundle)),
        ("localhost", None),
    ]
    for host, context in contexts:
        [said] = await refusals(fleet.open(host=host, tls=context, **at), record)
        assert said == f"The server {host}:{secured.port} (store.url) does not answer."
    assert not keys.exists()
    await fleet.close()


def test_a_server_is_called_by_its_address() -> None:
    """Never by who we are to it."""
    secret = Secret("what must not be shown")
    assert str(Server(password=secret)) == "localhost:6379"
    assert str(Server("::1", 1)) == "[::1]:1"
    assert str(Server(path="/run/redis.sock")) == "/run/redis.sock"
    assert json.dumps(repr(Server(password=secret))).count("must not") == 0
