"""Rejected secrets as they rest, and the folder in which they do.

Law: at rest there is only a slow salted digest of what was rejected (threat 107), and a file that this program did
not write counts as no file.
"""

import asyncio
import errno
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from proxy.errors import StoreUnavailable
from proxy.stores.files import (
    FOR_ALL,
    FOREIGN,
    NotOursError,
    make_folder,
    read_own,
    stamp,
    sync_folder,
    write_whole,
)

SALT_BYTES: Final = 16
DIGEST_BYTES: Final = 32
_FILE_LIMIT: Final = 4096
_VERSION: Final = 1
#: Later than any clock says (the year 5138).
_LATEST_EPOCH: Final = 1e11


@dataclass(frozen=True, slots=True)
class Rejection:
    """One rejected secret; `salt` and `digest` in hexadecimal, `wall` in epoch seconds.

    `shared`: it was told to all who share the store, so that what they know of it now counts.
    """

    salt: str
    digest: str
    reason: str
    wall: float
    shared: bool = False


class Home(Protocol):
    """Where the rejected secrets of a credential rest, by its name. Raises `StoreUnavailable`."""

    async def read(self, name: str) -> tuple[Rejection, ...] | None:
        """All of them, the oldest first; None: none was ever kept here, or what was is lost or illegible."""
        ...

    async def add(self, name: str, rejection: Rejection, instead: Collection[Rejection]) -> None:
        """Add one, durably, and remove those that it replaces."""
        ...

    async def remove(self, name: str, some: Collection[Rejection]) -> None:
        """Remove these; that they were removed can be told from a loss."""
        ...


class RejectedFolder:
    """A file each: `folder`/NAME@SALT.json."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, name: str) -> tuple[Rejection, ...]:
        """What is no record of ours is moved out of the way. A folder in no folder says nothing."""
        return await asyncio.to_thread(self._read, name)

    async def add(self, name: str, rejection: Rejection, instead: Collection[Rejection]) -> None:
        """The new file first."""
        await asyncio.to_thread(self._add, name, rejection, instead)

    async def remove(self, name: str, some: Collection[Rejection]) -> None:
        """Unlink their files."""
        await asyncio.to_thread(self._remove, name, some)

    async def try_out(self) -> None:
        """See that one could be added. Raises `StoreUnavailable`."""
        await asyncio.to_thread(self._try_out)

    def _path(self, name: str, salt: str) -> Path:
        """Quoted, so that no name leaves the folder or holds an `@`."""
        return self._folder / f"{quote(name, safe='')}@{salt}.json"

    def _read(self, name: str) -> tuple[Rejection, ...]:
        with self._translated("read"):
            if not self._folder.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, "")
            try:
                every = list(self._folder.iterdir())
            except FileNotFoundError:
                return ()
        prefix, suffix = self._path(name, " ").name.split(" ")
        paths = [each for each in every if each.name.startswith(prefix) and each.name.endswith(suffix)]
        records = [_read(path) for path in sorted(paths, key=lambda path: (stamp(path) or (0,))[-1])]
        return tuple(each for each in records if each is not None)

    def _add(self, name: str, rejection: Rejection, instead: Collection[Rejection]) -> None:
        with self._translated("written"):
            make_folder(self._folder)
            write_whole(self._path(name, rejection.salt), dump(rejection))
            for each in instead:
                self._path(name, each.salt).unlink(missing_ok=True)

    def _remove(self, name: str, some: Collection[Rejection]) -> None:
        with self._translated("written"):
            for each in some:
                self._path(name, each.salt).unlink(missing_ok=True)
            if some:
                sync_folder(self._folder)

    def _try_out(self) -> None:
        path = self._folder / ".tried"
        with self._translated("written"):
            make_folder(self._folder)
            write_whole(path, b"")
            path.unlink(missing_ok=True)

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            failure = StoreUnavailable(f"The folder {self._folder} cannot be {done} ({reason}).")
            failure.for_all = error.errno in FOR_ALL
            raise failure from None


def dump(rejection: Rejection) -> bytes:
    """JSON of it; it holds no secret."""
    return json.dumps({"version": _VERSION, **asdict(rejection)}).encode("ascii")


def parse(content: bytes) -> Rejection:
    """What `dump` wrote. Raises ValueError, TypeError, KeyError, RecursionError for anything else."""
    found: Any = json.loads(content)
    if found["version"] != _VERSION or not isinstance(found["reason"], str) or not found["reason"].isprintable():
        raise ValueError
    if len(bytes.fromhex(found["salt"])) != SALT_BYTES or len(bytes.fromhex(found["digest"])) != DIGEST_BYTES:
        raise ValueError
    is_shared = found.get("shared", False) is True
    return Rejection(found["salt"], found["digest"], found["reason"], _epoch(found["wall"]), is_shared)


def _epoch(wall: object) -> float:
    """JSON has whole numbers that no float holds."""
    if not isinstance(wall, int | float) or not abs(wall) < _LATEST_EPOCH:
        raise ValueError
    return float(wall)


def _read(path: Path) -> Rejection | None:
    try:
        return parse(read_own(path, _FILE_LIMIT))
    except FileNotFoundError:
        return None
    except (NotOursError, ValueError, TypeError, KeyError, RecursionError):
        _set_aside(path)
    except OSError as error:
        # Anything else (too many open files) says nothing about the file: leave it where it is.
        if error.errno in FOREIGN:
            _set_aside(path)
    return None


def _set_aside(path: Path) -> None:
    with suppress(OSError):
        path.replace(path.with_name(f"{path.name}.corrupt"))
