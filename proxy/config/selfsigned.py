"""The models of credentials that begin with a key of ours: a signed JWT, and what GitHub gives for one."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from proxy.config.anycredential import AskingCredential, CommonCredential
from proxy.config.fields import Claims, KeyField, TextValue, Timeout, TokenURL, plain_text
from proxy.config.secrets import SecretSource
from proxy.grants.github_app import GitHubApp

_GITHUB: Final = "https://api.github.com"


def _given(value: SecretSource | str | None) -> SecretSource | str:
    if value is None:
        raise ValueError("write text, or a reference to it such as {env: NAME}")
    return value


class JWTCredential(CommonCredential):
    """A JWT that the proxy signs itself."""

    type: Literal["jwt"]
    """jwt: sign it with a key of ours."""
    key: KeyField
    """A private key as PEM without a passphrase; for HS256 to HS512 the shared secret."""
    algorithm: Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS256", "HS384", "HS512"] = (
        "RS256"
    )
    """What the key signs with."""
    key_id: str | None = None
    """The key's name at the server (kid)."""
    claims: Claims = Field(default_factory=dict)
    """The claims besides iat, exp and jti; $key_sha256 in a text is the fingerprint of the public key."""
    lifetime: Timeout = 300.0
    """How long it is good; a new one is signed ahead of its end."""

    def signed(self) -> dict[str, Any]:
        """The claims for the grant."""
        return plain_claims(self.claims)


class GitHubAppCredential(AskingCredential):
    """The installation token of a GitHub App."""

    type: Literal["github_app"]
    """github_app: sign as the app, and ask for the installation's token."""
    app_id: Annotated[TextValue, AfterValidator(_given)]
    """The app's id or client id."""
    installation_id: Annotated[TextValue, AfterValidator(_given)]
    """Which installation of the app."""
    key: KeyField
    """The app's private key as PEM."""
    base_url: TokenURL = _GITHUB
    """The API; for GitHub Enterprise Server https://HOST/api/v3."""
    repositories: tuple[str, ...] = ()
    """Only these of the installation's repositories, by name."""
    permissions: dict[str, str] = Field(default_factory=dict)
    """Only these of its permissions, such as contents: read."""

    def urls(self) -> dict[tuple[str | int, ...], str]:
        """The API's."""
        return {("base_url",): self.base_url}

    def description(self) -> GitHubApp:
        """The same for the grant."""
        return GitHubApp(
            plain_text(self.app_id),
            plain_text(self.installation_id),
            self.base_url.rstrip("/"),
            self.repositories,
            self.permissions,
        )


def plain_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Claims with their secrets as the grants take them."""
    return {name: each.value if isinstance(each, SecretSource) else each for name, each in claims.items()}
