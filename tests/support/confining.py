"""Runs a program under what a unit of systemd lets it do.

Usage: `python -m tests.support.confining UNIT PROGRAM ARGUMENT…`. The unit's filter of system calls, its address
families, no new privileges and no capabilities, set as systemd.exec(5) says. A call that is not on the list ends
with the errno of the unit.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: libseccomp, seccomp.h.
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_EQUAL: Final = 4
#: linux/prctl.h.
_PR_CAPBSET_DROP: Final = 24
_LAST_CAPABILITY: Final = Path("/proc/sys/kernel/cap_last_cap")


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def settings(unit: Path) -> dict[str, list[str]]:
    """Each setting of a unit with the values that it was given, in their order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text("utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def calls(lines: Iterable[str]) -> set[str]:
    """The system calls that `SystemCallFilter=` lines let through: the first line is a list of allowed ones."""
    allowed: set[str] = set()
    for line in lines:
        named = {call for word in line.removeprefix("~").split() for call in _members(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def _members(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    run = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", word], capture_output=True, text=True, check=True
    )
    words = [line.strip() for line in run.stdout.splitlines()[1:]]
    return {call for each in words if each and not each.startswith("#") for call in _members(each)}


def confine(unit: Path) -> None:
    """Give up what the unit does not give; raises `OSError` where the kernel refuses."""
    given = settings(unit)
    allowed = calls([*given["SystemCallFilter"], "@default"])
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in range(int(_LAST_CAPABILITY.read_text("ascii")) + 1):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    filters = ctypes.c_void_p(library.seccomp_init(_ERRNO | getattr(errno, given["SystemCallErrorNumber"][0])))
    for name in allowed - {"socket"}:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else it is of another machine
            _added(library.seccomp_rule_add(filters, _ALLOW, number, 0))
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in given["RestrictAddressFamilies"][0].split():
        compare = _Compare(0, _EQUAL, getattr(socket, family), 0)
        _added(library.seccomp_rule_add_array(filters, _ALLOW, number, 1, ctypes.byref(compare)))
    _added(library.seccomp_load(filters))


def _added(result: int) -> None:
    if result != 0:
        raise OSError(-result, os.strerror(-result))


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  the program of a test
