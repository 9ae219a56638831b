"""What a token source needs to know of a grant, and a grant of a token endpoint."""

from typing import Protocol

from proxy.grants.request import Granted, TokenReply, TokenRequest
from proxy.redact import Secret


class Grant(Protocol):
    """A way to obtain tokens of one credential."""

    async def obtain(
        self, refresh_token: Secret | None, token: Secret | None = None, barred: str | None = None
    ) -> Granted:
        """Get a token: by `refresh_token`, or by the last `token`, where that is possible, else from the beginning.

        `barred` is why it must not begin anew: its secret was rejected. Makes at most one attempt at each request.
        Raises `CredentialRejected` (for good with these secrets), `CredentialUnavailable` (try later) or
        `LoginRequired`. The caller sees to it that only one runs at a time.
        """
        ...

    @property
    def begins_anew(self) -> bool:
        """Can it get a token without a refresh token, and without a person?"""
        ...

    def can_refresh(self, refresh_token: Secret | None, token: Secret | None) -> bool:
        """Can it get a token with what is held of the last one, and without its own secret?"""
        ...


class AroundGrant:
    """What a grant is that stands around `grant`, and obtains otherwise: all else is as that one has it."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant

    @property
    def begins_anew(self) -> bool:
        """As the grant."""
        return self._grant.begins_anew

    def can_refresh(self, refresh_token: Secret | None, token: Secret | None) -> bool:
        """As the grant."""
        return self._grant.can_refresh(refresh_token, token)


class AnewGrant:
    """What a grant is that asks for each token from the beginning, and needs no refresh token."""

    @property
    def begins_anew(self) -> bool:
        """It always does."""
        return True

    def can_refresh(self, _refresh_token: Secret | None, _token: Secret | None) -> bool:
        """It never has to."""
        return False


class Endpoint(Protocol):
    """A client for token endpoints."""

    async def send(self, request: TokenRequest) -> TokenReply:
        """Send `request` once and bring back the whole answer. Raises `CredentialUnavailable`."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...
