"""Makes a token of what was granted, where it is of any use, or of what remains of it."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.credentials.keeping import Keeping
from proxy.errors import CredentialError, CredentialUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Token

log: Final = logging.getLogger("proxy.credentials")


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


def remaining(name: str, held: Token | None, failure: CredentialError, *, anew: bool) -> Token | None:
    """`held` with the refresh token that came although the request failed; None: none came.

    Before there is any access token it cannot be kept: a record without one would be none, and that is told.
    """
    rotated = failure.rotated if isinstance(failure, CredentialUnavailable) else None
    if rotated is None:
        return None
    if held is None:
        log.warning("token_rotation_lost", extra={"fields": {"credential": name, "anew": anew}})
        return None
    return replace(held, refresh_token=rotated)


def left(held: Token | None, keeping: Keeping, now: float) -> Token | None:
    """What to hold in place of `held` where the store has no later token that can be sent; None: as before.

    After a logout nothing remains; where somebody else got a refresh token and no token of use, that does.
    """
    if held is None:
        return None
    if keeping.forgotten:
        return replace(held, expires_at=now, refresh_token=None, refresh_expires_at=None)
    return keeping.rotated(held)


def _login_ends_at(granted: Granted, held: Token | None, sent_at: float) -> float | None:
    """When the refresh token ends; what was known at the login holds until a server says otherwise."""
    if granted.refresh_lifetime is not None:
        return sent_at + granted.refresh_lifetime
    return held.refresh_expires_at if granted.renewed and held else None
