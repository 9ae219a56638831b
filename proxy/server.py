"""A running instance: it builds the objects, opens the listeners, and drains.

Order of a start: every address is bound, or none; then the doors open. Order of an end: no new connections,
requests in flight finish, token requests in flight finish, everything closes (threats 19, 111, 122).
"""

import asyncio
import logging
import math
import random
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy import build
from proxy.accesslog import UNROUTED_A_SECOND, AccessLog, Exchange, Observers, Spared
from proxy.admin.app import admin_handler
from proxy.admin.metrics import Metrics
from proxy.clock import Clock, SystemClock
from proxy.config import Config
from proxy.config.listeners import ListenAddress, TcpAddress
from proxy.credentials.credential import Report, warn_of_ends
from proxy.credentials.endpoint import Clients
from proxy.credentials.source import TokenSource
from proxy.errors import CredentialError
from proxy.guard import Guard
from proxy.lines import Lines
from proxy.listener.connection import Handler
from proxy.listener.server import Server
from proxy.process import ADMIN_PLACES, most_connections
from proxy.redact import Redactor, Secret
from proxy.relay import Relay
from proxy.sockets import BACKLOG, ListenError, bind_tcp, bind_unix, remove_file, url_of
from proxy.waking import Waking

log: Final = logging.getLogger("proxy")

#: How long a connection to the admin listener may rest, and a head take there: who comes there asks at once.
ADMIN_SECONDS: Final = 5.0
#: How long a token request in flight may take to end on shutdown.
TOKEN_DRAIN_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class World:
    """What an instance needs of its surroundings; tests give their own.

    `state` is the folder for what must outlive the process, `lines` where the access log goes, `random` gives
    floats in [0, 1), `token_ca` is a bundle of certificate authorities for token endpoints (None: the machine's),
    `observe` is told of every exchange beside the metrics and the access log. `unrouted_a_second` bounds the lines
    about requests that reached no route.
    """

    redactor: Redactor
    state: Path
    clock: Clock = field(default_factory=SystemClock)
    random: Callable[[], float] = random.random
    lines: Lines = field(default_factory=lambda: Lines(sys.stderr))
    token_ca: Path | None = None
    observe: Callable[[Exchange], None] | None = None
    unrouted_a_second: int = UNROUTED_A_SECOND


class Instance:
    """One running proxy. Make it with `start`, end it with `drain`."""

    def __init__(self, config: Config, world: World) -> None:
        self._config = config
        self._world = world
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._admin_servers: list[asyncio.Server] = []
        self._clients = Clients(ca=world.token_ca)
        self.metrics = Metrics(self.reports, world.clock.now)
        # One that is borrowed is still empty.
        for value in (*(source.value for _, source in config.secrets()), *config.literals()):
            world.redactor.register(value)
        self._store = build.store(config, clock=world.clock, state=world.state)
        self._latch = build.latch(config, world.state, self._store)
        key = config.admin.key
        self.admin_key = Secret(secrets.token_urlsafe(24)) if key is None else key.value
        world.redactor.register(self.admin_key)
        around = build.Surroundings(
            clock=world.clock,
            random=world.random,
            latch=self._latch,
            store=self._store,
            redactor=world.redactor,
            events=self.metrics,
            clients=self._clients,
        )
        self._credentials = build.credentials(config, around)
        self._bindings = build.bindings(config, self._credentials, clock=world.clock)
        self._waking = Waking(world.clock, world.random, at_once=self._drop_idle, soon=self._look_ahead)
        self._observe = self._observer()
        self._relay = Relay(
            guard=build.guard(config),
            bindings=self._bindings,
            clock=world.clock,
            observe=self._observe,
            body_most=config.limits.body_bytes,
        )
        self._peers, self._owner = build.peers(config), build.owner(config)
        self._most_connections = most_connections(wanted := config.limits.connections)
        if self._most_connections < wanted:
            fields = {"limits.connections": wanted, "most": self._most_connections, "mend": "raise ulimit -n"}
            log.warning("connections_capped", extra={"fields": fields})
        self._data = self._server(self._relay.handle)
        # It shows nothing of an upstream, so a browser may show what it says.
        answers = admin_handler(self, self.metrics, self.admin_key, Guard(browser=True))
        self._admin = self._server(answers, is_admin=True)
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
            warn_of_ends(instance._credentials.values())
            await instance.problem_of_state()
        except BaseException:
            await instance.close()
            raise
        instance._waking.start()
        return instance

    # -- what the admin listener shows

    @property
    def is_busy(self) -> bool:
        """Are requests in flight?"""
        return self._data.is_busy

    @property
    def is_draining(self) -> bool:
        """Is the instance on its way out?"""
        return self._relay.draining

    def reports(self) -> list[Report]:
        """The state of every credential."""
        return [each.source.report() for each in self._credentials.values()]

    def problems(self) -> dict[str, CredentialError]:
        """Why a credential in use has no usable token, by its name."""
        used = {route.credential for route in self._config.routes}
        found = {name: each.source.problem for name, each in self._credentials.items() if name in used}
        return {name: problem for name, problem in found.items() if problem is not None}

    async def problem_of_state(self) -> str | None:
        """Why a rejected secret would be forgotten at the next restart, if it would; that is logged once."""
        is_needed = any(isinstance(each.source, TokenSource) for each in self._credentials.values())
        return await self._latch.try_out() if is_needed else None

    async def refresh(self, name: str) -> Report:
        """Get a new token for a credential now. Raises `KeyError`, or a `CredentialError`."""
        credential = self._credentials[name]
        await credential.source.refresh(self._wait(name))
        return credential.source.report()

    async def obtain(self, name: str) -> Report:
        """See to it that a credential has a usable token. Raises `KeyError`, or a `CredentialError`."""
        await self._credentials[name].source.token(self._wait(name))
        return self._credentials[name].source.report()

    def _wait(self, name: str) -> float:
        """How long somebody may wait for a token of this credential."""
        waits = [route.timeouts.token for route in self._config.routes if route.credential == name]
        return max(waits, default=20.0)

    # -- the end

    async def drain(self) -> None:
        """No new connections; requests in flight finish within `limits.drain` seconds; then everything closes.

        The admin listener stays until then, so that `/readyz` can say what goes on (threat 122).
        """
        log.info("draining")
        self._relay.draining = True
        self._close_doors()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.limits.drain):
                await self._data.drain()
        await self.close()
        log.info("stopped")

    async def close(self) -> None:
        """Close everything at once, but let a token request in flight end."""
        self._waking.stop()
        self._close_doors()
        for server in self._admin_servers:
            server.close()
        for bound in self._sockets:
            bound.close()
        for peers in filter(None, (self._peers, self._owner)):
            peers.close()
        await asyncio.gather(self._data.close(), self._admin.close())
        await asyncio.gather(*(each.source.close(TOKEN_DRAIN_SECONDS) for each in self._credentials.values()))
        for binding in self._bindings.values():
            binding.pool.close()
        await self._clients.close()
        self._observe.close()
        await self._store.close()

    def _close_doors(self) -> None:
        for bound in self._sockets:
            remove_file(bound)
        for server in self._servers:
            server.close()

    # -- after a suspend

    def _drop_idle(self) -> None:
        for binding in self._bindings.values():
            binding.pool.drop_idle()

    def _look_ahead(self) -> None:
        for each in self._credentials.values():
            if isinstance(each.source, TokenSource):
                each.source.ahead.look()

    # -- the beginning

    def _observer(self) -> Observers:
        """Who is told of each exchange: the metrics, the world, and the access log where it is on."""
        told: list[Callable[[Exchange], None]] = [self.metrics.observe]
        if self._world.observe is not None:
            told.append(self._world.observe)
        if not self._config.log.access:
            return Observers(*told)
        write = AccessLog(
            self._world.lines,
            self._world.redactor,
            json_lines=self._config.log.format == "json",
            wall=self._world.clock.wall,
        )
        now, most = self._world.clock.now, self._world.unrouted_a_second
        return Observers(*told, Spared(write, _tell_of_spared, now, most=most))

    def _server(self, handler: Handler, *, is_admin: bool = False) -> Server:
        """A listener's server; on the admin listener others leave the owner room, and are answered (threat 115)."""
        limits, peers = self._config.limits, self._owner if is_admin else self._peers
        most = ADMIN_SECONDS if is_admin else math.inf
        return Server(
            handler,
            observe=self._observe,
            header_bytes=limits.header_bytes,
            header_seconds=min(limits.header_time, most),
            idle_seconds=min(limits.idle, most),
            most_connections=ADMIN_PLACES if is_admin else self._most_connections,
            admits=None if peers is None else peers.admits,
            answers_strangers=is_admin,
        )

    async def _listen(self) -> None:
        for peers in (self._peers, self._owner):
            if peers is not None:
                peers.begin()
        for address in self._config.listen:
            self._sockets += _bind(address)
        listening = tuple(self._sockets)
        admin = self._bind_admin()
        self._sockets += admin
        loop = asyncio.get_running_loop()
        for bound in listening:
            self._servers.append(await loop.create_server(self._data, sock=bound, backlog=BACKLOG))
        for bound in admin:
            self._admin_servers.append(await loop.create_server(self._admin, sock=bound, backlog=BACKLOG))
        self.urls = [url_of(bound) for bound in listening]
        self.admin_url = url_of(admin[0]) if admin else None

    def _bind_admin(self) -> list[socket.socket]:
        address = self._config.admin.listen
        if address is None:
            return []
        try:
            return bind_tcp(address.host, address.port)
        except ListenError:
            if not self._config.admin.listen_is_default:
                raise
            return bind_tcp(address.host, 0)


def _tell_of_spared(count: int) -> None:
    log.warning("requests_without_route", extra={"fields": {"not_logged": count}})


def _bind(address: ListenAddress) -> list[socket.socket]:
    if isinstance(address, TcpAddress):
        return bind_tcp(address.host, address.port, reuse_port=address.reuse_port)
    return [bind_unix(Path(address.path), mode=address.mode, group=address.group)]
