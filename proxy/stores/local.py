"""The store of one process, whose turns are those of the machine: one at a time asks for a token (threat 107).

Law: a turn that cannot be had stops nobody for good: what is shared here is only what a wrong password costs.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from proxy.stores.files import make_folder
from proxy.stores.locks import LOCK_FLAGS, PATIENCE_SECONDS, acquired, held
from proxy.stores.memory import MemoryStore


class LocalStore(MemoryStore):
    """Records in memory, and lock files in `folder`, by the names that `locks` has for credentials.

    A credential that it does not name has turns in this process alone. `patience` is how many seconds to wait for
    others of this process, and then for another process.
    """

    def __init__(self, folder: Path, locks: Mapping[str, str], *, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__()
        self._folder = folder
        self.locks = locks
        self._patience = patience

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """One at a time on this machine, where the folder can be written and nobody holds it for too long."""
        inner = super().turn(name)
        return self._turn(inner, self._folder / self.locks[name]) if name in self.locks else inner

    @asynccontextmanager
    async def _turn(self, inner: AbstractAsyncContextManager[None], path: Path) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await stack.enter_async_context(inner)
            number = await self._acquired(path)
            try:
                yield
            finally:
                if number is not None:
                    os.close(number)

    async def _acquired(self, path: Path) -> int | None:
        """The descriptor that holds the lock, None where there is none to be had."""
        try:
            return await acquired(lambda: asyncio.ensure_future(asyncio.to_thread(_try_lock, path)), self._patience)
        except (TimeoutError, OSError):
            return None


def _try_lock(path: Path) -> int | None:
    """None: another has it. Raises OSError."""
    make_folder(path.parent)
    return held(os.open(path, os.O_RDWR | os.O_CREAT | LOCK_FLAGS, 0o600), path)
