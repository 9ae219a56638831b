"""Begins with a request at once, where Python can."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

if sys.version_info >= (3, 12):

    def start(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run as far as it goes without waiting, and the rest as a task."""
        return asyncio.Task(work, loop=loop, eager_start=True)
else:

    def start(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run as a task; before Python 3.12 that begins in the loop's next round."""
        return loop.create_task(work)
