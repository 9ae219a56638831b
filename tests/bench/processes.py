"""Processes under measurement: started on a core of their own, and read through /proc (Linux only)."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TICK: Final = os.sysconf("SC_CLK_TCK")
#: Slower than any of these starts; mitmproxy takes three seconds.
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
#: Fine enough for start-up times of tens of milliseconds.
LOOK_SECONDS: Final = 0.001


class DidNotWork(Exception):  # noqa: N818  what happened, as in proxy/errors.py
    """Something could not be started or measured; the message is for the reader of the table."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores carry what: the measured proxy alone, and load generator plus upstream together."""

    proxy: frozenset[int]
    load: frozenset[int]

    @classmethod
    def split(cls, cores: frozenset[int]) -> "Cores":
        """The last core for the proxy, the first for the load; a machine with one core shares it."""
        return cls(frozenset({max(cores)}), frozenset({min(cores)}))

    @property
    def shared(self) -> bool:
        """Does the load disturb what is measured?"""
        return self.proxy == self.load


@dataclass(frozen=True, slots=True)
class Command:
    """How a program is started."""

    arguments: Sequence[str]
    folder: Path
    #: Added to the environment.
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Running:
    """A program that listens on `port`; it took `start_seconds` until it did."""

    pid: int
    port: int
    start_seconds: float

    def cpu_seconds(self) -> float:
        """User and system time until now, of the process and all its descendants, ended ones included."""
        ticks = 0
        for pid in family(self.pid):
            with suppress(OSError):
                # proc(5), fields 14 to 17; the name in parentheses may hold spaces.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
        return ticks / TICK

    def ran_seconds(self) -> float:
        """The same to the nanosecond, of threads that live and of children that do (proc(5), schedstat)."""
        total = 0
        for pid in family(self.pid):
            for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):
                    total += int(thread.read_text().split()[0])
        return total / 1e9

    def resident(self) -> int:
        """Bytes of memory that are resident now, of the process and its descendants."""
        return self._memory("VmRSS")

    def peak(self) -> int:
        """The most bytes that were resident since `forget_peak`."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """Begin a new peak at what is resident now (proc(5), clear_refs)."""
        for pid in family(self.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _memory(self, key: str) -> int:
        total = 0
        for pid in family(self.pid):
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
        return total


def busy_seconds() -> float:
    """CPU time of all processes since the machine started, and what its host took from it (proc(5), stat)."""
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + steal) / TICK


def own_seconds() -> float:
    """CPU time of this process and of all its children that ended."""
    return sum(os.times()[:4])


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, children.read_text().split())
    return found


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Processes that are started inside run on `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(command: Command, port: int, cores: frozenset[int], output: Path) -> Iterator[Running]:
    """Run a program until the block ends; standard output and error are appended to the file `output`.

    Raises `DidNotWork` if it ends, or does not listen on `port` in time.
    """
    environ = {**os.environ, **command.environ}
    with output.open("ab") as sink, pinned(cores):
        began_at = time.perf_counter()
        process = subprocess.Popen(
            list(command.arguments),
            cwd=command.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        listening_at = _listening_at(process, port)
        if listening_at is None:
            said = output.read_text("utf-8", "replace")[-600:].strip()
            raise DidNotWork(f"{Path(command.arguments[0]).name} does not listen; it said: {said or 'nothing'}")
        yield Running(process.pid, port, listening_at - began_at)
    finally:
        _stop(process)


def _listening_at(process: "subprocess.Popen[bytes]", port: int) -> float | None:
    """When the program first took a connection; None if it never did."""
    give_up_at = time.perf_counter() + START_SECONDS
    while (now := time.perf_counter()) < give_up_at and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return now
        time.sleep(LOOK_SECONDS)
    return None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a program and all that it started; politely first."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
