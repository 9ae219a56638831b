"""Ends a login: revokes its tokens at the server where that can be done (RFC 7009), and forgets them."""

from dataclasses import dataclass
from typing import Final

from proxy.credentials.discovery import Endpoints
from proxy.credentials.oauth2 import OAuthGrant
from proxy.errors import CredentialUnavailable
from proxy.grants.oauth2 import error_of
from proxy.redact import Secret
from proxy.stores.base import Missing, Record, Store

_CLOSED: Final = frozenset({Missing.OTHER_KEY, Missing.UNREADABLE})
_UNKNOWN: Final = "what was stored does not open with this configuration and key, so nothing could be revoked"


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """What became of the tokens. `problem`: why they may live on at the server, None where they do not.

    `failed`: it could have revoked them.
    """

    found: bool
    problem: str | None = None
    failed: bool = False


async def log_out(
    store: Store,
    name: str,
    binding: bytes,
    server: tuple[OAuthGrant, Endpoints] | None,
) -> LoggedOut:
    """Revoke and forget. `server` is who can revoke, None where nobody can. Raises `StoreUnavailable`.

    What is stored is forgotten in any case: a token that nobody here has any more does less harm.
    """
    async with store.turn(name):
        found = await store.load(name, binding)
        try:
            if isinstance(found, Record):
                return await _revoked(found, server)
            if found in _CLOSED:
                return LoggedOut(found=True, problem=_UNKNOWN, failed=True)
            return LoggedOut(found=False)
        finally:
            await store.forget(name)


async def _revoked(record: Record, server: tuple[OAuthGrant, Endpoints] | None) -> LoggedOut:
    """The refresh token first, since it makes others."""
    nowhere = LoggedOut(found=True, problem="the server has no place to revoke tokens")
    if server is None:
        return nowhere
    grant, endpoints = server
    try:
        url = await endpoints.find("revocation_endpoint")
        if url is None:
            return nowhere
        problems = [
            await _revoke(grant, url, kind, token)
            for kind, token in (("refresh_token", record.refresh_token), ("access_token", record.token))
            if token is not None
        ]
    except CredentialUnavailable as error:
        return LoggedOut(found=True, problem=f"they could not be revoked: {error.detail}", failed=True)
    problem = next((each for each in problems if each is not None), None)
    return LoggedOut(found=True, problem=problem, failed=problem is not None)


async def _revoke(grant: OAuthGrant, url: str, kind: str, token: Secret) -> str | None:
    """One token. The server says 200 also for one that it does not know (RFC 7009 section 2.2)."""
    reply = await grant.call(url, {"token": token, "token_type_hint": kind}, "revocation")
    if reply.status in {200, 204}:
        return None
    words = kind.replace("_", " ")
    return f"the server did not revoke the {words} (status {reply.status}{error_of(reply)})"
