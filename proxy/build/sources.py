"""Credentials, each with the source of its tokens."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from proxy.clock import Clock
from proxy.config import Config, CredentialConfig, LoginCredential, OAuthCredential, StaticCredential
from proxy.credentials.asking import Asking, Judge, by_status
from proxy.credentials.credential import Credential
from proxy.credentials.discovery import Discovery, Endpoints
from proxy.credentials.endpoint import LazyEndpoint
from proxy.credentials.grant import Grant
from proxy.credentials.login import LoginGrant
from proxy.credentials.oauth2 import OAuthGrant, judge
from proxy.credentials.signing import OAuthSigner, Signing
from proxy.credentials.source import Events, TokenSource
from proxy.credentials.static import StaticSource
from proxy.grants.expiry import jwt_expiry, vanilla_expiry
from proxy.lifecycle import Token
from proxy.redact import Redactor, Secret
from proxy.stores.latch import Latch


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What credentials need of the world: the clock, a random float in [0, 1), where rejections are kept."""

    clock: Clock
    random: Callable[[], float]
    latch: Latch
    redactor: Redactor
    events: Events
    endpoint: LazyEndpoint


class Means(Protocol):
    """What it takes to ask a server at all; `Surroundings` have it, and more."""

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def redactor(self) -> Redactor:
        """What masks secrets."""
        ...

    @property
    def endpoint(self) -> LazyEndpoint:
        """The client for token endpoints."""
        ...


def credentials(config: Config, around: Surroundings) -> dict[str, Credential]:
    """Every credential by its name. Raises `ConfigError` for one that cannot be built."""
    return {name: _credential(name, given, around) for name, given in config.credentials.items()}


def _credential(name: str, given: CredentialConfig, around: Surroundings) -> Credential:
    places = given.place
    constants = tuple(given.headers.items())

    def fits(value: str) -> bool:
        return all(place.fits(value) for place in places)

    if isinstance(given, StaticCredential):
        static = StaticSource(name, _static_token(given, around.clock), around.clock)
        return Credential(name, static, places, constants, changes=False)
    source = TokenSource(
        name,
        _grant(name, given, around),
        margin=given.margin,
        clock=around.clock,
        latch=around.latch,
        fits=fits,
        random=around.random,
        register=register_as(name, around),
        events=around.events,
    )
    return Credential(name, source, places, constants)


def _grant(name: str, given: LoginCredential | OAuthCredential, means: Means) -> Grant:
    if isinstance(given, OAuthCredential):
        return oauth_grant(name, given, means, endpoints(name, given, means))
    return LoginGrant(name=name, description=given.description(), asking=_asking(name, means))


def oauth_grant(name: str, given: OAuthCredential, means: Means, where: Endpoints) -> OAuthGrant:
    """What asks an authorization server. Raises `ConfigError`."""
    return OAuthGrant(
        name=name,
        description=given.description(),
        token_url=partial(where.url, "token_endpoint"),
        asking=_asking(name, means, judge),
        signer=_signer(name, given, means.clock) if given.signs else None,
        digest=given.digest(),
    )


def endpoints(name: str, given: OAuthCredential, means: Means) -> Endpoints:
    """Where that server is asked for what."""
    discovery = None
    if given.issuer is not None:
        client = means.endpoint.client()
        discovery = Discovery(name, given.issuer, client, secure=not given.insecure_http)
    return Endpoints(name, given.endpoints(), discovery)


def _asking(name: str, means: Means, judge: Judge = by_status) -> Asking:
    return Asking(
        name=name,
        endpoint=means.endpoint.client(),
        clock=means.clock,
        register=register_as(f"{name}, steps", means),
        judge=judge,
    )


def _signer(name: str, given: OAuthCredential, clock: Clock) -> OAuthSigner:
    private = None
    if given.key is not None:
        private = Signing(name, given.key.value, given.algorithm, given.key_id, clock)
    client = private
    if given.auth == "client_secret_jwt" and given.client_secret is not None:
        client = Signing(name, given.client_secret.value, "HS256", None, clock)
    return OAuthSigner(given.client_id, given.claims, client=client, bearer=private)


def _static_token(given: StaticCredential, clock: Clock) -> Token:
    value = given.token.value
    reader = {"jwt": jwt_expiry, "vanilla": vanilla_expiry}.get(given.expires or "")
    expires_at_wall = reader(value.reveal()) if reader is not None else None
    now = clock.now()
    return Token(value, 1, now, None if expires_at_wall is None else now + expires_at_wall - clock.wall())


def register_as(owner: str, means: Means) -> Callable[[Iterable[Secret]], None]:
    """What masks the secrets that `owner` gets."""

    def register(secrets: Iterable[Secret]) -> None:
        means.redactor.register_generation(owner, secrets, means.clock.now())

    return register
