"""Obtains tokens of an OAuth 2.0 authorization server, by every grant that needs no person while it runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from proxy.credentials.asking import Asking
from proxy.credentials.signing import OAuthSigner
from proxy.errors import CredentialRejected, LoginRequired
from proxy.grants.login import Step, Value
from proxy.grants.oauth2 import ASSERTING, INTERACTIVE, REPLY, GrantName, OAuthDescription, error_of, verdict
from proxy.grants.reply import RejectedReply, Verdict
from proxy.grants.request import Granted, TokenReply
from proxy.redact import Secret


def judge(reply: TokenReply, _step: Step) -> tuple[Verdict, str]:
    """What a reply means, by the `error` in it."""
    error = error_of(reply)
    return verdict(reply, error), str(error)


class OAuthGrant:
    """One credential of type `oauth2`; `token_url` finds out where to ask, and `digest` is its fingerprint."""

    def __init__(
        self,
        *,
        name: str,
        description: OAuthDescription,
        token_url: Callable[[], Awaitable[str]],
        asking: Asking,
        signer: OAuthSigner | None,
        digest: bytes,
    ) -> None:
        self._name = name
        self._description = description
        self._token_url = token_url
        self._asking = asking
        self._signer = signer
        self._digest = digest

    def fingerprint(self) -> bytes:
        """A digest over addresses and secrets."""
        return self._digest

    async def obtain(self, refresh_token: Secret | None) -> Granted:
        """Refresh if there is something to refresh with, else (or if that is rejected) begin anew.

        Raises `CredentialRejected`, `CredentialUnavailable`, `LoginRequired`.
        """
        grant = self._description.grant
        redeemed = refresh_token or self._description.refresh_token
        if redeemed is not None:
            try:
                granted = await self._ask("refresh_token", {"refresh_token": redeemed}, "refresh")
            except RejectedReply as error:
                refusal = error
            else:
                # A reply without a refresh token leaves the earlier one in use (RFC 6749 section 6).
                return granted if granted.refresh_token else replace(granted, refresh_token=redeemed)
            if grant == "refresh_token":
                raise self._rejected(refusal)
        if grant in INTERACTIVE:
            raise LoginRequired(f"Credential {self._name!r} needs a person: run `bearer-proxy login {self._name}`.")
        try:
            return await self._ask(grant, {}, "token request")
        except RejectedReply as error:
            raise self._rejected(error) from None

    async def _ask(self, grant: GrantName, parameters: Mapping[str, Value], place: str) -> Granted:
        """One token request. Raises `RejectedReply`, `CredentialUnavailable`."""
        url, description, signer = await self._token_url(), self._description, self._signer
        proof = None
        if signer is not None and description.client.auth in ASSERTING:
            proof = signer.client_assertion(url)
        if signer is not None and grant == "jwt_bearer":
            parameters = {**parameters, "assertion": signer.assertion(url)}
        step = description.request(url, grant, parameters, assertion=proof)
        return await self._asking.ask(step, REPLY, place)

    def _rejected(self, error: RejectedReply) -> CredentialRejected:
        return CredentialRejected(
            f"Credential {self._name!r}: {error} "
            f"Change the secret and restart, or run `bearer-proxy token {self._name} --refresh`.",
            said=error.said,
        )
