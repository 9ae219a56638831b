"""A running instance: it opens the listeners, serves by a configuration and then by another, and drains.

Order of a start: every address is bound, or none; then the doors open. Order of an end: no new connections,
requests in flight finish, token requests in flight finish, everything closes (threats 19, 111, 122).
"""

import asyncio
import logging
import secrets
import socket
from contextlib import suppress
from dataclasses import replace
from typing import Final

from proxy import build
from proxy.config import Config
from proxy.configured import Configured, fixed, mask
from proxy.credentials.credential import Report, warn_of_ends
from proxy.credentials.endpoint import Clients
from proxy.doors import open_doors
from proxy.errors import ConfigError, CredentialError
from proxy.lag import Lag
from proxy.listener.server import Server, Terms
from proxy.office import Office, key_of
from proxy.process import ADMIN_PLACES, most_connections
from proxy.redact import Secret
from proxy.sockets import BACKLOG, remove_file, take_waiting, url_of
from proxy.waking import Waking
from proxy.work import Work
from proxy.world import World

__all__ = ["Instance", "World"]

log: Final = logging.getLogger("proxy")

#: How long a connection to the admin listener may rest, and a head take there: who comes there asks at once.
ADMIN_SECONDS: Final = 5.0
#: How long a token request in flight may take to end on shutdown.
TOKEN_DRAIN_SECONDS: Final = 10.0
#: What everything behind the drain has at least, whatever hangs there: with `limits.drain` (25 s) less than the
#: 30 s after which Compose and Kubernetes kill.
END_SECONDS: Final = 3.0
#: Of that, what is left for the store and the connections when no token request is waited for any more.
_LAST_SECONDS: Final = 1.0


class Instance:
    """One running proxy. Make it with `start`, end it with `drain`."""

    def __init__(self, config: Config, world: World) -> None:
        self._world = world
        self._sockets: list[socket.socket] = []
        self._doors: tuple[socket.socket, ...] = ()  # those for clients
        self._servers: list[asyncio.Server] = []
        self._admin_servers: list[asyncio.Server] = []
        self._office = Office(config, self, redactor=world.redactor, clock=world.clock)
        self.metrics, self.machinery = self._office.metrics, self._office.machinery
        self._lag = Lag(self.machinery.lagged)
        store = build.store(config, clock=world.clock, state=world.state)
        self._around = build.Surroundings(
            clock=world.clock,
            random=world.random,
            latch=build.latch(config, world.state, store),
            store=store,
            redactor=world.redactor,
            events=self._office.events,
            clients=Clients(ca=world.token_ca),
        )
        mask(config, world.redactor)
        self._observe = world.observers(config.log, self._office.observe)
        self._present = Configured(config, self._around, self._observe, self._office.begin)
        #: What was there before a reload, until its last request is answered, and what waits for that.
        self._past: set[Configured] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._waking = Waking(world.clock, world.random, at_once=self._drop_idle, soon=self._look_ahead)
        self._peers, self._owner = build.peers(config), build.owner(config)
        self._random_key = Secret(secrets.token_urlsafe(24))
        world.redactor.register(self._random_key)
        self._data = Server(self._terms())
        self._admin = Server(self._admin_terms(), answers_strangers=True)
        self.urls: list[str] = []
        self.admin_url: str | None = None
        #: Set where somebody asks for its end; whoever started it drains it then.
        self.leave = asyncio.Event()

    @classmethod
    async def start(cls, config: Config, world: World) -> "Instance":
        """Open the doors. Raises `ListenError` (and leaves nothing open), or `ConfigError`."""
        instance = cls(config, world)
        try:
            await instance._listen()
            for url in instance.urls:
                log.info("listening", extra={"fields": {"url": url}})
            warn_of_ends(instance._present.credentials.values())
            await instance.problem_of_state()
        except BaseException:
            await instance.close()
            raise
        instance._waking.start()
        instance._lag.start()
        return instance

    # -- what the admin listener shows

    @property
    def admin_key(self) -> Secret:
        """What opens the admin listener: `admin.key`, or a random one of this start."""
        key = self._present.config.admin.key
        return self._random_key if key is None else key.value

    @property
    def has_inspector(self) -> bool:
        """Is there a page that shows requests?"""
        return self._office.journal is not None

    def key_of(self, client: str) -> Secret | None:
        """The client key that `client` (as the log has it) showed, or one that is as good."""
        return key_of(self._present.config, client)

    @property
    def is_busy(self) -> bool:
        """Are requests in flight?"""
        return self._data.is_busy

    @property
    def is_draining(self) -> bool:
        """Is the instance on its way out?"""
        return self._present.relay.draining

    def reports(self) -> list[Report]:
        """The state of every credential."""
        return self._present.reports()

    def problems(self) -> dict[str, CredentialError]:
        """Why a credential in use has no usable token, by its name."""
        return self._present.problems()

    def pools(self) -> dict[str, dict[str, int]]:
        """The state of each route's connections, by its name."""
        return self._present.pools()

    async def problem_of_state(self) -> str | None:
        """Why a rejected secret would be forgotten at the next restart, if it would; that is logged once."""
        return await self._around.latch.try_out() if self._present.asks else None

    async def refresh(self, name: str) -> Report:
        """Get a new token for a credential now. Raises `KeyError`, or a `CredentialError`."""
        return await self._present.refresh(name)

    async def obtain(self, name: str) -> Report:
        """See to it that a credential has a usable token. Raises `KeyError`, or a `CredentialError`."""
        return await self._present.obtain(name)

    # -- another configuration

    async def reload(self, config: Config) -> dict[str, str]:
        """Serve by `config` from now on; gives what is `added`, `removed` and `changed`, by names. One at a time.

        Raises `ConfigError`, and has changed nothing then. Requests in flight end with what they began with; on the
        admin listener they end at once if its key is another one.
        """
        before, admin_key = self._present, self.admin_key
        if problems := fixed(before.config, config):
            raise ConfigError(problems)
        observe = self._observe
        if config.log != before.config.log:
            observe = self._world.observers(config.log, self._office.observe)
        around = replace(self._around, clients=Clients(ca=self._world.token_ca))
        mask(config, self._world.redactor)
        present = await asyncio.to_thread(Configured, config, around, observe, self._office.begin)
        peers = self._peers
        if (config.guard.peers, config.guard.has_keys) != (before.config.guard.peers, before.config.guard.has_keys):
            peers = build.peers(config)
            if peers is not None:
                peers.begin()
        # Nothing is refused from here on, and nothing awaited.
        present.succeed(before)
        build.follow(self._around.store, config)
        self._present, self._observe = present, observe
        old, self._peers = self._peers, peers
        works = self._data.change(self._terms())
        opened = self._admin.change(self._admin_terms())
        if self.admin_key != admin_key:
            for work in opened:  # a page that the key before opened is told of every exchange
                work.cancel()
        if old is not None and old is not peers:
            old.close()
        self._past.add(before)
        ending = asyncio.create_task(self._end_past(before, works), name="the end of an old configuration")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        warn_of_ends(present.credentials.values())
        return present.news(before)

    async def _end_past(self, past: Configured, works: list[Work]) -> None:
        for work in works:
            await work.join()
        await past.end(TOKEN_DRAIN_SECONDS)
        self._past.discard(past)

    # -- the end

    async def drain(self) -> None:
        """No new connections; requests in flight finish within `limits.drain` seconds; then everything closes.

        All of it ends within `END_SECONDS` more, or 10 s more where `limits.drain` is shorter than a token request.
        The admin listener stays until then, so that `/readyz` can say what goes on (threat 122).
        """
        log.info("draining")
        patience, now = self._present.config.limits.drain, asyncio.get_running_loop().time
        ends_at = now() + max(patience, TOKEN_DRAIN_SECONDS) + END_SECONDS
        for each in (self._present, *self._past):
            each.relay.draining = True
        late = [each for door in self._doors for each in take_waiting(door)]
        self._close_doors()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._data.drain(late)
        await self.close(ends_at - now())
        log.info("stopped")

    async def close(self, seconds: float = TOKEN_DRAIN_SECONDS + END_SECONDS) -> None:
        """Close everything at once, but let a token request in flight end; what takes longer than this is left."""
        self._waking.stop()
        self._lag.stop()
        self._close_doors()
        for server in self._admin_servers:
            server.close()
        for bound in self._sockets:
            bound.close()
        for peers in filter(None, (self._peers, self._owner)):
            peers.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(self._data.close(), self._admin.close())
                self._observe.close()
                tokens = min(TOKEN_DRAIN_SECONDS, seconds - _LAST_SECONDS)
                await asyncio.gather(self._present.end(tokens), self._office.close(), *self._endings)
                await self._around.store.close()

    def _close_doors(self) -> None:
        for bound in self._sockets:
            remove_file(bound)
        for server in self._servers:
            server.close()

    # -- after a suspend

    def _drop_idle(self) -> None:
        self._present.drop_idle()

    def _look_ahead(self) -> None:
        self._present.look_ahead()

    # -- the beginning

    def _terms(self) -> Terms:
        """Those of the clients' listeners."""
        limits = self._present.config.limits
        most = most_connections(limits.connections)
        if most < limits.connections:
            fields = {"limits.connections": limits.connections, "most": most, "mend": "raise ulimit -n"}
            log.warning("connections_capped", extra={"fields": fields})
        return Terms(
            handler=self._present.relay.handle,
            observe=self._observe,
            header_bytes=limits.header_bytes,
            header_seconds=limits.header_time,
            idle_seconds=limits.idle,
            most_connections=most,
            admits=None if self._peers is None else self._peers.admits,
        )

    def _admin_terms(self) -> Terms:
        """Those of the admin listener, where others leave the owner room, and are answered (threat 115)."""
        limits = self._present.config.limits
        return Terms(
            handler=self._office.handler(self.admin_key),
            observe=self._observe,
            header_bytes=limits.header_bytes,
            header_seconds=min(limits.header_time, ADMIN_SECONDS),
            idle_seconds=min(limits.idle, ADMIN_SECONDS),
            most_connections=ADMIN_PLACES,
            admits=None if self._owner is None else self._owner.admits,
        )

    async def _listen(self) -> None:
        for peers in (self._peers, self._owner):
            if peers is not None:
                peers.begin()
        listening, admin = open_doors(self._present.config, self._world.passed)
        self._doors = tuple(listening)
        self._sockets += [*listening, *admin]
        loop = asyncio.get_running_loop()
        for bound in listening:
            self._servers.append(await loop.create_server(self._data, sock=bound, backlog=BACKLOG))
        for bound in admin:
            self._admin_servers.append(await loop.create_server(self._admin, sock=bound, backlog=BACKLOG))
        self.urls = [url_of(bound) for bound in listening]
        self.admin_url = url_of(admin[0]) if admin else None
