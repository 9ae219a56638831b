"""Tries the store of tokens for real, as the doctor does: can it be used, who else can, and what is in it?

Law: nothing of it changes. What is written has a name that no credential has, and is gone afterwards.
"""

import asyncio
import fcntl
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from proxy.build.belonging import stays_here
from proxy.build.sources import binding_of
from proxy.build.stores import redis_client, store
from proxy.config import Config, FileCredential, OAuthCredential, StaticCredential
from proxy.config.store import StoreConfig
from proxy.errors import StoreUnavailable
from proxy.findings import Finding, Status
from proxy.stores.base import Missing, Store
from proxy.stores.files import OTHERS, REMOTE, exposed, file_system
from proxy.stores.records import UNUSABLE
from proxy.stores.servertime import APART_SECONDS

WHAT: Final = "store"
#: As much as a record takes at most.
_ROOM_BYTES: Final = 64 * 1024
_HALF_MINUTE: Final = 30.0


async def examined(config: Config, wall: float) -> AsyncIterator[Finding]:
    """Every finding about the store of `config`; `wall` is the present instant, in epoch seconds."""
    given = config.store
    if given.kind == "memory":
        yield _in_memory(config)
        return
    kind = _server(given) if given.path is None else _files(given.path)
    is_usable = True
    async for finding in kind:
        is_usable = is_usable and finding.status != "failure"
        yield finding
    yield _keys(given)
    if is_usable and (given.path is None or given.path.exists()):
        async for finding in _records(config, wall):
            yield finding


def _in_memory(config: Config) -> Finding:
    """That is well, unless a person or a refresh token of the configuration would be needed again."""
    inheriting = [
        name for name, each in config.credentials.items() if isinstance(each, OAuthCredential) and each.inherits
    ]
    if not inheriting:
        return Finding("ok", WHAT, "in memory: tokens are gone with the process, and got anew by the next one")
    names = ", ".join(inheriting)
    mend = "set store.kind: file, with store.path and store.key (`bearer-proxy keygen` makes one)"
    return Finding("warning", WHAT, f"in memory: a restart loses the logins and refresh tokens of {names}: {mend}")


def _keys(given: StoreConfig) -> Finding:
    """Where the keys come from, and never more."""
    sources = []
    for key in given.key or ():
        reference = key.reference[0] if isinstance(key.reference, tuple) else key.reference
        sources.append("the configuration itself" if reference is None else f"{key.kind} {reference}")
    more = f"; also opened with that of {', '.join(sources[1:])}" if sources[1:] else ""
    return Finding("ok", WHAT, f"sealed with the key of {sources[0]}{more}")


# -- files


async def _files(folder: Path) -> AsyncIterator[Finding]:
    for finding in await asyncio.to_thread(lambda: list(_folder(folder))):
        yield finding


def _folder(folder: Path) -> Iterator[Finding]:
    """Is it this user's alone?"""
    try:
        found = folder.stat()
    except FileNotFoundError:
        yield _missing(folder)
        return
    except OSError as error:
        yield Finding("failure", WHAT, f"the folder {folder} cannot be opened ({_reason(error)}): check its path")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("failure", WHAT, f"{folder} is not a folder: name another path in store.path")
        return
    if found.st_uid != os.geteuid():
        yield Finding("failure", WHAT, f"the folder {folder} is another user's: name one of this user's own")
        return
    if found.st_mode & OTHERS:
        yield Finding("failure", WHAT, f"others on this machine can open {folder}: run `chmod 700 {folder}`")
        return
    if (above := exposed(folder)) is not None:
        status: Status = "failure" if above.is_certain else "warning"
        yield Finding(
            status, WHAT, f"others can put another folder in place of {folder}, {above.why}: {above.mend}"
        )
        if status == "failure":
            return
    yield from _used(folder)


def _used(folder: Path) -> Iterator[Finding]:
    """Does it take locks and writes, and what is in it?"""
    if (kind := file_system(folder)) in REMOTE:
        mend = "use a disk of this machine, or kind: redis for several machines"
        yield Finding("warning", WHAT, f"{folder} is on {kind}, whose locks may not hold: {mend}")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(bytes(_ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        mend = "make room, or let this user write and lock there; until then tokens are kept in memory alone"
        yield Finding("failure", WHAT, f"the folder {folder} cannot be written ({_reason(error)}): {mend}")
        return
    yield Finding("ok", WHAT, f"the folder {folder} is this user's alone, and can be written and locked")
    for path in sorted(folder.glob("*.token")):
        yield from _file(path)


def _missing(folder: Path) -> Finding:
    """It is made when it is first needed, where that is possible."""
    above = next(each for each in folder.parents if each.exists())
    try:
        with tempfile.TemporaryDirectory(dir=above, prefix="."):
            pass
    except OSError as error:
        mend = f"let this user write to {above}"
        return Finding("failure", WHAT, f"the folder {folder} cannot be made ({_reason(error)}): {mend}")
    return Finding("ok", WHAT, f"the folder {folder} is not there yet; it is made with the first token")


def _file(path: Path) -> Iterator[Finding]:
    """What others can open, or have put there, is not read."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        mend = "remove it, or the next token moves it aside"
        yield Finding("warning", WHAT, f"{path} is no file of this user, and counts as no token: {mend}")
    elif found.st_mode & OTHERS:
        yield Finding("warning", WHAT, f"others can open {path}, so it counts as no token: run `chmod 600 {path}`")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)


# -- a server


async def _server(given: StoreConfig) -> AsyncIterator[Finding]:
    """Who is it, may its user do what is needed, and would another server do better?"""
    client = redis_client(given)
    try:
        about = await client.about()
        name = f"{about.name} {about.version}" if about.version else "a server older than Redis 6"
        if about.is_replica or about.is_cluster:
            kind = "is a replica, which takes no writes" if about.is_replica else "is a cluster, which will not do"
            yield Finding("failure", WHAT, f"{client.server} {kind}: name a primary that stands alone in store.url")
            return
        yield Finding("ok", WHAT, f"{client.server} is {name}, {_path(given)}")
        refused = await client.refused(given.prefix)
    except StoreUnavailable as error:
        mend = "check that it runs, store.url (rediss:// for TLS), and firewalls on the way"
        yield Finding("failure", WHAT, f"{error.detail} If it should: {mend}.")
        return
    finally:
        await client.close()
    if refused:
        words = " ".join(f"+{each}" for each in refused)
        mend = f"`ACL SETUSER {given.username or 'default'} ~{given.prefix}:* {words}`"
        yield Finding("failure", WHAT, f"its user may not do {', '.join(refused)} with our keys: {mend}")
    else:
        yield Finding("ok", WHAT, f"its user may do all that is needed with the keys {given.prefix}:*")


def _path(given: StoreConfig) -> str:
    if given.server.socket is not None:
        return "over a Unix socket"
    return "over TLS" if given.server.tls else "without TLS"


# -- what is in it


async def _records(config: Config, wall: float) -> AsyncIterator[Finding]:
    """The token of each credential that has one there."""
    opened = store(config)
    try:
        for name, given in config.credentials.items():
            if isinstance(given, StaticCredential | FileCredential):
                continue
            if stays_here(name, config):
                yield Finding(
                    "ok", WHAT, f"credential {name}: each host gets its own token, and keeps it in memory"
                )
            else:
                status, detail = await _record(opened, name, binding_of(name, config), wall)
                yield Finding(status, WHAT, f"credential {name}: {detail}")
        if abs(ahead := opened.epoch(wall) - wall) > APART_SECONDS:
            side = "behind" if ahead > 0 else "ahead of"
            detail = f"this machine's clock is {abs(ahead):.0f} seconds {side} the server's: set it by NTP"
            yield Finding("warning", WHAT, detail)
    except StoreUnavailable as error:
        yield Finding("failure", WHAT, error.detail)
    finally:
        await opened.close()


async def _record(opened: Store, name: str, binding: bytes, wall: float) -> tuple[Status, str]:
    record = await opened.load(name, binding)
    if isinstance(record, Missing):
        return ("warning", UNUSABLE[record]) if record in UNUSABLE else ("ok", "no token yet")
    # By the clock of all who share the store.
    now = opened.epoch(wall)
    age = now - record.obtained_at
    is_over = record.expires_at is not None and record.expires_at <= now
    detail = f"its token was got {_ago(age)}{', and is over' if is_over else ''}"
    if record.redeeming:
        return "warning", f"{detail}; its refresh token may be spent: where it is refused, log in anew"
    return "ok", detail


def _ago(seconds: float) -> str:
    if seconds < -_HALF_MINUTE:
        return "in the future, by this machine's clock: set it by NTP"
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} seconds ago"
