"""The store of one process, whose turns are those of the machine: one at a time asks for a token (threat 107).

Law: a turn that cannot be had stops nobody for good: what is shared here is only what a wrong password costs.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from proxy.stores.files import make_folder, stamp
from proxy.stores.memory import MemoryStore

#: How long another process may hold the turn: a token request takes 20 seconds at most.
PATIENCE_SECONDS: Final = 30.0
#: How often a held turn is asked for: first, and at last.
_FIRST_PAUSE: Final = 0.01
_LAST_PAUSE: Final = 0.25


class LocalStore(MemoryStore):
    """Records in memory, and lock files in `folder`, by the names that `locks` has for credentials.

    A credential that it does not name has turns in this process alone. `patience` is how many seconds to wait for
    another process.
    """

    def __init__(self, folder: Path, locks: Mapping[str, str], *, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__()
        self._folder = folder
        self._locks = locks
        self._patience = patience

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """One at a time on this machine, where the folder can be written and nobody holds it for too long."""
        inner = super().turn(name)
        return self._turn(inner, self._folder / self._locks[name]) if name in self._locks else inner

    @asynccontextmanager
    async def _turn(self, inner: AbstractAsyncContextManager[None], path: Path) -> AsyncIterator[None]:
        async with inner:
            number = await self._acquired(path)
            try:
                yield
            finally:
                if number is not None:
                    os.close(number)

    async def _acquired(self, path: Path) -> int | None:
        """The descriptor that holds the lock, None where there is none to be had."""
        pause = _FIRST_PAUSE
        try:
            async with asyncio.timeout(self._patience):
                while (number := await _in_thread(_try_lock, path)) is None:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LAST_PAUSE)
        except (TimeoutError, OSError):
            return None
        return number


async def _in_thread(act: Callable[[Path], int | None], path: Path) -> int | None:
    """What it opens is closed again where nobody waits for it any more."""
    attempt = asyncio.ensure_future(asyncio.to_thread(act, path))
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        attempt.add_done_callback(_dropped)
        raise


def _dropped(attempt: "asyncio.Future[int | None]") -> None:
    if not attempt.cancelled() and attempt.exception() is None and (number := attempt.result()) is not None:
        os.close(number)


def _try_lock(path: Path) -> int | None:
    """None: another has it. Raises OSError."""
    make_folder(path.parent)
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = stamp(path)
        if there is not None and there[0] == os.fstat(number).st_ino:
            return number
    except BlockingIOError:
        pass
    except BaseException:
        os.close(number)
        raise
    os.close(number)
    return None
