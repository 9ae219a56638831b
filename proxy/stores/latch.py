"""Remembers across restarts that a secret was rejected, so that nothing hammers an account into lock-out.

Law: one rejected secret of a credential is one failed login for all who share a store, or a state folder where
there is no store (threat 107). Whoever asks holds the credential's turn, so that a rejection is known before the
next one asks; several credentials of one user are a matter of `credentials/barring.py`.
"""

import asyncio
import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from proxy.errors import StoreUnavailable
from proxy.redact import printable
from proxy.stores.rejections import DIGEST_BYTES, SALT_BYTES, Home, RejectedFolder, Rejection

_log = logging.getLogger("proxy.latch")

#: RFC 7914 section 2: 16 MiB and some 50 ms a guess. It runs once per rejection and once per start.
_SCRYPT_N: Final = 2**14
_SCRYPT_R: Final = 8
_SCRYPT_MEMORY: Final = 64 * 1024 * 1024
_REASON_LIMIT: Final = 1000
#: Rejected secrets of one name that are remembered at once.
KEPT: Final = 16
_MEND: Final = (
    "A rejected credential is forgotten at the next restart, and other processes try it, too: set XDG_STATE_HOME "
    "to a folder that can be written, or StateDirectory= in a unit of systemd."
)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the state folder holds, and the store; None: it could not be asked, has lost it, or there is none."""

    own: tuple[Rejection, ...] | None
    shared: tuple[Rejection, ...] | None = None
    #: There is a store, and it did not answer.
    is_away: bool = False

    @property
    def every(self) -> tuple[Rejection, ...]:
        return (*(self.own or ()), *(self.shared or ()))

    @property
    def stale(self) -> list[Rejection]:
        """What the folder alone still has of what all were told: somebody has cleared it."""
        if not _is_proof(self.shared):
            return []
        known = {each.salt for each in self.shared or ()}
        return [each for each in self.own or () if each.shared and each.salt not in known]


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about a fingerprint, and what it was found out from.

    `found` None: the rejection could not be written, and nothing at rest can contradict it.
    """

    fingerprint: bytes
    reason: str | None
    matching: frozenset[Rejection]
    found: _Found | None


class Latch:
    """The latches of all credentials, in `folder`/rejected, and in `shared`, which others see as well.

    Several of one name stand side by side: two configurations may call different credentials alike, and neither
    may make the other's rejection forgotten. The newest `KEPT` of a name count. A latch holds for exactly the
    fingerprint it was set with: with a changed secret it is not set, with the old one back it is again. The folder
    has a copy of what `shared` holds, for while that cannot be asked, or has lost it. Where neither can be written
    a latch is kept in memory alone, with one warning. Who knows of a rejection takes it for cleared only where that
    can be told from one that was lost, or that gave way to newer ones.
    """

    def __init__(
        self, folder: Path, *, shared: Home | None = None, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._own = RejectedFolder(folder / "rejected")
        self._shared = shared
        self._random = random
        #: By name, and each guarded by the lock of that name.
        self._known: dict[str, _Known] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        #: Salts of those that were cleared here, should they still rest somewhere.
        self._cleared: set[str] = set()
        self._warned = False

    async def is_set(self, name: str, fingerprint: bytes) -> str | None:
        """The reason that was kept with the rejection of exactly this fingerprint, else None.

        Computes no digest for a fingerprint and rejections that it has seen before.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            return (await self._look(name, fingerprint)).reason

    async def set(self, name: str, fingerprint: bytes, reason: str, wall: float) -> None:
        """Remember that `fingerprint` was rejected at epoch time `wall`, and why. Durable when this returns."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            reason = printable(reason)[:_REASON_LIMIT]
            # Memory first: it holds whatever happens to the rest.
            self._known[name] = _Known(fingerprint, reason, frozenset(), None)
            salt = self._random(SALT_BYTES).hex()
            made = Rejection(salt, await asyncio.to_thread(digest, fingerprint, salt), reason, wall)
            before = await self._read(name)
            old = await asyncio.to_thread(_matching, before.every, fingerprint)
            if self._shared is not None and not before.is_away:
                with suppress(StoreUnavailable):
                    await self._shared.add(name, made, replaced(before.shared or (), old))
                    made = replace(made, shared=True)
            try:
                await self._own.add(name, made, replaced(before.own or (), old))
            except StoreUnavailable as error:
                if not made.shared:
                    self._warn(error)
                    return
            found = await self._read(name)
            mine = frozenset(each for each in found.every if each.salt == salt)
            self._known[name] = _Known(fingerprint, reason, mine, found)

    async def clear(self, name: str, fingerprint: bytes) -> None:
        """Forget the rejection of exactly this fingerprint, for all; that of another stays."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            known = await self._look(name, fingerprint)
            found = known.found
            is_lost = self._shared is not None and found is not None and found.shared is None
            if found is not None and known.reason is None and not known.matching and not is_lost:
                return
            self._cleared.update(each.salt for each in known.matching)
            if found is not None:
                with suppress(StoreUnavailable):
                    await self._own.remove(name, known.matching)
                if self._shared is not None and not found.is_away:
                    with suppress(StoreUnavailable):
                        await self._shared.remove(name, known.matching)
            del self._known[name]

    async def try_out(self) -> str | None:
        """Could a rejection outlive the process? If not, why, and what mends it; that is logged once."""
        if self._shared is not None:
            return None
        try:
            await self._own.try_out()
        except StoreUnavailable as error:
            return self._warn(error)
        return None

    async def _look(self, name: str, fingerprint: bytes) -> _Known:
        known, found = self._known.get(name), await self._read(name)
        if known is not None and not hmac.compare_digest(known.fingerprint, fingerprint):
            known = None
        if known is not None and known.found in (None, found):
            return known
        matching = await asyncio.to_thread(_matching, found.every, fingerprint)
        reasons = [each.reason for each in found.every if each in matching and each.salt not in self._cleared]
        reason = reasons[-1] if reasons else None
        if known is not None and reason is None and not _is_proof(self._counting(found)):
            reason, matching = known.reason, known.matching | matching
        made = self._known[name] = _Known(fingerprint, reason, matching, found)
        return made

    def _counting(self, found: _Found) -> tuple[Rejection, ...] | None:
        """What says whether a rejection that was known is known still."""
        return found.own if self._shared is None else found.shared

    async def _read(self, name: str) -> _Found:
        own: tuple[Rejection, ...] | None = None
        shared: tuple[Rejection, ...] | None = None
        is_away = False
        with suppress(StoreUnavailable):
            own = (await self._own.read(name))[-KEPT:]
        if self._shared is not None:
            try:
                shared = await self._shared.read(name)
            except StoreUnavailable:
                is_away = True
        found = _Found(own, shared if shared is None else shared[-KEPT:], is_away)
        if not found.stale:
            return found
        with suppress(StoreUnavailable):
            await self._own.remove(name, found.stale)
        return replace(found, own=tuple(each for each in own or () if each not in found.stale))

    def _warn(self, error: StoreUnavailable) -> str:
        detail = f"{error.detail} {_MEND}"
        if not self._warned:
            self._warned = True
            _log.warning("state_not_kept", extra={"fields": {"detail": detail}})
        return detail


def _is_proof(some: tuple[Rejection, ...] | None) -> bool:
    """Was a rejection that is not among `some` cleared? Where as many are kept as may be, it may have given way."""
    return some is not None and len(some) < KEPT


def replaced(before: tuple[Rejection, ...], old: Collection[Rejection]) -> list[Rejection]:
    """Those of `before` that a new one takes the place of: the same secret, and the oldest of too many."""
    surplus = before[: max(0, len(before) + 1 - KEPT)]
    return [each for each in before if each in old or each in surplus]


def _matching(some: Collection[Rejection], fingerprint: bytes) -> frozenset[Rejection]:
    """Those of exactly this fingerprint; one slow digest for each salt."""
    digests = {salt: digest(fingerprint, salt) for salt in {each.salt for each in some}}
    return frozenset(each for each in some if hmac.compare_digest(each.digest, digests[each.salt]))


def digest(fingerprint: bytes, salt: str) -> str:
    """Slow, and salted: what was digested cannot be guessed from it (RFC 7914); in hexadecimal, as `salt`."""
    return hashlib.scrypt(
        fingerprint,
        salt=bytes.fromhex(salt),
        n=_SCRYPT_N,
        r=_SCRYPT_R,
        p=1,
        maxmem=_SCRYPT_MEMORY,
        dklen=DIGEST_BYTES,
    ).hex()
