"""What a store is: where the tokens of credentials rest, so that restarts and other processes find them."""

import enum
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from proxy.redact import Secret
from proxy.stores.rejections import Home


@dataclass(frozen=True, slots=True)
class Record:
    """One credential's token as it rests. Instants are epoch seconds by the store's clock.

    None: nobody knows, or there is none.

    `generation` grows with each token; `obtained_at` is when the request for it was sent; `refresh_expires_at` is
    the hard end of the refresh token: by then a person, or the login, must begin anew. `redeeming`: somebody was
    about to redeem the refresh token, and has not said how that ended (threat 90).
    """

    generation: int
    token: Secret
    obtained_at: float
    expires_at: float | None = None
    refresh_token: Secret | None = None
    refresh_expires_at: float | None = None
    redeeming: bool = False


class Missing(enum.Enum):
    """Why there is no record that can be used: four cases, and each means something else to who holds a token."""

    #: Nobody has stored one; or the store has lost it, as a folder that is not mounted has.
    NOTHING = "nothing is stored"
    #: Somebody removed it on purpose, which ends what they hold as well (threat 102).
    LOGGED_OUT = "somebody logged out"
    #: One is sealed with a key that is not among ours; who has it may have replaced what we hold (threat 133).
    OTHER_KEY = "it is sealed with another key"
    #: One does not open: it was damaged, or got for another account or upstream.
    UNREADABLE = "it does not open"


class Store(Protocol):
    """Records by the credential's name.

    `binding` is a digest of what a token belongs to (addresses, accounts, upstream origins): a record that was
    written with another one does not open, so that no token reaches an origin that it was not got for.
    Methods raise `StoreUnavailable` where the store cannot be read or written.
    """

    #: Does it outlive the process? `login` needs one that does.
    lasting: bool
    #: Where no turn can be had, may others have one? Then what would redeem a refresh token waits (threat 88).
    needs_turn: bool

    @property
    def redeemed(self) -> Home | None:
        """Where rests what became of refresh tokens of the configuration; None where nothing lasts."""
        ...

    async def load(self, name: str, binding: bytes) -> Record | Missing:
        """The newest record, or why there is none that can be used."""
        ...

    async def save(self, name: str, binding: bytes, record: Record, *, again: bool = False) -> None:
        """Put `record` in place of what is there; it is durable when this returns.

        Raises `StoreOutdated` where whoever has lost the turn would replace what somebody else wrote since, and
        where that may be so: `again` says that a write of `record` failed, and may have been done all the same.
        """
        ...

    async def forget(self, name: str) -> None:
        """Remove the record, whatever it is bound to, such that others see that somebody did."""
        ...

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """The right to ask for a token of `name`: at most one holder among all that share the store."""
        ...

    def epoch(self, wall: float) -> float:
        """The present instant by the clock of all who share the store, where `wall` is it on this machine's."""
        ...

    async def ask_time(self) -> None:
        """Let the store say what its clock says, where that is not known yet."""
        ...

    async def confirm(self, name: str) -> None:
        """See that a turn that was taken here is still ours, if there was one. Raises `TurnLost`."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...
