"""Remembers across restarts that a secret was rejected, so that nothing hammers an account into lock-out.

Law: on disk there is only a slow salted digest of what was rejected (threat 107), and a file that this program did
not write counts as no file.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from proxy.redact import printable
from proxy.stores.files import FOREIGN, NotOursError, Stamp, make_folder, read_own, stamp, sync_folder, write_whole

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


@dataclass(frozen=True, slots=True)
class _Record:
    """A latch as it is stored; `salt` and `digest` in hexadecimal, `wall` in epoch seconds."""

    salt: str
    digest: str
    reason: str
    wall: float

    def matches(self, fingerprint: bytes) -> bool:
        return hmac.compare_digest(self.digest, _digest(fingerprint, bytes.fromhex(self.salt)))


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about a fingerprint, and the files that it was found out from.

    `stamps` None: the latch could not be written, and no file can contradict it.
    """

    fingerprint: bytes
    reason: str | None
    stamps: tuple[Stamp, ...] | None


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
            self._folder.glob(f"{quote(name, safe='')}@*.json"), key=lambda path: (stamp(path) or (0,))[-1]
        )
        return found[-KEPT:]

    def _look(self, name: str, fingerprint: bytes) -> str | None:
        known = self._known.get(name)
        files = self._files(name)
        stamps = tuple(map(stamp, files))
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

    def _stamps(self, name: str) -> tuple[Stamp, ...]:
        return tuple(map(stamp, self._files(name)))

    def _set(self, name: str, fingerprint: bytes, reason: str, wall: float) -> None:
        reason = printable(reason)[:_REASON_LIMIT]
        # Memory first: it holds whatever happens to the files.
        self._known[name] = _Known(fingerprint, reason, None)
        salt = self._random(_SALT_BYTES)
        record = _Record(salt.hex(), _digest(fingerprint, salt), reason, wall)
        try:
            make_folder(self._folder)
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
            sync_folder(self._folder)
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


def _read(path: Path) -> _Record | None:
    """The record in `path`; None if there is none. What is no record of ours is moved out of the way."""
    try:
        return _parse(read_own(path, _FILE_LIMIT))
    except FileNotFoundError:
        return None
    except (NotOursError, ValueError, TypeError, KeyError, RecursionError):
        _set_aside(path)
    except OSError as error:
        # Anything else (too many open files) says nothing about the file: leave it where it is.
        if error.errno in FOREIGN:
            _set_aside(path)
    return None


def _parse(content: bytes) -> _Record:
    """Raises `NotOursError`, ValueError, TypeError, KeyError, RecursionError for anything that is not a record."""
    found = json.loads(content)
    if found["version"] != _VERSION or not isinstance(found["reason"], str) or not found["reason"].isprintable():
        raise NotOursError
    if len(bytes.fromhex(found["salt"])) != _SALT_BYTES or len(bytes.fromhex(found["digest"])) != 32:
        raise NotOursError
    return _Record(found["salt"], found["digest"], found["reason"], float(found["wall"]))


def _set_aside(path: Path) -> None:
    with suppress(OSError):
        path.replace(path.with_name(f"{path.name}.corrupt"))


def _write(path: Path, record: _Record) -> None:
    write_whole(path, json.dumps({"version": _VERSION, **asdict(record)}).encode("ascii"))
