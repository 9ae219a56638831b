"""A store that lasts as far as a test can see, and a latch that does as long as the test."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from proxy.stores.base import Missing, Record
from proxy.stores.latch import Latch
from proxy.stores.rejections import Home


@dataclass
class Kept:
    """Records in memory; `saved` has every one that ever was, `turns` who holds a turn."""

    lasting: bool = True
    needs_turn: bool = False
    redeemed: Home | None = None
    records: dict[str, tuple[bytes, Record]] = field(default_factory=dict)
    saved: list[Record] = field(default_factory=list)
    turns: dict[str, asyncio.Lock] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)

    async def load(self, name: str, binding: bytes) -> Record | Missing:
        """The record, where it was saved with this binding."""
        if name not in self.records:
            return Missing.LOGGED_OUT if name in self.forgotten else Missing.NOTHING
        bound_to, record = self.records[name]
        return record if bound_to == binding else Missing.UNREADABLE

    async def save(
        self,
        name: str,
        binding: bytes,
        record: Record,
        *,
        again: bool = False,  # noqa: ARG002  as a file
    ) -> None:
        """Keep it; whoever writes holds the turn."""
        assert self.turns[name].locked()
        self.records[name] = (binding, record)
        self.saved.append(record)

    async def forget(self, name: str) -> None:
        """Drop it, and remember that."""
        self.records.pop(name, None)
        self.forgotten.add(name)

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """One at a time."""
        return self.turns.setdefault(name, asyncio.Lock())

    def epoch(self, wall: float) -> float:
        """As on one machine."""
        return wall

    async def ask_time(self) -> None:
        """Nobody needs it."""

    async def confirm(self, name: str) -> None:
        """Nobody takes it away."""
        assert self.turns[name].locked()

    async def close(self) -> None:
        """Nothing is open."""


class QuickLatch(Latch):
    """The same without the slow digest, and without files."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.reasons: dict[bytes, str] = {}

    async def is_set(self, name: str, fingerprint: bytes) -> str | None:  # noqa: ARG002  the contract
        """The reason."""
        return self.reasons.get(fingerprint)

    async def set(self, name: str, fingerprint: bytes, reason: str, wall: float) -> None:  # noqa: ARG002  same
        """Remember it."""
        self.reasons[fingerprint] = reason

    async def clear(self, name: str, fingerprint: bytes) -> None:  # noqa: ARG002  same
        """Forget it."""
        self.reasons.pop(fingerprint, None)
