"""Credentials, each with the source of its tokens."""

from collections.abc import Callable
from typing import Final

from proxy.build.grants import grant
from proxy.build.surroundings import Surroundings
from proxy.clock import Clock
from proxy.config import Config, CredentialConfig, FileCredential, StaticCredential
from proxy.config.model import borrowed_in
from proxy.credentials.borrowing import BorrowingGrant, LentSource
from proxy.credentials.credential import Credential, Source
from proxy.credentials.file import FileSource
from proxy.credentials.source import TokenSource
from proxy.credentials.static import StaticSource
from proxy.grants.expiry import jwt_expiry, vanilla_expiry
from proxy.lifecycle import Token

#: Seconds that a credential waits for the token of another one that it stands on.
LENDING_SECONDS: Final = 20.0


def credentials(config: Config, around: Surroundings) -> dict[str, Credential]:
    """Every credential by its name. Raises `ConfigError` for one that cannot be built."""
    found: dict[str, Credential] = {}

    def lender(name: str) -> Source:
        return found[name].source

    for name, given in config.credentials.items():
        source = _source(name, given, around, lender)
        found[name] = Credential(
            name,
            source,
            given.place,
            tuple(given.headers.items()),
            changes=not isinstance(source, StaticSource),
        )
    return found


def _source(name: str, given: CredentialConfig, around: Surroundings, lender: Callable[[str], Source]) -> Source:
    if isinstance(given, StaticCredential):
        lent = borrowed_in(given)
        if lent:
            return LentSource(name, lambda: lender(lent[0].lender))
        return StaticSource(name, _static_token(given, around.clock), around.clock)
    if isinstance(given, FileCredential):
        return FileSource(
            name, given.path, clock=around.clock, register=around.register_as(name), expiry=jwt_expiry
        )

    def fits(value: str) -> bool:
        return all(place.fits(value) for place in given.place)

    asking = grant(name, given, around)
    lent = borrowed_in(given)
    return TokenSource(
        name,
        BorrowingGrant(asking, lent, lender, wait=LENDING_SECONDS) if lent else asking,
        margin=given.margin,
        clock=around.clock,
        latch=around.latch,
        fits=fits,
        random=around.random,
        register=around.register_as(name),
        events=around.events,
    )


def _static_token(given: StaticCredential, clock: Clock) -> Token:
    value = given.token.value
    reader = {"jwt": jwt_expiry, "vanilla": vanilla_expiry}.get(given.expires or "")
    expires_at_wall = reader(value.reveal()) if reader is not None else None
    now = clock.now()
    return Token(value, 1, now, None if expires_at_wall is None else now + expires_at_wall - clock.wall())
