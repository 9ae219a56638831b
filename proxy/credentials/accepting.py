"""Makes a token of what was granted, where it is of any use."""

from collections.abc import Callable

from proxy.errors import CredentialUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Token


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


def _login_ends_at(granted: Granted, held: Token | None, sent_at: float) -> float | None:
    """When the refresh token ends; what was known at the login holds until a server says otherwise."""
    if granted.refresh_lifetime is not None:
        return sent_at + granted.refresh_lifetime
    return held.refresh_expires_at if granted.renewed and held else None
