"""The model of credentials of type `oauth2`."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxy.config.anycredential import AskingCredential
from proxy.config.fields import (
    Claims,
    KeyField,
    LoginFields,
    LoginValue,
    SecretField,
    TextValue,
    Timeout,
    TokenURL,
    plain_text,
)
from proxy.config.secrets import SecretSource
from proxy.grants.login import Value
from proxy.grants.oauth2 import ASSERTING, INTERACTIVE, Client, ClientAuth, GrantName, OAuthDescription

#: What each grant cannot do without.
_NEEDED: dict[GrantName, tuple[str, ...]] = {
    "client_credentials": ("client_id",),
    "refresh_token": ("refresh_token",),
    "password": ("username", "password"),
    "jwt_bearer": ("key",),
    "token_exchange": ("subject_token", "subject_token_type"),
    "authorization_code": ("client_id",),
    "device_code": ("client_id",),
}
#: Where the person is sent, which only an issuer could tell otherwise.
_PLACES: Final[dict[GrantName, str]] = {"authorization_code": "authorization_url", "device_code": "device_url"}
#: The member of a server's metadata that each URL stands for (RFC 8414, RFC 8628 section 4, RFC 7009).
_MEMBERS: Final = {
    "token_url": "token_endpoint",
    "authorization_url": "authorization_endpoint",
    "device_url": "device_authorization_endpoint",
    "revocation_url": "revocation_endpoint",
}
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]{0,200}")


def _words(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


def _scope_word(value: str) -> str:
    if not value or not all("!" <= character <= "~" and character not in '"\\' for character in value):
        raise ValueError("a scope is printable ASCII without spaces, quotes and backslashes: write each by itself")
    return value


def _redirect_port(value: int) -> int:
    if not 0 <= value <= 65535:
        raise ValueError("write a port between 1 and 65535, or 0 for a free one")
    return value


def _redirect_path(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError("write the path as it is registered at the server, such as /callback")
    return value


Scope = Annotated[tuple[Annotated[str, AfterValidator(_scope_word)], ...], BeforeValidator(_words)]


class OAuthCredential(AskingCredential):
    """A token of an OAuth 2.0 authorization server."""

    INCIDENTAL = frozenset({"redirect_port", "redirect_path", "refresh_lifetime", "revocation_url"})

    type: Literal["oauth2"]
    """oauth2: ask an authorization server."""
    grant: GrantName
    """How the token is asked for."""
    issuer: TokenURL | None = None
    """The server's own URL; its token endpoint is discovered from it."""
    token_url: TokenURL | None = None
    """The token endpoint, where there is no issuer to discover it from."""
    authorization_url: TokenURL | None = None
    """authorization_code: the page to log in at, where it is not to be discovered; its query is kept."""
    device_url: TokenURL | None = None
    """device_code: where the code is asked for, where that is not to be discovered."""
    revocation_url: TokenURL | None = None
    """Where `logout` revokes (RFC 7009), where it is not to be discovered."""
    redirect_port: Annotated[int, AfterValidator(_redirect_port)] = 0
    """authorization_code: the port on 127.0.0.1 that the server has registered; 0: a free one each time."""
    redirect_path: Annotated[str, AfterValidator(_redirect_path)] = "/callback"
    """authorization_code: the path that the server has registered."""
    refresh_lifetime: Timeout | None = None
    """How long a refresh token is good from the login on, whatever is refreshed; absent: as the server says."""
    client_id: TextValue = None
    """Who asks."""
    client_secret: SecretField | None = None
    """The secret of the client, for basic, post and client_secret_jwt."""
    client_auth: Literal["basic", "post", "private_key_jwt", "client_secret_jwt", "tls", "none"] | None = None
    """How the client proves who it is; absent: basic where there is a secret, else none."""
    client_auth_encoding: Literal["form", "raw"] = "form"
    """basic: form-encoded first, as the standard says; raw: for servers that do not decode it."""
    scope: Scope = ()
    """What the token is to be good for: a list, or words with spaces between them."""
    audience: str | None = None
    """Whom the token is for, where the server wants to know."""
    resource: str | None = None
    """The same by URL (RFC 8707)."""
    extra: LoginFields = Field(default_factory=dict)
    """Further parameters of the token request."""
    username: LoginValue = None
    """password: the user's name."""
    password: SecretField | None = None
    """password: the user's password."""
    key: KeyField | None = None
    """jwt_bearer and private_key_jwt: a private key as PEM."""
    algorithm: Literal["RS256", "PS256", "ES256", "EdDSA"] = "RS256"
    """What the key signs with."""
    key_id: str | None = None
    """The key's name at the server (kid)."""
    claims: Claims = Field(default_factory=dict)
    """jwt_bearer: the claims of the assertion besides aud, iat, exp and jti."""
    subject_token: SecretField | None = None
    """token_exchange: the token to exchange."""
    subject_token_type: str | None = None
    """token_exchange: what it is, such as urn:ietf:params:oauth:token-type:jwt."""
    refresh_token: SecretField | None = None
    """refresh_token: the one to begin with."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.issuer is None) == (self.token_url is None):
            raise ValueError("name the server by issuer or by token_url, one of the two")
        place = _PLACES.get(self.grant)
        needed = [*_NEEDED[self.grant], *([place] if place and self.issuer is None else [])]
        for key in needed:
            if getattr(self, key) is None:
                raise ValueError(f"grant {self.grant} needs {key}: add it")
        auth = self.auth
        if self.client_id is None and self.client_auth not in (None, "none"):
            raise ValueError(f"client_auth {auth} needs client_id: add it")
        if auth in ("basic", "post", "client_secret_jwt") and self.client_secret is None:
            raise ValueError(f"client_auth {auth} needs client_secret: add it")
        if auth == "private_key_jwt" and self.key is None:
            raise ValueError("client_auth private_key_jwt needs key: add it")
        if auth == "tls" and self.tls.cert is None:
            raise ValueError("client_auth tls needs tls.cert: add it")
        return self

    def urls(self) -> dict[tuple[str | int, ...], str]:
        """All that name the server."""
        return {(key,): url for key in ("issuer", *_MEMBERS) if (url := getattr(self, key)) is not None}

    def endpoints(self) -> dict[str, str]:
        """Those of its endpoints that are written down, by the name of each in a server's metadata."""
        return {member: url for key, member in _MEMBERS.items() if (url := getattr(self, key)) is not None}

    @property
    def interactive(self) -> bool:
        """Does it take a person to get the first token?"""
        return self.grant in INTERACTIVE

    @property
    def inherits(self) -> bool:
        """Does it begin with what a store holds, or with a refresh token that may have been replaced there?"""
        return self.interactive or self.refresh_token is not None

    @property
    def auth(self) -> ClientAuth:
        """How the client proves who it is."""
        return self.client_auth or ("none" if self.client_secret is None else "basic")

    @property
    def signs(self) -> bool:
        """Does it need a key to sign with?"""
        return self.auth in ASSERTING or self.grant == "jwt_bearer"

    def description(self) -> OAuthDescription:
        """The same for the grant."""
        own: dict[GrantName, dict[str, Value]] = {
            "password": {"username": _plain(self.username), "password": _plain(self.password)},
            "token_exchange": {
                "subject_token": _plain(self.subject_token),
                "subject_token_type": self.subject_token_type,
            },
        }
        secret = None if self.client_secret is None else self.client_secret.value
        return OAuthDescription(
            grant=self.grant,
            client=Client(plain_text(self.client_id), self.auth, secret, self.client_auth_encoding),
            refresh_token=None if self.refresh_token is None else self.refresh_token.value,
            parameters=own.get(self.grant, {}),
            common={"scope": " ".join(self.scope) or None, "audience": self.audience, "resource": self.resource},
            extra={name: _plain(value) for name, value in self.extra.items()},
            refresh_lifetime=self.refresh_lifetime,
        )


def _plain(value: LoginValue) -> Value:
    return value.value if isinstance(value, SecretSource) else value
