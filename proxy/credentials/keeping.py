"""One credential's token in a store: taken over from there, written there, and what to do where neither can be.

Law: a store that fails costs no request. The token is then kept in memory alone, and that is said once. One
exception: where others may have the turn all the same (`Store.needs_turn`), nothing is redeemed without it that
they may be redeeming too, since a refresh token that is used twice may end the login of all (threat 88).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Final

from proxy.clock import Clock
from proxy.credentials.resting import counting, is_one, record_of, token_of
from proxy.errors import StoreBusy, StoreOutdated, StoreUnavailable
from proxy.lifecycle import Token
from proxy.stores.base import Record, Store

log: Final = logging.getLogger("proxy.credentials")

#: The store is looked at no more often than this, in seconds, unless a token was refused.
LOOK_SECONDS: Final = 2.0
#: How often it is tried to make durable what could not be; others wait until a turn is over, which takes longer.
AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at the store found; `stamp` is none of a later state.

    `is_gone`: somebody removed what was there, that is, they logged out (threat 102).
    """

    record: Record | None
    stamp: object
    is_gone: bool


class Keeping:
    """What the store holds of the credential `name`, bound to `binding` (see `Store`).

    Instants in the store are of the wall, those of tokens are on `clock.now()`. `inherits`: does the credential
    begin with what is in the store, or with a refresh token that may have been replaced there?
    """

    def __init__(self, name: str, store: Store, binding: bytes, clock: Clock, *, inherits: bool = False) -> None:
        self._name = name
        self._store = store
        self._binding = binding
        self._clock = clock
        self._inherits = inherits
        #: What memory holds, and what of it is durable: the record that was read or written last.
        self._last: Record | None = None
        self._saved: Record | None = None
        self._stamp: object = None
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
            await act()

    async def confirm(self) -> None:
        """The last look before a token is asked for: is it still our turn (threat 94)? Raises as `in_turn` does."""
        try:
            await self._store.confirm(self._name)
        except StoreUnavailable as error:
            self._do_without(error)

    def _do_without(self, error: StoreUnavailable) -> None:
        """Go on without a turn, where nothing that others have can be redeemed so."""
        redeems = self._inherits or (self._last is not None and self._last.refresh_token is not None)
        if isinstance(error, StoreBusy) or (self._store.needs_turn and redeems):
            raise error
        self._say("store_unavailable", error)

    async def newer(self) -> Token | None:
        """The token in the store, where it is not the one in memory, but a later one."""
        self._looked_at = self._clock.now()
        self.forgotten = False
        mine, saved = self._last, self._saved
        try:
            found = await self._look()
        except StoreUnavailable as error:
            self._say("store_unavailable", error)
            return None
        if self._last is not mine or self._saved is not saved:
            # Somebody here looked or wrote meanwhile, and what was found may be older than that.
            return None
        self._stamp, self.forgotten = found.stamp, found.is_gone
        if found.is_gone:
            self._last = self._saved = None
        record = found.record
        if record is None:
            return None
        if counting(mine, saved, record) is not record:
            if mine == saved:
                # A backup was put back, or a server lost its last writes: ours is not there any more (threat 132).
                self._saved = None
                fields = {"credential": self._name, "generation": mine and mine.generation}
                log.warning("stored_token_older", extra={"fields": {**fields, "stored": record.generation}})
            return None
        self._last = self._saved = record
        is_another = mine is None or not is_one(record, mine)
        return token_of(record, self._clock.now(), self._clock.wall()) if is_another else None

    async def _look(self) -> _Look:
        """What is in the store now. Raises `StoreUnavailable`."""
        before = self._store.stamp(self._name)
        record = await self._store.load(self._name, self._binding)
        after = self._store.stamp(self._name)
        was_there = self._stamp is not None or self._saved is not None
        is_gone = record is None and after is None and was_there and self._store.lasting
        return _Look(record, before if before is not None else after, is_gone)

    def rotated(self, held: Token) -> Token | None:
        """`held` with the refresh token that somebody else got in place of its own, without a token; else None."""
        last = self._last
        if last is None or last.token != held.value or last.refresh_token in (None, held.refresh_token):
            return None
        return replace(held, refresh_token=last.refresh_token)

    def has_changed(self, *, at_once: bool = False) -> bool:
        """Did somebody else write to a lasting store? Looks at most every `LOOK_SECONDS`, unless `at_once`."""
        now = self._clock.now()
        if not self._store.lasting or (now - self._looked_at < LOOK_SECONDS and not at_once):
            return False
        self._looked_at = now
        return not self._is_saved or self._store.stamp(self._name) != self._stamp

    async def save(self, token: Token) -> None:
        """Make `token` durable. Where that fails it is not, and `persisted` says so.

        Raises `StoreOutdated` where somebody else stored one meanwhile: theirs counts.
        """
        failure = await self._put(record_of(token, self._clock.now(), self._clock.wall()))
        if isinstance(failure, StoreOutdated):
            fields = {"credential": self._name, "generation": token.generation, "detail": failure.detail}
            log.warning("token_outdated", extra={"fields": fields})
            raise failure
        if failure is not None and self._store.needs_turn and self._trying is None:
            self._trying = asyncio.create_task(self._keep_trying(), name=f"saving the token of {self._name}")

    @property
    def is_undecided(self) -> bool:
        """Did somebody set out to redeem this very refresh token, and nobody knows whether that was done?"""
        return self._last is not None and self._last.redeeming

    async def redeem(self) -> None:
        """Note, durably, that the refresh token is about to be redeemed.

        Where that fails it is noted in memory. Raises `StoreUnavailable` where others may have the turn all the
        same, and would not know of it.
        """
        last = self._last
        if last is None or (last.redeeming and self._is_saved):
            return
        needs_note = self._store.needs_turn
        failure = await self._put(replace(last, redeeming=True), holds=not needs_note)
        if isinstance(failure, StoreOutdated) or (failure is not None and needs_note):
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
        await self.save_again(wait)

    async def save_again(self, wait: float) -> None:
        """One more attempt to make durable what could not be (threat 91)."""
        if self._is_saved:
            return
        with suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(wait):
                await self.in_turn(self._write_what_counts)

    async def _keep_trying(self) -> None:
        """Others would redeem what has been redeemed, as soon as the store is back: be there before them.

        It needs no turn: where somebody else has written since, the write is refused, and theirs counts.
        """
        failure = None
        while not self._is_saved and not isinstance(failure, StoreOutdated):
            await asyncio.sleep(AGAIN_SECONDS)
            failure = await self._write()
        self._trying = None

    async def _write_what_counts(self) -> None:
        found, mine = await self._look(), self._last
        if found.record is not None and found.record == mine:
            self._saved = mine
        elif mine is not None and not found.is_gone and counting(mine, self._saved, found.record) is mine:
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

    async def _write(self) -> StoreUnavailable | None:
        """Write what memory holds, where that is not saved; the answer says why it could not be."""
        async with self._writing:
            record = self._last
            if record is None or record == self._saved:
                return None
            try:
                await self._store.save(self._name, self._binding, record)
            except StoreUnavailable as error:
                if not isinstance(error, StoreOutdated):
                    self._say("token_not_persisted", error)
                return error
            self._stamp = self._store.stamp(self._name)
            self._saved = record
            self._said.clear()
            return None

    def _say(self, event: str, error: StoreUnavailable) -> None:
        if event not in self._said:
            self._said.add(event)
            log.warning(event, extra={"fields": {"credential": self._name, "detail": error.detail}})
