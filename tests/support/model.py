"""A world of processes that share a store and a strict token endpoint; time passes when a test says so.

Law: nothing here sleeps, and no thread runs: the same steps give the same history. What must never happen and did
is noted in the ledger, since an exception would be the product's to handle.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from pathlib import Path
from typing import Any, Final

from proxy.clock import Clock
from proxy.credentials.logout import log_out
from proxy.credentials.source import TokenSource
from proxy.errors import (
    CredentialError,
    CredentialRejected,
    CredentialUnavailable,
    LoginRequired,
    StoreUnavailable,
)
from proxy.grants.request import Granted
from proxy.lifecycle import Token, stale_at
from proxy.redact import Secret
from proxy.stores.base import Record, Store
from proxy.stores.file import FileStore
from proxy.stores.memory import MemoryStore
from proxy.stores.seal import Ring
from tests.support.granting import Heard
from tests.support.harness import HeldClock
from tests.support.heldloop import HeldLoop
from tests.support.keeping import QuickLatch
from tests.support.rotating import LIFETIME, Endpoint, undecided
from tests.support.watched import FULL, Ledger, Watched

NAME: Final = "c"
BINDING: Final = b"binding"
MARGIN: Final = 60.0
#: What a bound of some seconds may be passed by, for floats.
ROUNDING: Final = 1e-3
#: Who waits for a turn asks several times a second; here hours pass.
PATIENCE: Final = 2.0
#: Where a process can be stopped in a refresh, in their order.
POINTS: Final = ("turned", "confirmed", "noting", "noted", "asked", "answered", "saving", "saved")
#: What the token endpoint does; its answer does not come where it is `undone` or `lost`, and is `useless`.
FATES: Final = ("fine", "down", "busy", "undone", "lost", "useless", "rejecting")
#: How the vendor's refusal of a refresh token is told.
REFUSALS: Final = frozenset({"refresh_token_refused", "login_required", "credential_rejected"})

log: Final = logging.getLogger("proxy.tests")

_PROCESS: Final[ContextVar["Process | None"]] = ContextVar("process", default=None)


class Process:
    """One that runs, with a source and a grant at the endpoint; it can be stopped at a point, and killed there."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.tasks: set[asyncio.Task[Any]] = set()
        self.armed: str | None = None
        self.parked: list[asyncio.Future[None]] = []
        self.dead = False
        #: Does nothing of it go on, and when did it go on last?
        self.is_still = False
        self.went_on_at = float("-inf")
        self.forced = False
        #: The refresh tokens that it redeemed, and those of them of which it could tell nobody.
        self.redeemed: set[str] = set()
        self.unnoted: set[str] = set()
        #: Is what it redeems now one that it cannot know to be spent?
        self.excused = False
        #: The refresh token that it could not know to be spent, and whose refusal it has not told yet.
        self.owes = ""
        self.refused = 0
        self.generation = 0
        self.last: Token | None = None
        #: What the last request got, or the code of its error.
        self.outcome = ""
        #: The generation for which the endpoint failed last, and until when it is not to be asked again.
        self.paused = (0, float("-inf"))
        world.processes.append(self)
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)
        self.store = Watched(world.store(self), world.ledger, stop=self.at, held=lambda: self.held)
        heard = Heard()
        self.source = TokenSource(
            NAME,
            self,
            fingerprint=lambda: b"the same secret",
            margin=MARGIN,
            clock=world.seen_by(self),
            latch=world.latch,
            store=self.store,
            binding=BINDING,
            fits=lambda _value: True,
            random=lambda: 0.5,
            register=heard.register,
            events=heard,
            inherits=not world.begins_anew,
        )

    @property
    def held(self) -> str | None:
        """The access token that it uses."""
        token = self.source._life.token
        return None if token is None else token.value.reveal()

    def meets(self, record: Record) -> None:
        """It is put back. Who cannot tell that it is older knows no more what was redeemed.

        That is who has seen a logout since, or had a clock set, and of two in one tick nobody can.
        """
        token, clock = self.source._life.token, self.world.clock
        obtained_at = float("-inf")
        if token is not None and token.refresh_token is not None and not self.world.wall_was_set:
            obtained_at = token.obtained_at + clock.wall() - clock.now()
        if record.obtained_at > obtained_at - ROUNDING:
            self.redeemed.clear()

    def takes_for_older(self, record: Record) -> bool:
        """Is it a login by a clock that was set back, where the numbers were forgotten?

        That is told from an old record by its time alone (`docs/adr/0012-what-others-may-have-replaced.md`), and
        what is held takes its place (`stored_token_older`), even where the vendor takes that no more.
        """
        last = self.source._keeping._last
        if last is None or last.token == record.token or not self.world.wall_was_set:
            return False
        return last.generation >= record.generation and last.obtained_at >= record.obtained_at

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it as a part of this process."""
        task = self.world.loop.create_task(coroutine, context=self.context)
        self.tasks.add(task)
        return task

    async def at(self, point: str) -> None:
        """Stop here if a test wants that; what is dead does nothing more."""
        if self.dead:
            raise asyncio.CancelledError
        if self.armed == point:
            self.armed = None
            self.parked.append(self.world.loop.create_future())
            await self.parked[-1]

    def resume(self) -> None:
        """Let it go on wherever it stands, and stop nowhere."""
        self.armed = None
        for each in self.parked:
            if not each.done():
                each.set_result(None)
        self.parked.clear()

    def kill(self) -> None:
        """Nothing is cleaned up but what the kernel cleans up."""
        self.dead = True
        self.source.ahead.stop()
        for task in self.tasks:
            task.cancel()
        self.world.loop.let_pass()

    async def served(self, asking: Coroutine[Any, Any, Token | None], *, after: int = 0) -> None:
        """What a request gets, judged; `after`: the generation that was refused to it."""
        at_least = max(self.generation, after + 1)
        try:
            token = await asking
        except CredentialError as error:
            self.outcome = error.code
            return
        self.outcome = "nothing"
        if token is not None:
            self._judge_served(token, at_least)
            self.outcome, self.last = "served", token
            self.generation = max(self.generation, token.generation)

    async def renewed(self, wait: float) -> None:
        """A person wants a new token."""
        self.forced = True
        try:
            await self.source.refresh(wait)
        except CredentialError as error:
            self.outcome = error.code
            if isinstance(error, StoreUnavailable):
                # It is done as soon as the store lets it.
                self.paused = (0, float("-inf"))
        # What nobody waits for any more goes on.
        self.forced = self.source._flight is not None

    async def obtain(
        self, refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """The grant of this process: one attempt at the endpoint."""
        world, endpoint = self.world, self.world.endpoint
        self._judge_asking()
        self._judge_turn(refresh_token)
        if refresh_token is not None:
            value = refresh_token.reveal()
            self.excused = value in endpoint.put_back - self.redeemed
            self._judge_redeeming(refresh_token)
        self.forced = False
        world.asking.append(self)
        try:
            await self.at("asked")
            granted = self._granted(refresh_token)
            if "turn" in self.store.failing:
                # It is not even tried to store it.
                world.ledger.kept.add(granted.token.reveal())
            await self.at("answered")
            if endpoint.fate in {"lost", "useless"}:
                raise undecided(granted.refresh_token if endpoint.fate == "useless" else None)
        except CredentialUnavailable as error:
            self.paused = (self.number, world.clock.now() + (error.retry_after or 1.0))
            raise
        except (CredentialRejected, LoginRequired):
            self.paused = (self.number, float("inf"))
            raise
        finally:
            world.asking.remove(self)
        return granted

    def _granted(self, refresh_token: Secret | None) -> Granted:
        endpoint = self.world.endpoint
        match endpoint.fate:
            case "down":
                raise CredentialUnavailable("503")
            case "busy":
                raise CredentialUnavailable("429", retry_after=120.0)
            case "undone":
                raise undecided(None)
            case "rejecting":
                raise CredentialRejected("400")
        granted = None
        if refresh_token is not None:
            self.redeemed.add(refresh_token.reveal())
            granted = endpoint.redeem(refresh_token.reveal(), excused=self.excused)
            if granted is None and self.begins_anew:
                # As the grants do (`proxy/credentials/oauth2.py`).
                log.warning("refresh_token_refused")
        if granted is None and not self.begins_anew:
            raise LoginRequired("log in")
        return granted or endpoint.begin()

    @property
    def begins_anew(self) -> bool:
        """As the world says."""
        return self.world.begins_anew

    def can_refresh(self, refresh_token: Secret | None, _token: Secret | None) -> bool:
        """By a refresh token."""
        return refresh_token is not None

    @property
    def number(self) -> int:
        """The generation of the token that it uses; 0: none."""
        return self.source.report().generation

    def _judge_served(self, token: Token, at_least: int) -> None:
        """Never one that is over; never one that a crash would lose; never an older one than before."""
        world, now, value = self.world, self.world.clock.now(), token.value.reveal()
        world.ledger.expect("an expired token", holds=token.expires_at is None or token.expires_at > now)
        # What another process got is told by the wall clock.
        in_truth = world.wall_was_set or world.endpoint.ends_at[value] > now
        world.ledger.expect("an expired token, in truth", holds=in_truth)
        world.ledger.expect("a token that is not durable", holds=value in world.ledger.kept)
        world.ledger.expect("an older generation", holds=token.generation >= at_least)

    def _judge_asking(self) -> None:
        """Once at a time; only where a token is needed; and not in the pause after a failure."""
        world, now, token = self.world, self.world.clock.now(), self.source._life.token
        world.ledger.expect("a process asks twice at once", holds=self not in world.asking)
        due_at = None if token is None else stale_at(token, MARGIN)
        is_due = token is None or self.refused >= token.generation or (due_at is not None and now >= due_at)
        world.ledger.expect("a token was asked for that nobody needs", holds=is_due or self.forced)
        generation, until = self.paused
        pauses = generation == self.number and now < until - ROUNDING
        world.ledger.expect("asked in the pause", holds=not pauses or self.forced)

    def _judge_turn(self, _refresh_token: Secret | None) -> None:
        """Of all processes one at a time, unless they could not take turns."""
        shares = [each for each in self.world.asking if "turn" not in each.store.failing]
        self.world.ledger.expect("two ask at once", holds=not shares or "turn" in self.store.failing)

    def _judge_redeeming(self, refresh_token: Secret) -> None:
        """What others have is noted, durably, unless the disk is full and nothing else gives a token.

        Nobody redeems one twice themselves.
        """
        world, value = self.world, refresh_token.reveal()
        durable = world.ledger.durable
        is_noted = durable is not None and durable.redeeming and durable.refresh_token == refresh_token
        was_noted, cannot = value in world.ledger.noted, self.store.failing & {"turn", "load", "note-save"}
        # One who had no turn may have written since, and over it.
        world.ledger.expect("redeemed without a note", holds=was_noted or bool(cannot))
        if not was_noted:
            is_shared = durable is not None and durable.refresh_token == refresh_token
            is_blind = bool(self.store.failing & {"turn", "load"})
            # Whose secret was rejected does not begin anew either.
            is_sole = not self.begins_anew or bool(world.latch.reasons)
            is_full = world.ledger.faults == FULL and not is_blind and is_sole
            world.ledger.expect("redeemed behind the backs of others", holds=not is_shared or is_full)
        # A note may be another's, who has not done it yet.
        if not is_noted or self.store.failing & {"turn", "load"}:
            self.unnoted.add(value)
        is_told = not any(value in each.unnoted for each in self.world.processes)
        self.excused |= not is_told and value not in self.redeemed


class World(logging.Handler):
    """All of it, and the ears for what is logged."""

    #: Who says this may redeem its refresh token, which somebody else may have redeemed.
    excuses: frozenset[str] = frozenset({"token_rotation_lost"})

    def __init__(self, folder: Path, *, lasting: bool, begins_anew: bool) -> None:
        super().__init__(logging.WARNING)
        self.folder = folder
        self.lasting = lasting
        self.ledger = Ledger(folder / f"{NAME}.token" if lasting else None)
        self.begins_anew = begins_anew
        self.clock = HeldClock()
        self.loop = HeldLoop(self.clock)
        self.endpoint = Endpoint(self.clock, self._reused)
        self.latch = QuickLatch()
        self.asking: list[Process] = []
        #: All that ever were.
        self.processes: list[Process] = []
        self.wall_was_set = False
        self._random = 0
        self.loop.set_task_factory(self._task)
        logging.getLogger("proxy").addHandler(self)

    def close(self) -> None:
        """Nothing runs any more."""
        logging.getLogger("proxy").removeHandler(self)
        self.loop.close()
        super().close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What somebody beside the processes does, and has to end in some time."""
        task = self.loop.create_task(coroutine)
        self.loop.let_pass()
        if not task.done():
            self.loop.let_pass(120.0)
        return task.result()

    async def logged_in(self) -> None:
        """A person logs in beside the processes, as the command does."""
        store, granted = self.store(), self.endpoint.begin()
        async with store.turn(NAME):
            before, wall = await store.load(NAME, BINDING), self.clock.wall()
            generation = (before.generation if isinstance(before, Record) else 0) + 1
            record = Record(generation, granted.token, wall, wall + LIFETIME, granted.refresh_token)
            await store.save(NAME, BINDING, record)
            self.ledger.has_written(record)

    async def logged_out(self) -> None:
        """A person logs out beside the processes."""
        await log_out(self.store(), NAME, BINDING, None)
        self.ledger.durable = None

    def _reused(self, refresh_token: str, *, excused: bool) -> None:
        process = _PROCESS.get()
        self.ledger.expect(f"{refresh_token} was redeemed twice", holds=excused and process is not None)
        if process is not None:
            process.owes = refresh_token

    def _task(self, loop: Any, coroutine: Any, **options: Any) -> Any:
        task = asyncio.Task(coroutine, loop=loop, **options)
        if (process := _PROCESS.get()) is not None:
            process.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if task.cancelled():
            return
        if task.exception() is not None:
            self.ledger.broken.append(f"{task.get_name()} failed: {task.exception()!r}")
        process = _PROCESS.get()
        if process is not None and task.get_name() == f"token request of {NAME}":
            self.ledger.expect(f"{process.owes} was redeemed twice in silence", holds=not process.owes)

    def emit(self, record: logging.LogRecord) -> None:
        """A defect is one; who says that something was lost may redeem once more."""
        self.ledger.expect(f"{record.getMessage()}: {record.exc_info}", holds=record.exc_info is None)
        self.ledger.expect("a record does not open", holds=record.msg != "stored_token_unusable")
        process = _PROCESS.get()
        if process is not None and record.msg in REFUSALS:
            process.owes = ""
        if record.msg in self.excuses:
            token = None if process is None else process.source._life.token
            if token is not None and token.refresh_token is not None:
                self.endpoint.excused.add(token.refresh_token.reveal())

    def _bytes(self, count: int) -> bytes:
        self._random += 1
        return self._random.to_bytes(count, "big")

    def process(self) -> Process:
        """One more."""
        return Process(self)

    def seen_by(self, _process: Process) -> Clock:
        """The clock of its machine."""
        return self.clock

    def store(self, _process: Process | None = None) -> Store:
        """The store, as one more process opens it, or somebody beside them."""
        if self.lasting:
            return FileStore(self.folder, Ring([bytes(32)], random=self._bytes), patience=PATIENCE)
        self.ledger.durable = None
        return MemoryStore()
