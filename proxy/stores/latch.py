"""Remembers across restarts that a secret was rejected, so that nothing hammers an account into lock-out.

Law: on disk there is only a slow salted digest of what was rejected (threat 107), and a file that this program did
not write counts as no file.
"""

import asyncio
import errno
import hashlib
import hmac
import json
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from proxy.redact import printable

_log = logging.getLogger("proxy.latch")

#: RFC 7914 section 2: 16 MiB and some 50 ms a guess. It runs once per rejection and once per start.
_SCRYPT_N: Final = 2**14
_SCRYPT_R: Final = 8
_SCRYPT_MEMORY: Final = 64 * 1024 * 1024
_SALT_BYTES: Final = 16
_FILE_LIMIT: Final = 4096
_REASON_LIMIT: Final = 1000
_VERSION: Final = 1
#: Rejected secrets of one name that are remembered at once.
KEPT: Final = 16
#: How opening a thing fails that is not our file: a symbolic link, another user's file, a socket.
_FOREIGN: Final = frozenset({errno.ELOOP, errno.EACCES, errno.ENXIO})


class _CorruptError(Exception):
    """What stands in the file's place was not written by this module."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A latch as it is stored; `salt` and `digest` in hexadecimal, `wall` in epoch seconds."""

    salt: str
    digest: str
    reason: str
    wall: float

    def matches(self, fingerprint: bytes) -> bool:
        return hmac.compare_digest(self.digest, _digest(fingerprint, bytes.fromhex(self.salt)))


#: Identity of a file's content without reading it: inode, size, time of the last change. None: no file.
_Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about a fingerprint, and the files that it was found out from.

    `stamps` None: the latch could not be written, and no file can contradict it.
    """

    fingerprint: bytes
    reason: str | None
    stamps: tuple[_Stamp, ...] | None


class Latch:
    """The latches of all credentials, a file each: `folder`/rejected/NAME@SALT.json.

    Several of one name stand side by side: two configurations may call different credentials alike, and neither
    may make the other's rejection forgotten. The newest `KEPT` of a name count. A latch holds for exactly the
    fingerprint it was set with: with a changed secret it is not set, with the old one back it is again. Where the
    folder cannot be written it is kept in memory alone, with one warning.
    """

    def __init__(self, folder: Path, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._folder = folder / "rejected"
        self._random = random
        self._known: dict[str, _Known] = {}  # guarded by _lock
        self._warned = False  # guarded by _lock
        self._lock = asyncio.Lock()

    async def is_set(self, name: str, fingerprint: bytes) -> str | None:
        """The reason that was kept with the rejection of exactly this fingerprint, else None.

        Computes no digest for a fingerprint and a file that it has seen before.
        """
        async with self._lock:
            return await asyncio.to_thread(self._look, name, fingerprint)

    async def set(self, name: str, fingerprint: bytes, reason: str, wall: float) -> None:
        """Remember that `fingerprint` was rejected at epoch time `wall`, and why. Durable when this returns."""
        async with self._lock:
            await asyncio.to_thread(self._set, name, fingerprint, reason, wall)

    async def clear(self, name: str, fingerprint: bytes) -> None:
        """Forget the rejection of exactly this fingerprint; that of another stays."""
        async with self._lock:
            await asyncio.to_thread(self._clear, name, fingerprint)

    def _files(self, name: str) -> list[Path]:
        """The files of `name`, oldest first. Quoted, so that no name leaves the folder or holds an `@`."""
        found = sorted(
            self._folder.glob(f"{quote(name, safe='')}@*.json"), key=lambda path: (_stamp(path) or (0,))[-1]
        )
        return found[-KEPT:]

    def _look(self, name: str, fingerprint: bytes) -> str | None:
        known = self._known.get(name)
        files = self._files(name)
        stamps = tuple(map(_stamp, files))
        if (
            known is not None
            and known.stamps in (None, stamps)
            and hmac.compare_digest(known.fingerprint, fingerprint)
        ):
            return known.reason
        reasons = [record.reason for _, record in _matching(files, fingerprint)]
        reason = reasons[-1] if reasons else None
        self._known[name] = _Known(fingerprint, reason, self._stamps(name))
        return reason

    def _stamps(self, name: str) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._files(name)))

    def _set(self, name: str, fingerprint: bytes, reason: str, wall: float) -> None:
        reason = printable(reason)[:_REASON_LIMIT]
        # Memory first: it holds whatever happens to the files.
        self._known[name] = _Known(fingerprint, reason, None)
        salt = self._random(_SALT_BYTES)
        record = _Record(salt.hex(), _digest(fingerprint, salt), reason, wall)
        try:
            _make_folder(self._folder)
            before = self._files(name)
            _write(self._folder / f"{quote(name, safe='')}@{salt.hex()}.json", record)
            for path in [path for path, _ in _matching(before, fingerprint)] + before[: len(before) + 1 - KEPT]:
                path.unlink(missing_ok=True)
        except OSError:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "The state folder cannot be written: a rejected credential is forgotten at the next restart."
                )
            return
        self._known[name] = _Known(fingerprint, reason, self._stamps(name))

    def _clear(self, name: str, fingerprint: bytes) -> None:
        if self._look(name, fingerprint) is None:
            return
        with suppress(OSError):
            for path, _ in _matching(self._files(name), fingerprint):
                path.unlink(missing_ok=True)
            _sync_folder(self._folder)
        # A file that could not be removed is known, and known not to count.
        self._known[name] = _Known(fingerprint, None, self._stamps(name))


def _matching(files: list[Path], fingerprint: bytes) -> list[tuple[Path, _Record]]:
    """The files that hold a rejection of exactly this fingerprint; one slow digest each."""
    records = [(path, record) for path in files if (record := _read(path)) is not None]
    return [(path, record) for path, record in records if record.matches(fingerprint)]


def _digest(fingerprint: bytes, salt: bytes) -> str:
    return hashlib.scrypt(
        fingerprint, salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=1, maxmem=_SCRYPT_MEMORY, dklen=32
    ).hex()


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> _Record | None:
    """The record in `path`; None if there is none. What is no record of ours is moved out of the way."""
    try:
        return _parse(_read_own(path))
    except FileNotFoundError:
        return None
    except (_CorruptError, ValueError, TypeError, KeyError, RecursionError):
        _set_aside(path)
    except OSError as error:
        # Anything else (too many open files) says nothing about the file: leave it where it is.
        if error.errno in _FOREIGN:
            _set_aside(path)
    return None


def _read_own(path: Path) -> bytes:
    """The bytes of a small regular file of this user; never waits on a pipe, never follows a link."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > _FILE_LIMIT:
            raise _CorruptError
        return os.read(number, _FILE_LIMIT)
    finally:
        os.close(number)


def _parse(content: bytes) -> _Record:
    """Raises `_CorruptError`, ValueError, TypeError, KeyError, RecursionError for anything that is not a record."""
    found = json.loads(content)
    if found["version"] != _VERSION or not isinstance(found["reason"], str) or not found["reason"].isprintable():
        raise _CorruptError
    if len(bytes.fromhex(found["salt"])) != _SALT_BYTES or len(bytes.fromhex(found["digest"])) != 32:
        raise _CorruptError
    return _Record(found["salt"], found["digest"], found["reason"], float(found["wall"]))


def _set_aside(path: Path) -> None:
    with suppress(OSError):
        path.replace(path.with_name(f"{path.name}.corrupt"))


def _make_folder(folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, record: _Record) -> None:
    """Replace `path` as a whole: a crash leaves the old file or the new one. Mode 0600 comes from `mkstemp`."""
    number, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with open(number, "w", encoding="ascii") as file:  # noqa: PTH123  a descriptor has no path
            json.dump({"version": _VERSION, **asdict(record)}, file)
            file.flush()
            os.fsync(number)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename or removal in `folder` durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
