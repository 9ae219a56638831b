"""One credential outside a running instance, as `login` and `logout` need it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.build.grants import endpoints, oauth_grant
from proxy.build.sources import binding_of
from proxy.build.stores import store
from proxy.build.surroundings import Means
from proxy.config import Config, CredentialConfig, OAuthCredential
from proxy.credentials.discovery import Endpoints
from proxy.credentials.interactive import Login, Person
from proxy.credentials.oauth2 import OAuthGrant
from proxy.errors import ConfigError
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


def opened(config: Config, name: str, means: Means) -> Opened:
    """The credential `name`. Raises `ConfigError`."""
    given = config.credentials[name]
    if not isinstance(given, OAuthCredential):
        return Opened(name, given, means, None)
    where = endpoints(name, given, means)
    return Opened(name, given, means, (oauth_grant(name, given, means, where), where))


def resting(config: Config, name: str, means: Means) -> tuple[Store, bytes]:
    """The store of a configuration, and what binds the records of a credential in it; close the store.

    Raises `ConfigError` where the store ends with the process.
    """
    found = store(config, clock=means.clock)
    if not found.lasting:
        raise ConfigError([_NOT_LASTING])
    return found, binding_of(name, config, means)
