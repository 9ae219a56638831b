"""Answers the admin listener: is it healthy, what does it count, what state are the credentials in; the inspector.

Law: never a token value. The three probes are exact paths that need no key and no Host, since orchestrators come by
address (threat 12); everything else passes the guard first and then shows the admin key.
"""

import asyncio
import logging
from dataclasses import asdict
from time import perf_counter
from typing import Final, Protocol

from proxy.accesslog import Exchange
from proxy.admin.documents import Asked, Document, Paths, as_json, found
from proxy.admin.entrance import Entrance
from proxy.admin.exposition import CONTENT_TYPE
from proxy.admin.metrics import Metrics
from proxy.credentials.credential import Report
from proxy.errors import CredentialError, MethodNotAllowed, NoRoute, ProxyError
from proxy.guard import Guard
from proxy.listener.answer import ClientAnswer
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request

log: Final = logging.getLogger("proxy")

_READ: Final = ("GET", "HEAD")


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


class _WrongMethod(MethodNotAllowed):
    """The path takes other methods."""

    explanation = "This path does not take this method; the header Allow says which it takes."

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__()
        self._allowed = allowed

    def headers(self) -> tuple[tuple[str, str], ...]:
        """`Allow` is a MUST on 405 (RFC 9110 section 15.5.6)."""
        return (("Allow", ", ".join(self._allowed)),)


def admin_handler(view: View, metrics: Metrics, entrance: Entrance, guard: Guard, more: Paths) -> Handler:
    """A handler that answers for `view`; `more` are further paths behind the key."""
    admin = _Admin(view, metrics, entrance, guard, more)

    async def handle(request: Request, connection: ClientConnection) -> None:
        out = ClientAnswer(connection, request, Exchange(request.method, request.client, perf_counter()))
        try:
            document = await admin.answer(request, connection, out)
            if document is not None:
                out.document(document.status, document.lines, document.body)
        except ProxyError as error:
            out.problem(error)
        except (ConnectionError, TimeoutError):
            out.cut()
        except Exception:
            log.exception("internal_error")
            out.problem(ProxyError())
        finally:
            if request.body is not None:
                request.body.close()
        await out.settle()
        connection.keep_alive = out.keep_alive

    return handle


class _Admin:
    """Which path and method is answered by what."""

    def __init__(self, view: View, metrics: Metrics, entrance: Entrance, guard: Guard, more: Paths) -> None:
        self._view = view
        self._metrics = metrics
        self._entrance = entrance
        self._guard = guard
        self._probes = {b"/healthz": self._health, b"/readyz": self._readiness, b"/metrics": self._count}
        self._paths: Paths = {
            ("api", "credentials"): {"GET": self._credentials},
            ("api", "credentials", "*", "refresh"): {"POST": self._refresh},
            ("quit",): {"POST": self._quit},
            **more,
        }

    async def answer(self, request: Request, connection: ClientConnection, out: ClientAnswer) -> Document | None:
        """The answer, or a `ProxyError`; a probe takes no place from anybody, the key keeps it."""
        # 1. The probes.
        probe = self._probes.get(request.target.partition(b"?")[0])
        if probe is not None:
            _check_method(request, _READ)
            return probe()

        # 2. The guard, then what is there at all, then the key.
        admission = self._guard.admit(request)
        answering = found(self._paths, admission.path.decode("latin-1"))
        if answering is None:
            raise NoRoute("The admin listener has nothing under this path.")
        methods, name = answering
        reads = _READ if "GET" in methods else ()
        _check_method(request, (*reads, *(each for each in methods if each != "GET")))
        if admission.path == b"/" and self._entrance.opens(admission.query):
            connection.is_proven = True
            return Document(b"", "text/plain; charset=utf-8", 303, (b"Location: /", self._entrance.cookie_line()))
        self._entrance.check(request)
        connection.is_proven = True
        method = "GET" if request.method == "HEAD" else request.method
        return await methods[method](Asked(request, out, admission.query, name))

    def _health(self) -> Document:
        return Document(b"ok\n", "text/plain; charset=utf-8")

    def _readiness(self) -> Document:
        problems = {name: problem.detail for name, problem in self._view.problems().items()}
        draining = self._view.is_draining
        ready = not draining and not problems
        not_persisted = [report.name for report in self._view.reports() if report.persisted is False]
        state = {"ready": ready, "draining": draining, "credentials": problems, "not_persisted": not_persisted}
        return as_json(state, 200 if ready else 503)

    def _count(self) -> Document:
        return Document(self._metrics.text(), CONTENT_TYPE)

    async def _credentials(self, _asked: Asked) -> Document:
        return as_json({"credentials": [asdict(each) for each in self._view.reports()]})

    async def _refresh(self, asked: Asked) -> Document:
        if asked.name not in {report.name for report in self._view.reports()}:
            raise NoRoute("No credential has this name; GET /api/credentials lists them.")
        return as_json(asdict(await self._view.refresh(asked.name)))

    async def _quit(self, _asked: Asked) -> Document:
        self._view.leave.set()
        return as_json({"draining": True}, 202)


def _check_method(request: Request, allowed: tuple[str, ...]) -> None:
    if request.method not in allowed:
        raise _WrongMethod(allowed)
