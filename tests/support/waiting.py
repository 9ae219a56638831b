"""Waits for something that signals no event, without a clock: every step of it happens in this loop."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object]) -> None:
    """Let the loop run until `holds()`; a hang becomes a failure."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  the far ends know nothing of tests
            await asyncio.sleep(0)
