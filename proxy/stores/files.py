"""Small private files: read only where they are this program's own, written so that a crash leaves old or new.

Every function here blocks; who has a loop calls them in a thread.
"""

import errno
import os
import re
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: What is wrong with the disk is wrong for all who share it; anything else may be wrong for this process alone.
FOR_ALL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
#: How opening a thing fails that is not our file: a symbolic link, another user's file, a socket.
FOREIGN: Final = frozenset({errno.ELOOP, errno.EACCES, errno.ENXIO})
#: The bits of a mode that let anybody but the owner in.
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

#: Whoever has no number in a user namespace is shown by this one (/proc/sys/kernel/overflowuid).
_NOBODYS: Final = 65534

#: File systems whose locks are a server's to give, or nobody's.
REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs"}
)
#: What `mkstemp` puts between prefix and suffix.
_RANDOM: Final = "[a-z0-9_]{8}"

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
    number, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
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


def sweep(path: Path) -> None:
    """Remove what is left of writes of `path` that a crash broke off. Nobody may be writing it now."""
    left_over = re.compile(re.escape(f".{path.name}.") + _RANDOM + re.escape(".tmp"))
    with suppress(OSError):
        for each in path.parent.iterdir():
            if left_over.fullmatch(each.name):
                each.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Rename what stands at `path` and is no regular file: a folder could not be replaced. Raises OSError."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            path.rename(path.with_name(f"{path.name}.corrupt-{found.st_ctime_ns}"))


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, all of it open to this user alone."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in (*reversed(missing), folder):
        each.mkdir(mode=0o700, exist_ok=True)


@dataclass(frozen=True, slots=True)
class Exposure:
    """A folder above another, in which others can rename that, and put one of theirs in its place.

    `is_certain`: not where it is the root of a volume, which is for those who mount it (`Path.is_mount`), nor where
    its owner has no number here, as in a container (user_namespaces(7)).
    """

    folder: Path
    why: str
    mend: str
    is_certain: bool


def exposed(folder: Path) -> Exposure | None:
    """The nearest such folder above `folder`, one that is certain first. Raises OSError."""
    found = [each for each in map(_exposure, folder.resolve().parents) if each is not None]
    return next((each for each in found if each.is_certain), next(iter(found), None))


def _exposure(folder: Path) -> Exposure | None:
    """Open to all, but for the sticky bit; or of a user who is neither root nor this one, as `ssh` looks at it."""
    found = folder.stat()
    if found.st_uid not in {0, os.geteuid()}:
        mend = "name one below folders of root and of this user alone"
        is_certain = found.st_uid != _NOBODYS and not folder.is_mount()
        return Exposure(folder, f"{folder} is another user's ({found.st_uid})", mend, is_certain)
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        mend = f"run `chmod o-w {folder}`, or name a folder elsewhere"
        return Exposure(folder, f"all can write to {folder}", mend, not folder.is_mount())
    return None


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """What kind of file system `path` is on, by proc_pid_mountinfo(5); None where nobody says. Raises OSError."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(FileNotFoundError):
        for line in mounts.read_text(errors="replace").splitlines():
            place, _, kind = line.partition(" - ")
            if place.split(" ")[2:3] == [number]:
                return kind.split(" ")[0]
    return None


def sync_folder(folder: Path) -> None:
    """Make a rename or removal in `folder` durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
