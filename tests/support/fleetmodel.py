"""The world of the model with a server in the place of a folder: members of a fleet, and what a network does.

A lease runs out while a member stands still, the server is away, late, or has forgotten everything. What a lease
cannot promise (threat 94) is no excuse for silence: a refresh token may come twice only where that was told before.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proxy.credentials.logout import log_out
from proxy.errors import StoreBusy, StoreUnavailable
from proxy.redact import Secret
from proxy.stores import lease, redis
from proxy.stores.base import Missing, Record
from proxy.stores.records import open_record
from proxy.stores.redis import RedisStore, Timing
from proxy.stores.redisclient import COMMAND_SECONDS, RedisClient
from proxy.stores.seal import Ring
from tests.support.harness import HeldClock
from tests.support.model import BINDING, MARGIN, NAME, POINTS, Process, World
from tests.support.redisdouble import RedisDouble, Word

TIMING: Final = Timing()
#: Of a lease so much is left when it was confirmed.
SURE_SECONDS: Final = TIMING.lease * 2 / 3
#: By how much the clocks of its members are ahead of the server's.
WRONG: Final = (0.0, -400.0, 3700.0)
PREFIX: Final = "fleet"
TOKEN, TURN = f"{PREFIX}:{{{NAME}}}:token", f"{PREFIX}:{{{NAME}}}:turn"
#: What happens to a command: the server cannot be reached; says nothing; does it, but its answer is lost; gets it
#: twice; does it when it is well again, long after nobody waits for it any more.
FATES_OF_COMMANDS: Final = ("gone", "silent", "mute", "twice", "late")
_ANSWERED: Final = ("fine", "twice")
_COMMANDS: Final[dict[Word, str]] = {
    lease._TAKE: "take",
    lease._RENEW: "renew",
    lease._LET_GO: "let go",
    redis._SAVE: "write",
    redis._FORGET: "forget",
    redis._LOAD: "read",
    "TIME": "time",
}
#: Where a member can stand still: also before a command is sent, and before its answer is read.
_AT_COMMANDS: Final = ("take", "read", "renew", "write", "let go")
PLACES: Final = (*POINTS, *(f"{when} {command}" for command in _AT_COMMANDS for when in ("before", "after")))
#: Those of them that are not directly behind one another, in the order of a refresh.
APART: Final = (
    *("after take", "before read", "after read", "before renew", "before write", "after write"),
    *("asked", "answered", "saving", "saved", "after let go"),
)
#: Whoever stands elsewhere stands still altogether.
_ELSEWHERE: Final = ("asked", "answered")


class Line(RedisClient):
    """The connections of `process`, in place of real ones. None: of somebody beside the fleet, which are well."""

    def __init__(self, world: "FleetWorld", process: "Member | None" = None) -> None:
        self._world = world
        self._process = process
        self._fate = "fine" if process is None else world.fate
        self._late: list[tuple[Word, ...]] = []

    def change(self, fate: str) -> None:
        """What happens to commands from now on; what was late is done."""
        self._fate = fate
        if self._process is not None and fate not in _ANSWERED:
            self._process.may_have_lost = True
        late, self._late = self._late, []
        for words in late:
            self._world.execute(*words)

    async def call(self, *words: Word) -> Any:
        """As the real one: an answer or `StoreUnavailable`, in some seconds."""
        name = _COMMANDS[words[1] if words[0] == "EVAL" else words[0]]
        if self._process is not None:
            await self._process.at(f"before {name}")
        answer = await self._answer(words)
        if self._process is not None:
            await self._process.at(f"after {name}")
        return answer

    async def _answer(self, words: tuple[Word, ...]) -> Any:
        failure = StoreUnavailable("The server does not answer.")
        match self._fate:
            case "gone":
                raise failure
            case "late":
                self._late.append(words)
            case "mute" | "twice":
                self._world.execute(*words)
        if self._fate in {"silent", "late", "mute"}:
            await asyncio.sleep(COMMAND_SECONDS)
            raise failure
        return self._world.execute(*words)

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Apart:
    """The clock of a machine whose wall clock is `ahead` of the server's."""

    clock: HeldClock
    ahead: float

    def now(self) -> float:
        """As everywhere."""
        return self.clock.now()

    def awake(self) -> float:
        """As everywhere."""
        return self.clock.awake()

    def wall(self) -> float:
        """Its own."""
        return self.clock.wall() + self.ahead


class Member(Process):
    """One of a fleet, which can stand still for longer than its lease."""

    line: Line
    seen: Apart
    opened: RedisStore

    def __init__(self, world: "FleetWorld") -> None:
        self.fleet = world
        #: The access token that was in the store when it had the turn; an empty text: none.
        self._there = ""
        #: When the turn was confirmed that it has.
        self._confirmed: float | None = None
        #: Has anything happened since by which somebody else may have it by now?
        self.may_have_lost = False
        #: Does it stand still altogether at the point that is armed?
        self.freezes = True
        super().__init__(world)

    async def at(self, point: str) -> None:
        """Stop here if a test wants that, and wherever it is if all of it stands still."""
        if point == "turned":
            there = self.world.ledger.durable
            self._there, self._confirmed = "" if there is None else there.token.reveal(), None
        elif point == "confirmed":
            self._confirmed, self.may_have_lost = self.world.clock.now(), False
        if self.armed == point and not self.dead:
            self.is_still = self.freezes or point not in _ELSEWHERE
            self.may_have_lost |= self.is_still
        await super().at(point)
        while self.is_still and not self.dead:
            self.armed = point
            await super().at(point)

    def resume(self) -> None:
        """Let all of it go on."""
        if self.is_still:
            self.went_on_at = self.world.clock.now()
        self.is_still = False
        super().resume()

    def _judge_turn(self, refresh_token: Secret | None) -> None:
        """It is its own, as far as it can know, and nobody else's; without one nothing is redeemed."""
        expect = self.world.ledger.expect
        if self.store.failing & {"turn", "confirm"}:
            # Who can begin anew, and finds a token where it had none when it could not have the turn, notes that.
            expect("redeemed without a turn", holds=refresh_token is None or self.begins_anew)
            return
        expect("asked without a last look at the turn", holds=self._confirmed is not None)
        is_late = self._confirmed is not None and self.world.clock.now() > self._confirmed + SURE_SECONDS
        held = self.opened._leases.get(NAME)
        owner = self.fleet.server.execute("GET", TURN)
        is_its_own = held is not None and owner == held.owner.encode()
        was_emptied = self.fleet.emptied_at >= (self._confirmed or 0.0)
        expect("asked in the turn of somebody else", holds=is_its_own or was_emptied or is_late)
        expect("asked although somebody else had a token", holds=self._has_looked)
        keep = [each for each in self.fleet.asking if isinstance(each, Member) and each.keeps_its_turn]
        expect("two ask at once", holds=not keep or not self.keeps_its_turn)

    @property
    def _has_looked(self) -> bool:
        """Does it use what was there, or was that of no use?"""
        world = self.world
        ends_at = world.endpoint.ends_at.get(self._there, 0.0)
        is_good = ends_at > world.clock.now() + MARGIN and not world.wall_was_set
        return self._there <= (self.held or "") or not is_good or "load" in self.store.failing

    @property
    def keeps_its_turn(self) -> bool:
        """Has it a turn that nobody could take from it?"""
        had = self._confirmed is not None and not self.store.failing & {"turn", "confirm"}
        return had and not self.may_have_lost and self.fleet.emptied_at < (self._confirmed or 0.0)

    def _judge_redeeming(self, refresh_token: Secret) -> None:
        """It was noted, or somebody has said that nobody knows."""
        value = refresh_token.reveal()
        is_known = value in self.world.ledger.noted or value in self.world.endpoint.excused
        self.world.ledger.expect("redeemed without a note", holds=is_known)

    async def end(self, wait: float) -> None:
        """As an instance does that is told to."""
        await self.source.close(wait)
        await self.opened.close()


class FleetWorld(World):
    """All of it, with one server."""

    excuses = World.excuses | {"stored_token_lost", "token_outdated"}

    def __init__(self, *, begins_anew: bool) -> None:
        super().__init__(Path(), lasting=True, begins_anew=begins_anew)
        self.ledger.file, self.ledger.is_told = None, True
        self.server = RedisDouble(self.clock)
        self.emptied_at = float("-inf")
        #: What happens to the commands of who begins now.
        self.fate = "fine"
        #: Access tokens that the server has, or had.
        self.written: set[str] = set()
        self._ring = Ring([bytes(32)], random=self._bytes)
        self._sealed: bytes | None = None

    def process(self) -> Member:
        """One more."""
        return Member(self)

    def seen_by(self, process: Process) -> Apart:
        """By a wall clock of its own, which tells nothing of tokens."""
        assert isinstance(process, Member)
        process.seen = Apart(self.clock, WRONG[len(self.processes) % len(WRONG)])
        return process.seen

    def store(self, process: Process | None = None) -> RedisStore:
        """The store, as one more member opens it, or somebody beside them, whose line is well."""
        member = process if isinstance(process, Member) else None
        line = Line(self, member)
        made = RedisStore(line, self._ring, prefix=PREFIX, random=self._bytes, now=self.clock.now, timing=TIMING)
        if member is not None:
            member.line, member.opened = line, made
        return made

    def execute(self, *words: Word) -> Any:
        """One command reaches the server; what it writes is noted, and must not be older than what was there."""
        answer = self.server.execute(*words)
        if words[0] == "EVAL":
            self._look()
        return answer

    def empty(self) -> None:
        """The server begins anew, and had written nothing down."""
        self.server.empty()
        self.emptied_at = self.clock.now()
        self._look()

    def _look(self) -> None:
        sealed = self.server.execute("HGET", TOKEN, "sealed")
        if sealed == self._sealed:
            return
        before, self._sealed = self.ledger.durable, sealed
        found = None if sealed is None else open_record(self._ring, NAME, BINDING, sealed)
        self.ledger.expect("a record does not open", holds=not isinstance(found, Missing))
        self.ledger.durable = None
        if not isinstance(found, Record):
            return
        assert found.refresh_token is not None
        self.ledger.has_written(found)
        self.written.add(found.token.reveal())
        value, families = found.refresh_token.reveal(), self.endpoint.families
        if before is not None and before.refresh_token is not None:
            older = before.refresh_token.reveal()
            is_later = families[older] != families[value] or older <= value
            self.ledger.expect("a later token was replaced by an earlier one", holds=is_later)

    async def logged_in(self) -> None:
        """As the command does, which says so where it cannot have the turn."""
        with suppress(StoreBusy):
            await super().logged_in()

    async def logged_out(self) -> None:
        """As the command does."""
        store = self.store()
        with suppress(StoreBusy):
            await log_out(store, NAME, BINDING, None)
        await store.close()

    def _bytes(self, count: int) -> bytes:
        self._random += 1
        return int(self._random % 256**count).to_bytes(count, "big")
