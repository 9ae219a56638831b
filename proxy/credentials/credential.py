"""A credential as the relay sees it: two questions, and where the token goes."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from proxy.errors import CredentialError
from proxy.forms import forms
from proxy.injection import Injection, Place, render
from proxy.lifecycle import Life, Token, state
from proxy.literals import SHORTEST

log: Final = logging.getLogger("proxy")

#: A token that cannot be renewed is spoken of this long before its end.
WARN_AHEAD_SECONDS: Final = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a credential for people, never a value; durations in seconds from now.

    `persisted`: would a restart find the token? None where there is no store that outlives the process.
    """

    name: str
    state: str
    generation: int
    expires_in: float | None = None
    refresh_expires_in: float | None = None
    last_error: str | None = None
    next_attempt_in: float | None = None
    persisted: bool | None = None


def reported(name: str, life: Life, now: float, *, persisted: bool | None = None) -> Report:
    """The state of the credential `name` at `now`, of whose life this is all."""
    token, failure = life.token, life.failure
    return Report(
        name,
        state(life, now),
        token.generation if token else 0,
        token.expires_at - now if token and token.expires_at is not None else None,
        token.refresh_expires_at - now if token and token.refresh_expires_at is not None else None,
        failure.error.detail if failure else None,
        failure.retry_at - now if failure and failure.retry_at is not None else None,
        persisted,
    )


class Source(Protocol):
    """Who has a token. `token` and `newer_than` are all that a request knows of authentication."""

    async def token(self, wait: float) -> Token:
        """A token to send now, waiting at most `wait` seconds. Raises a `CredentialError`."""
        ...

    async def newer_than(self, refused: Token, *, wait: float, ask: bool) -> Token | None:
        """A token of a later generation, None where none can be had; `ask`: one may be asked for."""
        ...

    # What people ask for.

    async def refresh(self, wait: float) -> None:
        """Get a new token now. Raises a `CredentialError`."""
        ...

    def report(self) -> Report:
        """The present state."""
        ...

    @property
    def problem(self) -> CredentialError | None:
        """Why no token can be had now; None while there is one, or nobody has tried in vain."""
        ...

    async def close(self, wait: float) -> None:
        """Stop; what is in flight may take `wait` seconds to end."""
        ...


@dataclass(slots=True)
class Credential:
    """One entry of `credentials`: a source, the places of its token, and the constant fields that go along.

    `changes`: a newer token can be had at all; a static key cannot change.
    """

    name: str
    source: Source
    places: tuple[Place, ...]
    constants: tuple[tuple[str, str], ...] = ()
    changes: bool = True
    _last: "Rendered | None" = field(default=None, repr=False)

    def rendered(self, token: Token, places: tuple[Place, ...]) -> "Rendered":
        """`token` as it is sent in `places`; the last one is remembered, since every request asks for it."""
        last = self._last
        if last is None or last.token is not token or last.places != places:
            value = token.value.reveal()
            # A very short token is too likely to be a part of an ordinary value.
            echoes = sorted(form.encode() for form in forms(value)) if len(value) >= SHORTEST else ()
            injection = render(places, value, self.constants)
            last = self._last = Rendered(self, token, places, injection, tuple(echoes))
        return last


@dataclass(frozen=True, slots=True)
class Rendered:
    """A token as it is sent, and the forms in which an upstream might echo it."""

    credential: Credential
    token: Token
    places: tuple[Place, ...]
    injection: Injection
    echoes: tuple[bytes, ...] = field(repr=False)


def warn_of_ends(credentials: Iterable[Credential]) -> None:
    """Log which tokens end soon, or did, and cannot be renewed."""
    for credential in credentials:
        left = credential.source.report().expires_in
        if not credential.changes and left is not None and left < WARN_AHEAD_SECONDS:
            log.warning(
                "token_expires_soon" if left > 0 else "token_expired",
                extra={"fields": {"credential": credential.name, "days": round(left / 86400, 1)}},
            )
