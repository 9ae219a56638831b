"""Answers the admin listener: is it healthy, what does it count, what state are the credentials in.

Law: never a token value. The three probes are exact paths that need no key and no Host, since orchestrators come by
address (threat 12); everything else passes the guard first and then shows the admin key.
"""

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Final, Protocol

from proxy.accesslog import Exchange
from proxy.admin.exposition import CONTENT_TYPE
from proxy.admin.metrics import Metrics
from proxy.credentials.credential import Report
from proxy.errors import CredentialError, MethodNotAllowed, NoRoute, ProxyError, Rejected
from proxy.guard import Guard
from proxy.listener.answer import ClientAnswer
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request
from proxy.redact import Secret

log: Final = logging.getLogger("proxy")

_READ: Final = ("GET", "HEAD")
_COMMON: Final = (b"Cache-Control: no-store", b"X-Content-Type-Options: nosniff")


class View(Protocol):
    """What the admin listener may see of an instance, and what it may do."""

    @property
    def is_draining(self) -> bool:
        """Is it on its way out?"""
        ...

    def reports(self) -> list[Report]:
        """The state of every credential."""
        ...

    def problems(self) -> dict[str, CredentialError]:
        """Why a credential in use has no usable token, by its name."""
        ...

    async def refresh(self, name: str) -> Report:
        """Get a new token for a credential of `reports` now. Raises a `CredentialError`."""
        ...

    @property
    def leave(self) -> asyncio.Event:
        """To be set to have it end; it drains first."""
        ...


class AdminKeyRequired(Rejected):
    """The admin key was not sent, or is wrong."""

    status = 401
    code = "admin_key_required"
    title = "Admin key required"
    explanation = "Send the admin key as Authorization: Bearer KEY; it is admin.key, or stands in the run file."

    def headers(self) -> tuple[tuple[str, str], ...]:
        """A 401 names its scheme (RFC 9110 section 15.5.2)."""
        return (("WWW-Authenticate", 'Bearer realm="bearer-proxy admin"'),)


class _WrongMethod(MethodNotAllowed):
    """The path takes other methods."""

    explanation = "This path does not take this method; the header Allow says which it takes."

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__()
        self._allowed = allowed

    def headers(self) -> tuple[tuple[str, str], ...]:
        """`Allow` is a MUST on 405 (RFC 9110 section 15.5.6)."""
        return (("Allow", ", ".join(self._allowed)),)


def admin_handler(view: View, metrics: Metrics, key: Secret, guard: Guard) -> Handler:
    """A handler that answers for `view`; `key` opens what is below /api."""
    admin = _Admin(view, metrics, key, guard)

    async def handle(request: Request, connection: ClientConnection) -> None:
        out = ClientAnswer(connection, request, Exchange(request.method, request.client, perf_counter()))
        try:
            document = await admin.answer(request, connection)
            out.document(document.status, document.lines, document.body)
        except ProxyError as error:
            out.problem(error)
        except Exception:
            log.exception("internal_error")
            out.problem(ProxyError())
        await out.settle()
        connection.keep_alive = out.keep_alive

    return handle


@dataclass(frozen=True, slots=True)
class _Document:
    """What is answered."""

    body: bytes
    content_type: str
    status: int = 200

    @property
    def lines(self) -> tuple[bytes, ...]:
        """Its field lines, less those that frame it."""
        return (b"Content-Type: %b" % self.content_type.encode(), *_COMMON)


@dataclass(frozen=True, slots=True)
class _Admin:
    """One method a path."""

    view: View
    metrics: Metrics
    key: Secret
    guard: Guard

    async def answer(self, request: Request, connection: ClientConnection) -> _Document:
        """The answer, or a `ProxyError`; a probe takes no place from anybody, the key keeps it."""
        # 1. The probes.
        probes = {b"/healthz": self._health, b"/readyz": self._readiness, b"/metrics": self._metrics}
        probe = probes.get(request.target.partition(b"?")[0])
        if probe is not None:
            _check_method(request, _READ)
            return probe()

        # 2. The guard, then what is there at all, then the key.
        match self.guard.admit(request).path.decode("latin-1").split("/"):
            case ["", "api", "credentials"]:
                _check_method(request, _READ)
                self._check_key(request, connection)
                return _json({"credentials": [asdict(report) for report in self.view.reports()]})
            case ["", "api", "credentials", name, "refresh"]:
                _check_method(request, ("POST",))
                self._check_key(request, connection)
                return await self._refresh(name)
            case ["", "quit"]:
                _check_method(request, ("POST",))
                self._check_key(request, connection)
                self.view.leave.set()
                return _json({"draining": True}, 202)
            case _:
                raise NoRoute("The admin listener has nothing under this path.")

    def _health(self) -> _Document:
        return _Document(b"ok\n", "text/plain; charset=utf-8")

    def _readiness(self) -> _Document:
        problems = {name: problem.detail for name, problem in self.view.problems().items()}
        draining = self.view.is_draining
        ready = not draining and not problems
        not_persisted = [report.name for report in self.view.reports() if report.persisted is False]
        found = {"ready": ready, "draining": draining, "credentials": problems, "not_persisted": not_persisted}
        return _json(found, 200 if ready else 503)

    def _metrics(self) -> _Document:
        return _Document(self.metrics.text(), CONTENT_TYPE)

    async def _refresh(self, name: str) -> _Document:
        if name not in {report.name for report in self.view.reports()}:
            raise NoRoute("No credential has this name; GET /api/credentials lists them.")
        return _json(asdict(await self.view.refresh(name)))

    def _check_key(self, request: Request, connection: ClientConnection) -> None:
        """Compare in constant time; a second Authorization field is no second guess."""
        values = request.section.values.get(b"authorization", [])
        scheme, _, given = values[0].strip().partition(b" ") if len(values) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or Secret(given.strip().decode("latin-1")) != self.key:
            raise AdminKeyRequired
        connection.is_proven = True


def _check_method(request: Request, allowed: tuple[str, ...]) -> None:
    if request.method not in allowed:
        raise _WrongMethod(allowed)


def _json(document: dict[str, Any], status: int = 200) -> _Document:
    return _Document(json.dumps(document).encode() + b"\n", "application/json; charset=utf-8", status)
