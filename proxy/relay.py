"""One request, from the listener to the access log.

Read `Relay._relay` from top to bottom: guard, route, policy, body, token, headers, upstream, refusal, answer.
Law: strip first, add the credential last; a refused request never touches token state; without a token nothing
is sent (invariants 1 to 3). What happens between the two attempts stands in `passage.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Final

from proxy import inbound
from proxy.accesslog import Exchange
from proxy.binding import Binding
from proxy.body import Watcher
from proxy.clock import Clock
from proxy.credentials.credential import Rendered
from proxy.delivery import deliver
from proxy.destination import permit_destinations
from proxy.errors import ProxyError
from proxy.guard import Admission, Guard, cors_lines, methods_of, preflight_lines
from proxy.headers import Stripping
from proxy.http1.answer import SWITCHED
from proxy.listener.answer import ClientAnswer, block
from proxy.listener.connection import ClientConnection
from proxy.listener.request import Request
from proxy.notes import Notes, begin
from proxy.outbound import outgoing, placing
from proxy.passage import Passage
from proxy.replay import Replay
from proxy.routes import Policy, Route, RouteTable
from proxy.tokenguard import TokenGuard
from proxy.upgrade import HANDSHAKE_LINES, is_handshake, tunnel

log: Final = logging.getLogger("proxy")


class Relay:
    """Handles requests. `observe` is told of every finished exchange; `body_most` bounds bodies, in bytes.

    `begin` gives the exchange of a request, and what its way is noted in; None: nobody looks on.
    """

    def __init__(
        self,
        *,
        guard: Guard,
        bindings: Mapping[str, Binding],
        clock: Clock,
        observe: Callable[[Exchange], None],
        body_most: int | None = None,
        begin: Callable[[Request], tuple[Exchange, Notes]] | None = None,
    ) -> None:
        self._guard = guard
        self._bindings = bindings
        self._table = RouteTable(binding.route for binding in bindings.values())
        self._clock = clock
        self._observe = observe
        self._body_most = body_most
        self._begin = begin
        #: Every answer from now on ends its connection.
        self.draining = False

    async def handle(self, request: Request, connection: ClientConnection) -> None:
        """Answer one request, whatever happens, and log it."""
        exchange, notes = self._noted(request)
        out = ClientAnswer(connection, request, exchange)
        if self.draining:
            out.keep_alive = False
        try:
            await self._relay(request, connection, exchange, notes, out)
        except ProxyError as error:
            if not exchange.path and request.target.startswith(b"/"):
                # What was asked for, for the log of a refusal; other forms may hold a password.
                exchange.ask(request.target)
            notes.fails(error)
            out.problem(error, self._cors(request))
        except asyncio.CancelledError:
            # The listener cancels for two reasons: the client hung up, or `limits.drain` is over.
            exchange.error = "client_closed" if out.is_client_gone else "drain_timeout"
            out.cut()
            raise
        except ConnectionError:
            exchange.error = "client_closed"
            out.cut()
        except TimeoutError:
            exchange.error = "client_stalled"
            out.cut()
        except Exception:
            log.exception("internal_error", extra={"fields": {"request_id": exchange.request_id}})
            out.problem(ProxyError())
        finally:
            if request.body is not None:
                exchange.bytes_in = request.body.received
                request.body.close()
            exchange.seconds = perf_counter() - exchange.started_at
            self._observe(exchange)
        # The client's next request waits until it took this answer: what it does not read must not pile up here.
        if connection.is_writing_paused:
            await out.settle()
        connection.keep_alive = out.keep_alive

    def _noted(self, request: Request) -> tuple[Exchange, Notes]:
        """The exchange of a request that begins, and what its way is noted in."""
        return begin(request) if self._begin is None else self._begin(request)

    async def _relay(
        self, request: Request, connection: ClientConnection, exchange: Exchange, notes: Notes, out: ClientAnswer
    ) -> None:
        """The whole way of a request."""
        # 1. Guard: nothing below this line happens for a request that it refuses.
        admission = self._guard.admit(request)
        methods = methods_of(request)
        exchange.path, exchange.query = admission.path, admission.query
        if admission.key is not None:
            exchange.client = admission.key.at(request.client)
            _permit(admission.key.policy, methods, admission.path)
        visitor = admission.visitor
        if admission.preflight:
            out.own(204, block(preflight_lines(request.section.values, visitor.origin)))
            return
        connection.is_proven = True

        # 2. Route and policy, both on raw bytes.
        route = self._table.find(visitor.host, admission.path)
        binding = self._bindings[route.name]
        exchange.route = route.name
        watchers = notes.goes(admission, binding, request.body)
        path = route.target(admission.path)
        _permit(route.policy, methods, path)
        self._permit_destinations(request, methods, admission, route)

        # 3. Body: streamed and kept up to a bound; nothing is read yet.
        body = request.body
        if body is not None:
            body.bound(replay=Replay(*binding.replay), most=self._body_most, idle=binding.timeouts.idle)
        switches = bool(request.section.options) and is_handshake(request)

        # 4. Credential: no token, no request.
        rendered, strip = await _credential(request, admission, binding, exchange)

        # 5. Headers: what stops here goes first; the credential comes last, in `Outgoing.head`.
        sent = outgoing(request, admission, binding, path, strip=strip, holds_key=self._guard.holds_key)
        if switches:
            sent.lines += HANDSHAKE_LINES

        # 6. Upstream, and once more where the token was refused and a newer one can be had.
        passage = Passage(
            request,
            out,
            exchange,
            notes,
            admission=admission,
            binding=binding,
            outgoing=sent,
            clock=self._clock,
            may_switch=switches,
        )
        extra: list[bytes] = []
        attempt = await passage.send(rendered)
        try:
            if rendered is not None and binding.rules.concerns(attempt.head.status):
                attempt, rendered, extra = await passage.second_chance(attempt, rendered)

            # 7. Relay the answer.
            if self.draining:
                out.keep_alive = False
            if body is not None:
                body.forget()
            lines = inbound.lines(attempt.head, admission, binding, rendered, exchange)
            if extra:
                lines += block(extra)
            notes.answers(lines)
            if attempt.answer.framing == SWITCHED:
                idle, watching = binding.timeouts.idle, notes.opens()
                await tunnel(request, attempt, lines, out, exchange=exchange, idle=idle, watchers=watching)
            else:
                echoes, guards = _watch(binding, rendered, exchange)
                idle, watchers = binding.timeouts.idle, watchers + guards
                await deliver(attempt, lines, out, idle=idle, echoes=echoes, watchers=watchers)
        finally:
            attempt.end()

    def _permit_destinations(
        self, request: Request, methods: list[str], admission: Admission, route: Route
    ) -> None:
        if b"destination" in request.section.values:
            permit_destinations(request, methods, admission, route=route, table=self._table)

    def _cors(self, request: Request) -> list[bytes]:
        """Our grant on our own answers too, so that an allowed page can read what went wrong."""
        origins = request.section.values.get(b"origin", [])
        allowed = len(origins) == 1 and self._guard.allows_origin(origins[0])
        return cors_lines(origins[0]) if allowed else []


def _watch(
    binding: Binding, rendered: Rendered | None, exchange: Exchange
) -> tuple[tuple[bytes, ...], tuple[Watcher, ...]]:
    """What no answer may show, the token in any form, and whoever looks for it in the body."""
    echoes = () if rendered is None else rendered.echoes
    if not echoes or not binding.watches_bodies:
        return echoes, ()

    def found() -> None:
        exchange.token_in_body = True
        names = {"request_id": exchange.request_id, "route": exchange.route, "credential": exchange.credential}
        log.warning("token_in_body", extra={"fields": names})

    return echoes, (TokenGuard(echoes, found),)


def _permit(policy: Policy, methods: Iterable[str], path: bytes) -> None:
    """Raise `PathDenied` unless each of the methods may go there."""
    for method in methods:
        policy.check(method, path)


async def _credential(
    request: Request, admission: Admission, binding: Binding, exchange: Exchange
) -> tuple[Rendered | None, Stripping]:
    """The token for this request as it is sent, and what is stripped; None: the client's own passes."""
    places, strip = placing(request, admission, binding)
    credential = binding.credential
    if credential is None or not places:
        return None, strip
    exchange.credential = credential.name
    began_at = perf_counter()
    try:
        token = await credential.source.token(binding.timeouts.token)
    finally:
        exchange.token_wait += perf_counter() - began_at
    exchange.generation = token.generation
    return credential.rendered(token, places), strip
