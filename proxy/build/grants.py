"""The grant of each credential that asks for its token."""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from proxy.build.surroundings import Surroundings
from proxy.config import (
    CredentialConfig,
    ExecCredential,
    GitHubAppCredential,
    JWTCredential,
    LoginCredential,
    MetadataCredential,
    OAuthCredential,
)
from proxy.config.clienttls import ClientTLS
from proxy.config.fields import plain_text
from proxy.config.selfsigned import plain_claims
from proxy.credentials.asking import Asking
from proxy.credentials.command import CommandGrant
from proxy.credentials.discovery import Discovery
from proxy.credentials.endpoint import Trust
from proxy.credentials.grant import Endpoint, Grant
from proxy.credentials.login import LoginGrant
from proxy.credentials.metadata import MetadataGrant
from proxy.credentials.oauth2 import OAuthGrant, judge
from proxy.credentials.selfsigned import GitHubAppGrant, JWTGrant
from proxy.credentials.signing import OAuthSigner, Signing
from proxy.errors import ConfigError


def grant(name: str, given: CredentialConfig, around: Surroundings) -> Grant:
    """How tokens of this credential are obtained. Raises `ConfigError`."""
    make: Callable[[str, Any, Surroundings], Grant] = _MAKERS[type(given)]
    return make(name, given, around)


def _login(name: str, given: LoginCredential, around: Surroundings) -> Grant:
    return LoginGrant(name=name, description=given.description(), asking=_asking(name, given.tls, around)())


def _oauth2(name: str, given: OAuthCredential, around: Surroundings) -> Grant:
    return OAuthGrant(
        name=name,
        description=given.description(),
        token_url=_token_url(name, given, _endpoint(name, given.tls, around)),
        asking=_asking(name, given.tls, around)(judge=judge),
        signer=_signer(name, given, around) if given.signs else None,
        digest=given.digest(),
    )


def _exec(name: str, given: ExecCredential, around: Surroundings) -> Grant:
    return CommandGrant(
        name,
        given.command,
        form=given.format,
        stdin=given.stdin,
        environ=given.environment,
        timeout=given.timeout,
        clock=around.clock,
        register=around.register_as(f"{name}, steps"),
    )


def _metadata(name: str, given: MetadataCredential, around: Surroundings) -> Grant:
    metadata = given.description()
    asking = _asking(name, ClientTLS.model_construct(), around)(judge=metadata.judge)
    return MetadataGrant(metadata, asking)


def _github_app(name: str, given: GitHubAppCredential, around: Surroundings) -> Grant:
    return GitHubAppGrant(
        name=name,
        app=given.description(),
        signing=Signing(name, given.key.value, "RS256", None, around.clock),
        asking=_asking(name, given.tls, around)(),
        digest=given.digest(),
    )


def _jwt(name: str, given: JWTCredential, around: Surroundings) -> Grant:
    signing = Signing(name, given.key.value, given.algorithm, given.key_id, around.clock)
    return JWTGrant(signing, given.signed(), lifetime=given.lifetime, digest=given.digest())


_MAKERS: Final[Mapping[type, Callable[..., Grant]]] = {
    LoginCredential: _login,
    OAuthCredential: _oauth2,
    ExecCredential: _exec,
    MetadataCredential: _metadata,
    GitHubAppCredential: _github_app,
    JWTCredential: _jwt,
}


def _asking(name: str, tls: ClientTLS, around: Surroundings) -> Callable[..., Asking]:
    return partial(
        Asking,
        name=name,
        endpoint=_endpoint(name, tls, around),
        clock=around.clock,
        register=around.register_as(f"{name}, steps"),
    )


def _endpoint(name: str, tls: ClientTLS, around: Surroundings) -> Endpoint:
    try:
        return around.endpoints.client(Trust(tls.ca, tls.cert, tls.key))
    except (OSError, ssl.SSLError):
        mend = "write PEM files that this user can read, and a key without a passphrase that fits the certificate"
        raise ConfigError([f"Credential {name!r}: the files of tls cannot be used: {mend}."]) from None


def _signer(name: str, given: OAuthCredential, around: Surroundings) -> OAuthSigner:
    private = None
    if given.key is not None:
        private = Signing(name, given.key.value, given.algorithm, given.key_id, around.clock)
    client = private
    if given.auth == "client_secret_jwt" and given.client_secret is not None:
        client = Signing(name, given.client_secret.value, "HS256", None, around.clock)
    return OAuthSigner(plain_text(given.client_id), plain_claims(given.claims), client=client, bearer=private)


def _token_url(name: str, given: OAuthCredential, endpoint: Endpoint) -> Callable[[], Awaitable[str]]:
    if given.issuer is not None:
        secure, mutual = not given.insecure_http, given.auth == "tls"
        return Discovery(name, given.issuer, endpoint, secure=secure, mutual=mutual).token_url
    url = given.token_url or ""

    async def known() -> str:
        return url

    return known
