"""Small private files: read only where they are this program's own, written so that a crash leaves old or new.

Every function here blocks; who has a loop calls them in a thread.
"""

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

#: How opening a thing fails that is not our file: a symbolic link, another user's file, a socket.
FOREIGN: Final = frozenset({errno.ELOOP, errno.EACCES, errno.ENXIO})
#: The bits of a mode that let anybody but the owner in.
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

#: Identity of a file's content without reading it: inode, size, time of the last change. None: no file.
Stamp = tuple[int, int, int] | None


class NotOursError(Exception):
    """What stands in a file's place was not written by this program."""


def stamp(path: Path) -> Stamp:
    """What tells one state of `path` from another; links are not followed."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def read_own(path: Path, limit: int, *, private: bool = False) -> bytes:
    """The bytes of a small regular file of this user; never waits on a pipe, never follows a link.

    `private`: one that others can open is none of ours. Raises `NotOursError` for such things and for more than
    `limit` bytes, and OSError.
    """
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > limit:
            raise NotOursError
        if private and found.st_mode & OTHERS:
            raise NotOursError
        return os.read(number, limit)
    finally:
        os.close(number)


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` as a whole, durably: a crash leaves the old file or the new one. Mode 0600 by `mkstemp`."""
    number, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with open(number, "wb") as file:  # noqa: PTH123  a descriptor has no path
            file.write(content)
            file.flush()
            os.fsync(number)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, open to this user alone."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename or removal in `folder` durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
