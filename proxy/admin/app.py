"""Answers the admin listener: is it healthy, what does it count, what state are the credentials in; the inspector.

Law: never a token value. The three probes are exact paths that need no key and no Host, since orchestrators come by
address (threat 12); everything else passes the guard first and then shows the admin key.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from time import perf_counter
from typing import Final, Protocol

from proxy.accesslog import Exchange
from proxy.admin.documents import Document, as_json
from proxy.admin.entrance import Entrance
from proxy.admin.exposition import CONTENT_TYPE
from proxy.admin.inspector import Inspector
from proxy.admin.metrics import Metrics
from proxy.admin.timeline import Timeline
from proxy.credentials.credential import Report
from proxy.errors import CredentialError, MethodNotAllowed, NoRoute, ProxyError
from proxy.guard import Admission, Guard
from proxy.listener.answer import ClientAnswer
from proxy.listener.connection import ClientConnection, Handler
from proxy.listener.request import Request

log: Final = logging.getLogger("proxy")

_READ: Final = ("GET", "HEAD")


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
    view: View,
    metrics: Metrics,
    entrance: Entrance,
    guard: Guard,
    inspector: Inspector | None,
    timeline: Timeline | None,
) -> Handler:
    """A handler that answers for `view`; `inspector` and `timeline` are None where nobody looks on."""
    admin = _Admin(view, metrics, entrance, guard, inspector, timeline)

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


#: Answers; None: it has done so by itself.
Answering = Callable[[], Awaitable[Document | None]]


class _Admin:
    """Which path and method is answered by what."""

    def __init__(
        self,
        view: View,
        metrics: Metrics,
        entrance: Entrance,
        guard: Guard,
        inspector: Inspector | None,
        timeline: Timeline | None,
    ) -> None:
        self._view = view
        self._metrics = metrics
        self._entrance = entrance
        self._guard = guard
        self._inspector = inspector
        self._timeline = timeline
        self._probes = {b"/healthz": self._health, b"/readyz": self._readiness, b"/metrics": self._count}

    async def answer(
        self, request: Request, connection: ClientConnection, out: ClientAnswer
    ) -> Document | None:
        """The answer, or a `ProxyError`; a probe takes no place from anybody, the key keeps it."""
        # 1. The probes.
        probe = self._probes.get(request.target.partition(b"?")[0])
        if probe is not None:
            _check_method(request, _READ)
            return probe()

        # 2. The guard, then what is there at all, then the key.
        admission = self._guard.admit(request)
        methods = self._methods(admission, request, out)
        if not methods:
            raise NoRoute("The admin listener has nothing under this path.")
        allowed = tuple(methods) if "GET" not in methods else (*_READ, *(each for each in methods if each != "GET"))
        _check_method(request, allowed)
        if admission.path == b"/" and self._entrance.opens(admission.query):
            connection.is_proven = True
            return Document(b"", "text/plain; charset=utf-8", 303, (b"Location: /", self._entrance.cookie_line()))
        self._entrance.check(request)
        connection.is_proven = True
        return await methods["GET" if request.method == "HEAD" else request.method]()

    def _methods(
        self, admission: Admission, request: Request, out: ClientAnswer
    ) -> dict[str, Answering]:
        """What the path takes, by method."""
        inspector = self._inspector
        match admission.path.decode("latin-1").split("/"):
            case ["", "api", "credentials"]:
                return {"GET": _soon(self._credentials)}
            case ["", "api", "credentials", name, "refresh"]:
                return {"POST": lambda: self._refresh(name)}
        if inspector is None:
            return {}
        match admission.path.decode("latin-1").split("/"):
            case ["", ""]:
                return {"GET": _soon(inspector.page)}
            case ["", "static", name]:
                return {"GET": _soon(lambda: inspector.page(name))}
            case ["", "api", "inspector"]:
                return {"GET": _soon(inspector.settings), "POST": lambda: inspector.set_bodies(request)}
            case ["", "api", "inspector", "clear"]:
                return {"POST": _soon(inspector.clear)}
            case ["", "api", "events"]:
                return {"GET": lambda: inspector.events(out)}
            case ["", "api", "exchanges"]:
                return {"GET": _soon(lambda: inspector.exchanges(admission.query))}
            case ["", "api", "exchanges.har"]:
                return {"GET": _soon(lambda: inspector.har(admission.query))}
            case ["", "api", "exchanges", name]:
                return {"GET": _soon(lambda: inspector.exchange(name))}
            case ["", "api", "exchanges", name, "curl"]:
                return {"GET": _soon(lambda: inspector.curl(name))}
            case ["", "api", "exchanges", name, "replay"]:
                return {"POST": lambda: inspector.replay(name, request)}
        return {}

    def _credentials(self) -> Document:
        timeline = self._timeline
        more = {} if timeline is None else {each.name: {"timeline": timeline.of(each.name)} for each in self._view.reports()}
        return as_json({"credentials": [{**asdict(each), **more.get(each.name, {})} for each in self._view.reports()]})

    def _health(self) -> Document:
        return Document(b"ok\n", "text/plain; charset=utf-8")

    def _readiness(self) -> Document:
        problems = {name: problem.detail for name, problem in self._view.problems().items()}
        draining = self._view.is_draining
        ready = not draining and not problems
        not_persisted = [report.name for report in self._view.reports() if report.persisted is False]
        found = {"ready": ready, "draining": draining, "credentials": problems, "not_persisted": not_persisted}
        return as_json(found, 200 if ready else 503)

    def _count(self) -> Document:
        return Document(self._metrics.text(), CONTENT_TYPE)

    async def _refresh(self, name: str) -> Document:
        if name not in {report.name for report in self._view.reports()}:
            raise NoRoute("No credential has this name; GET /api/credentials lists them.")
        return as_json(asdict(await self._view.refresh(name)))


def _soon(answer: Callable[[], Document]) -> Answering:
    """`answer`, where one that waits is expected."""

    async def answering() -> Document | None:
        return answer()

    return answering


def _check_method(request: Request, allowed: tuple[str, ...]) -> None:
    if request.method not in allowed:
        raise _WrongMethod(allowed)
