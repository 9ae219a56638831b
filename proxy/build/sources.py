"""Credentials, each with the source of its tokens."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.build.belonging import kin_of, stays_here
from proxy.build.grants import grant
from proxy.build.stores import bound
from proxy.build.surroundings import Surroundings
from proxy.clock import Clock
from proxy.config import Config, FileCredential, OAuthCredential, StaticCredential
from proxy.config.model import borrowed_in
from proxy.credentials.borrowing import BorrowingGrant, LentSource
from proxy.credentials.brought import BroughtGrant
from proxy.credentials.credential import Credential, Source
from proxy.credentials.file import FileSource
from proxy.credentials.grant import Grant
from proxy.credentials.source import TokenSource
from proxy.credentials.static import StaticSource
from proxy.grants.expiry import jwt_expiry, vanilla_expiry
from proxy.lifecycle import Token
from proxy.redact import MASK, Secret
from proxy.stores.memory import MemoryStore
from proxy.stores.redeemed import Redeemed

#: Seconds that a credential waits for the token of another one that it stands on.
LENDING_SECONDS: Final = 20.0


def credentials(config: Config, around: Surroundings) -> dict[str, Credential]:
    """Every credential by its name. Raises `ConfigError` for one that cannot be built."""
    found: dict[str, Credential] = {}
    own = MemoryStore()

    def lender(name: str) -> Source:
        return found[name].source

    for name, given in config.credentials.items():
        source = _source(name, config, replace(around, store=own) if stays_here(name, config) else around, lender)
        found[name] = Credential(
            name,
            source,
            given.place,
            tuple(given.headers.items()),
            changes=not isinstance(source, StaticSource),
        )
    return found


def masked(config: Config, clock: Clock) -> dict[str, Credential]:
    """Every credential in its places, with a mask for its token: who only shows what would be sent asks nobody."""
    token = Token(Secret(MASK), 1, clock.now())
    return {
        name: Credential(name, StaticSource(name, token, clock), given.place, tuple(given.headers.items()))
        for name, given in config.credentials.items()
    }


def binding_of(name: str, config: Config) -> bytes:
    """What the records of a credential are bound to in the store. Raises `KeyError`."""
    return bound(name, config, _identity(name, config))


def _identity(name: str, config: Config) -> bytes:
    """A digest of whose tokens these are: what they are got with, and from whom those come that they stand on."""
    given = config.credentials[name]
    lenders = sorted({each.lender for each in borrowed_in(given)})
    return hashlib.sha256(given.digest() + b"".join(_identity(each, config) for each in lenders)).digest()


def _source(name: str, config: Config, around: Surroundings, lender: Callable[[str], Source]) -> Source:
    given = config.credentials[name]

    def fits(value: str) -> bool:
        return all(place.fits(value) for place in given.place)

    if isinstance(given, StaticCredential):
        lent = borrowed_in(given)
        if lent:
            return LentSource(name, lambda: lender(lent[0].lender), fits=fits)
        return StaticSource(name, _static_token(given, around.clock), around.clock)
    if isinstance(given, FileCredential):
        return FileSource(
            name, given.path, clock=around.clock, register=around.register_as(name), expiry=jwt_expiry, fits=fits
        )

    asking = _begun(name, given, around) if isinstance(given, OAuthCredential) else grant(name, given, around)
    lent = borrowed_in(given)
    return TokenSource(
        name,
        BorrowingGrant(asking, lent, lender, wait=LENDING_SECONDS) if lent else asking,
        fingerprint=given.digest,
        margin=given.margin,
        clock=around.clock,
        latch=around.latch,
        store=around.store,
        binding=binding_of(name, config),
        inherits=isinstance(given, OAuthCredential) and given.inherits,
        fits=fits,
        random=around.random,
        register=around.register_as(name),
        events=around.events,
        kin=kin_of(name, config),
    )


def _begun(name: str, given: OAuthCredential, around: Surroundings) -> Grant:
    """The grant, and the refresh token that the configuration brings, if it does."""
    if given.refresh_token is None:
        return grant(name, given, around)
    token, home = given.refresh_token.value, around.store.redeemed
    return BroughtGrant(
        name,
        grant(name, given.model_copy(update={"refresh_token": None}), around),
        token,
        None if home is None else Redeemed(home, name, token, wall=around.clock.wall),
        is_sole=given.grant == "refresh_token",
    )


def _static_token(given: StaticCredential, clock: Clock) -> Token:
    value = given.token.value
    reader = {"jwt": jwt_expiry, "vanilla": vanilla_expiry}.get(given.expires or "")
    expires_at_wall = reader(value.reveal()) if reader is not None else None
    now = clock.now()
    return Token(value, 1, now, None if expires_at_wall is None else now + expires_at_wall - clock.wall())
