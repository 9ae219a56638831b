"""Makes a token of what was granted, where it is of any use."""

from collections.abc import Callable

from proxy.errors import CredentialUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Token


def accepted(
    name: str, granted: Granted, generation: int, *, sent_at: float, now: float, fits: Callable[[str], bool]
) -> Token:
    """The token of credential `name` with this generation; its lifetimes count from `sent_at`.

    Raises `CredentialUnavailable` for one that cannot be sent in its places, or is over already.
    """
    if not fits(granted.token.reveal()):
        raise CredentialUnavailable(
            f"The token that credential {name!r} got holds characters that cannot be sent in its place."
        )
    token = Token(
        granted.token,
        generation,
        sent_at,
        None if granted.lifetime is None else sent_at + granted.lifetime,
        granted.refresh_token,
        None if granted.refresh_lifetime is None else sent_at + granted.refresh_lifetime,
    )
    if token.expires_at is not None and token.expires_at <= now:
        raise CredentialUnavailable(
            f"The token of credential {name!r} was over when it came: check response.lifetime_unit, "
            "and this machine's clock."
        )
    return token
