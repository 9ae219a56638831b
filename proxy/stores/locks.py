"""Locks of files, for one process at a time: asked for again and again, and let go where nobody waits any more.

The kernel takes no lock away from a process that lives, and lets go those of one that died (flock(2)).
"""

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.stores.files import stamp

#: How long somebody else may hold a turn until that is told: a token request takes 20 seconds at most. A turn may
#: take longer, since a refresh, a login and its steps add up, and a program has 30 by default. Who has waited in
#: vain for the turn of a store asks for nothing, and tries again.
PATIENCE_SECONDS: Final = 30.0
#: How a lock file is opened: it is no link, and never waits.
LOCK_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
#: How often a lock that is held is asked for: first, and at last.
_FIRST_PAUSE: Final = 0.01
_LAST_PAUSE: Final = 0.25


async def acquired(attempt: "Callable[[], asyncio.Future[int | None]]", patience: float) -> int:
    """The descriptor that holds a lock; closing it lets go. Raises `TimeoutError` after `patience` seconds.

    `attempt` begins one in a thread, None: another has it. Nothing is held between two of them, since a thread that
    waits for a lock cannot be cancelled.
    """
    pause = _FIRST_PAUSE
    async with asyncio.timeout(patience):
        while (number := await _tried(attempt())) is None:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)
    return number


async def _tried(attempt: "asyncio.Future[int | None]") -> int | None:
    """A lock that nobody waits for any more is let go as soon as it is there."""
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        attempt.add_done_callback(_dropped)
        raise


def _dropped(attempt: "asyncio.Future[int | None]") -> None:
    if not attempt.cancelled() and attempt.exception() is None and (number := attempt.result()) is not None:
        os.close(number)


def held(number: int, path: Path) -> int | None:
    """`number`, the open file at `path`, locked; else it is closed, and None says that another has it.

    A file that was removed meanwhile locks nobody out (threat 93). Raises OSError.
    """
    is_held = False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = stamp(path)
        is_held = there is not None and there[0] == os.fstat(number).st_ino
    except BlockingIOError:
        pass
    finally:
        if not is_held:
            os.close(number)
    return number if is_held else None
