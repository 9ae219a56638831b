"""The store that is gone with the process."""

import asyncio
from contextlib import AbstractAsyncContextManager

from proxy.stores.base import Record


class MemoryStore:
    """Records in memory; nothing outlives the process."""

    lasting = False
    needs_turn = False

    def __init__(self) -> None:
        self._records: dict[str, tuple[bytes, Record]] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def load(self, name: str, binding: bytes) -> Record | None:
        """The record, where it was saved with this binding."""
        bound_to, record = self._records.get(name, (None, None))
        return record if bound_to == binding else None

    async def save(self, name: str, binding: bytes, record: Record) -> None:
        """Keep it."""
        self._records[name] = (binding, record)

    async def forget(self, name: str) -> None:
        """Drop it."""
        self._records.pop(name, None)

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """One at a time in this process."""
        return self._turns.setdefault(name, asyncio.Lock())

    async def confirm(self, name: str) -> None:
        """Nobody takes it away."""

    def stamp(self, name: str) -> object:
        """The record itself."""
        return self._records.get(name)

    async def close(self) -> None:
        """Nothing is open."""
