"""Credentials, each with the source of its tokens."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from proxy.build.stores import bound
from proxy.clock import Clock
from proxy.config import Config, CredentialConfig, LoginCredential, OAuthCredential, StaticCredential
from proxy.credentials.asking import Asking
from proxy.credentials.credential import Credential
from proxy.credentials.discovery import Discovery
from proxy.credentials.endpoint import LazyEndpoint
from proxy.credentials.events import Events
from proxy.credentials.grant import Endpoint, Grant
from proxy.credentials.login import LoginGrant
from proxy.credentials.oauth2 import OAuthGrant, judge
from proxy.credentials.signing import OAuthSigner, Signing
from proxy.credentials.source import TokenSource
from proxy.credentials.static import StaticSource
from proxy.errors import ConfigError
from proxy.grants.expiry import jwt_expiry, vanilla_expiry
from proxy.lifecycle import Token
from proxy.redact import Redactor, Secret
from proxy.stores.base import Store
from proxy.stores.latch import Latch


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What credentials need of the world: the clock, a random float in [0, 1), where rejections and tokens rest."""

    clock: Clock
    random: Callable[[], float]
    latch: Latch
    store: Store
    redactor: Redactor
    events: Events
    endpoint: LazyEndpoint


def credentials(config: Config, around: Surroundings) -> dict[str, Credential]:
    """Every credential by its name. Raises `ConfigError` for one that cannot be built."""
    return {name: _credential(name, given, config, around) for name, given in config.credentials.items()}


def binding_of(name: str, config: Config, around: Surroundings) -> bytes:
    """What the records of a credential are bound to in the store. Raises `KeyError`, and `ConfigError` as above.

    A static token is in no store, and for one it raises `ConfigError`.
    """
    given = config.credentials[name]
    if isinstance(given, StaticCredential):
        raise ConfigError([f"Credential {name!r} is a fixed token: there is nothing to be stored."])
    return bound(name, config, _grant(name, given, around).fingerprint())


def _credential(name: str, given: CredentialConfig, config: Config, around: Surroundings) -> Credential:
    places = given.place
    constants = tuple(given.headers.items())

    def fits(value: str) -> bool:
        return all(place.fits(value) for place in places)

    if isinstance(given, StaticCredential):
        static = StaticSource(name, _static_token(given, around.clock), around.clock)
        return Credential(name, static, places, constants, changes=False)
    grant = _grant(name, given, around)
    source = TokenSource(
        name,
        grant,
        margin=given.margin,
        clock=around.clock,
        latch=around.latch,
        store=around.store,
        binding=bound(name, config, grant.fingerprint()),
        fits=fits,
        random=around.random,
        register=_register_as(name, around),
        events=around.events,
    )
    return Credential(name, source, places, constants)


def _grant(name: str, given: LoginCredential | OAuthCredential, around: Surroundings) -> Grant:
    asking = partial(
        Asking,
        name=name,
        endpoint=around.endpoint.client(),
        clock=around.clock,
        register=_register_as(f"{name}, steps", around),
    )
    if isinstance(given, LoginCredential):
        return LoginGrant(name=name, description=given.description(), asking=asking())
    signer = None
    if given.signs:
        signer = _signer(name, given, around.clock)
    return OAuthGrant(
        name=name,
        description=given.description(),
        token_url=_token_url(name, given, around.endpoint.client()),
        asking=asking(judge=judge),
        signer=signer,
        digest=given.digest(),
    )


def _signer(name: str, given: OAuthCredential, clock: Clock) -> OAuthSigner:
    private = None
    if given.key is not None:
        private = Signing(name, given.key.value, given.algorithm, given.key_id, clock)
    client = private
    if given.auth == "client_secret_jwt" and given.client_secret is not None:
        client = Signing(name, given.client_secret.value, "HS256", None, clock)
    return OAuthSigner(given.client_id, given.claims, client=client, bearer=private)


def _token_url(name: str, given: OAuthCredential, endpoint: Endpoint) -> Callable[[], Awaitable[str]]:
    if given.issuer is not None:
        return Discovery(name, given.issuer, endpoint, secure=not given.insecure_http).token_url
    url = given.token_url or ""

    async def known() -> str:
        return url

    return known


def _static_token(given: StaticCredential, clock: Clock) -> Token:
    value = given.token.value
    reader = {"jwt": jwt_expiry, "vanilla": vanilla_expiry}.get(given.expires or "")
    expires_at_wall = reader(value.reveal()) if reader is not None else None
    now = clock.now()
    return Token(value, 1, now, None if expires_at_wall is None else now + expires_at_wall - clock.wall())


def _register_as(owner: str, around: Surroundings) -> Callable[[Iterable[Secret]], None]:
    def register(secrets: Iterable[Secret]) -> None:
        around.redactor.register_generation(owner, secrets, around.clock.now())

    return register
