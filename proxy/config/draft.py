"""A configuration whose parts are valid by themselves, on its way to being checked as a whole."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from proxy.config.credentials import CredentialConfig
from proxy.config.listeners import ListenAddress
from proxy.config.model import AdminConfig, ExecConfig, GuardConfig
from proxy.config.routing import RouteConfig
from proxy.config.store import StoreConfig


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of a configuration that are valid by themselves; the others are missing.

    `names` are all credentials that were written, `wanted` those that routes name by their index, and `route_names`
    those of the routes, valid or not; `literals_refused` says why secrets may not be written out (None: they may).
    """

    listen: tuple[ListenAddress, ...] = ()
    routes: Mapping[int, RouteConfig] = field(default_factory=dict)
    credentials: Mapping[str, CredentialConfig] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    wanted: Mapping[int, str] = field(default_factory=dict)
    route_names: frozenset[str] = frozenset()
    guard: GuardConfig | None = None
    admin: AdminConfig | None = None
    store: StoreConfig | None = None
    exec: ExecConfig | None = None
    literals_refused: str | None = None

    def users(self, credential: str) -> Iterator[tuple[int, RouteConfig]]:
        """The routes that use a credential."""
        return ((index, route) for index, route in self.routes.items() if route.credential == credential)
