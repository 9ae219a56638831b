"""Tries a configuration for real: names, TLS, clocks, the token request, and one harmless request to each upstream.

It starts the proxy in this process on a port of its own and asks it, so that what works here works there. Nothing
that it says holds a secret: the sentences are those of the proxy's own answers.
"""

import asyncio
import http.client
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from proxy.config import Config, TcpAddress
from proxy.config.addresses import url as parsed_url
from proxy.config.anycredential import AskingCredential
from proxy.config.clienttls import ClientTLS
from proxy.config.routing import RouteConfig
from proxy.credentials.credential import Report
from proxy.errors import CredentialError
from proxy.routes import Origin
from proxy.server import Instance, World
from proxy.tls import client_context

#: Seconds for each connection.
CONNECT_SECONDS: Final = 10.0
#: A clock that is off by more than this makes tokens look expired, or not yet good.
CLOCK_SECONDS: Final = 60.0
#: A certificate that ends within so many days.
CERTIFICATE_DAYS: Final = 14.0
#: The proxy's own answers where there is no token.
_NO_TOKEN: Final = frozenset({"credential_rejected", "credential_unavailable", "login_required"})
_BODY_LIMIT: Final = 64 * 1024

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis: what was tried, and what came of it, with the mend where there is one to tell."""

    status: Status
    what: str
    detail: str


async def examine(config: Config, world: World) -> AsyncIterator[Finding]:
    """Every finding as soon as it is there. Raises `ConfigError` for what cannot be built."""
    for warning in config.warnings:
        yield Finding("warning", "config", warning)
    if not config.warnings:
        yield Finding("ok", "config", f"{len(config.routes)} routes, {len(config.credentials)} credentials")
    own = TcpAddress("127.0.0.1", 0)
    admin, log = config.admin.model_copy(update={"listen": None}), config.log.model_copy(update={"access": False})
    instance = await Instance.start(config.model_copy(update={"listen": (own,), "admin": admin, "log": log}), world)
    try:
        for what, origin, context in _servers(config, world):
            yield await _server(what, origin, context, world)
        for name in config.credentials:
            yield await _credential(name, instance)
        for route in config.routes:
            async for finding in _route(route, config, instance, world):
                yield finding
    finally:
        await instance.close()


def _servers(config: Config, world: World) -> Iterator[tuple[str, Origin, ssl.SSLContext | None]]:
    """Every server that is spoken to directly, with what verifies it where it speaks TLS."""
    for name, credential in config.credentials.items():
        for url in credential.urls().values():
            origin, _path = parsed_url(url, query=True)
            tls = credential.tls if isinstance(credential, AskingCredential) else ClientTLS.model_construct()
            yield f"credential {name}", origin, _context(origin, tls, ca=world.token_ca)
    for route in config.routes:
        if route.upstream_origin.socket is None and route.via is None:
            context = _context(route.upstream_origin, route.tls, insecure=route.tls.insecure)
            yield f"route {route.name}", route.upstream_origin, context


def _context(
    origin: Origin, tls: ClientTLS, *, ca: Path | None = None, insecure: bool = False
) -> ssl.SSLContext | None:
    if origin.scheme != "https":
        return None
    return client_context(tls.ca or ca, cert=tls.cert, key=tls.key, insecure=insecure)


async def _server(what: str, origin: Origin, context: ssl.SSLContext | None, world: World) -> Finding:
    """Can the name be resolved, a connection be made, its certificate be verified?"""
    where = f"{origin.host}:{origin.port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _reader, writer = await asyncio.open_connection(origin.host, origin.port, ssl=context)
    except TimeoutError:
        return Finding("failure", what, f"{where} does not answer: check the address, and firewalls on the way")
    except ssl.SSLCertVerificationError:
        mend = "it must name this host and be issued by a known authority; name a private one in tls.ca"
        return Finding("failure", what, f"the certificate of {where} cannot be verified: {mend}")
    except ssl.SSLError:
        return Finding("failure", what, f"{where} speaks no TLS that we do (1.2 or later): check scheme and port")
    except socket.gaierror:
        return Finding("failure", what, f"the name {origin.host} cannot be resolved: check it, and the DNS")
    except OSError:
        return Finding("failure", what, f"no connection to {where}: check the address, and whether the server runs")
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    writer.close()
    if "notAfter" not in certificate:
        return Finding("ok", what, f"{where} is there")
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - world.clock.wall()) / 86400
    status: Status = "warning" if days < CERTIFICATE_DAYS else "ok"
    return Finding(status, what, f"{where} is there, its certificate good for {days:.0f} days")


async def _credential(name: str, instance: Instance) -> Finding:
    """One token request, or the token that there is."""
    what = f"credential {name}"
    try:
        report = await instance.obtain(name)
    except CredentialError as error:
        return Finding("failure", what, error.detail)
    return Finding("ok" if report.state != "invalid" else "failure", what, _state(report))


def _state(report: Report) -> str:
    if report.state == "invalid":
        return "its token has expired: make a new one at the vendor"
    if report.expires_in is None:
        return "has a token; nobody says how long it is good"
    return f"has a token, good for {report.expires_in / 60:.0f} minutes"


async def _route(route: RouteConfig, config: Config, instance: Instance, world: World) -> AsyncIterator[Finding]:
    """One GET of the route's base, through the proxy."""
    what = f"route {route.name}"
    path = route.prefix if route.prefix.endswith("/") else f"{route.prefix}/"
    headers = {"Host": route.host or "localhost", "Accept": "*/*"}
    if config.guard.client_key is not None:
        headers["X-Proxy-Key"] = config.guard.client_key.value.reveal()
    answer = await asyncio.to_thread(_get, instance.urls[0], path, headers)
    yield _verdict(what, route, answer)
    if answer.date is not None:
        yield _clock(what, answer.date - world.clock.wall())


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back: `code` and `detail` where the proxy itself answered, `date` in epoch seconds."""

    status: int
    code: str | None
    detail: str
    proxy_status: str
    date: float | None


def _get(url: str, path: str, headers: dict[str, str]) -> _Answer:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        is_problem = response.getheader("Content-Type", "").startswith("application/problem+json")
        # Anything else may be without end.
        ours = _problem(response.read(_BODY_LIMIT)) if is_problem else {}
        date = None if ours.get("code") else _seconds(response.getheader("Date"))
        detail, status = str(ours.get("detail", "")), response.getheader("Proxy-Status", "")
        return _Answer(response.status, ours.get("code"), detail, status, date)
    except (OSError, http.client.HTTPException):
        return _Answer(504, "upstream_timeout", "the answer did not come, or not whole", "bearer-proxy", None)
    finally:
        connection.close()


def _problem(body: bytes) -> dict[str, str]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _verdict(what: str, route: RouteConfig, answer: _Answer) -> Finding:
    base = f"GET {route.upstream}"
    if answer.code == "path_denied":
        return Finding("ok", what, "its base is denied by its own rules, so nothing was sent")
    if answer.code in _NO_TOKEN:
        return Finding("failure", what, f"{base}: nothing was sent, see credential {route.credential}")
    if answer.code is not None and "bearer-proxy" in answer.proxy_status:
        return Finding("failure", what, f"{base}: {answer.detail}")
    if answer.status in (401, 403) or "credential rejected" in answer.proxy_status:
        who = "its token" if route.credential else "a request without a credential"
        mend = "check which rights it has, and for whom it was made" if route.credential else "add credential: NAME"
        return Finding("failure", what, f"{base}: {answer.status}, the upstream refuses {who}: {mend}")
    if answer.status >= 500:
        return Finding("warning", what, f"{base}: {answer.status}, the upstream has a failure of its own")
    return Finding("ok", what, f"{base}: {answer.status}")


def _clock(what: str, ahead: float) -> Finding:
    if abs(ahead) <= CLOCK_SECONDS:
        return Finding("ok", what, "the upstream's clock and this one agree")
    side = "behind" if ahead > 0 else "ahead of"
    mend = "set it by NTP, or signed and short-lived tokens fail"
    return Finding(
        "warning", what, f"this machine's clock is {abs(ahead):.0f} seconds {side} the upstream's: {mend}"
    )
