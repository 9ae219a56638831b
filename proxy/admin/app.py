"""Answers the admin listener: is it healthy, what does it count, what state are the credentials in.

Law: never a token value. The three probes are exact paths that need no key and no Host, since orchestrators come by
address (threat 12); everything else passes the guard first and then shows the admin key.
"""

import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from aiohttp import web

from proxy.accesslog import Exchange
from proxy.admin.exposition import CONTENT_TYPE
from proxy.admin.metrics import Metrics
from proxy.answers import Downstream
from proxy.credentials.credential import Report
from proxy.errors import CredentialError, MethodNotAllowed, NoRoute, ProxyError, Rejected
from proxy.fields import fields
from proxy.guard import Guard, Head
from proxy.redact import Secret

log: Final = logging.getLogger("proxy")

_READ: Final = ("GET", "HEAD")
_COMMON: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class View(Protocol):
    """What the admin listener may see of an instance, and the one thing it may do."""

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


def admin_handler(
    view: View, metrics: Metrics, key: Secret, guard: Guard
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """A handler for aiohttp's low-level server that answers for `view`; `key` opens what is below /api."""
    admin = _Admin(view, metrics, key, guard)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await admin.answer(request)
        except ProxyError as error:
            return _problem(request, error)
        except Exception:
            log.exception("internal_error")
            return _problem(request, ProxyError())

    return handle


@dataclass(frozen=True, slots=True)
class _Admin:
    """One method a path."""

    view: View
    metrics: Metrics
    key: Secret
    guard: Guard

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer, or a `ProxyError`."""
        # 1. The probes.
        probes = {"/healthz": self._health, "/readyz": self._readiness, "/metrics": self._metrics}
        probe = probes.get(request.raw_path.partition("?")[0])
        if probe is not None:
            _check_method(request, _READ)
            return probe()

        # 2. The guard, then what is there at all, then the key.
        head = Head(
            request.method,
            request.raw_path.encode("utf-8", "surrogateescape"),
            request.version,
            fields(request.raw_headers),
        )
        match self.guard.admit(head).path.decode("latin-1").split("/"):
            case ["", "api", "credentials"]:
                _check_method(request, _READ)
                self._check_key(head)
                return _json({"credentials": [asdict(report) for report in self.view.reports()]})
            case ["", "api", "credentials", name, "refresh"]:
                _check_method(request, ("POST",))
                self._check_key(head)
                return await self._refresh(name)
            case _:
                raise NoRoute("The admin listener has nothing under this path.")

    def _health(self) -> web.Response:
        return web.Response(text="ok\n", headers=_COMMON)

    def _readiness(self) -> web.Response:
        problems = {name: problem.detail for name, problem in self.view.problems().items()}
        draining = self.view.is_draining
        ready = not draining and not problems
        return _json({"ready": ready, "draining": draining, "credentials": problems}, 200 if ready else 503)

    def _metrics(self) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={**_COMMON, "Content-Type": CONTENT_TYPE})

    async def _refresh(self, name: str) -> web.Response:
        if name not in {report.name for report in self.view.reports()}:
            raise NoRoute("No credential has this name; GET /api/credentials lists them.")
        return _json(asdict(await self.view.refresh(name)))

    def _check_key(self, head: Head) -> None:
        """Compare in constant time; a second Authorization field is no second guess."""
        values = head.fields.get(b"authorization", [])
        scheme, _, given = values[0].strip().partition(b" ") if len(values) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or Secret(given.strip().decode("latin-1")) != self.key:
            raise AdminKeyRequired


def _problem(request: web.BaseRequest, error: ProxyError) -> web.StreamResponse:
    exchange = Exchange(request.method, request.remote or "unix", time.perf_counter())
    out = Downstream(request, exchange, keep_alive=True)
    out.problem(error)
    return out.result


def _check_method(request: web.BaseRequest, allowed: tuple[str, ...]) -> None:
    if request.method not in allowed:
        raise _WrongMethod(allowed)


def _json(document: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        text=json.dumps(document) + "\n", status=status, content_type="application/json", headers=_COMMON
    )
