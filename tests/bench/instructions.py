"""How many instructions a request takes, counted by valgrind: nearly the same number again, whatever else runs.

What the kernel does for the process is not in it, so a share of it is larger than that of all CPU time.
"""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.bench.processes import Command, DidNotWork
from tests.bench.proxies import Job

#: In the folder of a job: what callgrind writes, one file more at each dump.
OUT: Final = "callgrind.out"


def counted(command: Callable[[Job], Command]) -> Callable[[Job], Command]:
    """The same under callgrind, which counts once it is told to; with the same hashes each time."""

    def start(job: Job) -> Command:
        inner = command(job)
        tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={job.folder / OUT}"]
        return replace(inner, arguments=[*tool, *inner.arguments], environ={**inner.environ, "PYTHONHASHSEED": "0"})

    return start


def count(pid: int, folder: Path, load: Callable[[], None]) -> int:
    """How many instructions the process runs while `load` does; it does so once before, when all is new.

    Raises `DidNotWork` where callgrind does not listen.
    """
    _tell(pid, "instrumentation", "on")
    load()
    _tell(pid, "zero")
    load()
    before = set(folder.glob(f"{OUT}*"))
    _tell(pid, "dump")
    _tell(pid, "instrumentation", "off")
    text = "".join(path.read_text() for path in set(folder.glob(f"{OUT}*")) - before)
    if (total := re.search(r"^totals: (\d+)$", text, re.MULTILINE)) is None:
        raise DidNotWork("callgrind counted nothing")
    return int(total[1])


def _tell(pid: int, *words: str) -> None:
    done = subprocess.run(["vgdb", f"--pid={pid}", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DidNotWork(f"callgrind: {done.stderr.strip()[-300:]}")
