"""Credentials that begin with a key of ours: a signed JWT as the token itself, or as the proof of a GitHub App."""

from collections.abc import Mapping
from typing import Any

from proxy.credentials.asking import Asking
from proxy.credentials.grant import AnewGrant
from proxy.credentials.signing import BEHIND_SECONDS, ServerClock, Signing
from proxy.errors import CredentialRejected
from proxy.grants.github_app import PROOF_SECONDS, REPLY, GitHubApp
from proxy.grants.reply import RejectedReply
from proxy.grants.request import Granted
from proxy.redact import Secret


class JWTGrant(AnewGrant):
    """Signs `claims` anew for each token; each is good for `lifetime` seconds."""

    def __init__(self, signing: Signing, claims: Mapping[str, Any], *, lifetime: float) -> None:
        self._signing = signing
        self._claims = claims
        self._lifetime = lifetime

    async def obtain(
        self, _refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """A new one."""
        return Granted(self._signing.sign(self._claims, seconds=self._lifetime), lifetime=self._lifetime)


class GitHubAppGrant(AnewGrant):
    """Proves to be the app, and asks for the installation's token."""

    def __init__(self, *, name: str, app: GitHubApp, signing: Signing, clock: ServerClock, asking: Asking) -> None:
        self._name = name
        self._clock = clock
        self._app = app
        self._signing = signing
        self._asking = asking

    async def obtain(
        self, _refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """One request; another one where our clock may be why the proof was refused.

        Raises `CredentialRejected`, `CredentialUnavailable`.
        """
        try:
            return await self._clock.asked(self._ask)
        except RejectedReply as error:
            raise CredentialRejected(
                f"GitHub rejects the app of credential {self._name!r}: check app_id, installation_id and key, "
                f"and this machine's clock; then restart, or run `bearer-proxy token {self._name} --refresh`.",
                said=error.said,
            ) from None

    async def _ask(self) -> Granted:
        proof = self._signing.sign({"iss": self._app.app_id}, seconds=PROOF_SECONDS - BEHIND_SECONDS)
        return await self._asking.ask(
            self._app.request(), REPLY, "installation token", access_token=proof, bearer=True
        )
