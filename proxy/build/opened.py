"""One credential outside a running instance, as `login` and `logout` need it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from proxy.build.grants import endpoints, oauth_grant
from proxy.build.sources import LENDING_SECONDS, binding_of, credentials
from proxy.build.stores import store
from proxy.build.surroundings import Means, Surroundings
from proxy.config import Config, CredentialConfig, OAuthCredential
from proxy.config.model import borrowed_in
from proxy.credentials.discovery import Endpoints
from proxy.credentials.interactive import Login, Person
from proxy.credentials.oauth2 import OAuthGrant
from proxy.errors import ConfigError, CredentialError, CredentialUnavailable
from proxy.stores.base import Store

_NOT_LASTING: Final = (
    "store.kind: login needs a store that lasts: set store.kind: file, with store.path and store.key "
    "(`bearer-proxy keygen` makes one)"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A credential. `server` is who gives its tokens, None where that is no authorization server."""

    name: str
    given: CredentialConfig
    means: Means
    server: tuple[OAuthGrant, Endpoints] | None

    def login(self, person: Person, random: Callable[[int], bytes]) -> Login:
        """What asks the person; `random` gives unguessable bytes. Raises `ConfigError` where nobody is needed."""
        given = self.given
        if self.server is None or not isinstance(given, OAuthCredential) or not given.interactive:
            raise ConfigError([f"Credential {self.name!r} needs no person: the proxy logs in by itself."])
        grant, where = self.server
        return Login(
            name=self.name,
            grant=grant,
            endpoints=where,
            person=person,
            clock=self.means.clock,
            random=random,
            register=self.means.register_as(f"{self.name}, login"),
            port=given.redirect_port,
            path=given.redirect_path,
        )


class Lenders:
    """Those that the credential `name` stands on. Raises `ConfigError` where one cannot be built."""

    def __init__(self, config: Config, name: str, around: Surroundings) -> None:
        self._borrowed = borrowed_in(config.credentials[name])
        self._all = credentials(config, around) if self._borrowed else {}

    async def lend(self) -> None:
        """Lend their tokens of now. Raises `CredentialUnavailable`."""
        for each in self._borrowed:
            try:
                token = await self._all[each.lender].source.token(LENDING_SECONDS)
            except CredentialError as error:
                raise CredentialUnavailable(error.detail) from None
            each.lend(token.value)

    async def close(self) -> None:
        """Let token requests in flight end."""
        for each in self._all.values():
            await each.source.close(LENDING_SECONDS)


class _Lending(Endpoints):
    """The same endpoints; whoever asks for one is about to send a request, and what that borrows is lent first."""

    def __init__(self, inner: Endpoints, lend: Callable[[], Awaitable[None]]) -> None:
        self._inner = inner
        self._lend = lend

    async def url(self, member: str) -> str:
        await self._lend()
        return await self._inner.url(member)

    async def find(self, member: str) -> str | None:
        return await self._inner.find(member)

    async def issuer(self) -> tuple[str | None, bool]:
        return await self._inner.issuer()


def opened(config: Config, name: str, means: Means, lenders: Lenders | None = None) -> Opened:
    """The credential `name`, with those that lend to it. Raises `ConfigError`."""
    given = config.credentials[name]
    if not isinstance(given, OAuthCredential):
        return Opened(name, given, means, None)
    where = endpoints(name, given, means)
    if lenders is not None:
        where = _Lending(where, lenders.lend)
    return Opened(name, given, means, (oauth_grant(name, given, means, where), where))


def resting(config: Config, name: str) -> tuple[Store, bytes]:
    """The store of a configuration, and what binds the records of a credential in it; close the store.

    Raises `ConfigError` where the store ends with the process.
    """
    found = store(config)
    if not found.lasting:
        raise ConfigError([_NOT_LASTING])
    return found, binding_of(name, config)
