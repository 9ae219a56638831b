"""What keeps a credential from beginning anew: its secret was rejected, or that of one that logs in as it does.

Law: one rejected login is one failed login, under however many names it is configured (threat 107); and whoever was
rejected finds out by itself when that is no longer known, since somebody tries again.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from proxy.clock import Clock
from proxy.errors import CredentialRejected, StoreUnavailable
from proxy.lifecycle import Failure
from proxy.stores.base import Store
from proxy.stores.latch import Latch

#: It is looked no more often than this, in seconds, whether a rejection is still known.
LOOK_SECONDS: Final = 2.0

Fingerprint = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Kin:
    """Other credentials that log in as this one does, by name; `turn` is the name of the turn that they share."""

    turn: str | None = None
    others: Mapping[str, Fingerprint] = field(default_factory=dict)


class Barring:
    """The view of the credential `name` on `latch`; `store` gives the turns of its kin."""

    def __init__(
        self,
        name: str,
        fingerprint: Fingerprint,
        *,
        latch: Latch,
        store: Store,
        clock: Clock,
        kin: Kin | None,
    ) -> None:
        self._name = name
        self._latch = latch
        self._fingerprint = fingerprint
        self._clock = clock
        self._store = store
        self._kin = kin or Kin()
        #: Of what was asked for last: what is borrowed may change meanwhile.
        self._asked = b""
        self._looked_at = float("-inf")

    def adapt(self, other: "Barring") -> None:
        """Go on with the fingerprint of `other`, and with its kin."""
        self._fingerprint, self._kin = other._fingerprint, other._kin  # noqa: SLF001  its own class

    @asynccontextmanager
    async def in_turn(self) -> AsyncIterator[None]:
        """While the block runs, none of its kin logs in; where no turn can be had, nobody is kept waiting."""
        async with AsyncExitStack() as stack:
            if self._kin.turn is not None:
                with suppress(StoreUnavailable):
                    await stack.enter_async_context(self._store.turn(self._kin.turn))
            yield

    async def reason(self, *, forced: bool = False) -> str | None:
        """Why it must not begin anew, None: it may. `forced`: it was asked for, whatever happened to its kin."""
        self._asked = self._fingerprint()
        return await self._reason(self._asked, forced=forced)

    async def _reason(self, fingerprint: bytes, *, forced: bool) -> str | None:
        reason = await self._latch.is_set(self._name, fingerprint)
        if reason is not None or forced:
            return reason
        for name, other in self._kin.others.items():
            reason = await self._latch.is_set(name, other())
            if reason is not None:
                return f"Credential {self._name!r} logs in as {name!r} does. {reason}"
        return None

    async def set(self, reason: str) -> None:
        """Remember that what was asked for was rejected, for all; not what barred it, which may be its kin's."""
        await self._latch.set(self._name, self._asked, reason, self._clock.wall())

    async def clear(self) -> None:
        """Forget its own rejection, for all."""
        await self._latch.clear(self._name, self._fingerprint())

    def is_due(self, failure: Failure | None) -> bool:
        """Is a look due whether `failure` is over? Only where it is a rejection, which never ends by itself."""
        now = self._clock.now()
        if not _is_lasting(failure) or now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        return True

    async def is_over(self, failure: Failure | None) -> bool:
        """Is it a rejection that is not known any more? Then somebody tries again, and so may everybody."""
        return _is_lasting(failure) and await self._reason(self._fingerprint(), forced=False) is None


def _is_lasting(failure: Failure | None) -> bool:
    return failure is not None and failure.retry_at is None and isinstance(failure.error, CredentialRejected)
