"""Tries a configuration for real: names, TLS, clocks, store, token requests, one harmless request to each upstream.

It starts the proxy in this process on a port of its own and asks it, so that what works here works there. Nothing
that it says holds a secret: the sentences are those of the proxy's own answers.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from proxy.accesslog import Exchange
from proxy.build.guard import key_for
from proxy.config import Config, OAuthCredential, TcpAddress
from proxy.config.addresses import url as parsed_url
from proxy.config.anycredential import AskingCredential
from proxy.config.clienttls import ClientTLS
from proxy.config.model import PeersConfig, borrowed_in
from proxy.config.routing import RouteConfig
from proxy.config.tracing import TracingConfig
from proxy.credentials.credential import Report
from proxy.errors import CredentialError
from proxy.findings import Finding, Status
from proxy.probing import Reply, connect, date_of, get
from proxy.redact import printable
from proxy.routes import Origin
from proxy.server import Instance, World
from proxy.storecheck import WHAT, examined
from proxy.tls import client_context

#: Seconds for each connection, and for a request through the proxy with all that it waits for.
CONNECT_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 30.0
#: A clock that is off by more than this makes tokens look expired, or not yet good.
CLOCK_SECONDS: Final = 60.0
#: A certificate that ends within so many days.
CERTIFICATE_DAYS: Final = 14.0
_SPENDS: Final = (
    "a server that rotates takes refresh_token once, and with store.kind: memory nobody else would hear of the "
    "next one, so a running instance would be logged out: set store.kind: file, or look at what that instance says"
)
#: The proxy's own answers where there is no token.
_NO_TOKEN: Final = frozenset({"credential_rejected", "credential_unavailable", "login_required"})


@dataclass(frozen=True, slots=True)
class _Server:
    """A server that is spoken to directly, and what its certificate is verified with."""

    what: str
    origin: Origin
    tls: ClientTLS
    #: Instead of the machine's authorities, where `tls` names none.
    ca: Path | None = None
    insecure: bool = False
    #: The name in its certificate; None: its host.
    name: str | None = None
    #: Is its clock asked for on this very connection?
    has_clock: bool = False

    def context(self) -> ssl.SSLContext | None:
        """None where it speaks no TLS."""
        if self.origin.scheme != "https":
            return None
        tls = self.tls
        return client_context(tls.ca or self.ca, cert=tls.cert, key=tls.key, insecure=self.insecure)


async def examine(config: Config, world: World) -> AsyncIterator[Finding]:
    """Every finding as soon as it is there. Raises `ConfigError` for what cannot be built."""
    for warning in config.warnings:
        yield Finding("warning", "config", warning)
    if not config.warnings:
        routes, credentials = _counted(len(config.routes), "route"), _counted(len(config.credentials), "credential")
        yield Finding("ok", "config", f"{routes}, {credentials}")
    own = TcpAddress("127.0.0.1", 0)
    admin, log = config.admin.model_copy(update={"listen": None}), config.log.model_copy(update={"access": False})
    guard = config.guard
    if isinstance(guard.peers.uids, tuple):
        # Others may connect to the proxy; to this one only we do.
        guard = guard.model_copy(update={"peers": PeersConfig(uids=("self",))})
    alone = config.model_copy(
        update={"listen": (own,), "admin": admin, "log": log, "guard": guard, "tracing": TracingConfig()}
    )
    exchanges = asyncio.Queue[Exchange]()
    instance = await Instance.start(alone, replace(world, observe=exchanges.put_nowait))
    try:
        if (problem := await instance.problem_of_state()) is not None:
            yield Finding("warning", "state", problem)
        for what, findings in _findings(config, world, instance, exchanges):
            async with aclosing(_guarded(what, findings)) as guarded:
                async for finding in guarded:
                    yield finding
    finally:
        await instance.close()


def _findings(
    config: Config, world: World, instance: Instance, exchanges: asyncio.Queue[Exchange]
) -> Iterator[tuple[str, AsyncIterator[Finding]]]:
    """All that is looked at, and what it is called."""
    for server in _servers(config, world):
        yield server.what, _server(server, world)
    yield WHAT, examined(config, world.clock.wall())
    spared = _spared(config)
    for name in config.credentials:
        what = f"credential {name}"
        yield what, _untried(what, _SPENDS) if name in spared else _credential(name, instance)
    for route in config.routes:
        what = f"route {route.name}"
        tried = _route(route, config, instance, world, exchanges)
        yield what, _untried(what, f"see credential {route.credential}") if route.credential in spared else tried


def _spared(config: Config) -> set[str]:
    """Credentials that would redeem a refresh token of the configuration of which nobody else would hear.

    A running instance holds what came in its place, or it was not redeemed yet, and the next start will do that.
    """
    if config.store.kind != "memory":
        return set()
    given = config.credentials.items()
    spared = {name for name, each in given if isinstance(each, OAuthCredential) and each.refresh_token is not None}
    while more := {
        name
        for name, each in given
        if name not in spared and any(one.lender in spared for one in borrowed_in(each))
    }:
        spared |= more
    return spared


async def _untried(what: str, why: str) -> AsyncIterator[Finding]:
    """It is said, so that nobody takes it for well."""
    yield Finding("warning", what, f"not tried: {why}")


async def _guarded(what: str, findings: AsyncIterator[Finding]) -> AsyncGenerator[Finding]:
    """These findings in printable text; one that cannot be made hides no others."""
    try:
        async for each in findings:
            yield replace(each, detail=printable(each.detail))
    except Exception as error:  # noqa: BLE001  what is looked at is not ours, and may be hostile
        yield Finding("failure", what, f"the doctor cannot judge this ({type(error).__name__}): please report it")


def _servers(config: Config, world: World) -> Iterator[_Server]:
    if config.store.url is not None and (at := config.store.server).socket is None:
        yield _Server(WHAT, Origin("https" if at.tls else "http", at.host, at.port), config.store.tls)
    for name, credential in config.credentials.items():
        tls = credential.tls if isinstance(credential, AskingCredential) else ClientTLS.model_construct()
        for url in credential.urls().values():
            origin, _path = parsed_url(url, query=True)
            yield _Server(f"credential {name}", origin, tls, ca=world.token_ca, has_clock=True)
    for route in config.routes:
        if route.upstream_origin.socket is None and route.via is None:
            tls = route.tls
            what, origin = f"route {route.name}", route.upstream_origin
            yield _Server(what, origin, tls, insecure=tls.insecure, name=tls.server_name)


async def _server(server: _Server, world: World) -> AsyncIterator[Finding]:
    """Can the name be resolved, a connection be made, its certificate be verified? Is its clock as ours?"""
    what, where = server.what, f"{server.origin.host}:{server.origin.port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await connect(server.origin, server.context(), server.name)
    except (OSError, ValueError) as error:
        yield Finding("failure", what, _unreachable(error, server.origin.host, where))
        return
    try:
        yield _certificate(what, where, writer.get_extra_info("peercert") or {}, world)
        if server.has_clock:
            async with asyncio.timeout(CONNECT_SECONDS):
                date = await date_of(reader, writer, server.origin)
            if date is not None:
                yield _clock(what, date - world.clock.wall(), "the token server's")
    except TimeoutError:
        pass  # it tells no time; whether it gives tokens says the finding after this one
    finally:
        writer.close()


def _unreachable(error: Exception, host: str, where: str) -> str:
    """Why there is no connection, most specific first, and the mend."""
    if isinstance(error, TimeoutError):
        return f"{where} does not answer: check the address, and firewalls on the way"
    if isinstance(error, ssl.SSLCertVerificationError):
        mend = "it must name this host and be issued by a known authority; name a private one in tls.ca"
        return f"the certificate of {where} cannot be verified: {mend}"
    if isinstance(error, ssl.SSLError):
        return f"{where} speaks no TLS that we do (1.2 or later): check scheme and port"
    if isinstance(error, socket.gaierror | ValueError):
        return f"the name {host} cannot be resolved: check it, and the DNS"
    return f"no connection to {where}: check the address, and whether the server runs"


def _certificate(what: str, where: str, certificate: dict[str, Any], world: World) -> Finding:
    if "notAfter" not in certificate:
        return Finding("ok", what, f"{where} is there")
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - world.clock.wall()) / 86400
    status: Status = "warning" if days < CERTIFICATE_DAYS else "ok"
    return Finding(status, what, f"{where} is there, its certificate good for {_counted(round(days), 'day')}")


async def _credential(name: str, instance: Instance) -> AsyncIterator[Finding]:
    """One token request, or the token that there is."""
    what = f"credential {name}"
    try:
        report = await instance.obtain(name)
    except CredentialError as error:
        yield Finding("failure", what, error.detail)
        return
    yield Finding("ok" if report.state != "invalid" else "failure", what, _state(report))


def _state(report: Report) -> str:
    if report.state == "invalid":
        return "its token has expired: make a new one at the vendor"
    if report.expires_in is None:
        return "has a token; nobody says how long it is good"
    if report.expires_in < 60:
        return "has a token, good for less than a minute"
    return f"has a token, good for {_counted(round(report.expires_in / 60), 'minute')}"


def _counted(number: int, unit: str) -> str:
    """`1 minute`, `2 minutes`."""
    return f"{number} {unit}{'' if number == 1 else 's'}"


async def _route(
    route: RouteConfig, config: Config, instance: Instance, world: World, exchanges: asyncio.Queue[Exchange]
) -> AsyncIterator[Finding]:
    """One GET of the route's base, through the proxy."""
    what = f"route {route.name}"
    path = route.prefix if route.prefix.endswith("/") else f"{route.prefix}/"
    fields = {"Host": route.host or "localhost", "Accept": "*/*"}
    if (key := key_for(config, path)) is not None:
        fields["X-Proxy-Key"] = key.secret.reveal()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            reply = await get(instance.urls[0], path, fields)
            # One that was given up on may end late.
            while (exchange := await exchanges.get()).route not in {"", route.name}:
                pass
    except (OSError, ValueError):
        detail = f"the answer did not come, or not whole, within {REQUEST_SECONDS:.0f} seconds"
        yield Finding("failure", what, f"GET {route.upstream}: {detail}")
        return
    own = reply.detail(exchange)
    yield _verdict(what, route, reply, exchange) if own is None else _own_verdict(what, route, exchange.error, own)
    if own is None and reply.date is not None:
        yield _clock(what, reply.date - world.clock.wall(), "the upstream's")


def _own_verdict(what: str, route: RouteConfig, code: str, detail: str) -> Finding:
    """Where the proxy itself answered."""
    base = f"GET {route.upstream}"
    if code == "path_denied":
        return Finding(
            "ok", what, "its base is denied by its own rules, or to every client key, so nothing was sent"
        )
    if code in _NO_TOKEN:
        return Finding("failure", what, f"{base}: nothing was sent, see credential {route.credential}")
    return Finding("failure", what, f"{base}: {detail}")


def _verdict(what: str, route: RouteConfig, reply: Reply, exchange: Exchange) -> Finding:
    base = f"GET {route.upstream}"
    # A refusal that a newer token cured is none.
    is_refused = exchange.refusals > int(exchange.retried)
    if reply.status in (401, 403) or is_refused:
        who = "its token" if route.credential else "a request without a credential"
        mend = "check which rights it has, and for whom it was made" if route.credential else "add credential: NAME"
        return Finding("failure", what, f"{base}: {reply.status}, the upstream refuses {who}: {mend}")
    if reply.status >= 500:
        return Finding("warning", what, f"{base}: {reply.status}, the upstream has a failure of its own")
    return Finding("ok", what, f"{base}: {reply.status}")


def _clock(what: str, ahead: float, whose: str) -> Finding:
    if abs(ahead) <= CLOCK_SECONDS:
        return Finding("ok", what, f"{whose} clock and this one agree")
    side = "behind" if ahead > 0 else "ahead of"
    mend = "set it by NTP, or signed and short-lived tokens fail"
    return Finding("warning", what, f"this machine's clock is {abs(ahead):.0f} seconds {side} {whose}: {mend}")
