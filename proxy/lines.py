"""Lines on their way to a stream, and the instant that each begins with."""

import asyncio
import threading
import time
from collections import deque
from functools import lru_cache
from typing import Final, TextIO

#: Characters that wait for the end of a turn at most.
HELD_LIMIT: Final = 64 * 1024


def timestamp(at: float) -> str:
    """The instant `at` (epoch seconds) in UTC with milliseconds, as RFC 3339 writes it."""
    return _moment(int(at * 1000))


# Under load many lines say the same millisecond, and all lines of a second share the rest.
@lru_cache(maxsize=2)
def _moment(milliseconds: int) -> str:
    second, rest = divmod(milliseconds, 1000)
    # Cheaper than a number with a width.
    return f"{_second(second)}.{str(1000 + rest)[1:]}Z"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


class Lines:
    """Lines on their way to a stream: those of one turn of the event loop are written at once, in their order.

    Stands where a stream is expected. Without a running loop each line is written at once. What a full or closed
    stream does not take is lost: that is no reason to stop serving. Any thread may write.
    """

    __slots__ = ("_due", "_held", "_size", "_stream", "_writing")

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: deque[str] = deque()
        self._size = 0
        #: The loop will call `flush`. Looked at after a line is held, cleared before lines are taken: none is left.
        self._due = False
        self._writing = threading.Lock()

    def write(self, text: str) -> None:
        """Hold `text` until this turn ends."""
        self._held.append(text)
        self._size += len(text)
        if not self._due:
            self._wait_for_the_turn()
        elif self._size > HELD_LIMIT:
            self.flush()

    def _wait_for_the_turn(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        self._due = True
        loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is held.

        Never waits for another who does, since that one looks again when it is done: it may be this very thread,
        where the garbage collector logs something in between.
        """
        self._due = False
        while self._held and self._writing.acquire(blocking=False):
            try:
                take = self._held.popleft
                text = "".join([take() for _ in range(len(self._held))])
                self._size = 0
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                pass
            finally:
                self._writing.release()
