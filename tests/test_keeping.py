"""A token source and its store: who is taken over, when it looks, and what a store that fails costs (nothing)."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from proxy.credentials.source import TokenSource
from proxy.errors import (
    CredentialError,
    CredentialRejected,
    CredentialUnavailable,
    LoginRequired,
    StoreBusy,
    StoreOutdated,
    StoreUnavailable,
    TurnLost,
)
from proxy.grants.request import Granted
from proxy.redact import Secret
from proxy.stores.base import Missing, Record
from proxy.stores.latch import Latch
from proxy.stores.memory import MemoryStore
from tests.support.granting import Heard, Script
from tests.support.harness import HeldClock
from tests.support.leaks import Canaries
from tests.support.upstreams import turns
from tests.support.waiting import until

WAIT = 30.0
BINDING = b"binding"


class Shelf(MemoryStore):
    """A store that counts as lasting, counts how often it is looked at, and fails as it is told.

    What it says then is said of this process alone, unless it is `full`.
    """

    lasting = True

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        #: Why what others have put there does not open for this process.
        self.closed: Missing | None = None
        self.busy = False
        self.may_load, self.may_save = asyncio.Event(), asyncio.Event()
        self.may_load.set()
        self.may_save.set()
        self.loads = 0

    async def load(self, name: str, binding: bytes) -> Record | Missing:
        """What was there when it was asked, as soon as it may, unless it is broken."""
        self.loads += 1
        found = await super().load(name, binding)
        may_load = self.may_load
        await may_load.wait()
        if "load" in self.broken:
            raise StoreUnavailable("cannot be read")
        return self.closed or found

    async def save(self, name: str, binding: bytes, record: Record, *, again: bool = False) -> None:
        """As soon as it may, unless it is broken."""
        await self.may_save.wait()
        if self.broken & {"save", "full"}:
            failure = StoreUnavailable("cannot be written")
            failure.for_all = "full" in self.broken
            raise failure
        if "outdated" in self.broken:
            raise StoreOutdated
        await super().save(name, binding, record, again=again)

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """Unless it is broken, or somebody has it."""
        return self._no_turn() if self.busy or "turn" in self.broken else super().turn(name)

    @asynccontextmanager
    async def _no_turn(self) -> AsyncIterator[None]:
        raise StoreBusy if self.busy else StoreUnavailable("cannot be locked")
        yield

    async def confirm(self, name: str) -> None:
        """Unless it is broken, or was lost."""
        if "lost" in self.broken:
            raise TurnLost
        if "confirm" in self.broken:
            raise StoreUnavailable("cannot be asked")
        await super().confirm(name)


@dataclass
class Bench:
    """A shelf, and sources of one credential on it: each is a process."""

    folder: Path
    clock: HeldClock
    canaries: Canaries
    shelf: Shelf = field(default_factory=Shelf)
    sources: list[TokenSource] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)

    def process(self, *, inherits: bool = False) -> tuple[TokenSource, Script]:
        """A process that has just started, and its grant."""
        script = Script()
        source = TokenSource(
            "c",
            script,
            fingerprint=lambda: b"the same secret",
            margin=60.0,
            clock=self.clock,
            latch=Latch(self.folder),
            store=self.shelf,
            binding=BINDING,
            fits=lambda value: "FORBIDDEN" not in value,
            random=lambda: 0.5,
            register=self.heard.register,
            events=self.heard,
            inherits=inherits,
        )
        self.sources.append(source)
        return source, script

    def granted(self, lifetime: float | None = 3600.0) -> Granted:
        """A token with a refresh token."""
        return Granted(Secret(self.canaries.mint("token")), Secret(self.canaries.mint("uuid")), lifetime)

    def record(self, generation: int = 1, *, age: float = 0.0, lifetime: float | None = 3600.0) -> Record:
        """One that was got so many seconds ago."""
        got, obtained_at = self.granted(), self.clock.wall() - age
        expires_at = None if lifetime is None else obtained_at + lifetime
        return Record(generation, got.token, obtained_at, expires_at, got.refresh_token)

    async def put(self, record: Record) -> Record:
        """As another process would."""
        await MemoryStore.save(self.shelf, "c", BINDING, record)
        return record

    async def stored(self) -> Record | None:
        """What is there."""
        found = await MemoryStore.load(self.shelf, "c", BINDING)
        return found if isinstance(found, Record) else None


@pytest.fixture
async def bench(tmp_path: Path, clock: HeldClock, canaries: Canaries) -> AsyncIterator[Bench]:
    """An empty shelf."""
    made = Bench(tmp_path, clock, canaries)
    yield made
    for source in made.sources:
        await source.close(0.0)


@pytest.mark.threat(90)
async def test_090_a_token_is_stored_before_anybody_gets_it(bench: Bench) -> None:
    """And nobody gets it while it is being written."""
    source, script = bench.process()
    bench.shelf.may_save.clear()
    script.outcomes.put_nowait(granted := bench.granted())
    asking = asyncio.create_task(source.token(WAIT))
    await until(lambda: granted.token in bench.heard.registered)
    assert source.report().generation == 0
    assert not asking.done()
    bench.shelf.may_save.set()
    token = await asking
    stored = await bench.stored()
    assert stored is not None
    assert (stored.token, stored.refresh_token) == (token.value, token.refresh_token)
    assert (stored.obtained_at, stored.expires_at) == (bench.clock.wall(), bench.clock.wall() + 3600)
    assert source.report().persisted is True


async def test_a_stored_token_is_masked_and_used(bench: Bench) -> None:
    """Without a token request; its times are those of this process's clock."""
    record = await bench.put(bench.record(7, age=600.0))
    source, script = bench.process()
    token = await source.token(WAIT)
    assert bench.heard.registered == [record.token, record.refresh_token]
    assert (token.value, token.generation, token.refresh_token) == (record.token, 7, record.refresh_token)
    assert (token.obtained_at, token.expires_at) == (bench.clock.now() - 600, bench.clock.now() + 3000)
    assert (script.asked_with, bench.heard.events) == ([], [])


async def test_a_stored_token_without_a_known_end_is_used_until_it_is_refused(bench: Bench) -> None:
    """As it would be without a restart."""
    await bench.put(bench.record(lifetime=None, age=1e6))
    source, _ = bench.process()
    assert (await source.token(WAIT)).expires_at is None


async def test_a_stored_token_near_its_end_is_refreshed_in_the_same_turn(bench: Bench) -> None:
    """It would be due at once."""
    record = await bench.put(bench.record(7, age=3599.0))
    source, script = bench.process()
    script.outcomes.put_nowait(bench.granted())
    assert (await source.token(WAIT)).generation == 8
    assert script.asked_with == [record.refresh_token]


ABSURD = {
    "got in the future": replace(Record(3, Secret("-"), 0.0), obtained_at=301.0, expires_at=3901.0),
    "got in the future, without an end": replace(Record(3, Secret("-"), 0.0), obtained_at=301.0),
    "good for longer than anything": replace(Record(3, Secret("-"), 0.0), obtained_at=-1.0, expires_at=4e8),
}


@pytest.mark.threat(95)
@pytest.mark.parametrize("absurd", ABSURD.values(), ids=ABSURD)
async def test_095_times_that_cannot_be_cost_one_refresh(bench: Bench, absurd: Record) -> None:
    """A clock was wrong, then or now: nobody knows when the token ends, and it is not sent."""
    got, wall = bench.granted(), bench.clock.wall()
    expires_at = None if absurd.expires_at is None else wall + absurd.expires_at
    await bench.put(Record(3, got.token, wall + absurd.obtained_at, expires_at, got.refresh_token))
    source, script = bench.process()
    script.outcomes.put_nowait(bench.granted())
    for _ in range(3):
        assert (await source.token(WAIT)).generation == 4
    assert script.asked_with == [got.refresh_token]


@pytest.mark.threat(95)
@pytest.mark.parametrize("jump", [-366 * 86400.0, 366 * 86400.0])
async def test_095_a_wall_clock_that_jumps_by_a_year_costs_one_refresh(bench: Bench, jump: float) -> None:
    """Between two runs; and nothing while one runs."""
    source, script = bench.process()
    script.outcomes.put_nowait(bench.granted())
    token = await source.token(WAIT)
    bench.clock.epoch += jump
    assert await source.token(WAIT) is token
    later, script = bench.process()
    script.outcomes.put_nowait(bench.granted())
    for _ in range(3):
        assert (await later.token(WAIT)).generation == 2
    assert script.asked_with == [token.refresh_token]


async def test_a_clock_that_is_a_little_ahead_elsewhere_is_no_matter(bench: Bench) -> None:
    """Two machines never agree; the end counts."""
    await bench.put(bench.record(age=-200.0))
    source, script = bench.process()
    token = await source.token(WAIT)
    assert token.obtained_at == bench.clock.now()
    assert token.expires_at == bench.clock.now() + 3800
    assert script.asked_with == []


async def test_only_a_later_record_is_taken_over(bench: Bench) -> None:
    """By its number or by its time: a login that knew no number begins at one. Here the number goes on."""
    source, script = bench.process()
    await bench.put(bench.record(7, age=100.0))
    first = await source.token(WAIT)
    await bench.put(bench.record(6, age=200.0))
    script.outcomes.put_nowait(bench.granted())
    second = await source.newer_than(first, wait=WAIT, ask=True)
    assert second is not None
    assert (second.generation, script.asked_with) == (8, [first.refresh_token])
    bench.clock.move(1.0)
    record = await bench.put(bench.record(1))
    third = await source.newer_than(second, wait=WAIT, ask=True)
    assert third is not None
    assert (third.generation, third.value, len(script.asked_with)) == (9, record.token, 1)
    record = await bench.put(bench.record(2))
    fourth = await source.newer_than(third, wait=WAIT, ask=True)
    assert fourth is not None
    assert (fourth.generation, fourth.value, len(script.asked_with)) == (10, record.token, 1)


async def test_132_an_old_record_that_was_put_back_gives_way_to_the_one_in_use(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a token request: or whoever starts next would redeem what has been redeemed. It is told once."""
    source, script = bench.process()
    old = await bench.put(bench.record(3, age=3550.0))
    script.outcomes.put_nowait(bench.granted())
    token = await source.token(WAIT)
    await until(lambda: source.report().generation == 4)
    token = await source.token(WAIT)
    await bench.put(old)
    for _ in range(5):
        bench.clock.move(2.0)
        assert await source.token(WAIT) is token
        await turns()
    stored = await bench.stored()
    assert stored is not None
    assert (stored.generation, stored.token, stored.refresh_token) == (4, token.value, token.refresh_token)
    assert (source.report().persisted, len(script.asked_with)) == (True, 1)
    told = [record for record in caplog.records if record.message == "stored_token_older"]
    assert [record.fields for record in told] == [{"credential": "c", "generation": 4, "stored": 3}]  # type: ignore[attr-defined]  # by `extra`


async def test_132_whoever_begins_with_an_old_record_ends_as_after_any_refusal(bench: Bench) -> None:
    """Its refresh token is not taken: a person is asked for once, and what another instance writes again serves."""
    running, _ = bench.process()
    token = bench.record(7)
    await bench.put(token)
    assert (await running.token(WAIT)).value == token.token
    await bench.put(bench.record(3, age=7200.0))
    started, script = bench.process()
    script.outcomes.put_nowait(LoginRequired("log in"))
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await started.token(WAIT)
    for _ in range(5):
        bench.clock.move(2.0)
        await running.token(WAIT)
        await turns()
    assert (await started.token(WAIT)).value == token.token
    assert len(script.asked_with) == 1


@pytest.mark.threat(50)
async def test_050_a_stored_token_that_cannot_be_sent_in_its_place_is_not_taken_over(bench: Bench) -> None:
    """The place may have changed since."""
    await bench.put(replace(bench.record(), token=Secret("FORBIDDEN")))
    source, script = bench.process()
    script.outcomes.put_nowait(bench.granted())
    assert (await source.token(WAIT)).value is not None
    assert len(script.asked_with) == 1


@pytest.mark.threat(89)
@pytest.mark.parametrize("error", [CredentialRejected, LoginRequired])
async def test_089_who_is_rejected_takes_over_what_somebody_else_got_meanwhile(
    bench: Bench, error: type[CredentialRejected]
) -> None:
    """One's own refresh token was the old one. No failure, no latch."""
    source, script = bench.process()
    await bench.put(bench.record(1))
    await source.token(WAIT)
    bench.clock.move(3601)
    asking = asyncio.create_task(source.token(WAIT))
    await until(lambda: script.asked_with)
    record = await bench.put(bench.record(2))
    script.outcomes.put_nowait(error("no"))
    assert (await asking).value is record.token
    assert source.problem is None
    assert not list(bench.folder.rglob("*.json"))


@pytest.mark.threat(89)
@pytest.mark.parametrize("error", [CredentialRejected, LoginRequired])
async def test_089_a_record_that_was_rejected_stays(bench: Bench, error: type[CredentialRejected]) -> None:
    """The error counts, and the record is there for people; nobody asks again."""
    source, script = bench.process()
    record = await bench.put(bench.record(1))
    await source.token(WAIT)
    bench.clock.move(3601)
    script.outcomes.put_nowait(error("no"))
    for _ in range(5):
        with pytest.raises(error, match="no"):
            await source.token(WAIT)
        bench.clock.move(10)
    stored = await bench.stored()
    assert stored is not None
    assert (stored.generation, stored.refresh_token) == (record.generation, record.refresh_token)
    assert len(script.asked_with) == 1


# -- what was lost on its way (threat 90)


def undecided() -> CredentialUnavailable:
    """The request was sent, and no answer came."""
    failure = CredentialUnavailable("no answer")
    failure.undecided = True
    return failure


async def ask_where_the_disk_is_full(bench: Bench, source: TokenSource, script: Script) -> None:
    """A refresh whose note cannot be written, and whose answer is lost."""
    bench.shelf.broken = {"full"}
    script.outcomes.put_nowait(undecided())
    with pytest.raises(CredentialUnavailable):
        await source.token(WAIT)


@pytest.mark.threat(90)
async def test_090_it_is_noted_before_a_refresh_token_is_redeemed(bench: Bench) -> None:
    """And the note goes with the token that comes of it."""
    source, script = bench.process()
    await bench.put(bench.record(age=3601))
    asking = asyncio.create_task(source.token(WAIT))
    await until(lambda: bool(script.asked_with))
    noted = await bench.stored()
    assert noted is not None
    assert noted.redeeming
    script.outcomes.put_nowait(bench.granted())
    await asking
    after = await bench.stored()
    assert after is not None
    assert (after.generation, after.redeeming) == (2, False)


@pytest.mark.threat(90)
@pytest.mark.parametrize("can_begin", [True, False])
async def test_090_after_a_crash_a_spent_refresh_token_comes_again_only_where_nothing_else_can(
    bench: Bench, *, can_begin: bool
) -> None:
    """A password logs in anew; where a person is needed, it is the one way that is left."""
    record = await bench.put(replace(bench.record(age=3601), redeeming=True))
    source, script = bench.process()
    script.can_begin = can_begin
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [None if can_begin else record.refresh_token]


@pytest.mark.parametrize("can_begin", [True, False])
async def test_090_an_answer_that_was_lost_may_have_been_given(bench: Bench, *, can_begin: bool) -> None:
    """The next attempt does not trust the refresh token, unless there is nothing else."""
    record = await bench.put(bench.record(age=3601))
    source, script = bench.process()
    script.can_begin = can_begin
    script.outcomes.put_nowait(undecided())
    with pytest.raises(CredentialUnavailable):
        await source.token(WAIT)
    bench.clock.move(60)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [record.refresh_token, None if can_begin else record.refresh_token]


async def test_090_a_refresh_that_certainly_was_not_made_is_made_again(bench: Bench) -> None:
    """The endpoint said so itself, or was never reached."""
    record = await bench.put(bench.record(age=3601))
    source, script = bench.process()
    script.can_begin = True
    script.outcomes.put_nowait(CredentialUnavailable("503"))
    with pytest.raises(CredentialUnavailable):
        await source.token(WAIT)
    stored = await bench.stored()
    assert stored is not None
    assert not stored.redeeming
    bench.clock.move(60)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [record.refresh_token, record.refresh_token]


async def test_091_a_note_that_could_not_be_written_is_not_forgotten(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full, and the answer was lost: whoever redeems the refresh token again says so."""
    record = await bench.put(bench.record(age=3601))
    source, script = bench.process()
    await ask_where_the_disk_is_full(bench, source, script)
    assert source.report().persisted is False
    bench.clock.move(60)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [record.refresh_token] * 2
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
        "token_not_persisted",
        "token_refresh_failed",
        "token_rotation_lost",
    ]


async def test_091_a_note_that_could_not_be_written_is_written_before_the_next_attempt(bench: Bench) -> None:
    """As soon as there is room; who crashes then leaves it to the next one."""
    await bench.put(bench.record(age=3601))
    source, script = bench.process()
    await ask_where_the_disk_is_full(bench, source, script)
    bench.shelf.broken = set()
    bench.clock.move(60)
    asking = asyncio.create_task(source.token(WAIT))
    await until(lambda: len(script.asked_with) == 2)
    noted = await bench.stored()
    assert noted is not None
    assert noted.redeeming
    script.outcomes.put_nowait(bench.granted())
    await asking


async def test_091_a_refresh_that_certainly_was_not_made_leaves_no_note_in_memory(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody else was told of it; the same refresh token is good, and nothing was lost."""
    record = await bench.put(bench.record())
    source, script = bench.process()
    await source.token(WAIT)
    bench.shelf.broken = {"full"}
    bench.clock.move(3601)
    script.outcomes.put_nowait(CredentialUnavailable("503"))
    with pytest.raises(CredentialUnavailable):
        await source.token(WAIT)
    assert source.report().persisted is True
    bench.clock.move(60)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [record.refresh_token] * 2
    assert "token_rotation_lost" not in [each.message for each in caplog.records]


async def test_091_a_note_that_cannot_be_taken_back_stays(bench: Bench) -> None:
    """Others may have seen it, and have redeemed the refresh token behind it: here it holds as well."""
    record = await bench.put(bench.record(age=3601))
    source, script = bench.process()
    script.can_begin = True
    asking = asyncio.create_task(source.token(WAIT))
    await until(lambda: bool(script.asked_with))
    bench.shelf.broken = {"save"}
    script.outcomes.put_nowait(CredentialUnavailable("503"))
    with pytest.raises(CredentialUnavailable):
        await asking
    bench.shelf.broken = set()
    await source.close(WAIT)
    stored = await bench.stored()
    assert stored is not None
    assert stored.redeeming
    bench.clock.move(60)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [record.refresh_token, None]


async def test_088_what_a_note_that_failed_says_is_nothing_where_others_have_turns(bench: Bench) -> None:
    """Nothing is redeemed then, so that nothing is to be noted, and the next attempt may."""
    bench.shelf.needs_turn = True
    record = await bench.put(bench.record(age=3601))
    source, script = bench.process()
    bench.shelf.broken = {"save"}
    with pytest.raises(StoreUnavailable):
        await source.token(WAIT)
    assert (script.asked_with, source.report().persisted) == ([], True)
    bench.shelf.broken = set()
    bench.clock.move(60)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [record.refresh_token]


async def test_091_a_look_that_a_refresh_overtook_changes_nothing(bench: Bench) -> None:
    """What it found is of before: the note that was written since holds, when the disk is full then and later."""
    record = await bench.put(bench.record())
    source, script = bench.process()
    script.can_begin = True
    await source.token(WAIT)
    await bench.put(replace(record, refresh_expires_at=record.obtained_at + 1e6))
    bench.clock.move(2.1)
    bench.shelf.may_load, waiting = asyncio.Event(), bench.shelf.may_load
    loads = bench.shelf.loads
    await source.token(WAIT)
    await until(lambda: bench.shelf.loads > loads)
    bench.shelf.may_load, overtaken = waiting, bench.shelf.may_load
    refreshing = asyncio.create_task(source.refresh(WAIT))
    await until(lambda: bool(script.asked_with))
    overtaken.set()
    await until(lambda: source._looking is not None and source._looking.done())
    bench.shelf.broken = {"load", "save"}
    script.outcomes.put_nowait(undecided())
    with pytest.raises(CredentialUnavailable):
        await refreshing
    script.outcomes.put_nowait(bench.granted())
    await source.refresh(WAIT)
    assert script.asked_with == [record.refresh_token, None]


# -- what a person forces is bounded


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("hangs", ["store", "turn", "latch"])
async def test_a_forced_refresh_lasts_no_longer_than_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, hangs: str, *, stored: bool
) -> None:
    """A server that says nothing, a lock that is held, a disk that hangs; it goes on behind, and is joined."""
    may = asyncio.Event()
    clear = Latch.clear

    async def slow(latch: Latch, name: str, fingerprint: bytes) -> None:
        await may.wait()
        await clear(latch, name, fingerprint)

    source, script = bench.process()
    if stored:
        await bench.put(bench.record())
        await source.token(WAIT)
    async with AsyncExitStack() as held:
        if hangs == "store":
            bench.shelf.may_load = may
        elif hangs == "latch":
            monkeypatch.setattr(Latch, "clear", slow)
        else:
            await held.enter_async_context(bench.shelf.turn("c"))
        for _ in range(2):
            with pytest.raises(CredentialUnavailable, match="has not answered yet"):
                async with asyncio.timeout(WAIT):
                    await source.refresh(0.01)
        assert script.asked_with == []
    may.set()
    script.outcomes.put_nowait(granted := bench.granted())
    await source.refresh(WAIT)
    assert (await source.token(WAIT)).value is granted.token
    assert len(script.asked_with) == 1


async def test_a_look_that_the_store_does_not_let_happen_is_no_reason_to_ask_again(bench: Bench) -> None:
    """Who was rejected asks no more by itself, also where the store could not be read meanwhile."""
    source, script = await rejected(bench)
    await bench.put(bench.record())
    bench.shelf.broken = {"load"}
    bench.clock.move(2.1)
    with pytest.raises(LoginRequired):
        await source.token(WAIT)
    await bench.shelf.forget("c")
    bench.shelf.broken = set()
    bench.clock.move(1000.0)
    with pytest.raises(LoginRequired):
        await source.token(WAIT)
    bench.shelf.busy = True
    with pytest.raises(StoreUnavailable):
        await source.refresh(WAIT)
    assert len(script.asked_with) == 1


async def test_a_forced_refresh_gets_another_token_than_the_stored_one(bench: Bench) -> None:
    """Also where this process has not used that one yet; where it fails, the stored one serves, and it is told."""
    record = await bench.put(bench.record(7))
    source, script = bench.process()
    script.outcomes.put_nowait(CredentialUnavailable("down"))
    with pytest.raises(CredentialUnavailable, match="down"):
        await source.refresh(WAIT)
    assert (await source.token(WAIT)).value is record.token
    script.outcomes.put_nowait(bench.granted())
    await source.refresh(WAIT)
    assert (await source.token(WAIT)).generation == 8
    assert script.asked_with == [record.refresh_token] * 2


async def rejected(bench: Bench) -> tuple[TokenSource, Script]:
    """A process that has no token, and will not ask again by itself."""
    source, script = bench.process()
    script.outcomes.put_nowait(LoginRequired("log in"))
    with pytest.raises(LoginRequired):
        await source.token(WAIT)
    return source, script


@pytest.mark.threat(102)
async def test_102_what_a_person_stores_is_noticed_within_two_seconds(bench: Bench) -> None:
    """The store is looked at no more often, however many requests there are."""
    source, script = await rejected(bench)
    record = await bench.put(bench.record())
    looks = bench.shelf.loads
    for _ in range(19):
        bench.clock.move(0.1)
        with pytest.raises(LoginRequired):
            await source.token(WAIT)
    assert bench.shelf.loads == looks
    bench.clock.move(0.2)
    assert (await source.token(WAIT)).value is record.token
    assert source.problem is None
    assert len(script.asked_with) == 1


async def test_a_change_in_the_store_that_is_of_no_use_costs_no_token_request(bench: Bench) -> None:
    """Somebody logged out, or the record is for another account."""
    source, script = await rejected(bench)
    await bench.put(bench.record())
    await bench.shelf.forget("c")
    bench.clock.move(2)
    await MemoryStore.save(bench.shelf, "c", b"another", bench.record())
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await source.token(WAIT)
        bench.clock.move(2)
    assert len(script.asked_with) == 1


async def test_a_refusal_looks_at_once(bench: Bench) -> None:
    """Where no token request may be sent, the store is still worth a look."""
    source, script = bench.process()
    await bench.put(bench.record(1))
    token = await source.token(WAIT)
    script.outcomes.put_nowait(CredentialUnavailable("down"))
    assert await source.newer_than(token, wait=WAIT, ask=True) is None
    record = await bench.put(bench.record(2))
    newer = await source.newer_than(token, wait=WAIT, ask=True)
    assert newer is not None
    assert newer.value is record.token
    assert len(script.asked_with) == 1


async def test_088_what_a_look_behind_a_request_takes_over_is_not_asked_for(bench: Bench) -> None:
    """It began before the refusal that the flight is about, and was through before the flight had its turn."""
    source, script = bench.process()
    await bench.put(bench.record(1))
    token = await source.token(WAIT)
    record = await bench.put(bench.record(2))
    script.outcomes.put_nowait(bench.granted())
    bench.clock.move(2.1)
    bench.shelf.may_load.clear()
    loads = bench.shelf.loads
    await source.token(WAIT)
    await until(lambda: bench.shelf.loads > loads)
    async with bench.shelf.turn("c"):
        asking = asyncio.create_task(source.newer_than(token, wait=WAIT, ask=True))
        await asyncio.sleep(0)
        bench.shelf.may_load.set()
        await until(lambda: source.report().generation == 2)
    newer = await asking
    assert newer is not None
    assert newer.value is record.token
    assert script.asked_with == []


async def test_a_forced_refresh_takes_over_what_a_person_stored(bench: Bench) -> None:
    """`login` makes a running instance look that way."""
    source, script = await rejected(bench)
    record = await bench.put(bench.record())
    script.outcomes.put_nowait(bench.granted())
    await source.refresh(WAIT)
    assert (await source.token(WAIT)).refresh_token is not record.refresh_token
    await bench.put(newer := bench.record(9))
    await source.refresh(WAIT)
    assert (await source.token(WAIT)).value is newer.token
    assert len(script.asked_with) == 2


async def test_a_token_that_is_fresh_costs_a_look_in_two_seconds(bench: Bench) -> None:
    """However many requests there are; where nothing has changed it is all that happens."""
    await bench.put(bench.record())
    source, _ = bench.process()
    await source.token(WAIT)
    looks = bench.shelf.loads
    for _ in range(50):
        bench.clock.move(0.1)
        await source.token(WAIT)
        await asyncio.sleep(0)
    assert bench.shelf.loads - looks in (2, 3)


@pytest.mark.threat(102)
async def test_102_who_holds_a_fresh_token_follows_a_logout(bench: Bench) -> None:
    """Within two seconds of the next request, and without a token request of its own."""
    source, script = bench.process()
    await bench.put(bench.record(4))
    await source.token(WAIT)
    await bench.shelf.forget("c")
    bench.clock.move(2.1)
    await source.token(WAIT)
    await until(lambda: source.report().state == "invalid")
    script.outcomes.put_nowait(LoginRequired("log in"))
    with pytest.raises(LoginRequired):
        await source.token(WAIT)
    assert script.asked_with == [None]
    await source.close(WAIT)
    assert await bench.stored() is None


async def test_102_who_holds_a_fresh_token_follows_a_new_login(bench: Bench) -> None:
    """Somebody logged in as somebody else."""
    source, _ = bench.process()
    await bench.put(bench.record(4))
    await source.token(WAIT)
    record = await bench.put(bench.record(5))
    bench.clock.move(2.1)
    await source.token(WAIT)
    await until(lambda: source.report().generation == 5)
    assert (await source.token(WAIT)).value == record.token


@pytest.mark.threat(91)
async def test_091_what_could_not_be_written_is_written_as_soon_as_it_can(bench: Bench) -> None:
    """Not only at the end, which may be a SIGKILL."""
    source, script = bench.process()
    bench.shelf.broken.add("save")
    script.outcomes.put_nowait(bench.granted())
    token = await source.token(WAIT)
    assert source.report().persisted is False
    bench.shelf.broken.clear()
    bench.clock.move(2.1)
    await source.token(WAIT)
    await until(lambda: source.report().persisted is True)
    stored = await bench.stored()
    assert stored is not None
    assert stored.token == token.value


async def test_092_what_somebody_put_back_into_the_store_gives_way_to_what_is_used(bench: Bench) -> None:
    """A backup, or a server that lost its last writes: others would redeem what has been redeemed."""
    old = await bench.put(bench.record(1, age=3601))
    source, script = bench.process()
    script.outcomes.put_nowait(bench.granted())
    token = await source.token(WAIT)
    await bench.put(old)
    bench.clock.move(2.1)
    await looked(source)
    assert source.report().persisted is True
    stored = await bench.stored()
    assert stored is not None
    assert (stored.generation, stored.token) == (2, token.value)


async def test_090_a_new_refresh_token_is_kept_whatever_else_is_wrong_with_its_reply(bench: Bench) -> None:
    """The server has put it in the place of the old one, which must not come again."""
    await bench.put(bench.record(age=3601))
    source, script = bench.process()
    failure = undecided()
    failure.rotated = Secret(bench.canaries.mint("uuid"))
    script.outcomes.put_nowait(failure)
    with pytest.raises(CredentialUnavailable):
        await source.token(WAIT)
    stored = await bench.stored()
    assert stored is not None
    assert (stored.refresh_token, stored.redeeming) == (failure.rotated, False)
    bench.clock.move(60)
    script.outcomes.put_nowait(replace(bench.granted(), token=Secret("FORBIDDEN")))
    with pytest.raises(CredentialUnavailable):
        await source.token(WAIT)
    assert script.asked_with[-1] == failure.rotated
    bench.clock.move(60)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with[-1] not in (None, failure.rotated)


@pytest.mark.threat(88)
async def test_088_a_refresh_token_that_somebody_else_replaced_is_redeemed_by_nobody(bench: Bench) -> None:
    """The reply gave the other one a refresh token and no token of use, so the generation is the same."""
    await bench.put(bench.record())
    one, script = bench.process()
    other, others = bench.process()
    before = await other.token(WAIT)
    await one.token(WAIT)
    failure = undecided()
    failure.rotated = Secret(bench.canaries.mint("uuid"))
    script.outcomes.put_nowait(failure)
    with pytest.raises(CredentialUnavailable):
        await one.refresh(WAIT)
    others.outcomes.put_nowait(bench.granted())
    await other.refresh(WAIT)
    assert others.asked_with == [failure.rotated] != [before.refresh_token]
    assert failure.rotated in bench.heard.registered


async def test_091_a_new_refresh_token_that_could_not_be_stored_is_the_one_that_counts(bench: Bench) -> None:
    """What is in the store then is older, though it has the same number."""
    await bench.put(bench.record())
    source, script = bench.process()
    await source.token(WAIT)
    bench.shelf.broken = {"full"}
    failure = undecided()
    failure.rotated = Secret(bench.canaries.mint("uuid"))
    script.outcomes.put_nowait(failure)
    with pytest.raises(CredentialUnavailable):
        await source.refresh(WAIT)
    bench.clock.move(2.1)
    await source.token(WAIT)
    await until(lambda: source._looking is not None and source._looking.done())
    bench.shelf.broken = set()
    await source.close(WAIT)
    stored = await bench.stored()
    assert stored is not None
    assert stored.refresh_token == failure.rotated


@pytest.mark.threat(102)
async def test_102_a_record_that_is_gone_takes_its_refresh_token_along(bench: Bench) -> None:
    """Somebody logged out: the next token request begins anew."""
    source, script = bench.process()
    await bench.put(bench.record(4))
    await source.token(WAIT)
    await bench.shelf.forget("c")
    script.outcomes.put_nowait(LoginRequired("log in"))
    with pytest.raises(LoginRequired):
        await source.refresh(WAIT)
    with pytest.raises(LoginRequired):
        await source.token(WAIT)
    assert script.asked_with == [None]


# -- a store that fails


@pytest.mark.threat(91)
async def test_091_a_store_that_fails_costs_no_request_and_is_told_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither read, nor locked, nor written: everything is as with a store in memory."""
    bench.shelf.broken = {"load", "turn", "save"}
    source, script = bench.process()
    with caplog.at_level(logging.WARNING):
        for generation in range(1, 4):
            script.outcomes.put_nowait(bench.granted())
            token = await source.token(WAIT)
            assert token.generation == generation
            bench.clock.move(3601)
    assert [record.message for record in caplog.records] == ["store_unavailable", "token_not_persisted"]
    assert source.report().persisted is False
    assert [None if each is None else len(each) for each in script.asked_with] == [None, 36, 36]


async def test_091_a_store_that_is_well_again_is_told_of_when_it_fails_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The next token is stored; the report says it."""
    source, script = bench.process()
    for broken in (True, False, True):
        bench.shelf.broken = {"full"} if broken else set()
        script.outcomes.put_nowait(bench.granted())
        await source.token(WAIT)
        assert source.report().persisted is not broken
        bench.clock.move(3601)
    assert [record.message for record in caplog.records] == ["token_not_persisted"] * 2


async def test_091_the_end_tries_once_more_to_store_the_token(bench: Bench) -> None:
    """Unless somebody stored a later one meanwhile."""
    source, script = bench.process()
    bench.shelf.broken = {"save"}
    script.outcomes.put_nowait(granted := bench.granted())
    await source.token(WAIT)
    other, others = bench.process()
    others.outcomes.put_nowait(bench.granted())
    await other.token(WAIT)
    bench.shelf.broken = set()
    await source.close(WAIT)
    stored = await bench.stored()
    assert stored is not None
    assert stored.token is granted.token
    record = await bench.put(bench.record(9))
    await other.close(WAIT)
    assert await bench.stored() is record


@pytest.mark.parametrize("busy", [True, False])
async def test_111_the_end_does_not_wait_for_a_store(bench: Bench, *, busy: bool) -> None:
    """Neither for a turn nor for a disk that hangs."""
    source, script = bench.process()
    bench.shelf.broken = {"save"}
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    bench.shelf.busy = busy
    bench.shelf.may_save.clear()
    await source.close(0.01)
    assert await bench.stored() is None


@pytest.mark.threat(111)
async def test_111_a_token_that_was_being_stored_when_the_end_came_is_stored(bench: Bench) -> None:
    """Its refresh token was redeemed already."""
    source, script = bench.process()
    bench.shelf.may_save.clear()
    script.outcomes.put_nowait(granted := bench.granted())
    asking = asyncio.create_task(source.token(WAIT))
    await until(lambda: granted.token in bench.heard.registered)
    ending = asyncio.create_task(source.close(0.25))
    with pytest.raises(CredentialUnavailable, match="shutting down"):
        await asking
    bench.shelf.may_save.set()
    await ending
    stored = await bench.stored()
    assert stored is not None
    assert stored.token is granted.token


@pytest.mark.threat(93)
async def test_093_a_turn_that_is_not_given_back_is_an_error_of_its_own(bench: Bench) -> None:
    """To ask without it might redeem one refresh token twice. A token that is still good serves."""
    bench.shelf.busy = True
    source, script = bench.process()
    with pytest.raises(StoreUnavailable, match="does not let go") as caught:
        await source.token(WAIT)
    assert (caught.value.code, caught.value.retry_after) == ("store_unavailable", 1.5)
    assert script.asked_with == []
    bench.shelf.busy = False
    bench.clock.move(1.5)
    script.outcomes.put_nowait(bench.granted())
    token = await source.token(WAIT)
    bench.shelf.busy = True
    assert await source.newer_than(token, wait=WAIT, ask=True) is None
    assert await source.token(WAIT) is token
    assert bench.heard.events == ["c store_unavailable", "c requested", "c obtained", "c store_unavailable"]


# -- a store whose turns others may have all the same


@pytest.mark.parametrize("broken", ["turn", "confirm"])
async def test_088_without_a_turn_nothing_is_redeemed_that_others_have_too(bench: Bench, broken: str) -> None:
    """A token that is good serves on; then 503 of its own until the store is back."""
    bench.shelf.needs_turn = True
    source, script = bench.process()
    await bench.put(bench.record(1))
    token = await source.token(WAIT)
    bench.shelf.broken = {broken}
    assert await source.token(WAIT) is token
    bench.clock.move(3601)
    with pytest.raises(StoreUnavailable, match="cannot be") as caught:
        await source.token(WAIT)
    assert (caught.value.status, caught.value.code) == (503, "store_unavailable")
    assert script.asked_with == []
    bench.shelf.broken = set()
    bench.clock.move(1.5)
    script.outcomes.put_nowait(bench.granted())
    assert (await source.token(WAIT)).generation == 2
    assert script.asked_with == [token.refresh_token]


@pytest.mark.parametrize("needs_turn", [True, False])
async def test_091_without_a_turn_what_begins_anew_is_got_all_the_same(bench: Bench, *, needs_turn: bool) -> None:
    """Nobody else has what it is got with; and of files nobody else has a turn either."""
    bench.shelf.needs_turn = needs_turn
    bench.shelf.broken = {"turn", "load", "confirm", "save"}
    source, script = bench.process()
    for generation in range(1, 4):
        script.outcomes.put_nowait(replace(bench.granted(), refresh_token=None))
        assert (await source.token(WAIT)).generation == generation
        bench.clock.move(3601)
    assert script.asked_with == [None] * 3


@pytest.mark.parametrize("needs_turn", [True, False])
@pytest.mark.parametrize("broken", ["turn", "load"])
async def test_088_who_begins_with_what_is_stored_does_not_begin_without_the_store(
    bench: Bench, broken: str, *, needs_turn: bool
) -> None:
    """A person need not log in because a store is away, and an old refresh token is not redeemed again."""
    bench.shelf.needs_turn = needs_turn
    bench.shelf.broken = {broken}
    source, script = bench.process(inherits=True)
    with pytest.raises(StoreUnavailable):
        await source.token(WAIT)
    assert script.asked_with == []
    bench.shelf.broken = set()
    record = await bench.put(bench.record())
    bench.clock.move(1.5)
    assert (await source.token(WAIT)).value is record.token


@pytest.mark.threat(94)
@pytest.mark.parametrize("needs_turn", [True, False])
async def test_094_a_turn_that_was_lost_asks_for_nothing(bench: Bench, *, needs_turn: bool) -> None:
    """It is told, and tried again from the beginning: somebody else may have a token by then."""
    bench.shelf.needs_turn = needs_turn
    bench.shelf.broken = {"lost"}
    source, script = bench.process()
    with pytest.raises(TurnLost, match="ran out before a token was asked for"):
        await source.token(WAIT)
    assert (script.asked_with, bench.heard.events) == ([], ["c store_unavailable"])
    bench.shelf.broken = set()
    record = await bench.put(bench.record())
    bench.clock.move(1.5)
    assert (await source.token(WAIT)).value is record.token


@pytest.mark.threat(94)
async def test_094_who_comes_too_late_takes_over_what_is_there(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own token is told and dropped; the report is of the other one."""
    bench.shelf.broken = {"outdated"}
    source, script = bench.process()
    asking = asyncio.create_task(source.token(WAIT))
    await until(lambda: script.asked_with)
    record = await bench.put(bench.record(7))
    script.outcomes.put_nowait(bench.granted())
    assert (await asking).value is record.token
    assert source.report().persisted is True
    assert source.problem is None
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == ["token_outdated"]


async def test_094_who_comes_too_late_and_finds_nothing_tries_again(bench: Bench) -> None:
    """Somebody logged out meanwhile, say: what was got is not used."""
    bench.shelf.broken = {"outdated"}
    source, script = bench.process()
    script.outcomes.put_nowait(bench.granted())
    with pytest.raises(StoreOutdated):
        await source.token(WAIT)
    bench.shelf.broken = set()
    bench.clock.move(1.5)
    script.outcomes.put_nowait(granted := bench.granted())
    assert (await source.token(WAIT)).value is granted.token


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before another attempt to store; they take no time."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def nap(seconds: float) -> None:
        if seconds:
            taken.append(seconds)
        await sleep(0)

    monkeypatch.setattr("proxy.credentials.keeping.asyncio.sleep", nap)
    return taken


async def test_091_what_could_not_be_stored_is_tried_again_by_itself(bench: Bench, naps: list[float]) -> None:
    """Each second; others would redeem what has been redeemed."""
    bench.shelf.needs_turn = True
    bench.shelf.broken = {"save"}
    source, script = bench.process()
    script.outcomes.put_nowait(granted := bench.granted())
    await source.token(WAIT)
    assert source.report().persisted is False
    await until(lambda: len(naps) > 7)
    assert set(naps) == {1.0}
    bench.shelf.broken = set()
    await until(lambda: source.report().persisted)
    stored = await bench.stored()
    assert stored is not None
    assert stored.token is granted.token


async def test_094_what_could_not_be_stored_gives_way_to_what_others_stored(
    bench: Bench, naps: list[float]
) -> None:
    """It is tried no more, and the next look takes theirs over."""
    bench.shelf.needs_turn = True
    bench.shelf.broken = {"save"}
    source, script = bench.process()
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    record = await bench.put(bench.record(2))
    bench.shelf.broken = {"outdated"}
    await until(lambda: source._keeping._trying is not None and source._keeping._trying.done())
    tried = len(naps)
    bench.clock.move(3600)
    await bench.put(record := bench.record(2))
    bench.shelf.broken = set()
    assert (await source.token(WAIT)).value is record.token
    assert len(naps) == tried


# -- what others may have replaced (threats 88, 133)

CLOSED = {
    Missing.OTHER_KEY: "is sealed with a key that is not here: add that key to store.key; or run `bearer-proxy",
    Missing.UNREADABLE: "does not open any more, and may have replaced what is in memory",
}
#: What others may do while this process cannot see it, or could not tell them what it does.
APART = {
    "no turn": ({"turn"}, None, "cannot be locked"),
    "no look": ({"load"}, None, "cannot be read"),
    "no note": ({"save"}, None, "cannot be written"),
    "another key": (set(), Missing.OTHER_KEY, "store.key"),
    "damaged": (set(), Missing.UNREADABLE, "does not open any more"),
}


@pytest.mark.parametrize(("broken", "closed", "said"), APART.values(), ids=APART)
@pytest.mark.parametrize("can_begin", [True, False])
async def test_088_what_others_have_too_is_not_redeemed_behind_their_backs(
    bench: Bench, broken: set[str], closed: Missing | None, said: str, *, can_begin: bool
) -> None:
    """A token that is good serves on. Then who can begin anew does; else it is 503 of its own until it is well."""
    record = await bench.put(bench.record())
    source, script = bench.process()
    script.can_begin = can_begin
    token = await source.token(WAIT)
    bench.shelf.broken, bench.shelf.closed = broken, closed
    bench.clock.move(2.1)
    assert await source.token(WAIT) is token
    bench.clock.move(3601)
    if can_begin:
        script.outcomes.put_nowait(granted := bench.granted())
        assert (await source.token(WAIT)).value is granted.token
        assert script.asked_with == [None]
        return
    with pytest.raises(StoreUnavailable, match=said) as caught:
        await source.token(WAIT)
    assert (caught.value.code, script.asked_with) == ("store_unavailable", [])
    assert await bench.stored() == record
    bench.shelf.broken, bench.shelf.closed = set(), None
    bench.clock.move(60)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [record.refresh_token]


@pytest.mark.parametrize(("broken", "closed"), [each[:2] for each in APART.values()], ids=APART)
async def test_091_what_nobody_else_has_is_redeemed_all_the_same(
    bench: Bench, broken: set[str], closed: Missing | None
) -> None:
    """It was got while nothing could be stored: a store that fails costs no request."""
    bench.shelf.broken, bench.shelf.closed = broken | {"save"}, closed
    source, script = bench.process()
    script.can_begin = True
    for _ in range(3):
        script.outcomes.put_nowait(bench.granted())
        await source.token(WAIT)
        bench.clock.move(3601)
    assert [each is None for each in script.asked_with] == [True, False, False]


@pytest.mark.parametrize("can_begin", [True, False])
async def test_091_a_full_disk_is_full_for_all(bench: Bench, *, can_begin: bool) -> None:
    """Where nothing else gives a token, what cannot be noted is redeemed: nobody else could note it either."""
    record = await bench.put(bench.record())
    source, script = bench.process()
    script.can_begin = can_begin
    await source.token(WAIT)
    bench.shelf.broken = {"full"}
    bench.clock.move(3601)
    script.outcomes.put_nowait(bench.granted())
    await source.token(WAIT)
    assert script.asked_with == [None if can_begin else record.refresh_token]


@pytest.mark.parametrize("closed", CLOSED)
async def test_133_who_starts_with_a_store_that_does_not_open(bench: Bench, closed: Missing) -> None:
    """With another key it has to be mended; what was got for another account counts as none, as before a login."""
    await bench.put(bench.record())
    bench.shelf.closed = closed
    source, script = bench.process(inherits=True)
    script.outcomes.put_nowait(LoginRequired("log in"))
    with pytest.raises(CredentialError) as caught:
        await source.token(WAIT)
    if closed is Missing.OTHER_KEY:
        assert (caught.value.code, script.asked_with) == ("store_unavailable", [])
        assert CLOSED[closed] in caught.value.detail
    else:
        assert (caught.value.code, script.asked_with) == ("login_required", [None])


async def looked(source: TokenSource) -> None:
    """A request that finds a good token, and the look behind it."""
    await source.token(WAIT)
    await until(lambda: source._looking is not None and source._looking.done())
    trying = source._keeping._trying
    await until(lambda: trying is None or trying.done())


async def test_133_a_token_that_serves_is_not_written_over_what_does_not_open(bench: Bench) -> None:
    """It may be a later one; one that was got anew is written."""
    record = await bench.put(bench.record())
    source, script = bench.process()
    script.can_begin = True
    await source.token(WAIT)
    bench.shelf.closed = Missing.OTHER_KEY
    for _ in range(3):
        bench.clock.move(2.1)
        await looked(source)
    assert await bench.stored() == record
    bench.clock.move(3601)
    script.outcomes.put_nowait(granted := bench.granted())
    await source.token(WAIT)
    stored = await bench.stored()
    assert stored is not None
    assert stored.token == granted.token


@pytest.mark.parametrize("closed", CLOSED)
async def test_133_what_was_noted_in_memory_is_not_written_over_what_does_not_open(
    bench: Bench, closed: Missing
) -> None:
    """It is of the refresh token that the other one may have replaced."""
    record = await bench.put(bench.record(age=3601))
    source, script = bench.process()
    await ask_where_the_disk_is_full(bench, source, script)
    bench.shelf.broken, bench.shelf.closed = set(), closed
    await source.close(WAIT)
    assert await bench.stored() == record


# -- a store that loses what it had


async def test_a_store_that_lost_its_record_is_no_logout(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The next look stores again what is in memory, with a note; it is said once, and the token serves on."""
    record = await bench.put(bench.record())
    source, script = bench.process()
    await source.token(WAIT)
    bench.shelf._records.clear()
    bench.clock.move(2.1)
    await looked(source)
    assert await bench.stored() == replace(record, redeeming=True)
    assert source.report().persisted is True
    bench.clock.move(2.1)
    await looked(source)
    assert script.asked_with == []
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == ["stored_token_lost"]


@pytest.mark.parametrize("can_begin", [True, False])
async def test_088_what_was_lost_may_have_been_replaced_before(
    bench: Bench, caplog: pytest.LogCaptureFixture, *, can_begin: bool
) -> None:
    """As with a note that somebody left: a password logs in anew, and where a person is needed it is tried."""
    record = await bench.put(bench.record())
    source, script = bench.process()
    script.can_begin = can_begin
    token = await source.token(WAIT)
    bench.shelf._records.clear()
    script.outcomes.put_nowait(bench.granted())
    assert await source.newer_than(token, wait=WAIT, ask=True) is not None
    assert script.asked_with == [None if can_begin else record.refresh_token]
    said = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert said == ["stored_token_lost", "token_rotation_lost"]


async def test_102_a_logout_ends_what_could_not_be_stored_as_well(bench: Bench) -> None:
    """It is not written over the logout, whether that is noticed at the end or before."""
    await bench.put(bench.record(4))
    source, script = bench.process()
    script.can_begin = True
    first = await source.token(WAIT)
    bench.shelf.broken = {"save"}
    script.outcomes.put_nowait(bench.granted())
    assert await source.newer_than(first, wait=WAIT, ask=True) is not None
    bench.shelf.broken = set()
    await bench.shelf.forget("c")
    await source.close(WAIT)
    assert await MemoryStore.load(bench.shelf, "c", BINDING) is Missing.LOGGED_OUT
    bench.clock.move(2.1)
    await looked(source)
    assert source.report().state == "invalid"


async def test_102_a_logout_ends_nothing_that_was_got_behind_it(bench: Bench) -> None:
    """Also where that cannot be stored, and the word of the logout stays."""
    await bench.put(bench.record(4))
    source, script = bench.process()
    script.can_begin = True
    await source.token(WAIT)
    await bench.shelf.forget("c")
    bench.shelf.broken = {"save"}
    bench.clock.move(2.1)
    await looked(source)
    script.outcomes.put_nowait(granted := bench.granted())
    assert (await source.token(WAIT)).value is granted.token
    for _ in range(2):
        bench.clock.move(2.1)
        await looked(source)
    assert source.report().state == "fresh"
    assert script.asked_with == [None]


async def test_091_without_a_turn_nothing_is_written_either(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who has one may be writing; what is got meanwhile is nobody else's, and so can be redeemed."""
    bench.shelf.broken = {"turn"}
    source, script = bench.process()
    script.can_begin = True
    for _ in range(3):
        script.outcomes.put_nowait(bench.granted())
        await source.token(WAIT)
        bench.clock.move(3601)
    assert [each is None for each in script.asked_with] == [True, False, False]
    assert await bench.stored() is None
    assert source.report().persisted is False
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
        "store_unavailable",
        "token_not_persisted",
    ]
    bench.shelf.broken = set()
    await source.close(WAIT)
    stored = await bench.stored()
    assert stored is not None
    assert stored.generation == 3
