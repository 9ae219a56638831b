"""What the process does to itself at its start: no core dump, no debugger, all the descriptors that it may have.

Either would show every secret (threat 83). `BEARER_PROXY_DUMPABLE=1` leaves that as it was, to look for a defect.
"""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

DUMPABLE: Final = "BEARER_PROXY_DUMPABLE"
#: prctl(2).
_PR_SET_DUMPABLE: Final = 4
#: So many connections to the admin listener of the proxy's own user are open at once, and `server.ASIDE_MOST` of
#: others, and as many that are told that there are too many.
ADMIN_PLACES: Final = 16
#: Descriptors that are no client's and no upstream's: 48 of the admin listener, 32 of strangers and of those that
#: are told that there are too many; and listeners, the loop, the log, the store, token requests.
RESERVE: Final = 112
#: So many objects more than before, and Python's collector looks for cycles among them; 700 is what it begins with.
YOUNG_MOST: Final = 10_000
#: An exchange that waits for the inspector is some twenty objects, or forty where its head is long.
EXCHANGE_OBJECTS: Final = 40


def close_to_others(environ: Mapping[str, str]) -> None:
    """No core dump (setrlimit(2)), and not dumpable (prctl(2), Linux): /proc/PID is root's then."""
    if environ.get(DUMPABLE) == "1":
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Where it is forbidden (seccomp), whoever forbade it has an opinion on debuggers, too.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_descriptors() -> None:
    """As many open files as the hard limit allows: the soft one is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settle(waiting: int = 0) -> None:
    """What is loaded by now stays: the collector need not walk through it again, which takes it 15 ms each time.

    Nor through what waits for a moment, as exchanges do until the inspector has written them down, at most so many:
    hardly any of it is ever in a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MOST + EXCHANGE_OBJECTS * waiting)


def descriptors() -> tuple[int, int]:
    """The limits of open files, soft and hard, as `limit_descriptors` takes them."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def limit_descriptors(limits: tuple[int, int]) -> None:
    """Have these limits again: programs that still use select(2), or close all they might have, want few."""
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def most_connections(wanted: int) -> int:
    """`wanted`, or as many clients as there are descriptors for: two each, one to its upstream, beside the reserve.

    So refreshes and the log go on where clients have all that there is for them (threat 115).
    """
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, (soft - RESERVE) // 2))


def is_root() -> bool:
    """Does it run with more power than it needs (threat 129)?"""
    return os.geteuid() == 0
