"""Makes a token of what was granted, where it is of any use, or of what remains of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.credentials.keeping import Keeping
from proxy.errors import CredentialUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Token
from proxy.redact import Secret

#: In place of an access token where there is none: no header or cookie can hold it, and a record is never empty.
_NOTHING: Final = "\0"


def accepted(
    name: str, granted: Granted, held: Token | None, *, sent_at: float, now: float, fits: Callable[[str], bool]
) -> Token:
    """The token of credential `name` that follows `held`; its lifetimes count from `sent_at`.

    Raises `CredentialUnavailable` for one that cannot be sent in its places, or is over already.
    """
    if not fits(granted.token.reveal()):
        raise CredentialUnavailable(
            f"The token that credential {name!r} got holds characters that cannot be sent in its place."
        )
    token = Token(
        granted.token,
        held.generation + 1 if held else 1,
        sent_at,
        None if granted.lifetime is None else sent_at + granted.lifetime,
        granted.refresh_token,
        _login_ends_at(granted, held, sent_at),
    )
    if token.expires_at is not None and token.expires_at <= now:
        raise CredentialUnavailable(
            f"The token of credential {name!r} was over when it came: check response.lifetime_unit, "
            "and this machine's clock."
        )
    return token


def remaining(held: Token | None, refresh_token: Secret, now: float) -> Token:
    """`held` with the refresh token that came with nothing else of use; without `held`, one that is over."""
    if held is not None:
        return replace(held, refresh_token=refresh_token)
    return Token(Secret(_NOTHING), 1, now, now, refresh_token)


def left(found: Token | None, held: Token | None, keeping: Keeping, now: float) -> Token | None:
    """What to hold in place of `held` where the store has no later token that can be sent; None: as before.

    After a logout nothing remains; where somebody else got a refresh token and no token of use, that does.
    """
    if held is not None and keeping.forgotten:
        return replace(held, expires_at=now, refresh_token=None, refresh_expires_at=None)
    if held is not None:
        return keeping.rotated(held)
    return None if found is None or found.refresh_token is None else replace(found, expires_at=now)


def _login_ends_at(granted: Granted, held: Token | None, sent_at: float) -> float | None:
    """When the refresh token ends; what was known at the login holds until a server says otherwise."""
    if granted.refresh_lifetime is not None:
        return sent_at + granted.refresh_lifetime
    return held.refresh_expires_at if granted.renewed and held else None
