"""Keeps tokens in a folder, one sealed file a credential.

Law: a file that does not open (torn, tampered with, sealed by another key, or for another account or upstream)
stays until a new token takes its place, and is told apart from none; a crash leaves the old file or the new one.
Whatever may wait for a disk does so in threads of the store's own, so that a folder on a server that is away stops
nobody who does not need it.
"""

import asyncio
import errno
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from proxy.errors import StoreBusy, StoreUnavailable
from proxy.stores.base import Missing, Record
from proxy.stores.files import (
    FOR_ALL,
    FOREIGN,
    OTHERS,
    REMOTE,
    NotOursError,
    Stamp,
    exposed,
    file_system,
    make_folder,
    read_own,
    set_aside,
    stamp,
    sweep,
    write_whole,
)
from proxy.stores.locks import LOCK_FLAGS, PATIENCE_SECONDS, acquired, held
from proxy.stores.records import UNUSABLE, open_record, seal_record
from proxy.stores.rejections import RejectedFolder
from proxy.stores.seal import Ring

log: Final = logging.getLogger("proxy.stores")

#: Two tokens of 16 KiB, escaped and sealed, are far less.
FILE_LIMIT: Final = 1 << 20
#: What a logout leaves in the place of the record. It is not sealed: who has another key must be able to read it,
#: and who can write it can remove the record as well. It needs no end; the next token takes its place.
TOMBSTONE: Final = b"bearer-proxy logged out\n"

T = TypeVar("T")


class FileStore:
    """Sealed records: `folder`/NAME.token, each with NAME.lock beside it, which is never replaced (threat 93).

    The folder is made with mode 0700 when it is first needed; one that others can open, or replace, is not used.
    `patience` is how many seconds to wait for a turn.
    """

    lasting = True
    needs_turn = False

    def __init__(self, folder: Path, ring: Ring, *, patience: float = PATIENCE_SECONDS) -> None:
        self._folder = folder
        self._ring = ring
        self._patience = patience
        self._threads = ThreadPoolExecutor(thread_name_prefix="store")
        #: The files that were complained about, so that each is once.
        self._unusable: dict[str, Stamp] = {}
        self._is_looked_up = False
        #: The writes under way, by name: whoever waited for one may be gone.
        self._writes: dict[str, set[asyncio.Future[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def load(self, name: str, binding: bytes) -> Record | Missing:
        """What the file holds, or why it cannot be used. Raises `StoreUnavailable`."""
        return await self._start(self._load, name, binding)

    async def save(
        self,
        name: str,
        binding: bytes,
        record: Record,
        *,
        again: bool = False,  # noqa: ARG002  is asked where there is no turn; in one, what is there is read first
    ) -> None:
        """Replace the file, whatever it was; it is on the disk when this returns. Raises `StoreUnavailable`."""
        await self._write(name, seal_record(self._ring, name, binding, record))

    async def forget(self, name: str) -> None:
        """Put a word in place of the file that says that somebody logged out. Raises `StoreUnavailable`."""
        await self._write(name, TOMBSTONE)

    @property
    def redeemed(self) -> RejectedFolder:
        """In a folder beside the records."""
        return RejectedFolder(self._folder / "redeemed")

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """The lock of NAME.lock. Raises `StoreBusy` after `patience` seconds, and `StoreUnavailable`."""
        return self._turn(name)

    def epoch(self, wall: float) -> float:
        """One machine has one clock."""
        return wall

    async def ask_time(self) -> None:
        """It needs no answer."""

    async def confirm(self, name: str) -> None:
        """The kernel takes no lock away."""

    async def close(self) -> None:
        """Nothing is open; the threads end with the store."""

    def _start(self, act: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":  # noqa: ANN401  those of `act`
        """Do it where it holds up nobody."""
        return asyncio.get_running_loop().run_in_executor(self._threads, act, *arguments)

    def _path(self, name: str, kind: str) -> Path:
        """Quoted, so that no name leaves the folder."""
        return self._folder / f"{quote(name, safe='')}.{kind}"

    # -- records

    def _load(self, name: str, binding: bytes) -> Record | Missing:
        path = self._path(name, "token")
        seen = stamp(path)
        found: Record | Missing
        try:
            self._check()
            content = read_own(path, FILE_LIMIT, private=True)
            found = Missing.LOGGED_OUT if content == TOMBSTONE else open_record(self._ring, name, binding, content)
        except FileNotFoundError:
            return Missing.NOTHING
        except NotOursError:
            found = Missing.UNREADABLE
        except OSError as error:
            if error.errno not in FOREIGN or not os.access(self._folder, os.X_OK):
                raise self._unavailable("read", error) from None
            found = Missing.UNREADABLE
        if isinstance(found, Missing) and found in UNUSABLE and self._unusable.get(name) != seen:
            self._unusable[name] = seen
            log.warning("stored_token_unusable", extra={"fields": {"credential": name, "detail": UNUSABLE[found]}})
        return found

    async def _write(self, name: str, content: bytes) -> None:
        """It goes on where whoever waits for it is cancelled; the turn then ends behind it."""
        write = self._start(self._replace, name, content)
        writes = self._writes.setdefault(name, set())
        writes.add(write)
        write.add_done_callback(writes.discard)
        await asyncio.shield(write)

    def _replace(self, name: str, content: bytes) -> None:
        path = self._path(name, "token")
        with self._translated("written"):
            self._prepare()
            set_aside(path)
            write_whole(path, content)

    # -- turns

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        number = await self._acquire(name)
        try:
            yield
        finally:
            await self._let_go(name, number)

    async def _acquire(self, name: str) -> int:
        """The descriptor that holds the lock; closing it lets go."""
        try:
            return await acquired(lambda: self._start(self._try_lock, name), self._patience)
        except TimeoutError:
            raise StoreBusy from None

    async def _let_go(self, name: str, number: int) -> None:
        """Not before what is being written is written: a late rename would cover a later record."""
        if writes := set(self._writes.get(name, ())):
            ending = asyncio.create_task(self._end_behind(writes, number), name=f"end of the turn of {name}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        else:
            await asyncio.shield(self._start(os.close, number))

    async def _end_behind(self, writes: set["asyncio.Future[None]"], number: int) -> None:
        await asyncio.wait(writes)
        await self._start(os.close, number)

    def _try_lock(self, name: str) -> int | None:
        """None: another has it."""
        path = self._path(name, "lock")
        with self._translated("written"):
            self._prepare()
            number = held(self._opened(path), path)
            if number is not None:
                sweep(self._path(name, "token"))
            return number

    def _opened(self, path: Path) -> int:
        """The lock file, this program's own. Raises OSError, `StoreUnavailable`."""
        number = self._open(path)
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            os.close(number)
            raise self._no_lock(path)
        return number

    def _open(self, path: Path) -> int:
        """Where nothing can be written, a lock file that is there locks as well when it is read."""
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | LOCK_FLAGS, 0o600)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                raise self._no_lock(path) from None
            if error.errno not in {errno.EROFS, errno.EACCES} or not path.exists():
                raise
        return os.open(path, os.O_RDONLY | LOCK_FLAGS)

    # -- the folder

    def _prepare(self) -> None:
        """The folder is there, and nobody else's. Raises OSError, `StoreUnavailable`."""
        make_folder(self._folder)
        self._check()
        if not self._is_looked_up:
            self._is_looked_up = True
            if (kind := file_system(self._folder)) in REMOTE:
                detail = (
                    f"the folder {self._folder} (store.path) is on a file system of kind {kind}, whose locks may "
                    "not hold: use a folder on a disk of this machine, or `kind: redis` for several machines"
                )
                log.warning("store_on_network", extra={"fields": {"detail": detail}})
            if (above := exposed(self._folder)) is not None:
                detail = f"others may put another folder in place of {self._folder} (store.path): {above.why}"
                log.warning("store_on_open_volume", extra={"fields": {"detail": detail}})

    def _check(self) -> None:
        """The folder is this user's alone, each time it is used. Raises OSError, `StoreUnavailable`."""
        found = self._folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & OTHERS or not stat.S_ISDIR(found.st_mode):
            raise StoreUnavailable(
                f"The folder {self._folder} (store.path) is not this user's alone: run `chmod 700` on it, or name "
                "another one."
            )
        # A volume that is open to all is for those who mount it, as an emptyDir of Kubernetes for the pod.
        if (above := exposed(self._folder)) is not None and above.is_certain:
            what = f"Others can put another folder in place of {self._folder} (store.path)"
            raise StoreUnavailable(f"{what}, since {above.why}: {above.mend}.")

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unavailable(done, error) from None

    def _unavailable(self, done: str, error: OSError) -> StoreUnavailable:
        reason = os.strerror(error.errno or 0)
        failure = StoreUnavailable(f"The folder {self._folder} (store.path) cannot be {done} ({reason}).")
        failure.for_all = error.errno in FOR_ALL
        return failure

    def _no_lock(self, path: Path) -> StoreUnavailable:
        return StoreUnavailable(f"{path} is no file of this program's: remove it, and it is made anew.")
