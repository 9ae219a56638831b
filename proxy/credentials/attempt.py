"""One attempt to get a token, by an order that a crash at any point cannot turn into a lock-out (threat 90).

A server with reuse detection ends the whole family when a refresh token comes twice (RFC 9700 section 4.14).
So it is noted in the store before it is redeemed. Where such a note is found, the answer was lost, with a process
or on its way, or was none (`grants/undecided.py`): a grant that can begin anew does, and one that needs a person
for that tries the refresh token all the same. Where others may have redeemed it, and it cannot be known
(`Keeping.withheld`), that one waits.
"""

import logging
from collections.abc import Callable
from typing import Final

from proxy.credentials.grant import Grant
from proxy.credentials.keeping import Keeping
from proxy.errors import CredentialUnavailable, StoreOutdated, StoreUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Token

log: Final = logging.getLogger("proxy.credentials")


async def attempt(
    name: str,
    grant: Grant,
    keeping: Keeping,
    held: Token | None,
    accept: Callable[[Granted], Token],
    *,
    barred: str | None = None,
) -> Token:
    """The token that follows `held`, by its refresh token where that is not spent; `accept` makes it.

    `barred` is why the grant must not begin anew: then the refresh token is all that there is.
    Raises a `CredentialError`; a `CredentialUnavailable` may hold the refresh token that came in place of the old.
    """
    last, refresh_token = (None, None) if held is None else (held.value, held.refresh_token)
    can_begin = grant.begins_anew and barred is None
    if keeping.withheld is not None:
        if not can_begin:
            raise keeping.withheld
        refresh_token = None
    if refresh_token is not None and keeping.is_undecided:
        log.warning("token_rotation_lost", extra={"fields": {"credential": name, "anew": can_begin}})
        if can_begin:
            refresh_token = None
    if refresh_token is not None and not await _noted(keeping, sole=not can_begin):
        refresh_token = None
    try:
        granted = await grant.obtain(refresh_token, last, barred)
    except CredentialUnavailable as error:
        if refresh_token is not None and not error.undecided:
            await keeping.settle()
        raise
    try:
        return accept(granted)
    except CredentialUnavailable as error:
        error.rotated = granted.refresh_token
        raise


async def _noted(keeping: Keeping, *, sole: bool) -> bool:
    """May the refresh token be redeemed? False where it must not be; raises that where it is the `sole` way."""
    try:
        await keeping.redeem(sole=sole)
    except StoreUnavailable as error:
        if sole or isinstance(error, StoreOutdated):
            raise
        return False
    return True
