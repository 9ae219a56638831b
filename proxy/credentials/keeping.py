"""One credential's token in a store: taken over from there, written there, and what to do where neither can be.

Law: a store that fails costs no request. The token is then kept in memory alone, and that is said once. One
exception: what others have too is redeemed only in one's turn, with the store before one's eyes, and where that can
be noted there (`sharing.py`): a refresh token that is used twice may end the login of all (threats 88, 90). Who can
begin anew does so instead.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Final

from proxy.clock import Clock
from proxy.credentials.instants import Instants
from proxy.credentials.resting import counting, is_one, rotated
from proxy.credentials.sharing import LOST, Sharing
from proxy.errors import StoreBusy, StoreOutdated, StoreUnavailable
from proxy.lifecycle import Token
from proxy.stores.base import Missing, Record, Store

log: Final = logging.getLogger("proxy.credentials")

#: The store is looked at no more often than this, in seconds, unless a token was refused.
LOOK_SECONDS: Final = 2.0
#: What a store may take that can be written to again.
SAVE_SECONDS: Final = 60.0
#: How often it is tried to make durable what could not be; others wait until a turn is over, which takes longer.
AGAIN_SECONDS: Final = 1.0


class Keeping:
    """What the store holds of the credential `name`, bound to `binding` (see `Store`).

    `inherits`: does the credential begin with what is in the store, or with a refresh token that may have been
    replaced there?
    """

    def __init__(self, name: str, store: Store, binding: bytes, clock: Clock, *, inherits: bool = False) -> None:
        self._name = name
        self._store = store
        self._binding = binding
        self._clock = clock
        self._instants = Instants(clock, store)
        #: What memory holds, and what of it is durable: the record that was read or written last.
        self._last: Record | None = None
        self._saved: Record | None = None
        self._sharing = Sharing(name, inherits, doubts=store.needs_turn)
        self._looked_at = float("-inf")
        #: Did the last look find that somebody logged out?
        self.forgotten = False
        #: The complaints that were made, so that each is made once.
        self._said: set[str] = set()
        self._trying: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    @property
    def persisted(self) -> bool | None:
        """Would a restart find what is held? None where the store is gone with the process, or nothing is held."""
        return self._is_saved if self._store.lasting and self._last is not None else None

    @property
    def _is_saved(self) -> bool:
        return self._last == self._saved

    async def in_turn(self, act: Callable[[], Awaitable[object]]) -> None:
        """Run `act` while nobody else who shares the store asks for a token of this credential.

        Raises `StoreBusy` where somebody else does not end; where there are no turns to be had, it runs without, or
        `StoreUnavailable` is raised.
        """
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._store.turn(self._name))
            except StoreUnavailable as error:
                self._do_without(error)
            try:
                await act()
            finally:
                self._sharing.without = None

    async def confirm(self) -> None:
        """The last look before a token is asked for: is it still our turn (threat 94)? Raises as `in_turn` does."""
        try:
            await self._store.confirm(self._name)
        except StoreUnavailable as error:
            self._do_without(error)

    def _do_without(self, error: StoreUnavailable) -> None:
        """Go on without a turn, unless others may have it all the same, and it is they who would redeem."""
        if isinstance(error, StoreBusy) or (self._store.needs_turn and self._sharing.has(self._last)):
            raise error
        self._say("store_unavailable", error.detail)
        self._sharing.without = error

    @property
    def withheld(self) -> StoreUnavailable | None:
        """Why what is held must not be redeemed now: others may have done so, and replaced it. None: it may."""
        return self._sharing.withheld(self._last)

    async def newer(self) -> Token | None:
        """The token in the store, where it is not the one in memory, but a later one."""
        self._looked_at = at = self._clock.now()
        self.forgotten = False
        mine, saved = self._last, self._saved
        try:
            found = await self._store.load(self._name, self._binding)
        except StoreUnavailable as error:
            self._say("store_unavailable", error.detail)
            self._sharing.blind = error
            return None
        since = self._instants.looked(at)
        if self._last is not mine or self._saved is not saved:
            # Somebody here looked or wrote meanwhile, and what was found may be older than that.
            return None
        if not isinstance(found, Record):
            self._miss(found)
            return None
        self._sharing.blind = None
        if counting(mine, saved, found) is not found:
            if mine == saved:
                # A backup was put back, or a server lost its last writes: ours is not there any more (threat 132).
                self._lose()
                fields = {"credential": self._name, "generation": mine and mine.generation}
                log.warning("stored_token_older", extra={"fields": {**fields, "stored": found.generation}})
            return None
        self._last = found
        self._has_saved(found)
        return None if mine is not None and is_one(found, mine) else self._instants.token(found, since)

    def _miss(self, found: Missing) -> None:
        """There is no record of use: what is held ends with a logout, and what was lost is stored again."""
        was_there = self._sharing.was_there and self._store.lasting
        self._sharing.misses(found)
        if was_there and found is Missing.LOGGED_OUT:
            self.forgotten, self._last, self._saved = True, None, None
        if was_there and found is Missing.NOTHING and self._last is not None:
            self._say("stored_token_lost", LOST)
            self._lose()

    def _lose(self) -> None:
        """What is held is not there any more, and nobody knows whether somebody had replaced it before."""
        if (last := self._last) is not None:
            self._last, self._saved = replace(last, redeeming=last.refresh_token is not None), None

    def _has_saved(self, record: Record) -> None:
        self._saved = record
        self._instants.stored()
        self._sharing.knows(record)

    def rotated(self, held: Token) -> Token | None:
        """`held` with the refresh token that somebody else got in place of its own, without a token; else None."""
        return None if self._last is None else rotated(self._last, held)

    def is_due(self, *, at_once: bool = False) -> bool:
        """Is a look at what others wrote to a lasting store due? Every `LOOK_SECONDS`, unless `at_once`."""
        if not self._store.lasting:
            return False
        now = self._clock.now()
        if now - self._looked_at < LOOK_SECONDS and not at_once:
            return False
        self._looked_at = now
        return True

    async def save(self, token: Token) -> None:
        """Make `token` durable. Where that fails it is not, and `persisted` says so.

        Raises `StoreOutdated` where somebody else stored one meanwhile: theirs counts.
        """
        failure = await self._put(self._instants.record(token))
        if isinstance(failure, StoreOutdated):
            fields = {"credential": self._name, "generation": token.generation, "detail": failure.detail}
            log.warning("token_outdated", extra={"fields": fields})
            raise failure
        if failure is not None and self._store.needs_turn:
            self._try(self._keep_trying)

    @property
    def is_undecided(self) -> bool:
        """Did somebody set out to redeem this very refresh token, and nobody knows whether that was done?"""
        return self._last is not None and self._last.redeeming

    async def redeem(self, *, sole: bool) -> None:
        """Note, durably, that the refresh token is about to be redeemed.

        Raises `StoreUnavailable` where that cannot be, and others have it too. `sole`: nothing else gives a token;
        then a disk that is full for all of them is no reason, and it is noted in memory (threat 91).
        """
        last, is_shared = self._last, self._sharing.has(self._last)
        if last is None or (last.redeeming and self._is_saved):
            return
        noted = replace(last, redeeming=True)
        failure = await self._put(noted)
        if isinstance(failure, StoreOutdated):
            raise failure
        if failure is not None and is_shared and not (sole and failure.for_all):
            if self._last is not None and is_one(self._last, last):
                self._last = last
            raise failure

    async def settle(self) -> None:
        """Note that it was not redeemed, unless that is for somebody else to say by now."""
        noted = self._last
        if noted is None or not noted.redeeming:
            return
        settled = replace(noted, redeeming=False)
        if not self._is_saved:
            # Nobody else knows of the note.
            self._last = settled
            return
        with suppress(StoreUnavailable):
            await self._store.confirm(self._name)
            if await self._store.load(self._name, self._binding) == noted:
                # Where the note stays, it holds here too: others may redeem behind it, and leave it as it is.
                await self._put(settled, holds=False)

    async def close(self, wait: float) -> None:
        """End what goes on behind requests, and try once more to make durable what is not."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait({self._trying})
        await self._save_again(wait)

    def save_soon(self) -> None:
        """One more attempt to make durable what could not be, which nobody waits for (threat 91)."""
        self._try(lambda: self._save_again(SAVE_SECONDS))

    def _try(self, attempt: Callable[[], Coroutine[None, None, None]]) -> None:
        if not self._is_saved and (self._trying is None or self._trying.done()):
            self._trying = asyncio.create_task(attempt(), name=f"saving the token of {self._name}")

    async def _save_again(self, wait: float) -> None:
        if self._is_saved:
            return
        with suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(wait), self._store.turn(self._name):
                await self._write_what_counts()

    async def _keep_trying(self) -> None:
        """Others would redeem what has been redeemed, as soon as the store is back: be there before them.

        It needs no turn: where somebody else has written since, the write is refused, and theirs counts.
        """
        failure = None
        while not self._is_saved and not isinstance(failure, StoreOutdated):
            await asyncio.sleep(AGAIN_SECONDS)
            failure = await self._write(again=self._sharing.has(self._last))

    async def _write_what_counts(self) -> None:
        found = await self._store.load(self._name, self._binding)
        if found is Missing.NOTHING:
            self._miss(found)
        mine = self._last
        if mine is None or (isinstance(found, Missing) and self._sharing.ends(mine, found)):
            return
        if found == mine:
            self._has_saved(mine)
        elif isinstance(found, Missing) or counting(mine, self._saved, found) is mine:
            await self._write()

    async def _put(self, record: Record, *, holds: bool = True) -> StoreUnavailable | None:
        """Hold `record` and write it; the answer says why it could not be written.

        `holds`: where it could not, it is held all the same, unless what somebody else wrote is in its way.
        """
        before, self._last = self._last, record
        failure = await self._write()
        is_held = failure is None or (holds and not isinstance(failure, StoreOutdated))
        if not is_held and self._last is record:
            self._last = before
        return failure

    async def _write(self, *, again: bool = False) -> StoreUnavailable | None:
        """Write what memory holds, where that is not saved; the answer says why it could not be."""
        async with self._writing:
            record = self._last
            if record is None or record == self._saved:
                return None
            try:
                if self._sharing.without is not None and not self._store.needs_turn:
                    # Somebody else may have the turn, and be writing.
                    raise self._sharing.without
                made, record = record, await self._instants.righted(record)
                self._last = record if self._last is made else self._last
                await self._store.save(self._name, self._binding, record, again=again)
            except StoreUnavailable as error:
                if not isinstance(error, StoreOutdated):
                    self._sharing.may_have()
                    self._say("token_not_persisted", error.detail)
                return error
            self._has_saved(record)
            self._said.clear()
            return None

    def _say(self, event: str, detail: str) -> None:
        if event not in self._said:
            self._said.add(event)
            log.warning(event, extra={"fields": {"credential": self._name, "detail": detail}})
