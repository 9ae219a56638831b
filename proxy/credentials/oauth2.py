"""Obtains tokens of an OAuth 2.0 authorization server: by itself where that is possible, else by refreshing."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from proxy.credentials.asking import Asking
from proxy.credentials.signing import OAuthSigner
from proxy.errors import CredentialRejected, LoginRequired
from proxy.grants.login import Step, Value
from proxy.grants.oauth2 import (
    ASSERTING,
    CLIENT_ERRORS,
    REPLY,
    GrantName,
    OAuthDescription,
    OAuthError,
    error_of,
    verdict,
)
from proxy.grants.reply import RejectedReply, Verdict
from proxy.grants.request import Granted, TokenReply
from proxy.redact import Secret


def judge(reply: TokenReply, _step: Step) -> tuple[Verdict, str]:
    """What a reply means, by the `error` in it."""
    error = error_of(reply)
    return verdict(reply, error), error.code


class OAuthGrant:
    """One credential of type `oauth2`; `token_url` finds out where to ask."""

    def __init__(
        self,
        *,
        name: str,
        description: OAuthDescription,
        token_url: Callable[[], Awaitable[str]],
        asking: Asking,
        signer: OAuthSigner | None,
    ) -> None:
        self._name = name
        self._description = description
        self._token_url = token_url
        self._asking = asking
        self._signer = signer

    @property
    def begins_anew(self) -> bool:
        """Not where a person is needed, or all that there is is a refresh token."""
        return not self._description.interactive and self._description.grant != "refresh_token"

    def can_refresh(self, refresh_token: Secret | None, _token: Secret | None) -> bool:
        """By a refresh token alone."""
        return refresh_token is not None

    @property
    def description(self) -> OAuthDescription:
        """What is configured."""
        return self._description

    def error_of(self, reply: TokenReply) -> OAuthError:
        """What the server says is wrong, without the secrets of this credential."""
        return self._asking.error_of(reply)

    async def obtain(
        self,
        refresh_token: Secret | None,
        token: Secret | None = None,  # noqa: ARG002  spent
        barred: str | None = None,
    ) -> Granted:
        """Refresh if there is something to refresh with, else (or if that is rejected) begin anew.

        Raises `CredentialRejected`, `CredentialUnavailable`, `LoginRequired`.
        """
        grant = self._description.grant
        redeemed = refresh_token or self._description.refresh_token
        if redeemed is not None:
            try:
                return await self._renew(redeemed)
            except RejectedReply as error:
                refusal = error
                # Also where somebody else has a token, which is then used.
                self._asking.tell_of_refusal(refusal)
            if grant == "refresh_token":
                raise self._rejected(refusal)
            if self._description.interactive:
                raise self._login_required(refusal)
        if self._description.interactive:
            raise self._login_required(None)
        if barred is not None:
            raise CredentialRejected(barred)
        try:
            return await self.begin({}, "token request")
        except RejectedReply as error:
            raise self._rejected(error) from None

    async def begin(self, parameters: Mapping[str, Value], place: str) -> Granted:
        """The first token of a login, by the grant that is configured.

        Raises `RejectedReply`, `CredentialUnavailable`.
        """
        return self._from_login(await self._ask(self._description.grant, parameters, place))

    async def question(self, parameters: Mapping[str, Value], place: str) -> TokenReply:
        """The same, whatever the reply means. Raises `CredentialUnavailable`."""
        return await self._asking.send(await self._step(self._description.grant, parameters), place)

    def granted(self, reply: TokenReply, place: str) -> Granted:
        """The token in a reply that was accepted. Raises `RejectedReply`, `CredentialUnavailable`."""
        return self._from_login(self._asking.read(reply, REPLY, place))

    async def call(self, url: str, fields: Mapping[str, Value], place: str) -> TokenReply:
        """A request to another endpoint of the server, authenticated alike. Raises `CredentialUnavailable`."""
        proof = self._proof(await self._token_url())
        return await self._asking.send(self._description.call(url, fields, assertion=proof), place)

    async def _renew(self, refresh_token: Secret) -> Granted:
        granted = await self._ask("refresh_token", {"refresh_token": refresh_token}, "refresh")
        # A reply without a refresh token leaves the earlier one in use (RFC 6749 section 6).
        granted = replace(granted, refresh_token=granted.refresh_token or refresh_token, renewed=True)
        # Where the end of the login is known, no refresh moves it.
        return granted if self._description.refresh_lifetime is None else replace(granted, refresh_lifetime=None)

    async def _ask(self, grant: GrantName, parameters: Mapping[str, Value], place: str) -> Granted:
        """One request and its reply; once more where our clock may be why a JWT of ours was refused.

        What is redeemed along with it comes twice only where the server did not get as far (RFC 6749 section 5.2).
        """

        async def ask() -> Granted:
            return await self._asking.ask(await self._step(grant, parameters), REPLY, place)

        def is_untouched(error: RejectedReply) -> bool:
            return not parameters or error.code == "invalid_client"

        return await (ask() if self._signer is None else self._signer.clock.asked(ask, repeats=is_untouched))

    async def _step(self, grant: GrantName, parameters: Mapping[str, Value]) -> Step:
        url, signer = await self._token_url(), self._signer
        if signer is not None and grant == "jwt_bearer":
            parameters = {**parameters, "assertion": signer.assertion(url)}
        return self._description.request(url, grant, parameters, assertion=self._proof(url))

    def _proof(self, token_url: str) -> Secret | None:
        """What authenticates the client where that is a JWT; its audience is always the token endpoint."""
        if self._signer is None or self._description.client.auth not in ASSERTING:
            return None
        return self._signer.client_assertion(token_url)

    def _from_login(self, granted: Granted) -> Granted:
        lifetime = self._description.refresh_lifetime
        if lifetime is None or granted.refresh_token is None:
            return granted
        return replace(granted, refresh_lifetime=lifetime)

    def _login_required(self, refusal: RejectedReply | None) -> LoginRequired | CredentialRejected:
        if refusal is not None and refusal.code in CLIENT_ERRORS:
            return self._rejected(refusal)
        why = "needs a person" if refusal is None else "is logged out: its refresh token is no longer taken"
        return LoginRequired(f"Credential {self._name!r} {why}. Run `bearer-proxy login {self._name}`.")

    def _rejected(self, error: RejectedReply) -> CredentialRejected:
        return CredentialRejected(
            f"Credential {self._name!r}: {error} "
            f"Change the secret and restart, or run `bearer-proxy token {self._name} --refresh`.",
            said=error.said,
        )
