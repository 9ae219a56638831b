"""What the admin listener answers from: made of a configuration, for one instance."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from proxy.accesslog import Exchange, Observers
from proxy.admin.app import View, admin_handler
from proxy.admin.documents import Paths
from proxy.admin.entrance import Entrance
from proxy.admin.inspector import Inspector, Proxied
from proxy.admin.journal import Journal
from proxy.admin.machinery import Machinery
from proxy.admin.metrics import Metrics
from proxy.admin.timeline import Timeline
from proxy.build.guard import client_keys
from proxy.clock import Clock
from proxy.config import Config
from proxy.credentials.events import Events
from proxy.guard import Guard
from proxy.listener.connection import Handler
from proxy.listener.request import Request
from proxy.notes import Notes, begin
from proxy.redact import Redactor, Secret


class Administered(View, Proxied, Protocol):
    """An instance, as far as its admin listener knows it."""

    def pools(self) -> Mapping[str, Mapping[str, int]]:
        """The state of each route's connections, as `Machinery` has it."""
        ...


class Office:
    """The metrics and the journal of an instance.

    There is no journal where `admin.inspector` is false, or there is no admin listener.
    """

    def __init__(self, config: Config, instance: Administered, *, redactor: Redactor, clock: Clock) -> None:
        kept = config.admin.inspector
        self._redactor = redactor
        self._instance = instance
        self.machinery = Machinery(instance.pools)
        self.metrics = Metrics(instance.reports, clock.now, self.machinery.families)
        self.journal: Journal | None = None
        self._timeline: Timeline | None = None
        if kept.exchanges and config.admin.listen is not None:
            self.journal = Journal(kept.exchanges, kept.bodies, redactor, clock.wall)
            self._timeline = Timeline(self.metrics, self.journal, instance.reports, clock.wall)
        #: Gives the exchange of a request that begins, and what its way is noted in; None: nobody looks on.
        self.begin: Callable[[Request], tuple[Exchange, Notes]] | None = None
        #: Who is told of finished exchanges.
        self.observe: Callable[[Exchange], None] = self.metrics.observe
        if self.journal is not None:
            self.begin, self.observe = self.journal.book.begin, Observers(self.observe, self.journal.book.end)
        self._end: Callable[[], Awaitable[None]] = _nothing
        if config.tracing.otlp is not None:
            from proxy.tracing import Tracing, exporter  # noqa: PLC0415  it takes as long to load as all the rest

            given = config.tracing
            tracing = Tracing(exporter(config.tracing.otlp), given.ratio, redactor, clock.wall, self.begin or begin)
            self.begin, self.observe, self._end = tracing.begin, Observers(self.observe, tracing), tracing.close

    async def close(self) -> None:
        """Nothing more happens: hand over what others are still to be told."""
        await self._end()

    @property
    def events(self) -> Events:
        """Who is told of token requests."""
        return self.metrics if self._timeline is None else self._timeline

    def handler(self, key: Secret) -> Handler:
        """What answers on the admin listener, which `key` opens.

        It shows nothing of an upstream as a page of its own, so a browser may show what it says.
        """
        entrance = Entrance(key)
        for secret in (key, entrance.cookie):
            self._redactor.register(secret)
        more: Paths = {}
        if self.journal is not None and self._timeline is not None:
            more = Inspector(self.journal, self._timeline, self._instance).paths()
        return admin_handler(self._instance, self.metrics, entrance, Guard(browser=True), more)


async def _nothing() -> None:
    """Nobody has to be told."""


def key_of(config: Config, client: str) -> Secret | None:
    """The client key that `client`, as the log calls it, showed, or the first; None: none is asked for."""
    keys = list(client_keys(config))
    name = client.partition("@")[0] if "@" in client else None
    named = next((each for each in keys if each.name == name), None)
    chosen = named or (keys[0] if keys else None)
    return None if chosen is None else chosen.secret
