"""The instants of one credential's records: those of the store's clock, and this process's own.

Law: a token lives as long here as where it was got, whatever the wall clocks of the two say (threat 95).
"""

from dataclasses import replace
from typing import Final

from proxy.clock import Clock
from proxy.credentials.resting import is_one, record_of, token_of
from proxy.lifecycle import Token
from proxy.stores.base import Record, Store

#: A clock that differs by less was not set, and nothing is written anew for it.
_SET_SECONDS: Final = 1.0


class Instants:
    """Between `clock.now()` and the clock that `store` goes by."""

    def __init__(self, clock: Clock, store: Store) -> None:
        self._clock = clock
        self._store = store
        #: What was made here and is not stored yet, and how far the store's clock was ahead when it was made.
        self._made: tuple[Record, float] | None = None
        #: When the store was looked at last.
        self._looked_at: float | None = None

    @property
    def _ahead(self) -> float:
        return self._store.epoch(self._clock.wall()) - self._clock.now()

    def record(self, token: Token) -> Record:
        """`token`, which was got here, as it rests."""
        ahead = self._ahead
        made = record_of(token, ahead)
        self._made = made, ahead
        return made

    def token(self, record: Record, since: float | None) -> Token:
        """`record`, which was not there yet at `since`, as it is used here."""
        return token_of(record, self._ahead, self._clock.now(), since)

    def looked(self, at: float) -> float | None:
        """When the store was looked at before this look, which began `at`."""
        before, self._looked_at = self._looked_at, at
        return before

    async def righted(self, record: Record) -> Record:
        """It is about to be written: what was made while nobody knew the store's clock, or before one was set.

        Raises `StoreUnavailable`.
        """
        await self._store.ask_time()
        if self._made is None or not is_one(record, self._made[0]):
            return record
        off = self._ahead - self._made[1]
        if abs(off) < _SET_SECONDS:
            return record
        self._made = record, self._made[1] + off
        return replace(
            record,
            obtained_at=record.obtained_at + off,
            expires_at=None if record.expires_at is None else record.expires_at + off,
            refresh_expires_at=None if record.refresh_expires_at is None else record.refresh_expires_at + off,
        )

    def stored(self) -> None:
        """What is held is in the store, or came from there."""
        self._made = None
