"""The proxy, with a clock on its redactor (given to `python -c`): the first argument is the file that it writes to.

The file holds the seconds that the redactor was at work, as one double; the clock's own time is in them.
"""

import mmap
import runpy
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy import redact

SECONDS: Final = struct.Struct("d")
Method = Callable[[redact.Redactor, str], str]


def watch(path: Path) -> None:
    """From now on, add up what `Redactor.text` and `Redactor.values` take."""
    path.write_bytes(bytes(SECONDS.size))
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), SECONDS.size)
    # Of this thread alone: while others have the processor, it does not run.
    clock = time.thread_time
    total, inside = 0.0, False

    def watched(method: Method) -> Method:
        def call(self: redact.Redactor, given: str) -> str:
            nonlocal total, inside
            # They call each other, and no time is to count twice.
            if inside:
                return method(self, given)
            inside, began_at = True, clock()
            try:
                return method(self, given)
            finally:
                inside, total = False, total + clock() - began_at
                SECONDS.pack_into(shared, 0, total)

        return call

    redact.Redactor.values = watched(redact.Redactor.values)  # type: ignore[method-assign, assignment]  # what this is for
    redact.Redactor.text = watched(redact.Redactor.text)  # type: ignore[method-assign, assignment]  # same


if __name__ == "__main__":
    watch(Path(sys.argv.pop(1)))
    runpy.run_module("proxy", run_name="__main__", alter_sys=True)
