"""Answers a request without a task of the event loop, for as long as it waits for nothing but the upstream's head.

A task, its futures and two more turns of the loop are a good part of what a small request costs. So the coroutine
is run by hand: at once when the request is there, and on when the head is. Where it waits for anything else it
becomes a task, and stays one (docs/adr/0008-work.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, cast

#: Is told how it ended: None, or what was raised.
Ended = Callable[[BaseException | None], None]
_END: Final = object()


class Work:
    """Runs what is `awaited` and tells `ended`, once; `start` begins, `cancel` is like that of a task."""

    __slots__ = ("_ended", "_is_cancelled", "_is_over", "_is_resting", "_joined", "_loop", "_steps", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, awaited: Awaitable[None], ended: Ended) -> None:
        self._loop = loop
        self._steps = awaited.__await__()
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self._joined: asyncio.Future[None] | None = None
        self._is_resting = False
        self._is_cancelled = False
        self._is_over = False

    def start(self) -> None:
        """Run as far as it goes."""
        self._run(None)

    def __await__(self) -> Generator[Any, Any, None]:
        """Rest until somebody else calls `go_on`; for what runs here alone."""
        self._is_resting = True
        # An iterator of one: its end costs less than an exception of ours.
        return cast("Generator[Any, Any, None]", iter((self,)))

    def go_on(self) -> None:
        """What it rests for is there; where it does not rest this does nothing."""
        if self._is_resting:
            self._run(None)

    # -- for others

    def cancel(self) -> None:
        """Raise `CancelledError` where it waits, in the loop's next turn; the first time only."""
        if self._is_cancelled or self._is_over:
            return
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()
        else:
            self._loop.call_soon(self._throw)

    async def join(self) -> None:
        """Wait until it is over."""
        if self._is_over:
            return
        if self._joined is None:
            self._joined = self._loop.create_future()
        await asyncio.shield(self._joined)

    # -- within

    def _throw(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._is_resting:
            self._run(asyncio.CancelledError())

    def _run(self, error: BaseException | None) -> None:
        """One step, up to the next thing that it waits for."""
        self._is_resting = False
        before, _NOW.work = _NOW.work, self
        try:
            # `next` knows of an end that is no exception, which is cheaper.
            waits_for = next(self._steps, _END) if error is None else self._steps.throw(error)
        except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001  told to whoever asked for it
            _NOW.work = before
            self._end(None if isinstance(failure, StopIteration) else failure)
            return
        _NOW.work = before
        if waits_for is _END:
            self._end(None)
        elif waits_for is not self:
            self._task = self._loop.create_task(_Rest(self._steps, waits_for))
            self._task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._end(asyncio.CancelledError() if task.cancelled() else task.exception())

    def _end(self, failure: BaseException | None) -> None:
        self._is_over = True
        if self._joined is not None and not self._joined.done():
            self._joined.set_result(None)
        self._ended(failure)


class _Now:
    """What is run by hand at this moment."""

    __slots__ = ("work",)

    def __init__(self) -> None:
        self.work: Work | None = None


class _Rest(Coroutine[Any, None, None]):
    """What is left of some `steps`, for a task; `waits_for` is what they wait for already."""

    def __init__(self, steps: Generator[Any, Any, None], waits_for: object) -> None:
        self._steps = steps
        self._waits_for = waits_for
        self._is_begun = False

    def send(self, value: None) -> object:
        """Go on; the first time, say what for."""
        if self._is_begun:
            return self._steps.send(value)
        self._is_begun = True
        return self._waits_for

    def throw(self, *error: Any) -> object:  # noqa: ANN401  one exception, or its three old parts
        """Go on with an exception."""
        self._is_begun = True
        return self._steps.throw(*error)

    def close(self) -> None:
        """It will not go on."""
        self._steps.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._steps


_NOW: Final = _Now()


def present() -> Work | None:
    """The work whose coroutine asks; None in a task."""
    return _NOW.work


async def in_task() -> None:
    """From here on the loop has a task for this, as `asyncio.timeout` for one requires."""
    if _NOW.work is not None:
        await asyncio.sleep(0)
