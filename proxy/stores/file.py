"""Keeps tokens in a folder, one sealed file a credential.

Law: a file that does not open (torn, tampered with, sealed by another key, or for another account or upstream)
counts as no record, and stays until a new token takes its place; a crash leaves the old file or the new one.
"""

import asyncio
import fcntl
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from proxy.errors import StoreBusy, StoreUnavailable
from proxy.stores.base import Record
from proxy.stores.files import (
    FOREIGN,
    OTHERS,
    NotOursError,
    Stamp,
    make_folder,
    read_own,
    stamp,
    sync_folder,
    write_whole,
)
from proxy.stores.records import UNUSABLE, open_record, seal_record
from proxy.stores.seal import Ring

#: The stamp of every record where the folder itself is not there: a volume that is not mounted, say.
_NO_FOLDER: Final = "no folder"
log: Final = logging.getLogger("proxy.stores")

#: Two tokens of 16 KiB, escaped and sealed, are far less.
FILE_LIMIT: Final = 1 << 20
#: How long somebody else may hold the turn: a token request takes 20 seconds at most.
PATIENCE_SECONDS: Final = 30.0
#: How often a held turn is asked for: first, and at last.
_FIRST_PAUSE: Final = 0.01
_LAST_PAUSE: Final = 0.25


class FileStore:
    """Sealed records: `folder`/NAME.token, each with NAME.lock beside it, which is never replaced (threat 93).

    The folder is made with mode 0700 when it is first needed; one that others can open is not used.
    `patience` is how many seconds to wait for a turn.
    """

    lasting = True
    needs_turn = False

    def __init__(self, folder: Path, ring: Ring, *, patience: float = PATIENCE_SECONDS) -> None:
        self._folder = folder
        self._ring = ring
        self._patience = patience
        #: The files that were complained about, so that each is once.
        self._unusable: dict[str, Stamp] = {}

    async def load(self, name: str, binding: bytes) -> Record | None:
        """What the file holds; None where there is none that opens. Raises `StoreUnavailable`."""
        return await asyncio.to_thread(self._load, name, binding)

    async def save(self, name: str, binding: bytes, record: Record) -> None:
        """Replace the file, whatever it was; it is on the disk when this returns. Raises `StoreUnavailable`."""
        await asyncio.to_thread(self._save, name, binding, record)

    async def forget(self, name: str) -> None:
        """Remove the file. Raises `StoreUnavailable`."""
        await asyncio.to_thread(self._forget, name)

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """The lock of NAME.lock. Raises `StoreBusy` after `patience` seconds, and `StoreUnavailable`."""
        return self._turn(name)

    async def confirm(self, name: str) -> None:
        """The kernel takes no lock away."""

    def stamp(self, name: str) -> object:
        """Inode, size and time of the file: each save makes another file. A folder that is gone says nothing."""
        found = stamp(self._path(name, "token"))
        return found if found is not None or self._folder.is_dir() else _NO_FOLDER

    async def close(self) -> None:
        """Nothing is open."""

    def _path(self, name: str, kind: str) -> Path:
        """Quoted, so that no name leaves the folder."""
        return self._folder / f"{quote(name, safe='')}.{kind}"

    def _load(self, name: str, binding: bytes) -> Record | None:
        path = self._path(name, "token")
        seen = stamp(path)
        try:
            record = open_record(self._ring, name, binding, read_own(path, FILE_LIMIT, private=True))
        except FileNotFoundError:
            return None
        except NotOursError:
            record = None
        except OSError as error:
            if error.errno not in FOREIGN or not os.access(self._folder, os.X_OK):
                raise self._unavailable("read", error) from None
            record = None
        if record is None and self._unusable.get(name) != seen:
            self._unusable[name] = seen
            log.warning("stored_token_unusable", extra={"fields": {"credential": name, "detail": UNUSABLE}})
        return record

    def _save(self, name: str, binding: bytes, record: Record) -> None:
        sealed = seal_record(self._ring, name, binding, record)
        with self._translated("written"):
            self._prepare()
            write_whole(self._path(name, "token"), sealed)

    def _forget(self, name: str) -> None:
        with self._translated("written"):
            if self._folder.exists():
                self._path(name, "token").unlink(missing_ok=True)
                sync_folder(self._folder)

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        number = await self._acquire(name)
        try:
            yield
        finally:
            os.close(number)

    async def _acquire(self, name: str) -> int:
        """The descriptor that holds the lock; closing it lets go.

        It asks again and again, and holds nothing meanwhile: a thread that waits for a lock cannot be cancelled.
        """
        pause = _FIRST_PAUSE
        try:
            async with asyncio.timeout(self._patience):
                while (number := self._try_lock(name)) is None:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LAST_PAUSE)
        except TimeoutError:
            raise StoreBusy from None
        return number

    def _try_lock(self, name: str) -> int | None:
        """None: another has it. A file that was removed meanwhile locks nobody out (threat 93)."""
        path = self._path(name, "lock")
        with self._translated("written"):
            self._prepare()
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                there = stamp(path)
                if there is not None and there[0] == os.fstat(number).st_ino:
                    return number
            except BlockingIOError:
                pass
            except BaseException:
                os.close(number)
                raise
            os.close(number)
            return None

    def _prepare(self) -> None:
        """The folder is there, and nobody else's. Raises OSError, `StoreUnavailable`."""
        make_folder(self._folder)
        found = self._folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & OTHERS or not stat.S_ISDIR(found.st_mode):
            raise StoreUnavailable(
                f"The folder {self._folder} (store.path) is not this user's alone: run `chmod 700` on it, or name "
                "another one."
            )

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unavailable(done, error) from None

    def _unavailable(self, done: str, error: OSError) -> StoreUnavailable:
        reason = os.strerror(error.errno or 0)
        return StoreUnavailable(f"The folder {self._folder} (store.path) cannot be {done} ({reason}).")
