"""The store that is gone with the process."""

import asyncio
from contextlib import AbstractAsyncContextManager

from proxy.stores.base import Missing, Record
from proxy.stores.rejections import Home


class MemoryStore:
    """Records in memory; nothing outlives the process."""

    lasting = False
    needs_turn = False
    redeemed: Home | None = None

    def __init__(self) -> None:
        #: None: it was removed.
        self._records: dict[str, tuple[bytes, Record] | None] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def load(self, name: str, binding: bytes) -> Record | Missing:
        """The record, where it was saved with this binding."""
        if name not in self._records:
            return Missing.NOTHING
        found = self._records[name]
        if found is None:
            return Missing.LOGGED_OUT
        bound_to, record = found
        return record if bound_to == binding else Missing.UNREADABLE

    async def save(
        self,
        name: str,
        binding: bytes,
        record: Record,
        *,
        again: bool = False,  # noqa: ARG002  nothing fails
    ) -> None:
        """Keep it."""
        self._records[name] = (binding, record)

    async def forget(self, name: str) -> None:
        """Drop it."""
        self._records[name] = None

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """One at a time in this process."""
        return self._turns.setdefault(name, asyncio.Lock())

    def epoch(self, wall: float) -> float:
        """One machine has one clock."""
        return wall

    async def ask_time(self) -> None:
        """It needs no answer."""

    async def confirm(self, name: str) -> None:
        """Nobody takes it away."""

    async def close(self) -> None:
        """Nothing is open."""
