"""The grant of each credential that asks for its token."""

import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from proxy.build.surroundings import Means
from proxy.config import (
    CredentialConfig,
    ExecCredential,
    GitHubAppCredential,
    JWTCredential,
    LoginCredential,
    MetadataCredential,
    OAuthCredential,
)
from proxy.config.anycredential import AskingCredential
from proxy.config.clienttls import ClientTLS
from proxy.config.fields import plain_text
from proxy.config.model import secrets_in
from proxy.config.selfsigned import plain_claims
from proxy.credentials.asking import Asking
from proxy.credentials.command import CommandGrant
from proxy.credentials.discovery import Discovery, Endpoints
from proxy.credentials.endpoint import Trust
from proxy.credentials.grant import Endpoint, Grant
from proxy.credentials.login import LoginGrant
from proxy.credentials.metadata import MetadataGrant
from proxy.credentials.oauth2 import OAuthGrant, judge
from proxy.credentials.selfsigned import GitHubAppGrant, JWTGrant
from proxy.credentials.signing import OAuthSigner, ServerClock, Signing
from proxy.errors import ConfigError


def grant(name: str, given: CredentialConfig, means: Means) -> Grant:
    """How tokens of this credential are obtained. Raises `ConfigError`."""
    make: Callable[[str, Any, Means], Grant] = _MAKERS[type(given)]
    return make(name, given, means)


def _login(name: str, given: LoginCredential, means: Means) -> Grant:
    return LoginGrant(name=name, description=given.description(), asking=_asking(name, given, means)())


def _oauth2(name: str, given: OAuthCredential, means: Means) -> Grant:
    return oauth_grant(name, given, means, endpoints(name, given, means))


def oauth_grant(name: str, given: OAuthCredential, means: Means, where: Endpoints) -> OAuthGrant:
    """What asks an authorization server. Raises `ConfigError`."""
    return OAuthGrant(
        name=name,
        description=given.description(),
        token_url=partial(where.url, "token_endpoint"),
        asking=_asking(name, given, means)(judge=judge),
        signer=_signer(name, given, means) if given.signs else None,
    )


def endpoints(name: str, given: OAuthCredential, means: Means) -> Endpoints:
    """Where that server is asked for what. Raises `ConfigError`."""
    discovery = None
    if given.issuer is not None:
        client, secure = _endpoint(name, given.tls, means), not given.insecure_http
        discovery = Discovery(name, given.issuer, client, secure=secure, mutual=given.auth == "tls")
    return Endpoints(name, given.endpoints(), discovery)


def _exec(name: str, given: ExecCredential, means: Means) -> Grant:
    return CommandGrant(
        name,
        given.command,
        form=given.format,
        stdin=given.stdin,
        environ=given.environment,
        timeout=given.timeout,
        clock=means.clock,
        register=means.register_as(f"{name}, steps"),
    )


def _metadata(name: str, given: MetadataCredential, means: Means) -> Grant:
    metadata = given.description()
    asking = _asking(name, given, means)(judge=metadata.judge)
    return MetadataGrant(metadata, asking)


def _github_app(name: str, given: GitHubAppCredential, means: Means) -> Grant:
    clock = ServerClock(name, means.clock)
    return GitHubAppGrant(
        name=name,
        app=given.description(),
        signing=Signing(name, given.key.value, "RS256", None, clock),
        clock=clock,
        asking=_asking(name, given, means)(),
    )


def _jwt(name: str, given: JWTCredential, means: Means) -> Grant:
    signing = Signing(name, given.key.value, given.algorithm, given.key_id, means.clock)
    return JWTGrant(signing, given.signed(), lifetime=given.lifetime)


_MAKERS: Final[Mapping[type, Callable[..., Grant]]] = {
    LoginCredential: _login,
    OAuthCredential: _oauth2,
    ExecCredential: _exec,
    MetadataCredential: _metadata,
    GitHubAppCredential: _github_app,
    JWTCredential: _jwt,
}


def _asking(name: str, given: CredentialConfig, means: Means) -> Callable[..., Asking]:
    tls = given.tls if isinstance(given, AskingCredential) else ClientTLS.model_construct()
    return partial(
        Asking,
        name=name,
        endpoint=_endpoint(name, tls, means),
        clock=means.clock,
        register=means.register_as(f"{name}, steps"),
        hidden=tuple(source.value for _path, source in secrets_in(given)),
    )


def _endpoint(name: str, tls: ClientTLS, means: Means) -> Endpoint:
    try:
        return means.clients.client(Trust(tls.ca, tls.cert, tls.key))
    except (OSError, ssl.SSLError):
        mend = "write PEM files that this user can read, and a key without a passphrase that fits the certificate"
        raise ConfigError([f"Credential {name!r}: the files of tls cannot be used: {mend}."]) from None


def _signer(name: str, given: OAuthCredential, means: Means) -> OAuthSigner:
    private, clock = None, ServerClock(name, means.clock)
    if given.key is not None:
        private = Signing(name, given.key.value, given.algorithm, given.key_id, clock)
    client = private
    if given.auth == "client_secret_jwt" and given.client_secret is not None:
        client = Signing(name, given.client_secret.value, "HS256", None, clock)
    claims = plain_claims(given.claims)
    return OAuthSigner(plain_text(given.client_id), claims, client=client, bearer=private, clock=clock)
