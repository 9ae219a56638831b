"""One credential's token in a store: taken over from there, written there, and what to do where neither can be.

Law: a store that fails costs no request. The token is then kept in memory alone, and that is said once. One
exception: where others may have the turn all the same (`Store.needs_turn`), nothing is redeemed without it that
they may be redeeming too, since a refresh token that is used twice may end the login of all (threat 88).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Final

from proxy.clock import Clock
from proxy.errors import StoreBusy, StoreOutdated, StoreUnavailable
from proxy.grants.expiry import LONGEST_LIFETIME
from proxy.lifecycle import Token
from proxy.stores.base import Record, Store

log: Final = logging.getLogger("proxy.credentials")

#: The store is looked at no more often than this, in seconds, unless a token was refused.
LOOK_SECONDS: Final = 2.0
#: Clocks of machines that share a store differ, but not by more than this.
SKEW_SECONDS: Final = 300.0
#: How often it is tried to make durable what could not be; others wait until a turn is over, which takes longer.
AGAIN_SECONDS: Final = 1.0


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
        #: What memory holds: the record that was read or written last.
        self._last: Record | None = None
        self._stamp: object = None
        self._looked_at = float("-inf")
        self._is_saved = True
        #: Did the last look find that somebody removed what was there: that they logged out (threat 102)?
        self.forgotten = False
        #: The complaints that were made, so that each is made once.
        self._said: set[str] = set()
        self._trying: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    @property
    def persisted(self) -> bool | None:
        """Would a restart find the token? None where the store is gone with the process, or there is no token."""
        return self._is_saved if self._store.lasting and self._last is not None else None

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
        stamp = self._store.stamp(self._name)
        try:
            record = await self._store.load(self._name, self._binding)
        except StoreUnavailable as error:
            self._say("store_unavailable", error)
            return None
        after = self._store.stamp(self._name)
        was_there = self._stamp is not None or self.persisted is True
        self.forgotten = record is None and after is None and was_there and self._store.lasting
        if self.forgotten:
            self._is_saved = True
        self._stamp, last = stamp if stamp is not None else after, None if self.forgotten else self._last
        if record is None or (last is not None and not _is_later(record, last)):
            if record is not None and last is not None and record.generation < last.generation and self._is_saved:
                # An old copy was put back (threat 132). Whoever begins with it redeems what has been redeemed.
                self._is_saved = False
                fields = {"credential": self._name, "generation": last.generation, "stored": record.generation}
                log.warning("stored_token_older", extra={"fields": fields})
            is_same = record is not None and last is not None and record.generation == last.generation
            # What could not be written is later than what is there.
            self._last = record if is_same and self._is_saved else last
            return None
        self._last, self._is_saved = record, True
        return _token(record, self._clock.now(), self._clock.wall())

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
        before = self._last, self._is_saved
        self._is_saved = False
        self._last = _record(token, self._clock.now(), self._clock.wall())
        try:
            failure = await self._write()
        except StoreOutdated as error:
            self._last, self._is_saved = before
            fields = {"credential": self._name, "generation": token.generation, "detail": error.detail}
            log.warning("token_outdated", extra={"fields": fields})
            raise
        if failure is not None and self._store.needs_turn and self._trying is None:
            self._trying = asyncio.create_task(self._keep_trying(), name=f"saving the token of {self._name}")

    @property
    def is_undecided(self) -> bool:
        """Did somebody set out to redeem this very refresh token, and nobody knows whether that was done?"""
        return self._last is not None and self._last.redeeming

    async def redeem(self) -> None:
        """Note, durably, that the refresh token is about to be redeemed.

        Raises `StoreUnavailable` where others may have the turn all the same, and would not know of it.
        """
        failure = await self._mark(redeeming=True)
        if failure is not None and self._store.needs_turn:
            self._last = None if self._last is None else replace(self._last, redeeming=False)
            raise failure

    async def settle(self) -> None:
        """Note that it was not redeemed, unless that is for somebody else to say by now."""
        with suppress(StoreUnavailable):
            await self._store.confirm(self._name)
            record = await self._store.load(self._name, self._binding)
            if record is not None and self._last is not None and not _is_later(record, self._last):
                await self._mark(redeeming=False)

    async def _mark(self, *, redeeming: bool) -> StoreUnavailable | None:
        if self._last is None or (self._last.redeeming is redeeming and self._is_saved):
            return None
        self._last = replace(self._last, redeeming=redeeming)
        return await self._write()

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
                await self.in_turn(self._write_unless_newer)

    async def _keep_trying(self) -> None:
        """Others would redeem what has been redeemed, as soon as the store is back: be there before them.

        It needs no turn: where somebody else has written since, the write is refused, and theirs counts.
        """
        with suppress(StoreOutdated):
            while not self._is_saved:
                await asyncio.sleep(AGAIN_SECONDS)
                if not self._is_saved:
                    await self._write()
        self._trying = None

    async def _write_unless_newer(self) -> None:
        record, mine = await self._store.load(self._name, self._binding), self._last
        gone = record is None and self._stamp is not None and self._store.stamp(self._name) is None
        if mine is not None and not gone and (record is None or not _is_later(record, mine)):
            await self._write()

    async def _write(self) -> StoreUnavailable | None:
        """Write what memory holds; the answer says why it could not be. Raises `StoreOutdated`."""
        async with self._writing:
            if self._last is None:
                return None
            try:
                await self._store.save(self._name, self._binding, self._last)
            except StoreOutdated:
                raise
            except StoreUnavailable as error:
                self._say("token_not_persisted", error)
                return error
            self._stamp = self._store.stamp(self._name)
            self._is_saved = True
            self._said.clear()
            return None

    def _say(self, event: str, error: StoreUnavailable) -> None:
        if event not in self._said:
            self._said.add(event)
            log.warning(event, extra={"fields": {"credential": self._name, "detail": error.detail}})


def _is_later(record: Record, than: Record) -> bool:
    """By number, or by time: who logs in anew may not have known the number, and begins at one."""
    return record.generation > than.generation or record.obtained_at > than.obtained_at


def _record(token: Token, now: float, wall: float) -> Record:
    ahead = wall - now
    return Record(
        token.generation,
        token.value,
        token.obtained_at + ahead,
        None if token.expires_at is None else token.expires_at + ahead,
        token.refresh_token,
        None if token.refresh_expires_at is None else token.refresh_expires_at + ahead,
    )


def _token(record: Record, now: float, wall: float) -> Token:
    """The record on this process's clock.

    Where its times cannot be (got in the future, good for longer than anything is) a clock was wrong, then or now,
    and nobody knows its end (threat 95): it counts as over, which costs one refresh.
    """
    behind = now - wall
    expires_at = None if record.expires_at is None else record.expires_at + behind
    obtained_at = record.obtained_at + behind
    lifetime = None if expires_at is None else expires_at - obtained_at
    if obtained_at > now + SKEW_SECONDS or (lifetime is not None and lifetime > LONGEST_LIFETIME + SKEW_SECONDS):
        expires_at = now
    return Token(
        record.token,
        record.generation,
        min(obtained_at, now),
        expires_at,
        record.refresh_token,
        None if record.refresh_expires_at is None else record.refresh_expires_at + behind,
    )
