"""A store that is watched: what must not be written, or not yet, is noted, and so is what is durable."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy.errors import StoreBusy, StoreOutdated, StoreUnavailable
from proxy.stores.base import Missing, Record, Store

FULL: Final = frozenset({"save"})
#: What cannot be done with the store: nothing is wrong, the disk is full, it is gone.
FAULTS: Final[tuple[frozenset[str], ...]] = (frozenset(), FULL, frozenset({"turn", "load", "save"}))
#: The same for one process alone: it has no descriptors left, say, or its key is not that of the others.
ALONE: Final[tuple[frozenset[str], ...]] = (*FAULTS, frozenset({"turn"}), frozenset({"load"}), frozenset({"key"}))


@dataclass
class Ledger:
    """What is known of the store, and what went wrong. `file`: where its one record is, None: in none.

    `is_told`: does the place itself tell what is written, and not who writes?
    """

    file: Path | None
    is_told: bool = False
    #: What fails now.
    faults: frozenset[str] = frozenset()
    #: What must not be, and was.
    broken: list[str] = field(default_factory=list)
    #: The access tokens that are durable, or of which it was found out that they cannot be.
    kept: set[str] = field(default_factory=set)
    durable: Record | None = None
    #: The refresh tokens of which it was noted, durably, that they are about to be redeemed.
    noted: set[str] = field(default_factory=set)
    writes: int = 0
    #: Every record that was durable, as it stood in the file.
    copies: list[tuple[Record, bytes]] = field(default_factory=list)

    def expect(self, what: str, *, holds: bool) -> None:
        """It must not be; note it unless all is well."""
        if not holds:
            self.broken.append(what)

    def has_written(self, record: Record) -> None:
        """It is durable. Its time is set, since two writes may fall into one tick of the file system."""
        self.durable = record
        self.kept.add(record.token.reveal())
        if record.refresh_token is not None:
            (self.noted.add if record.redeeming else self.noted.discard)(record.refresh_token.reveal())
        self.writes += 1
        if self.file is not None:
            os.utime(self.file, ns=(self.writes, self.writes))
            self.copies.append((record, self.file.read_bytes()))

    def put_back(self, record: Record, copy: bytes) -> None:
        """Somebody restores an old copy of the file."""
        if self.file is not None:
            self.file.touch(mode=0o600)
            self.file.write_bytes(copy)
            self.has_written(record)


class Watched:
    """The store as one process has it: it fails as the ledger says, which sees what passes.

    `stop` is called with each point that is reached, `held` gives the access token that the process uses.
    """

    def __init__(
        self,
        inner: Store,
        ledger: Ledger,
        *,
        stop: Callable[[str], Awaitable[None]],
        held: Callable[[], str | None],
    ) -> None:
        self.lasting, self.needs_turn = inner.lasting, inner.needs_turn
        self.redeemed = inner.redeemed
        self._inner = inner
        self._ledger = ledger
        self._stop = stop
        self._held = held
        #: What fails now for this process alone.
        self.alone: frozenset[str] = frozenset()
        #: What failed when it was done last.
        self.failing: set[str] = set()

    def _try(self, what: str) -> None:
        if what.removeprefix("note-") in self._ledger.faults | self.alone:
            failure = StoreUnavailable(f"{what} fails")
            failure.for_all = self._ledger.faults == FULL
            raise failure

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        self.failing.discard(what)
        try:
            self._try(what)
            yield
        except StoreBusy:
            # Nothing is done without a turn then.
            raise
        except StoreUnavailable:
            self.failing.add(what)
            raise
        # What is done behind requests may have failed meanwhile: whoever asks next had this one.
        self.failing.discard(what)

    async def load(self, name: str, binding: bytes) -> Record | Missing:
        """Unless it fails."""
        with self._trying("load"):
            found = await self._inner.load(name, binding)
        is_closed = "key" in self.alone and isinstance(found, Record)
        return Missing.OTHER_KEY if is_closed else found

    async def save(self, name: str, binding: bytes, record: Record, *, again: bool = False) -> None:
        """Unless it fails; it can be stopped before and after it."""
        ledger, token = self._ledger, record.token.reveal()
        if token not in ledger.kept:
            ledger.expect(f"{token} was used before it was durable", holds=self._held() != token)
        await self._stop("noting" if record.redeeming else "saving")
        try:
            with self._trying("note-save" if record.redeeming else "save"):
                await self._inner.save(name, binding, record, again=again)
        except StoreOutdated:
            raise
        except StoreUnavailable:
            ledger.kept.add(token)
            raise
        if not ledger.is_told:
            ledger.has_written(record)
        await self._stop("noted" if record.redeeming else "saved")

    async def forget(self, name: str) -> None:
        """Unless it fails."""
        with self._trying("save"):
            await self._inner.forget(name)
        self._ledger.durable = None

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            with self._trying("turn"):
                await stack.enter_async_context(self._inner.turn(name))
            await self._stop("turned")
            yield

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """Unless it fails."""
        return self._turn(name)

    def epoch(self, wall: float) -> float:
        """As the store."""
        return self._inner.epoch(wall)

    async def ask_time(self) -> None:
        """As the store."""
        await self._inner.ask_time()

    async def confirm(self, name: str) -> None:
        """As the store; it can be stopped after it."""
        with self._trying("confirm"):
            await self._inner.confirm(name)
        await self._stop("confirmed")

    async def close(self) -> None:
        """As the store."""
        await self._inner.close()
