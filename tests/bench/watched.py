"""The proxy, with a clock on its redactor (given to `python -c`): the first argument is the file that it writes to.

The file holds the seconds that the redactor was at work, as one double; the clock's own time is in them.
"""

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path
from typing import Final

from proxy import redact

SECONDS: Final = struct.Struct("d")


def watch(path: Path) -> None:
    """From now on, add up what `Redactor.text` and `Redactor.values` take."""
    path.write_bytes(bytes(SECONDS.size))
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), SECONDS.size)
    values, text, clock = redact.Redactor.values, redact.Redactor.text, time.perf_counter
    total = 0.0

    def watched_values(self: redact.Redactor, given: str) -> str:
        nonlocal total
        began_at = clock()
        found = values(self, given)
        total += clock() - began_at
        SECONDS.pack_into(shared, 0, total)
        return found

    def watched_text(self: redact.Redactor, given: str) -> str:
        nonlocal total
        # It calls the other one, whose time is not to count twice.
        before, began_at = total, clock()
        found = text(self, given)
        total = before + clock() - began_at
        SECONDS.pack_into(shared, 0, total)
        return found

    redact.Redactor.values = watched_values  # type: ignore[method-assign]  # that is what this is for
    redact.Redactor.text = watched_text  # type: ignore[method-assign]  # same


if __name__ == "__main__":
    watch(Path(sys.argv.pop(1)))
    runpy.run_module("proxy", run_name="__main__", alter_sys=True)
