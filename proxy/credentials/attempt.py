"""One attempt to get a token, by an order that a crash at any point cannot turn into a lock-out (threat 90).

A server with reuse detection ends the whole family when a refresh token comes twice (RFC 9700 section 4.14).
So it is noted in the store before it is redeemed. Where such a note is found, the answer was lost, with a process
or on its way: a grant that can begin anew does, and one that needs a person for that tries the refresh token all
the same.
"""

import logging
from typing import Final

from proxy.credentials.grant import Grant
from proxy.credentials.keeping import Keeping
from proxy.errors import CredentialUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Token

log: Final = logging.getLogger("proxy.credentials")


async def attempt(name: str, grant: Grant, keeping: Keeping, held: Token | None) -> Granted:
    """What `grant` gives, by the refresh token of `held` where that is not spent. Raises a `CredentialError`."""
    refresh_token = None if held is None else held.refresh_token
    if refresh_token is None:
        return await grant.obtain(None)
    if keeping.is_undecided:
        log.warning("token_rotation_lost", extra={"fields": {"credential": name, "anew": grant.begins_anew}})
        if grant.begins_anew:
            return await grant.obtain(None)
    await keeping.redeem()
    try:
        return await grant.obtain(refresh_token)
    except CredentialUnavailable as error:
        if not error.undecided:
            await keeping.settle()
        raise
